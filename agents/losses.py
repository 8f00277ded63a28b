"""Targets and losses of value learning, one function per equation: tensors in, tensors out.

Termination is folded into the discount, so nothing here has a `done` flag.

Legend: B batch, N steps of a window, A actions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def td_target(return_B: Tensor, discount_B: Tensor, next_value_B: Tensor) -> Tensor:
    """Gives the temporal-difference target: summed rewards plus the discounted value of where they lead.

    Args:
        return_B: discounted sum of the rewards up to the bootstrap.
        discount_B: gamma to the number of rewards summed; 0 where the episode terminated.
        next_value_B: value of the observation after the last of them.
    Source: Sutton and Barto 2018, equation 7.1.
    """
    return return_B + discount_B * next_value_B


def n_step(reward_BN: Tensor, discount_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Sums the rewards of a window and multiplies its discounts.

    Args:
        reward_BN: rewards in time order.
        discount_BN: gamma * (1 - terminated) of each step; pad a window that is cut short with reward 0, discount 1.

    Returns:
        return_B and discount_B, as `td_target` takes them.

    Source: Sutton and Barto 2018, equation 7.1.
    """
    if reward_BN.shape != discount_BN.shape:
        raise ValueError(f"rewards {tuple(reward_BN.shape)} and discounts {tuple(discount_BN.shape)} differ in shape")
    running_BN = torch.cumprod(discount_BN, dim=1)
    before_BN = torch.cat([torch.ones_like(running_BN[:, :1]), running_BN[:, :-1]], dim=1)
    return (before_BN * reward_BN).sum(dim=1), running_BN[:, -1]


def greedy_value(q_BA: Tensor) -> Tensor:
    """Gives the largest action value B. Source: Mnih et al. 2015, equation 1."""
    return q_BA.amax(dim=1)


def double_value(online_q_BA: Tensor, target_q_BA: Tensor) -> Tensor:
    """Gives the target network's value B of the action the online network prefers.

    Source: van Hasselt et al. 2016, equation 4.
    """
    return target_q_BA.gather(1, online_q_BA.argmax(dim=1, keepdim=True)).squeeze(1)


def squared_error(td_error_B: Tensor) -> Tensor:
    """Gives the squared error of each sample, not halved. Source: Dopamine, jax/losses.py, mse_loss."""
    return td_error_B.square()


def huber_error(td_error_B: Tensor, delta: float = 1.0) -> Tensor:
    """Gives half the squared error up to `delta` and its tangent beyond.

    Source: Huber 1964; Dopamine, jax/losses.py, huber_loss.
    """
    size_B = td_error_B.abs()
    quadratic_B = size_B.clamp(max=delta)
    return 0.5 * quadratic_B.square() + delta * (size_B - quadratic_B)


def weighted_mean(loss_B: Tensor, weight_B: Tensor | None) -> Tensor:
    """Gives the batch mean of losses times importance weights (None: all one).

    Source: Schaul et al. 2016, algorithm 1, line 12. The mean is over the batch, not over the weights.
    """
    return loss_B.mean() if weight_B is None else (loss_B * weight_B).mean()
