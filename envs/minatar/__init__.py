"""MinAtar: five Atari games on a 10x10 grid, small enough to study learning on one CPU core."""

from envs.minatar.config import MinatarConfig

__all__ = ["MinatarConfig"]
