"""Running normalisation of vector observations, kept among the weights so that a checkpoint carries it.

Legend: B batch, D observation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.networks import Body

CLIP = 10.0  # CleanRL, ppo_continuous_action.py


class RunningNormalizer(nn.Module):
    """Shifts and scales observations by the mean and deviation of those it was shown; changed by `observe` alone.

    Args:
        size: D.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, obs_BD: Tensor) -> Tensor:
        """Gives float32 observations of roughly unit scale, within +-10."""
        scaled_BD = (obs_BD.to(torch.float64) - self.mean) / (self.variance + 1e-8).sqrt()
        return scaled_BD.clamp(-CLIP, CLIP).to(torch.float32)

    @torch.no_grad()
    def observe(self, obs_BD: Tensor) -> None:
        """Adds a batch to the running mean and variance. Source: Chan et al. 1979, parallel variance."""
        batch_BD = obs_BD.to(torch.float64)
        count = float(len(batch_BD))
        total = self.count + count
        delta_D = batch_BD.mean(0) - self.mean
        squares_D = (
            self.variance * self.count
            + batch_BD.var(0, correction=0) * count
            + delta_D.square() * self.count * count / total
        )
        self.mean += delta_D * count / total
        self.variance.copy_(squares_D / total)
        self.count.copy_(total)


class NormalizedBody(Body):
    """A body behind a normaliser, which several bodies may share."""

    def __init__(self, normalizer: RunningNormalizer, body: Body) -> None:
        nn.Module.__init__(self)
        self.normalizer = normalizer
        self.body = body
        self.num_features = body.num_features

    def forward(self, obs: Tensor) -> Tensor:
        """Gives features BF."""
        features_BF: Tensor = self.body(self.normalizer(obs))
        return features_BF
