"""Targets and losses of QR-DQN, IQN and Munchausen-IQN by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents.base_config import MlpConfig
from agents.value_based import IQNConfig, QRDQNConfig
from agents.value_based.agent import ValueAgent
from agents.value_based.records import Transitions
from memory import ReplayConfig
from tests.agents.value_based.test_dqn import ACTIONS, SPACE


def build(member: type[Any], **changes: Any) -> ValueAgent:
    config = member(network=MlpConfig(hidden_widths=(4, 4)), replay=ReplayConfig(capacity=64), **changes)
    agent: ValueAgent = config.build(SPACE, ACTIONS, device="cpu", seed=np.random.SeedSequence(0))
    return agent


def iqn(**changes: Any) -> ValueAgent:
    return build(IQNConfig, num_fractions=2, num_target_fractions=3, num_acting_fractions=4, **changes)


def say(network: Any, *bias: float) -> None:
    """Makes a network give these numbers everywhere."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        head = network.head
        assert isinstance(head, nn.Linear)
        head.bias.copy_(torch.tensor(bias))


def transitions(action: int = 0, discount: float = 0.5) -> Transitions:
    obs = torch.zeros(1, 3)
    return Transitions(obs, torch.tensor([[action]]), torch.tensor([1.0]), torch.tensor([discount]), obs)


def test_qr_targets_are_moved_quantiles_of_the_best_action() -> None:
    agent, double = (build(QRDQNConfig, num_quantiles=2, double=double) for double in (False, True))
    for one in (agent, double):
        say(one.learner.target, 0.0, 2.0, 4.0, 6.0)  # actions (0, 2) and (4, 6)
        say(one.learner.policy.model, 9.0, 9.0, 0.0, 0.0)
    assert agent.learner._targets(transitions()).tolist() == [[3.0, 4.0]]
    assert double.learner._targets(transitions()).tolist() == [[1.0, 2.0]]
    assert agent.learner._targets(transitions(discount=0.0)).tolist() == [[1.0, 1.0]]
    assert agent.learner._mean_target(torch.tensor([[3.0, 4.0]])).tolist() == [3.5]


def test_qr_loss_by_hand() -> None:
    agent = build(QRDQNConfig, num_quantiles=2)
    say(agent.learner.policy.model, 0.0, 2.0, 7.0, 7.0)
    prediction = agent.learner._predict(torch.zeros(1, 3), torch.tensor([[0]]), torch.tensor([[1.0, 3.0]]))
    assert prediction.loss_B.tolist() == pytest.approx([0.625])  # see tests/agents/test_losses.py
    assert prediction.q_BA.tolist() == [[1.0, 7.0]]


def test_iqn_targets_are_moved_quantiles_of_the_best_action() -> None:
    agent, double = iqn(), iqn(double=True)
    for one in (agent, double):
        say(one.learner.target, 1.0, 5.0)
        say(one.learner.policy.model, 9.0, 0.0)
    assert agent.learner._targets(transitions()).tolist() == [[3.5] * 3]
    assert double.learner._targets(transitions()).tolist() == [[1.5] * 3]


def test_iqn_chooses_and_values_at_fractions_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = iqn()
    network: Any = agent.learner.target
    given: list[Tensor] = []

    def quantiles(obs: Tensor, tau_BN: Tensor, rng: Any) -> Tensor:
        """Action 0 is worth its fraction, action 1 a constant 0.6."""
        given.append(tau_BN)
        return torch.stack([tau_BN, torch.full_like(tau_BN, 0.6)], dim=1)

    monkeypatch.setattr(network, "quantiles", quantiles)
    for _ in range(20):
        target_BM = agent.learner._targets(transitions(discount=1.0))
        tau_BN = given[-1]
        assert tau_BN.shape == (1, 7)
        expected = 1 + (tau_BN[:, 4:] if tau_BN[0, :4].mean() > 0.6 else torch.full((1, 3), 0.6))
        torch.testing.assert_close(target_BM, expected)
    assert len({float(tau_BN[0, 0]) for tau_BN in given}) == 20


def test_iqn_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = iqn()
    network: Any = agent.learner.policy.model
    monkeypatch.setattr(network, "fractions", lambda num, count, rng: torch.tensor([[0.25, 0.75]]))
    monkeypatch.setattr(network, "quantiles", lambda obs, tau_BN, rng: torch.tensor([[[7.0, 7.0], [0.0, 2.0]]]))
    prediction = agent.learner._predict(torch.zeros(1, 3), torch.tensor([[1]]), torch.tensor([[1.0, 3.0]]))
    assert prediction.loss_B.tolist() == pytest.approx([0.625])


@pytest.mark.parametrize(("action", "log_policy"), [(0, -1.0), (1, math.log(0.75))])
def test_munchausen_adds_the_clipped_log_policy_and_bootstraps_softly(action: int, log_policy: float) -> None:
    agent = iqn(munchausen=True, munchausen_temperature=1.0, n_step=1)
    say(agent.learner.target, 0.0, math.log(3.0))
    expected = 1.0 + 0.9 * log_policy + 0.5 * math.log(4.0)
    assert agent.learner._targets(transitions(action)).tolist()[0] == pytest.approx([expected] * 3, rel=1e-5)
    terminal = agent.learner._targets(transitions(action, discount=0.0))
    assert terminal.tolist()[0] == pytest.approx([1.0 + 0.9 * log_policy] * 3, rel=1e-5)
