"""C51's targets by hand, and who chooses the action they follow."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agents.base_config import MlpConfig
from agents.value_based import C51Config
from agents.value_based.agent import ValueAgent
from agents.value_based.records import Transitions
from memory import ReplayConfig
from tests.agents.value_based.test_dqn import ACTIONS, SPACE


def build(**changes: Any) -> ValueAgent:
    config = C51Config(
        network=MlpConfig(hidden_widths=(4,)),
        num_atoms=3,
        value_min=-1.0,
        value_max=1.0,
        replay=ReplayConfig(capacity=64),
        **changes,
    )
    return config.build(SPACE, ACTIONS, device="cpu", seed=np.random.SeedSequence(0))


def say(network: Any, *prob_AK: tuple[float, ...]) -> None:
    """Makes a network give these probabilities everywhere."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        head = network.head
        assert isinstance(head, nn.Linear)
        head.bias.copy_(torch.tensor([[math.log(prob) for prob in row] for row in prob_AK]).flatten())


def transitions(reward: float, discount: float) -> Transitions:
    obs = torch.zeros(1, 3)
    return Transitions(obs, torch.tensor([[0]]), torch.tensor([reward]), torch.tensor([discount]), obs)


EVEN, HIGH = (1 / 3, 1 / 3, 1 / 3), (0.1, 0.2, 0.7)


def test_the_target_is_the_projected_distribution_of_the_best_action_under_the_target_network() -> None:
    agent = build()
    say(agent.learner.target, EVEN, HIGH)
    say(agent.learner.policy.model, HIGH, EVEN)  # would choose the other action
    target = agent.learner._targets(transitions(0.25, 0.5))
    assert target.tolist()[0] == pytest.approx([0.025, 0.4, 0.575])
    assert agent.learner._mean_target(target).tolist() == pytest.approx([0.25 + 0.5 * 0.6])
    assert agent.learner._targets(transitions(0.25, 0.0)).tolist()[0] == pytest.approx([0.0, 0.75, 0.25])


def test_double_lets_the_online_network_choose() -> None:
    agent = build(double=True)
    say(agent.learner.target, EVEN, HIGH)
    say(agent.learner.policy.model, HIGH, EVEN)
    target = agent.learner._targets(transitions(0.25, 0.5))
    assert target.tolist()[0] == pytest.approx([0.25 / 3, 1.75 / 3, 1 / 3])


def test_the_loss_is_the_cross_entropy_of_the_action_taken() -> None:
    agent = build()
    say(agent.learner.policy.model, EVEN, HIGH)
    target = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    prediction = agent.learner._predict(torch.zeros(2, 3), torch.tensor([[0], [1]]), target)
    assert prediction.loss_B.tolist() == pytest.approx([math.log(3), -math.log(0.7)])
    assert prediction.q_BA.tolist()[0] == pytest.approx([0.0, 0.6], abs=1e-6)
    assert prediction.error_B is prediction.loss_B
