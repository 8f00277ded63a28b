"""Everything that steps, under hashed protocols: Atari, Meta-World, MinAtar, several games, classic, memory tasks."""

from typing import Annotated

from pydantic import Field

from envs.atari.config import AtariConfig
from envs.base import EpisodeSpec
from envs.classic.config import ClassicConfig
from envs.memory_tasks.config import MemoryTasksConfig
from envs.metaworld.config import MetaworldConfig
from envs.minatar.config import MinatarConfig
from envs.several.config import GamesConfig

EnvConfig = Annotated[
    AtariConfig | MetaworldConfig | MinatarConfig | ClassicConfig | MemoryTasksConfig | GamesConfig,
    Field(discriminator="name"),
]

__all__ = [
    "AtariConfig",
    "ClassicConfig",
    "EnvConfig",
    "EpisodeSpec",
    "GamesConfig",
    "MemoryTasksConfig",
    "MetaworldConfig",
    "MinatarConfig",
]
