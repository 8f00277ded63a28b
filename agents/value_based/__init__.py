"""Agents that act on the values of discrete actions: DQN, C51 and compact Rainbow, QR-DQN, IQN."""

from agents.value_based.config import DQNConfig
from agents.value_based.distributional_config import C51Config, IQNConfig, QRDQNConfig

__all__ = ["C51Config", "DQNConfig", "IQNConfig", "QRDQNConfig"]
