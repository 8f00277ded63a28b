"""Returns as bins, and how a high one is drawn from the predicted distribution. Every row by itself.

Legend: B rows, R bins of the return, A actions, S draws, N entries of a distribution.
Source: Lee et al. 2022, Multi-Game Decision Transformers; google-research/multi_game_dt, the notebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MASKED = float("-inf")


@dataclass(frozen=True)
class ReturnCodec:
    """Evenly spaced bins from `low` to `high`, both included. -20 to 100 in 121 bins holds each whole return.

    Attributes:
        low: return of bin 0.
        high: return of the last bin.
        bins: how many, at least 2.
    """

    low: float = -20.0
    high: float = 100.0
    bins: int = 121

    def __post_init__(self) -> None:
        if self.bins < 2 or not self.low < self.high:
            raise ValueError(f"low={self.low}, high={self.high}, bins={self.bins}: expected low < high and bins >= 2")

    @property
    def spacing(self) -> float:
        """Difference between neighbouring bins (units of return)."""
        return (self.high - self.low) / (self.bins - 1)

    def encode(self, returns: Tensor) -> Tensor:
        """Gives the int64 id of the nearest bin; returns beyond the ends get the ends."""
        return ((returns.float() - self.low) / self.spacing).round().clamp(0, self.bins - 1).long()

    def decode(self, ids: Tensor) -> Tensor:
        """Gives the float32 return of each id."""
        return self.low + ids.float() * self.spacing

    def values(self, device: torch.device | None = None) -> Tensor:
        """Gives the returns R of all bins."""
        return self.decode(torch.arange(self.bins, device=device))


def tilted_logits(logits_BR: Tensor, codec: ReturnCodec, kappa: float) -> Tensor:
    """Gives log p(R) + kappa * (R - Rmin) / (Rmax - Rmin): the higher kappa, the higher the return that is likely.

    Args:
        logits_BR: of the predicted return.
        codec: its bins; Rmin and Rmax are their ends.
        kappa: strength of the tilt (nats between the ends), at least 0.

    Returns:
        logits BR, not normalised.

    Source: Lee et al. 2022, expert action inference.
    """
    value_R = codec.values(logits_BR.device)
    return logits_BR.float().log_softmax(-1) + kappa * (value_R - codec.low) / (codec.high - codec.low)


def draw(logits_BN: Tensor, rng: np.random.Generator, num_draws: int = 1) -> Tensor:
    """Gives ids (B, S) drawn from the softmax of each row. Row b uses the b-th row of the generator's numbers only.

    Args:
        logits_BN: -inf where an entry must not be drawn; at least one entry of a row is finite.
        rng: source of B x S uniform numbers.
        num_draws: S.
    """
    uniform_BS = torch.from_numpy(rng.random((len(logits_BN), num_draws))).to(logits_BN.device)
    cumulative_BN = logits_BN.double().softmax(-1).cumsum(-1)
    uniform_BS = uniform_BS * cumulative_BN[:, -1:]  # the last sum may fall short of 1 by rounding
    return torch.searchsorted(cumulative_BN, uniform_BS, right=True).clamp(max=logits_BN.shape[1] - 1)


def sample_tilted_return(logits_BR: Tensor, codec: ReturnCodec, *, kappa: float, rng: np.random.Generator) -> Tensor:
    """Gives one return B for each row, drawn from the exactly tilted distribution."""
    return codec.decode(draw(tilted_logits(logits_BR, codec, kappa), rng).squeeze(1))


def sample_high_return(
    logits_BR: Tensor, codec: ReturnCodec, *, num_samples: int, temperature: float, rng: np.random.Generator
) -> Tensor:
    """Gives the highest of `num_samples` draws for each row B.

    Args:
        logits_BR: of the predicted return.
        codec: its bins.
        num_samples: draws, 128 in the source.
        temperature: factor of the logits, 0.75 in the source, which flattens.
        rng: source of randomness.

    Source: google-research/multi_game_dt, the notebook. Differs from DT-Mem's release, which takes the highest over the
    batch too, so that all environments share one return.
    """
    return codec.decode(draw(logits_BR.float() * temperature, rng, num_samples).amax(1))


def sample_top_action(logits_BA: Tensor, *, percentile: float, rng: np.random.Generator) -> Tensor:
    """Gives one action B for each row, drawn among those whose logit lies strictly above the row's percentile.

    Args:
        logits_BA: of the actions. A row of equal logits is drawn from as it is.
        percentile: in percent, 50 in the source.
        rng: source of randomness.

    Source: google-research/multi_game_dt, the notebook.
    """
    logits_BA = logits_BA.float()
    bound_B1 = torch.quantile(logits_BA, percentile / 100.0, dim=-1, keepdim=True)
    kept_BA = logits_BA > bound_B1
    kept_BA |= ~kept_BA.any(-1, keepdim=True)
    return draw(logits_BA.masked_fill(~kept_BA, MASKED), rng).squeeze(1)
