"""Equations against numbers typed by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.losses import (
    cross_entropy,
    double_value,
    greedy_value,
    huber_error,
    masked_mean,
    masked_sum,
    munchausen_bonus,
    n_step,
    project_distribution,
    quantile_huber,
    scaled_log_policy,
    sequence_cross_entropy,
    sequence_squared_error,
    soft_quantiles,
    squared_error,
    td_target,
    weighted_mean,
)


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


def test_projection_splits_each_share_between_its_neighbours() -> None:
    atoms_K = torch.tensor([-1.0, 0.0, 1.0])
    support_BK = torch.tensor([[-0.25, 0.25, 0.75], [0.25, 0.25, 0.25], [-5.0, 0.0, 9.0], [-1.0, 0.0, 1.0]])
    prob_BK = torch.tensor([[0.1, 0.2, 0.7]]).repeat(4, 1)
    expected_BK = torch.tensor([[0.025, 0.4, 0.575], [0.0, 0.75, 0.25], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]])
    torch.testing.assert_close(project_distribution(support_BK, prob_BK, atoms_K), expected_BK)


@given(st.lists(st.floats(-9, 9), min_size=5, max_size=5), st.integers(0, 1000))
def test_projection_keeps_mass_and_within_the_range_the_mean(support: list[float], seed: int) -> None:
    atoms_K = torch.linspace(-10, 10, 51, dtype=torch.float64)
    support_BK = torch.tensor([support], dtype=torch.float64)
    prob_BK = torch.rand(1, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    projected_BK = project_distribution(support_BK, prob_BK, atoms_K)
    assert float(projected_BK.sum()) == pytest.approx(float(prob_BK.sum()))
    assert float(projected_BK @ atoms_K) == pytest.approx(float((prob_BK * support_BK).sum()), abs=1e-9)


def test_cross_entropy_by_hand() -> None:
    target_BK = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    logit_BK = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    expected_B = torch.tensor([math.log(4 / 3), -0.5 * math.log(0.25) - 0.5 * math.log(0.75)])
    torch.testing.assert_close(cross_entropy(target_BK, logit_BK), expected_B)


def test_quantile_huber_sums_over_predictions_and_averages_over_targets() -> None:
    quantile_BN, tau_BN, target_BM = (
        torch.tensor([[0.0, 2.0]]),
        torch.tensor([[0.25, 0.75]]),
        torch.tensor([[1.0, 3.0]]),
    )
    # errors 1, 3 and -1, 1; Huber 0.5, 2.5 and 0.5, 0.5; sides 0.25, 0.25 and 0.25, 0.75
    assert quantile_huber(quantile_BN, target_BM, tau_BN).tolist() == pytest.approx([0.375 + 0.25])
    assert quantile_huber(quantile_BN, target_BM, tau_BN, kappa=2.0).tolist() == pytest.approx([(0.5625 + 0.25) / 2])


def test_quantile_huber_takes_different_numbers_of_predictions_and_targets() -> None:
    loss_B = quantile_huber(torch.zeros(2, 3), torch.ones(2, 5), torch.full((1, 3), 0.5))
    assert loss_B.tolist() == pytest.approx([0.75, 0.75])


def test_quantile_regression_finds_the_quantiles() -> None:
    target_BM = torch.arange(100.0).unsqueeze(0)
    tau_BN = torch.tensor([[0.1, 0.5, 0.9]])
    quantile_BN = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([quantile_BN], lr=1.0)
    for _ in range(400):
        optimizer.zero_grad()
        quantile_huber(quantile_BN, target_BM, tau_BN).sum().backward()
        optimizer.step()
    assert quantile_BN.tolist()[0] == pytest.approx([9.5, 49.5, 89.5], abs=1.5)


def test_munchausen_terms_by_hand() -> None:
    q_BA = torch.tensor([[0.0, math.log(3.0)]]).repeat(2, 1)  # policy 1/4, 3/4 at temperature 1
    log_policy_BA = torch.tensor([[math.log(0.25), math.log(0.75)]]).repeat(2, 1)
    torch.testing.assert_close(scaled_log_policy(q_BA, 1.0), log_policy_BA)
    torch.testing.assert_close(scaled_log_policy(2 * q_BA, 2.0), 2 * log_policy_BA)
    bonus_B = munchausen_bonus(q_BA, torch.tensor([[0], [1]]), alpha=0.9, temperature=1.0, smallest_log_policy=-1.0)
    torch.testing.assert_close(bonus_B, torch.tensor([-0.9, 0.9 * math.log(0.75)]))


def test_the_soft_value_is_the_log_of_the_summed_exponentials() -> None:
    q_BA = torch.tensor([[0.0, math.log(3.0)]])
    quantile_BAM = torch.stack([q_BA - 1, q_BA + 1], dim=2)
    expected_BM = torch.tensor([[math.log(4.0) - 1, math.log(4.0) + 1]])
    torch.testing.assert_close(soft_quantiles(quantile_BAM, q_BA, 1.0), expected_BM)


def test_a_small_temperature_neither_overflows_nor_softens() -> None:
    q_BA = torch.tensor([[500.0, -500.0]])
    assert soft_quantiles(q_BA.unsqueeze(2), q_BA, 0.03).tolist() == [[500.0]]
    assert scaled_log_policy(q_BA, 0.03).tolist()[0] == pytest.approx([0.0, -1000.0])


def test_masked_losses_by_hand() -> None:
    loss_BT = torch.tensor([[1.0, 2.0, float("inf")], [4.0, float("nan"), 8.0]])
    valid_BT = torch.tensor([[True, True, False], [True, False, True]])
    assert masked_sum(loss_BT, valid_BT).item() == 15.0
    assert masked_mean(loss_BT, valid_BT).item() == 15.0 / 4  # over steps, not over rows
    assert masked_mean(loss_BT, torch.zeros_like(valid_BT)).item() == 0.0


def test_losses_of_sequences_by_hand() -> None:
    prediction_BTA = torch.tensor([[[1.0, 0.0], [0.5, -0.5]]])
    target_BTA = torch.tensor([[[0.0, 0.0], [-0.5, -0.5]]])
    assert sequence_squared_error(prediction_BTA, target_BTA).tolist() == [[0.5, 0.5]]
    logit_BTA = torch.tensor([[[0.0, math.log(3.0)], [0.0, math.log(3.0)]]])  # 1/4, 3/4
    loss_BT = sequence_cross_entropy(logit_BTA, torch.tensor([[0, 1]]))
    assert loss_BT.tolist()[0] == pytest.approx([math.log(4.0), math.log(4.0 / 3.0)])
