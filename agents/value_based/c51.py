"""C51: learn the distribution of the return on fixed atoms. With prioritised replay and n_step=3: compact Rainbow.

Each atom of the best next action's distribution is moved by reward and discount, its probability is shared between the
fixed atoms around it, and the cross-entropy to that distribution is minimised. The cross-entropy of each transition is
what its priority is made of, as Dopamine's sqrt(loss + 1e-10).

Sources: Bellemare et al. 2017; Hessel et al. 2018; Dopamine, jax/agents/rainbow/rainbow_agent.py.
Differs from Tianshou's C51: bootstraps from the observation after the last reward summed, and the target network
chooses the next action unless double. Deviations from Dopamine: docs/agents/distributional.md.

Legend: B batch, A actions, K atoms.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np
from torch import Tensor
from torch.nn import functional

from agents.losses import cross_entropy, project_distribution, td_target
from agents.value_based.agent import NetworkAndRule
from agents.value_based.algorithm import ValueAlgorithm
from agents.value_based.distributional_config import AtomFields
from agents.value_based.q_networks import CategoricalNetwork
from agents.value_based.records import Prediction, Transitions


class C51Algorithm(ValueAlgorithm):
    """The update rule."""

    def _targets(self, transitions: Transitions) -> Tensor:
        """Gives target probabilities BK."""
        target = cast(CategoricalNetwork, self.target)
        logit_BAK = target.distribution(transitions.next_obs, self.rng)
        action_B1 = self._best_next_action(transitions.next_obs, target.values(logit_BAK))
        prob_BK = functional.softmax(of_action(logit_BAK, action_B1), dim=1)
        support_BK = td_target(
            transitions.return_B.unsqueeze(1), transitions.discount_B.unsqueeze(1), target.atoms_K.unsqueeze(0)
        )
        return project_distribution(support_BK, prob_BK, target.atoms_K)

    def _mean_target(self, target: Tensor) -> Tensor:
        return target @ cast(CategoricalNetwork, self.target).atoms_K

    def _predict(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor) -> Prediction:
        online = self.policy.model
        logit_BAK = online.distribution(obs, self.rng)
        loss_B = cross_entropy(target, of_action(logit_BAK, action_B1))
        return Prediction(loss_B, online.values(logit_BAK), loss_B)


def of_action(output_BAK: Tensor, action_B1: Tensor) -> Tensor:
    """Gives the numbers BK of one action in each row."""
    return output_BAK.gather(1, action_B1.unsqueeze(2).expand(-1, -1, output_BAK.shape[2])).squeeze(1)


def c51_parts(config: AtomFields) -> NetworkAndRule:
    """Gives what makes the network and the update rule of C51."""
    value_range = (config.value_min, config.value_max)
    return partial(CategoricalNetwork, num_atoms=config.num_atoms, value_range=value_range), C51Algorithm
