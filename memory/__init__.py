"""Everything that remembers: replay for off-policy agents, rollout storage for on-policy ones.

Importing this package is cheap; the classes behind :meth:`ReplayConfig.build` load when it is called.
"""

from memory.config import ReplayConfig, ReplayTooLarge

__all__ = ["ReplayConfig", "ReplayTooLarge"]
