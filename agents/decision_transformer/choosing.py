"""From what the model says at the newest step to the return that is asked for and the action that is taken.

With a generator both are drawn; without one (greedy play) each has a fixed answer, so that an evaluation does not
depend on how many environments run side by side.

Legend: N environments, R bins of the return, A actions (or dimensions of one), M memory slots, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from agents.decision_transformer.part_configs import InferredTargetConfig
from agents.decision_transformer.returns import (
    ReturnCodec,
    draw,
    sample_high_return,
    sample_tilted_return,
    sample_top_action,
    tilted_logits,
)

NOOP = 0


def inferred_return(
    logits_NR: Tensor, codec: ReturnCodec, target: InferredTargetConfig, rng: np.random.Generator | None
) -> Tensor:
    """Gives the return N to ask for, from its predicted distribution.

    Args:
        logits_NR: predicted at the newest step, before it is asked for one.
        codec: bins of the return.
        target: how it is inferred.
        rng: draws as `target` says. None: the mode of the tilted distribution, or the median of the highest draw.
    Source: Lee et al. 2022, section 3.4; google-research/multi_game_dt. The answers without a generator: of our own.
    """
    if target.method == "tilt":
        if rng is None:
            return codec.decode(tilted_logits(logits_NR, codec, target.kappa).argmax(-1))
        return sample_tilted_return(logits_NR, codec, kappa=target.kappa, rng=rng)
    if rng is None:
        return median_of_highest(logits_NR.float() * target.return_temperature, codec, target.num_samples)
    return sample_high_return(
        logits_NR, codec, num_samples=target.num_samples, temperature=target.return_temperature, rng=rng
    )


def median_of_highest(logits_NR: Tensor, codec: ReturnCodec, num_samples: int) -> Tensor:
    """Gives the median N of the highest of `num_samples` draws: the lowest bin with F(R)^num_samples >= 1/2."""
    cumulative_NR = logits_NR.double().softmax(-1).cumsum(-1)
    reached_NR = cumulative_NR / cumulative_NR[:, -1:] >= 0.5 ** (1.0 / num_samples)
    return codec.decode(reached_NR.to(torch.uint8).argmax(-1))


def chosen_action(
    output_NA: Tensor, allowed_NA: Tensor | None, percentile: float | None, rng: np.random.Generator | None
) -> Tensor:
    """Gives actions as they are stored: indices N, or vectors NA in [-1, 1].

    Args:
        output_NA: logits, or the means of a continuous policy.
        allowed_NA: which indices the task has; others become NOOP, index 0. None: actions are continuous.
        percentile: indices are drawn among those with logits above it (percent); None: among all.
        rng: draws indices. None: the most probable.
    Source: google-research/multi_game_dt for percentile and NOOP.
    """
    if allowed_NA is None:
        return output_NA.float()
    if rng is None:
        action_N = output_NA.argmax(-1)
    elif percentile is None:
        action_N = draw(output_NA.float(), rng).squeeze(1)
    else:
        action_N = sample_top_action(output_NA, percentile=percentile, rng=rng)
    allowed_N = allowed_NA.gather(1, action_N.unsqueeze(1)).squeeze(1)
    return torch.where(allowed_N, action_N, NOOP)


def shuffled_rows(memory_NMD: Tensor, rng: np.random.Generator) -> Tensor:
    """Gives every row the memory of another one, each memory to one row; all such orders in one cycle are as likely.

    Raises:
        ValueError: if there is only one row.
    """
    num_rows = len(memory_NMD)
    if num_rows < 2:
        raise ValueError("acting.memory_use=shuffled needs at least 2 environments side by side, got 1")
    order_N = torch.from_numpy(rng.permutation(num_rows)).to(memory_NMD.device)
    shuffled = torch.empty_like(memory_NMD)
    shuffled[order_N] = memory_NMD[order_N.roll(1)]
    return shuffled
