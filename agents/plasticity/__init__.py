"""Keeping dense value networks able to learn: recycling of dormant units (ReDo) and resets of the last layer.

Importing this package is cheap; torch loads when an agent is built.
"""

from agents.plasticity.config import PlasticityConfig

__all__ = ["PlasticityConfig"]
