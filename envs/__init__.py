"""Everything that steps: Atari, Meta-World, MinAtar, classic environments and memory tasks, under hashed protocols."""

from typing import Annotated

from pydantic import Field

from envs.atari.config import AtariConfig
from envs.base import EpisodeSpec
from envs.classic.config import ClassicConfig
from envs.memory_tasks.config import MemoryTasksConfig
from envs.metaworld.config import MetaworldConfig
from envs.minatar.config import MinatarConfig

EnvConfig = Annotated[
    AtariConfig | MetaworldConfig | MinatarConfig | ClassicConfig | MemoryTasksConfig, Field(discriminator="name")
]

__all__ = [
    "AtariConfig",
    "ClassicConfig",
    "EnvConfig",
    "EpisodeSpec",
    "MemoryTasksConfig",
    "MetaworldConfig",
    "MinatarConfig",
]
