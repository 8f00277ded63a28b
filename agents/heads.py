"""Networks as Tianshou calls them: a body and a head, `forward(obs, state, info) -> (output, state)`.

Legend: B batch, A actions (number of discrete ones, or dimensions of a continuous one), F features, D observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.base_config import Initialization
from agents.networks import Body, initialize


def to_tensor(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Gives an array as a tensor on the device, without a copy where it can be shared.

    The copy to an accelerator goes through pinned memory and does not wait.
    """
    if isinstance(array, Tensor):
        return array.to(device, non_blocking=True)
    if not array.flags.writeable:
        array = array.copy()
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class HeadedNetwork(nn.Module):
    """A body with one linear head: action values, or the logits of a categorical policy.

    Args:
        body: observations to features.
        num_outputs: A.
        initialization: of the head.
        gain: factor of an orthogonal initialisation.
    """

    def __init__(self, body: Body, num_outputs: int, initialization: Initialization, gain: float = 1.0) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.num_features, num_outputs)
        initialize(self.head, initialization, gain)

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Gives float32 outputs BA and the unchanged state."""
        return self.head(self.body(to_tensor(obs, self.head.weight.device))), state


class ValueNetwork(HeadedNetwork):
    """A body with a single-output head: the value of a state. Source of the initialisation: CleanRL, ppo.py."""

    def __init__(self, body: Body) -> None:
        super().__init__(body, 1, "orthogonal", gain=1.0)

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> Tensor:  # type: ignore[override]
        """Gives values B1."""
        return super().forward(obs)[0]


class SharedBody(Body):
    """Lets an actor and a critic share one body at the price of one forward.

    Tianshou's PPO calls actor and critic one after the other on the same minibatch. The features of the last training
    forward are handed over once, for the very same tensor only, and not across a change of the parameters: whoever
    steps the optimizer calls `forget` (torch's fused optimizers do not raise the version counter of what they change).
    """

    def __init__(self, body: Body) -> None:
        nn.Module.__init__(self)
        self.body = body
        self.num_features = body.num_features
        self._anchor = (next(body.parameters()),)  # a bare parameter would be registered under a second name
        self._last: tuple[Tensor, int, Tensor] | None = None

    def forward(self, obs: Tensor) -> Tensor:
        """Gives features BF; those of the previous call where it had the same observations and parameters."""
        last, self._last = self._last, None
        if not torch.is_grad_enabled():
            features_BF: Tensor = self.body(obs)
            return features_BF
        if last is not None and last[0] is obs and last[1] == self._anchor[0]._version:
            return last[2]
        features_BF = self.body(obs)
        self._last = (obs, self._anchor[0]._version, features_BF)
        return features_BF

    def forget(self) -> None:
        """Drops the features kept for the next call."""
        self._last = None


class GaussianActor(nn.Module):
    """A diagonal Gaussian policy: means from a head, deviations free of the observation (PPO) or from a head (SAC).

    Args:
        body: observations to features.
        action_dim: A.
        initialization: of the heads.
        mean_gain: factor of an orthogonal initialisation of the mean.
        log_std: initial log deviation of every action; None takes it from a second head.
        log_std_range: bounds the log deviation is clamped to.
    """

    def __init__(
        self,
        body: Body,
        action_dim: int,
        initialization: Initialization,
        *,
        mean_gain: float = 1.0,
        log_std: float | None = None,
        log_std_range: tuple[float, float] = (-20.0, 2.0),
    ) -> None:
        super().__init__()
        self.body = body
        self.mean = nn.Linear(body.num_features, action_dim)
        initialize(self.mean, initialization, mean_gain)
        self.log_std_range = log_std_range
        self.log_std: nn.Parameter | nn.Linear
        if log_std is None:
            self.log_std = nn.Linear(body.num_features, action_dim)
            initialize(self.log_std, initialization)
        else:
            self.log_std = nn.Parameter(torch.full((action_dim,), log_std))

    def forward(
        self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Gives means BA and deviations BA of the action before any squashing, and the unchanged state."""
        features_BF = self.body(to_tensor(obs, self.mean.weight.device))
        mean_BA = self.mean(features_BF)
        log_std_BA = self.log_std(features_BF) if isinstance(self.log_std, nn.Linear) else self.log_std
        std_BA = log_std_BA.clamp(*self.log_std_range).exp().expand_as(mean_BA)
        return (mean_BA, std_BA), state


class ActionValueNetwork(nn.Module):
    """Values observation and continuous action together: the critic of SAC.

    Args:
        body: takes vectors of D + A entries.
        initialization: of the head.
    """

    def __init__(self, body: Body, initialization: Initialization) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.num_features, 1)
        initialize(self.head, initialization)

    def forward(self, obs: np.ndarray | Tensor, action: np.ndarray | Tensor) -> Tensor:
        """Gives values B1 of observations BD and actions BA."""
        device = self.head.weight.device
        inputs = [to_tensor(part, device).to(torch.float32) for part in (obs, action)]
        values_B1: Tensor = self.head(self.body(torch.cat(inputs, dim=-1)))
        return values_B1
