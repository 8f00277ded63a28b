"""Conservative Q-learning (CQL): learn values from stored transitions, and hold down those of actions not among them.

To the loss of DQN or C51 it adds alpha * (logsumexp_b Q(s, b) - Q(s, a)) for each replayed (s, a), which pulls the
values of all actions down and that of the replayed one up. Nothing is played while it learns: Tianshou's
`OfflineTrainer` samples a saved replay.

Sources: Kumar et al. 2020, equation 4, CQL(H); Obando-Ceron et al. 2024, section 5; Dopamine,
labs/offline_rl/jax/offline_rainbow_agent.py. Deviations: docs/agents/cql.md.
Differs from Tianshou's DiscreteCQL: on scalar values or C51 instead of quantiles, and all that `ValueAlgorithm` says.

Legend: B batch, A actions.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.trainer import OfflineTrainer, OfflineTrainerParams
from torch import Tensor

from agents.value_based.agent import ValueAgent, build_value_agent
from agents.value_based.algorithm import ValueAlgorithm
from agents.value_based.c51 import C51Algorithm, c51_parts
from agents.value_based.cql_config import CQLConfig
from agents.value_based.dqn import DQNAlgorithm
from agents.value_based.q_networks import QNetwork
from agents.value_based.records import Prediction


def conservative_gap(q_BA: Tensor, action_B1: Tensor) -> Tensor:
    """Gives by how much the soft maximum B of the action values exceeds the value of the action taken; above 0.

    Args:
        q_BA: action values.
        action_B1: what was done.
    Source: Kumar et al. 2020, equation 4; its gradient with respect to the values is softmax(q) - one_hot(action).
    """
    return torch.logsumexp(q_BA, dim=1) - q_BA.gather(1, action_B1).squeeze(1)


class Conservative(ValueAlgorithm):
    """What CQL adds to the update rule it is put in front of, and what Tianshou's `OfflineTrainer` asks of it.

    Args:
        config: what to learn how.
        parts: of `ValueAlgorithm`.
    """

    def __init__(self, *, config: CQLConfig, **parts: Any) -> None:
        super().__init__(config=config, **parts)
        self.conservatism = config.conservatism

    def _predict(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor) -> Prediction:
        """Adds the term to the loss; errors, which priorities are made of, stay those of the rule behind."""
        prediction = super()._predict(obs, action_B1, target)  # type: ignore[safe-super]  # of the rule behind
        gap_B = conservative_gap(prediction.q_BA, action_B1)
        return prediction._replace(loss_B=prediction.loss_B + self.conservatism * gap_B)

    def process_buffer(self, buffer: ReplayBuffer) -> ReplayBuffer:
        """Gives the buffer as it is: nothing has to be added to it."""
        return buffer

    def create_trainer(self, params: OfflineTrainerParams) -> OfflineTrainer:  # type: ignore[override]
        """Gives Tianshou's trainer of offline algorithms."""
        trained: Any = self
        return OfflineTrainer(trained, params)


class CQLAlgorithm(Conservative, DQNAlgorithm):
    """CQL on scalar values."""


class C51CQLAlgorithm(Conservative, C51Algorithm):
    """CQL on the means of C51's distributions."""


class CQLAgent(ValueAgent):
    """Acts greedily on action values that were learned from stored transitions."""

    kind: ClassVar[Literal["offline"]] = "offline"
    config: CQLConfig


def build_cql(
    config: CQLConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
) -> CQLAgent:
    """Builds network, algorithm and agent.

    Raises:
        ValueError: if the spaces do not fit the network, or actions are not discrete.
    """
    return build_value_agent(
        config,
        observation_space,
        action_space,
        device=device,
        seed=seed,
        make_network=c51_parts(config)[0] if config.distributional else QNetwork,
        make_algorithm=C51CQLAlgorithm if config.distributional else CQLAlgorithm,
        make_agent=CQLAgent,
    )
