"""Decision makers: networks and update rules. No environment, no loop, no files on disk.

Importing this package is cheap; torch and Tianshou load when a config is built or `RandomAgent` is asked for.
"""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from agents.actor_critic.config import PPOConfig, SACConfig
from agents.decision_transformer.config import DecisionTransformerConfig
from agents.value_based.config import DQNConfig
from agents.value_based.cql_config import CQLConfig
from agents.value_based.distributional_config import C51Config, IQNConfig, QRDQNConfig

if TYPE_CHECKING:
    from agents.interface import Agent
    from agents.scripted import RandomAgent, ScriptedMetaworldAgent

AgentConfig = Annotated[
    DQNConfig | C51Config | QRDQNConfig | IQNConfig | CQLConfig | PPOConfig | SACConfig | DecisionTransformerConfig,
    Field(discriminator="name"),
]

__all__ = [
    "Agent",
    "AgentConfig",
    "C51Config",
    "CQLConfig",
    "DQNConfig",
    "DecisionTransformerConfig",
    "IQNConfig",
    "PPOConfig",
    "QRDQNConfig",
    "RandomAgent",
    "SACConfig",
    "ScriptedMetaworldAgent",
]

_LAZY = {"Agent": "interface", "RandomAgent": "scripted", "ScriptedMetaworldAgent": "scripted"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"agents.{_LAZY[name]}"), name)
