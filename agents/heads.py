"""Networks as Tianshou calls them: a body and a head, `forward(obs, state, info) -> (output, state)`.

Also the layers that heads of action values are made of; `agents.value_based.q_networks` puts those together.

Legend: B batch, A actions (number of discrete ones, or dimensions of a continuous one), F features, D observation,
K numbers per action, I and O inputs and outputs of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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


class NoisyLinear(nn.Module):
    """A dense layer with factorised Gaussian noise on its weights, and without where none was drawn.

    Args:
        num_inputs: I.
        num_outputs: O.
        sigma: initial deviation of every weight and bias times sqrt(I); 0.5 in the paper, 0.1 in Dopamine.

    Source: Fortunato et al. 2018, equations 8 to 11 and section 3.2; Dopamine, jax/networks.py, NoisyNetwork.
    """

    def __init__(self, num_inputs: int, num_outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        bound = 1 / math.sqrt(num_inputs)
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((num_outputs, num_inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((num_outputs,), sigma * bound))
        self._noise: tuple[Tensor, Tensor] | None = None

    def draw(self, rng: np.random.Generator) -> None:
        """Draws the noise of the forwards until `forget`."""
        num_outputs, num_inputs = self.weight.shape
        normal = rng.standard_normal(num_inputs + num_outputs, dtype=np.float32)
        scaled = to_tensor(np.sign(normal) * np.sqrt(np.abs(normal)), self.weight.device).to(self.weight.dtype)
        self._noise = (scaled[:num_inputs], scaled[num_inputs:])

    def forget(self) -> None:
        """Returns to the mean weights."""
        self._noise = None

    def forward(self, x_BI: Tensor) -> Tensor:
        """Gives BO."""
        if self._noise is None:
            return functional.linear(x_BI, self.weight, self.bias)
        noise_I, noise_O = self._noise
        weight_OI = torch.addcmul(self.weight, self.weight_sigma, noise_O.unsqueeze(1) * noise_I)
        return functional.linear(x_BI, weight_OI, torch.addcmul(self.bias, self.bias_sigma, noise_O))


class DuelingHead(nn.Module):
    """Adds a value of the state to advantages whose mean over the actions is taken off, for each of K numbers.

    Args:
        make_layer: makes a dense layer of (inputs, outputs).
        num_features: F.
        num_actions: A.
        num_outputs: K.

    Source: Wang et al. 2016, equation 9. Differs: both are linear in the same features, without hidden layers of their
    own, as in Dopamine, jax/networks.py, FullRainbowNetwork.
    """

    def __init__(
        self, make_layer: Callable[[int, int], nn.Module], num_features: int, num_actions: int, num_outputs: int = 1
    ) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.advantage = make_layer(num_features, num_actions * num_outputs)
        self.value = make_layer(num_features, num_outputs)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Gives B(A*K), action by action."""
        advantage_BAK = self.advantage(features_BF).unflatten(1, (self.num_actions, -1))
        value_B1K = self.value(features_BF).unsqueeze(1)
        return (value_B1K + advantage_BAK - advantage_BAK.mean(dim=1, keepdim=True)).flatten(1)
