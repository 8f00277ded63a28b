"""Small environments with known optima: classic control, the identity task, and a pixel game learned in minutes."""

from envs.classic.config import ClassicConfig

__all__ = ["ClassicConfig"]
