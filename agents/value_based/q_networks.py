"""Networks that value every discrete action, by one number or by a distribution of returns.

All of them give action values when called, so that Tianshou's policies act on them. `distribution` gives what a loss
needs. Randomness is passed in: without a generator noisy layers use their mean weights, and the implicit network takes
the midpoints of equal shares instead of random fractions.

Legend: B batch, A actions, F features, K atoms, N quantiles or fractions, E cosines of a fraction.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.base_config import Initialization
from agents.heads import DuelingHead, NoisyLinear, to_tensor
from agents.networks import Body, initialize


class QNetwork(nn.Module):
    """A body and a linear head: action values.

    Args:
        body: observations to features.
        num_actions: A.
        num_outputs: numbers per action.
        num_features: of what the head sees; the body's features if None.
        initialization: of the head.
        dueling: whether the head adds a state value to advantages.
    """

    def __init__(
        self,
        body: Body,
        num_actions: int,
        *,
        num_outputs: int = 1,
        num_features: int | None = None,
        initialization: Initialization,
        dueling: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.num_actions = num_actions
        num_features = num_features or body.num_features
        make_layer = partial(dense, initialization=initialization)
        self.head: nn.Module = (
            DuelingHead(make_layer, num_features, num_actions, num_outputs)
            if dueling
            else make_layer(num_features, num_actions * num_outputs)
        )
        self._noisy: tuple[NoisyLinear, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.head.parameters()).device

    def keep_in_lower_precision(self) -> None:
        """Stores the parameters that are only ever read in the body's precision in that precision."""
        to_precision(self.body.layers, self.body.precision)

    def make_noisy(self, sigma: float) -> None:
        """Replaces every dense layer, the body's included, by a noisy one.

        Args:
            sigma: initial deviation of the noise, see `NoisyLinear`.
        """
        replace_dense(self, sigma)
        self._noisy = tuple(layer for layer in self.modules() if isinstance(layer, NoisyLinear))

    @contextmanager
    def noise(self, rng: np.random.Generator | None) -> Iterator[None]:
        """Draws noise for the forwards inside; mean weights where there is no generator."""
        if rng is not None:
            for layer in self._noisy:
                layer.draw(rng)
        try:
            yield
        finally:
            for layer in self._noisy:
                layer.forget()

    def encode(self, obs: np.ndarray | Tensor) -> Tensor:
        """Gives the body's features BF."""
        return self.body(to_tensor(obs, self.device))

    def distribution(self, obs: np.ndarray | Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Gives what the head says of every action, float32 BA(numbers per action)."""
        with self.noise(rng):
            return self.head(self.encode(obs)).unflatten(1, (self.num_actions, -1))

    def values(self, output_BAK: Tensor) -> Tensor:
        """Gives action values BA of what `distribution` gave."""
        return output_BAK.squeeze(2)

    def forward(
        self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Gives float32 action values BA and the unchanged state."""
        return self.values(self.distribution(obs, rng)), state


class CategoricalNetwork(QNetwork):
    """Gives each action the logits of K fixed returns. Source: Bellemare et al. 2017, section 4.1.

    Args:
        body: observations to features.
        num_actions: A.
        num_atoms: K.
        value_range: smallest and largest return.
        options: of `QNetwork`.
    """

    def __init__(
        self, body: Body, num_actions: int, *, num_atoms: int, value_range: tuple[float, float], **options: Any
    ) -> None:
        super().__init__(body, num_actions, num_outputs=num_atoms, **options)
        self.atoms_K: Tensor
        self.register_buffer("atoms_K", torch.linspace(*value_range, num_atoms), persistent=False)

    def values(self, output_BAK: Tensor) -> Tensor:
        """Gives the mean return BA of logits BAK."""
        return functional.softmax(output_BAK, dim=2) @ self.atoms_K


class QuantileNetwork(QNetwork):
    """Gives each action N quantiles of its return at fixed midpoints. Source: Dabney et al. 2018 (QR-DQN), section 4.

    Args:
        body: observations to features.
        num_actions: A.
        num_quantiles: N.
        options: of `QNetwork`.
    """

    def __init__(self, body: Body, num_actions: int, *, num_quantiles: int, **options: Any) -> None:
        super().__init__(body, num_actions, num_outputs=num_quantiles, **options)
        self.tau_1N: Tensor
        self.register_buffer("tau_1N", midpoints(num_quantiles).unsqueeze(0), persistent=False)

    def values(self, output_BAK: Tensor) -> Tensor:
        """Gives the mean return BA of quantiles BAN."""
        return output_BAK.mean(dim=2)


class ImplicitQuantileNetwork(QNetwork):
    """Gives the quantile of each action's return at any fraction; the fraction multiplies the encoded observation.

    The body's last dense layer comes after the product, as in the paper.

    Args:
        body: observations to features, with at least one layer before its last dense one.
        num_actions: A.
        num_cosines: E.
        num_acting_fractions: N of the value that actions are chosen by.
        options: of `QNetwork`.

    Source: Dabney et al. 2018 (IQN), equation 4; Dopamine, jax/networks.py, ImplicitQuantileNetwork.
    """

    def __init__(
        self,
        body: Body,
        num_actions: int,
        *,
        num_cosines: int,
        num_acting_fractions: int,
        initialization: Initialization,
        dueling: bool = False,
    ) -> None:
        encoder, hidden, num_features = split_body(body)
        super().__init__(
            encoder, num_actions, num_features=num_features, initialization=initialization, dueling=dueling
        )
        self.hidden = hidden
        self.embedding: nn.Module = dense(num_cosines, encoder.num_features, initialization)
        self.num_acting_fractions = num_acting_fractions
        self.frequency_E: Tensor
        self.register_buffer("frequency_E", math.pi * torch.arange(1, num_cosines + 1), persistent=False)

    def keep_in_lower_precision(self) -> None:
        """Stores the parameters that are only ever read in the body's precision in that precision."""
        super().keep_in_lower_precision()
        to_precision(self.hidden, self.body.precision)

    def quantiles(self, obs: np.ndarray | Tensor, tau_BN: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Gives the quantiles BAN at the fractions.

        Args:
            obs: B observations.
            tau_BN: fractions in (0, 1).
            rng: of the noisy layers.
        """
        with self.noise(rng):
            features_BF = self.encode(obs)
            cosine_BNE = torch.cos(tau_BN.unsqueeze(2) * self.frequency_E)
            product_BNF = features_BF.unsqueeze(1) * functional.relu(self.embedding(cosine_BNE))
            output_BNA = self.head(self._after_product(product_BNF.flatten(0, 1))).unflatten(0, tau_BN.shape)
        return output_BNA.transpose(1, 2)

    def _after_product(self, rows: Tensor) -> Tensor:
        if self.body.precision is torch.float32:
            return self.hidden(rows)
        with torch.autocast(rows.device.type, dtype=self.body.precision):
            features: Tensor = self.hidden(rows)
        return features.float()

    def fractions(self, num: int, count: int, rng: np.random.Generator | None) -> Tensor:
        """Gives fractions BN.

        Args:
            num: B.
            count: N.
            rng: draws them uniformly; None gives the midpoints of N equal shares.
        """
        if rng is None:
            return midpoints(count).to(self.device).expand(num, -1)
        return to_tensor(rng.random((num, count), dtype=np.float32), self.device)

    def distribution(self, obs: np.ndarray | Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """Gives quantiles BAN at the fractions that actions are chosen by."""
        tau_BN = self.fractions(obs.shape[0], self.num_acting_fractions, rng)
        return self.quantiles(obs, tau_BN, rng)

    def values(self, output_BAK: Tensor) -> Tensor:
        """Gives the mean return BA of quantiles BAN."""
        return output_BAK.mean(dim=2)


def to_precision(layers: nn.Module, precision: torch.dtype) -> None:
    """Converts layers in place, but for those that autocast computes in float32: normalisations."""
    layers.to(precision)
    for layer in layers.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.float()


def midpoints(num: int) -> Tensor:
    """Gives the midpoints N of equal shares of (0, 1). Source: Dabney et al. 2018 (QR-DQN), lemma 2."""
    return (torch.arange(num) + 0.5) / num


def dense(num_inputs: int, num_outputs: int, initialization: Initialization) -> nn.Linear:
    """Gives an initialised dense layer."""
    layer = nn.Linear(num_inputs, num_outputs)
    initialize(layer, initialization)
    return layer


def split_body(body: Body) -> tuple[Body, nn.Sequential, int]:
    """Takes a body apart before its last dense layer.

    Returns:
        the body up to there, the layers from there on, and the number of features they give.

    Raises:
        ValueError: if nothing would be left before it.
    """
    layers = body.layers
    assert isinstance(layers, nn.Sequential)
    places = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if not places or places[-1] == 0:
        raise ValueError(f"implicit quantiles need a dense layer after others in the network, not {layers}")
    last = layers[places[-1]]
    assert isinstance(last, nn.Linear)
    encoder = Body(layers[: places[-1]], last.in_features, pixels=body.pixels, precision=body.precision)
    return encoder, nn.Sequential(OrderedDict(list(layers.named_children())[places[-1] :])), last.out_features


def replace_dense(module: nn.Module, sigma: float) -> None:
    """Replaces every dense layer below a module by a noisy one, freshly initialised."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, NoisyLinear(child.in_features, child.out_features, sigma))
        else:
            replace_dense(child, sigma)
