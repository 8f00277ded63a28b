"""What passes between the parts of an update: transitions, predictions, and what is reported.

Legend: B batch, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tianshou.algorithm.algorithm_base import TrainingStats
from torch import Tensor


@dataclass(kw_only=True)
class DQNTrainingStats(TrainingStats):
    """What one update reports. All None except on every `metrics_period`-th gradient step.

    Attributes:
        loss: mean over the gradient steps since the last report.
        q_mean: mean value of the replayed actions over the same gradient steps (units of return).
        grad_norm: L2 norm of the gradient of the reporting step alone.
    """

    loss: float | None = None
    q_mean: float | None = None
    grad_norm: float | None = None


class Transitions(NamedTuple):
    """What targets are made of, on the device.

    Attributes:
        obs: observations B....
        action_B1: what was done.
        return_B: discounted sum of up to `n_step` rewards.
        discount_B: of the value of `next_obs`; 0 where the episode terminated.
        next_obs: observations B... after the last of these rewards.
    """

    obs: Tensor
    action_B1: Tensor
    return_B: Tensor
    discount_B: Tensor
    next_obs: Tensor


class Prediction(NamedTuple):
    """What the online network makes of a batch.

    Attributes:
        loss_B: of each transition, before importance weights.
        q_BA: action values.
        error_B: what priorities are made of.
    """

    loss_B: Tensor
    q_BA: Tensor
    error_B: Tensor
