"""Masks of one layer from scores of its weights: exact counts, and ties that always fall the same way.

Masks are float tensors of zeros and ones (1: kept), so that applying them is one multiplication.
"""

from __future__ import annotations

import torch
from torch import Tensor


def top_mask(scores: Tensor, num_kept: int) -> Tensor:
    """Marks the highest scores.

    Args:
        scores: of any shape, not NaN.
        num_kept: how many, in [1, scores.numel()].

    Returns:
        a bool tensor of the same shape with exactly `num_kept` True. Of equal scores at the threshold, those with the
        lower flat index (row-major) are taken.

    Raises:
        ValueError: if the number is out of range.

    Source: JaxPruner, mask_calculator.py, topk_mask_calculator.
    """
    size = scores.numel()
    if not 1 <= num_kept <= size:
        raise ValueError(f"num_kept={num_kept}: must be in [1, {size}]")
    if num_kept == size:
        return torch.ones_like(scores, dtype=torch.bool)
    flat = scores.reshape(-1)
    threshold = _nth_largest(flat, num_kept)
    kept = flat >= threshold
    if int(kept.sum()) > num_kept:
        above, tied = flat > threshold, flat == threshold
        kept = above | (tied & (tied.cumsum(0) <= num_kept - above.sum()))
    return kept.view(scores.shape)


def _nth_largest(scores: Tensor, n: int) -> Tensor:
    """Gives the n-th largest score, found among the positive ones where they are enough: masked weights score zero."""
    positive = scores[scores > 0]
    candidates = positive if len(positive) >= n else scores
    return candidates.kthvalue(len(candidates) - n + 1).values


def replaced_mask(kept: Tensor, weight: Tensor, growth_scores: Tensor, drop_fraction: float) -> Tensor:
    """Drops the smallest kept weights and grows as many others: one topology update of SET and RigL.

    A weight that was just dropped may grow back at once, with the value it had.

    Args:
        kept: bool mask before.
        weight: of the same shape.
        growth_scores: the highest grow.
        drop_fraction: share of the kept weights to drop.

    Returns:
        a bool mask with as many True as `kept`.

    Source: Evci et al. 2020, algorithm 1; JaxPruner, sparse_trainers.py, SET._update_masks.
    """
    num_kept = int(kept.sum())
    survivors = top_mask(torch.where(kept, weight.abs(), -1.0), max(1, round(num_kept * (1.0 - drop_fraction))))
    return top_mask(torch.where(survivors, torch.inf, growth_scores), num_kept)
