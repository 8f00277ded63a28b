"""Meta-World under our own factory: true splits, seeded goals, and resets that mean something."""

from envs.metaworld.config import MetaworldConfig

__all__ = ["MetaworldConfig"]
