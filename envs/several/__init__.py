"""Several games of one suite under one protocol, to evaluate models that play them all."""

from envs.several.config import GamesConfig

__all__ = ["GamesConfig"]
