"""DQN and Double DQN as Dopamine trains them.

Regress the value of each replayed action on the reward plus the discounted value of the best next action under a target
network that is copied from the online one every few thousand gradient steps.

Sources: Mnih et al. 2015; van Hasselt et al. 2016; Dopamine, jax/agents/dqn/dqn_agent.py.
Differs from Tianshou's DQN: as `ValueAlgorithm` says, and no forward of the online network on the next observations
unless double.

Legend: B batch, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from agents.losses import double_value, greedy_value, huber_error, squared_error, td_target
from agents.value_based.agent import ValueAgent, build_value_agent
from agents.value_based.algorithm import ValueAlgorithm
from agents.value_based.config import DQNConfig, linear_decay
from agents.value_based.cql_config import CQLConfig
from agents.value_based.q_networks import QNetwork
from agents.value_based.records import DQNTrainingStats, Prediction, Transitions

__all__ = ["DQNAgent", "DQNAlgorithm", "DQNTrainingStats", "build_dqn", "linear_decay"]


class DQNAlgorithm(ValueAlgorithm):
    """The update rule.

    Args:
        config: what to learn how.
        parts: of `ValueAlgorithm`.
    """

    def __init__(self, *, config: DQNConfig | CQLConfig, **parts: Any) -> None:
        super().__init__(config=config, **parts)
        self.error_loss: Callable[[Tensor], Tensor] = (
            partial(huber_error, delta=config.huber_delta) if config.loss == "huber" else squared_error
        )

    def _targets(self, transitions: Transitions) -> Tensor:
        """Gives the temporal-difference targets B."""
        return td_target(transitions.return_B, transitions.discount_B, self._next_value(transitions.next_obs))

    def _next_value(self, next_obs: Tensor) -> Tensor:
        target_q_BA = self.target(next_obs, rng=self.rng)[0]
        if not self.is_double:
            return greedy_value(target_q_BA)
        return double_value(self.policy.model(next_obs, rng=self.rng)[0], target_q_BA)

    def _predict(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor) -> Prediction:
        q_BA = self.policy.model(obs, rng=self.rng)[0]
        td_error_B = target - q_BA.gather(1, action_B1).squeeze(1)
        return Prediction(self.error_loss(td_error_B), q_BA, td_error_B)


class DQNAgent(ValueAgent):
    """Acts epsilon-greedily on action values, or greedily when it does not explore."""

    config: DQNConfig

    @property
    def dqn(self) -> DQNAlgorithm:
        """The update rule."""
        assert isinstance(self.learner, DQNAlgorithm)
        return self.learner


def build_dqn(
    config: DQNConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
) -> DQNAgent:
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
        make_network=QNetwork,
        make_algorithm=DQNAlgorithm,
        make_agent=DQNAgent,
    )
