"""QR-DQN and IQN: learn quantiles of the return, at fixed midpoints or at fractions drawn for every update.

The quantiles of the best next action are moved by reward and discount, and the quantile Huber loss to all of them is
minimised. Munchausen-IQN adds the scaled log-probability of the action taken to the reward and bootstraps from the soft
value of a softmax policy instead of from the best action.

Sources: Dabney et al. 2018 (AAAI: QR-DQN; ICML: IQN); Vieillard et al. 2020; Dopamine, jax/agents/quantile and
jax/agents/implicit_quantile; Google Research, munchausen_rl. Deviations: docs/agents/distributional.md.

Legend: B batch, A actions, N predicted quantiles, M quantiles of the target.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
from torch import Tensor

from agents.losses import munchausen_bonus, quantile_huber, soft_quantiles, td_target
from agents.value_based.agent import NetworkAndRule
from agents.value_based.algorithm import ValueAlgorithm
from agents.value_based.c51 import of_action
from agents.value_based.distributional_config import IQNConfig, QRDQNConfig
from agents.value_based.q_networks import ImplicitQuantileNetwork, QuantileNetwork
from agents.value_based.records import Prediction, Transitions


class QRDQNAlgorithm(ValueAlgorithm):
    """The update rule of QR-DQN.

    Args:
        config: what to learn how.
        parts: of `ValueAlgorithm`.
    """

    def __init__(self, *, config: QRDQNConfig, **parts: Any) -> None:
        super().__init__(config=config, **parts)
        self.kappa = config.kappa

    def _targets(self, transitions: Transitions) -> Tensor:
        """Gives target quantiles BM."""
        quantile_BAM = self.target.distribution(transitions.next_obs, self.rng)
        action_B1 = self._best_next_action(transitions.next_obs, self.target.values(quantile_BAM))
        return moved(transitions, transitions.return_B, of_action(quantile_BAM, action_B1))

    def _mean_target(self, target: Tensor) -> Tensor:
        return target.mean(dim=1)

    def _predict(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor) -> Prediction:
        online = cast(QuantileNetwork, self.policy.model)
        quantile_BAN = online.distribution(obs, self.rng)
        loss_B = quantile_huber(of_action(quantile_BAN, action_B1), target, online.tau_1N, self.kappa)
        return Prediction(loss_B, online.values(quantile_BAN), loss_B)


class IQNAlgorithm(ValueAlgorithm):
    """The update rule of IQN and Munchausen-IQN.

    Args:
        config: what to learn how.
        parts: of `ValueAlgorithm`.
    """

    def __init__(self, *, config: IQNConfig, **parts: Any) -> None:
        super().__init__(config=config, **parts)
        self.options = config
        self.draws = True

    def _targets(self, transitions: Transitions) -> Tensor:
        """Gives target quantiles BM."""
        target, options = cast(ImplicitQuantileNetwork, self.target), self.options
        counts = (options.num_acting_fractions, options.num_target_fractions)
        tau_BN = target.fractions(len(transitions.action_B1), sum(counts), self.rng)
        # One forward serves the choice of the action and the target; their fractions are independent all the same.
        quantile_BAN = target.quantiles(transitions.next_obs, tau_BN, self.rng)
        acting_BAN, quantile_BAM = quantile_BAN[..., : counts[0]], quantile_BAN[..., counts[0] :]
        q_BA = target.values(acting_BAN)
        if not options.munchausen:
            action_B1 = self._best_next_action(transitions.next_obs, q_BA)
            return moved(transitions, transitions.return_B, of_action(quantile_BAM, action_B1))
        bonus_B = munchausen_bonus(
            target(transitions.obs, rng=self.rng)[0],
            transitions.action_B1,
            alpha=options.munchausen_alpha,
            temperature=options.munchausen_temperature,
            smallest_log_policy=options.munchausen_clip,
        )
        soft_BM = soft_quantiles(quantile_BAM, q_BA, options.munchausen_temperature)
        return moved(transitions, transitions.return_B + bonus_B, soft_BM)

    def _mean_target(self, target: Tensor) -> Tensor:
        return target.mean(dim=1)

    def _predict(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor) -> Prediction:
        online, options = cast(ImplicitQuantileNetwork, self.policy.model), self.options
        tau_BN = online.fractions(len(action_B1), options.num_fractions, self.rng)
        quantile_BAN = online.quantiles(obs, tau_BN, self.rng)
        loss_B = quantile_huber(of_action(quantile_BAN, action_B1), target, tau_BN, options.kappa)
        return Prediction(loss_B, online.values(quantile_BAN), loss_B)


def moved(transitions: Transitions, return_B: Tensor, quantile_BM: Tensor) -> Tensor:
    """Gives quantiles BM of the return: those of what follows, discounted, plus the rewards."""
    return td_target(return_B.unsqueeze(1), transitions.discount_B.unsqueeze(1), quantile_BM)


def qr_dqn_parts(config: QRDQNConfig) -> NetworkAndRule:
    """Gives what makes the network and the update rule of QR-DQN."""
    return partial(QuantileNetwork, num_quantiles=config.num_quantiles), QRDQNAlgorithm


def iqn_parts(config: IQNConfig) -> NetworkAndRule:
    """Gives what makes the network and the update rule of IQN."""
    make_network = partial(
        ImplicitQuantileNetwork, num_cosines=config.num_cosines, num_acting_fractions=config.num_acting_fractions
    )
    return make_network, IQNAlgorithm
