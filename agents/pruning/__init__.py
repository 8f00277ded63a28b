"""Sparse training for any agent: gradual magnitude pruning, RigL, SET and static random sparsity.

Importing this package is cheap; torch loads when a pruner is attached.
"""

from agents.pruning.config import PruningConfig

__all__ = ["PruningConfig"]
