"""Agents that act on the values of discrete actions: DQN and Double DQN."""

from agents.value_based.config import DQNConfig

__all__ = ["DQNConfig"]
