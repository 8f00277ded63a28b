"""Everything that steps: Atari, Meta-World and classic environments under named, hashed protocols."""

from typing import Annotated

from pydantic import Field

from envs.atari.config import AtariConfig
from envs.base import EpisodeSpec
from envs.classic.config import ClassicConfig
from envs.metaworld.config import MetaworldConfig

EnvConfig = Annotated[AtariConfig | MetaworldConfig | ClassicConfig, Field(discriminator="name")]

__all__ = ["AtariConfig", "ClassicConfig", "EnvConfig", "EpisodeSpec", "MetaworldConfig"]
