"""Memory tasks with a known optimum: T-maze, key-to-door, copy and identity, vectorised in numpy."""

from envs.memory_tasks.config import MemoryTasksConfig

__all__ = ["MemoryTasksConfig"]
