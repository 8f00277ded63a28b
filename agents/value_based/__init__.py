"""Agents that act on the values of discrete actions: DQN, C51, compact Rainbow, QR-DQN, IQN; CQL from stored data."""

from agents.value_based.config import DQNConfig
from agents.value_based.cql_config import CQLConfig
from agents.value_based.distributional_config import C51Config, IQNConfig, QRDQNConfig

__all__ = ["C51Config", "CQLConfig", "DQNConfig", "IQNConfig", "QRDQNConfig"]
