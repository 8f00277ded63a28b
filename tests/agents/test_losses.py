"""Equations against numbers typed by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.losses import double_value, greedy_value, huber_error, n_step, squared_error, td_target, weighted_mean


def test_td_target_adds_the_discounted_next_value_and_nothing_after_termination() -> None:
    target_B = td_target(torch.tensor([1.0, -1.0]), torch.tensor([0.99, 0.0]), torch.tensor([10.0, 10.0]))
    torch.testing.assert_close(target_B, torch.tensor([10.9, -1.0]))


def test_n_step_sums_discounted_rewards_up_to_the_termination() -> None:
    reward_BN = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    discount_BN = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.0, 1.0], [0.5, 1.0, 1.0]])  # 3 steps; terminated; cut short
    return_B, discount_B = n_step(reward_BN, discount_BN)
    torch.testing.assert_close(return_B, torch.tensor([3.0, 2.0, 1.0]))
    torch.testing.assert_close(discount_B, torch.tensor([0.125, 0.0, 0.5]))


def test_n_step_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\)"):
        n_step(torch.zeros(1, 2), torch.zeros(1, 3))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6), st.floats(0, 1))
def test_n_step_equals_the_recursion(rewards: list[float], gamma: float) -> None:
    reward_BN = torch.tensor([rewards], dtype=torch.float64)
    expected = 0.0
    for reward in reversed(rewards):
        expected = reward + gamma * expected
    return_B, discount_B = n_step(reward_BN, torch.full_like(reward_BN, gamma))
    assert float(return_B) == pytest.approx(expected, abs=1e-9)
    assert float(discount_B) == pytest.approx(gamma ** len(rewards), abs=1e-9)


def test_values_of_the_next_observation() -> None:
    online_q_BA = torch.tensor([[1.0, 2.0], [5.0, 0.0]])
    target_q_BA = torch.tensor([[7.0, 3.0], [4.0, 9.0]])
    assert greedy_value(target_q_BA).tolist() == [7.0, 9.0]
    assert double_value(online_q_BA, target_q_BA).tolist() == [3.0, 4.0]


def test_errors_of_each_sample() -> None:
    td_error_B = torch.tensor([-0.5, 1.0, 3.0])
    assert squared_error(td_error_B).tolist() == [0.25, 1.0, 9.0]
    assert huber_error(td_error_B, delta=1.0).tolist() == [0.125, 0.5, 2.5]
    assert huber_error(td_error_B, delta=2.0).tolist() == [0.125, 0.5, 4.0]


def test_huber_equals_torch() -> None:
    td_error_B = torch.linspace(-4, 4, 33)
    expected_B = torch.nn.functional.huber_loss(td_error_B, torch.zeros(33), reduction="none", delta=1.5)
    torch.testing.assert_close(huber_error(td_error_B, delta=1.5), expected_B)


def test_importance_weights_multiply_each_loss_under_both_errors() -> None:
    td_error_B, weight_B = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.5])
    assert float(weighted_mean(squared_error(td_error_B), weight_B)) == 2.75
    assert float(weighted_mean(huber_error(td_error_B), weight_B)) == 0.875
    assert float(weighted_mean(huber_error(td_error_B), None)) == 1.5
