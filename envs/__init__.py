"""Everything that steps: Atari, Meta-World, MinAtar and classic environments under named, hashed protocols."""

from typing import Annotated

from pydantic import Field

from envs.atari.config import AtariConfig
from envs.base import EpisodeSpec
from envs.classic.config import ClassicConfig
from envs.metaworld.config import MetaworldConfig
from envs.minatar.config import MinatarConfig

EnvConfig = Annotated[AtariConfig | MetaworldConfig | MinatarConfig | ClassicConfig, Field(discriminator="name")]

__all__ = ["AtariConfig", "ClassicConfig", "EnvConfig", "EpisodeSpec", "MetaworldConfig", "MinatarConfig"]
