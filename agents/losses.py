"""Targets and losses of value learning and sequence modelling, one function per equation: tensors in, tensors out.

Termination is folded into the discount, so nothing here has a `done` flag.

Legend: B batch, N steps of a window or quantiles, M quantiles of a target, A actions (or dimensions of one), K atoms of
a distribution, T steps of a sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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


def project_distribution(support_BK: Tensor, prob_BK: Tensor, atoms_K: Tensor) -> Tensor:
    """Moves probability from shifted atoms to the fixed ones, each share split between its two neighbours.

    Args:
        support_BK: where the probability lies, e.g. `td_target` of the atoms; values beyond the ends count at the ends.
        prob_BK: how much lies there.
        atoms_K: the fixed atoms, evenly spaced and rising, at least two.

    Returns:
        probabilities BK of the fixed atoms; each row sums to what it summed to before.

    Source: Bellemare et al. 2017, equation 7.
    """
    spacing = (atoms_K[-1] - atoms_K[0]) / (len(atoms_K) - 1)
    clipped_BK = support_BK.clamp(atoms_K[0], atoms_K[-1])
    share_BKK = (1 - (clipped_BK.unsqueeze(1) - atoms_K.view(1, -1, 1)).abs() / spacing).clamp(0, 1)
    return (share_BKK @ prob_BK.unsqueeze(2)).squeeze(2)


def cross_entropy(target_prob_BK: Tensor, logit_BK: Tensor) -> Tensor:
    """Gives the cross-entropy B of predicted logits under target probabilities.

    Source: Bellemare et al. 2017, algorithm 1; Dopamine, jax/losses.py, softmax_cross_entropy_loss_with_logits.
    """
    return -(target_prob_BK * functional.log_softmax(logit_BK, dim=1)).sum(dim=1)


def quantile_huber(quantile_BN: Tensor, target_BM: Tensor, tau_BN: Tensor, kappa: float = 1.0) -> Tensor:
    """Gives the quantile Huber loss B: the sum over predicted quantiles of the mean over the target's samples.

    Args:
        quantile_BN: predicted values at the fractions `tau_BN`.
        target_BM: samples of the target distribution.
        tau_BN: fractions in (0, 1); a single row serves the whole batch.
        kappa: error from which the loss is linear, > 0 (units of return).
    Source: Dabney et al. 2018 (QR-DQN), equation 10, divided by kappa as in Dabney et al. 2018 (IQN), equation 3.
    """
    error_BNM = target_BM.unsqueeze(1) - quantile_BN.unsqueeze(2)
    side_BNM = (tau_BN.unsqueeze(2) - (error_BNM.detach() < 0).to(tau_BN.dtype)).abs()
    return (side_BNM * huber_error(error_BNM, kappa)).mean(dim=2).sum(dim=1) / kappa


def scaled_log_policy(q_BA: Tensor, temperature: float) -> Tensor:
    """Gives temperature * log softmax(q / temperature), BA. Source: Vieillard et al. 2020, equation 2 (tau ln pi)."""
    return temperature * functional.log_softmax(q_BA / temperature, dim=1)


def munchausen_bonus(
    q_BA: Tensor, action_B1: Tensor, *, alpha: float, temperature: float, smallest_log_policy: float
) -> Tensor:
    """Gives what is added to the reward B: the scaled log-probability of the action that was taken.

    Args:
        q_BA: values of the observation under the target network.
        action_B1: actions taken.
        alpha: factor of the term, in [0, 1].
        temperature: of the softmax policy, > 0 (units of return).
        smallest_log_policy: the scaled log-probability is clipped to [smallest_log_policy, 0].
    Source: Vieillard et al. 2020, equations 2 and section 3 (clipping); Google Research, munchausen_rl/agents/m_iqn.py.
    """
    log_policy_B = scaled_log_policy(q_BA, temperature).gather(1, action_B1).squeeze(1)
    return alpha * log_policy_B.clamp(smallest_log_policy, 0.0)


def soft_quantiles(quantile_BAM: Tensor, q_BA: Tensor, temperature: float) -> Tensor:
    """Gives quantiles BM of the soft value: the policy's mean over actions of quantile minus scaled log-policy.

    Args:
        quantile_BAM: quantiles of every action's return after the transition.
        q_BA: values that define the softmax policy.
        temperature: of that policy, > 0 (units of return).
    Source: Vieillard et al. 2020, equation 2, per quantile as in Google Research, munchausen_rl/agents/m_iqn.py.
    """
    log_policy_BA = scaled_log_policy(q_BA, temperature)
    policy_BA1 = functional.softmax(q_BA / temperature, dim=1).unsqueeze(2)
    return (policy_BA1 * (quantile_BAM - log_policy_BA.unsqueeze(2))).sum(dim=1)


def masked_sum(loss_BT: Tensor, valid_BT: Tensor) -> Tensor:
    """Gives the sum of losses over real steps; what padding holds counts for nothing."""
    return torch.where(valid_BT, loss_BT, torch.zeros_like(loss_BT)).sum()


def masked_mean(loss_BT: Tensor, valid_BT: Tensor) -> Tensor:
    """Gives the mean of losses over real steps; 0 where there is none.

    Every step counts alike, whichever row it is in. Source: Chen et al. 2021, gym/decision_transformer,
    sequence_trainer.py.
    """
    return masked_sum(loss_BT, valid_BT) / valid_BT.sum().clamp(min=1)


def sequence_squared_error(prediction_BTA: Tensor, target_BTA: Tensor) -> Tensor:
    """Gives the squared error BT of each step's action, mean over its dimensions.

    Source: Chen et al. 2021, gym/experiment.py, loss_fn.
    """
    return (prediction_BTA.float() - target_BTA).square().mean(dim=-1)


def sequence_cross_entropy(logit_BTA: Tensor, target_BT: Tensor) -> Tensor:
    """Gives the cross-entropy BT (nats) of each step's class.

    Args:
        logit_BTA: over A classes.
        target_BT: int64 classes; at padding any class.
    Source: Chen et al. 2021, section 3 (discrete actions); Lee et al. 2022, equation 3.
    """
    return functional.cross_entropy(logit_BTA.float().transpose(1, 2), target_BT, reduction="none")
