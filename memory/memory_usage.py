"""What a segment did with its working memory: how widely it read, how much it kept, which slots it touched.

Legend: B rows of a batch, L tokens, H heads, M slots, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class MemoryUsage(NamedTuple):
    """Statistics of one segment; detached.

    Attributes:
        address_entropy: how widely a read spreads over the slots, mean over valid tokens: 0 one slot, 1 all alike.
        keep_mean: share of a slot that one written token keeps, mean over valid tokens, slots and heads.
        segment_keep: share of a slot that is left of it after the whole segment, mean over rows, slots and heads.
        slot_norm: Euclidean norm of a slot after the segment, mean over rows and slots.
        slot_share_BM: how the reads of each row are spread over the slots; sums to 1, or to 0 without a valid token.
    """

    address_entropy: Tensor
    keep_mean: Tensor
    segment_keep: Tensor
    slot_norm: Tensor
    slot_share_BM: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """Gives what TensorBoard draws as curves, by name."""
        return {name: value for name, value in self._asdict().items() if name != "slot_share_BM"}


class UsageTrace(NamedTuple):
    """What one write and the reads beside it leave behind; masks are bool or None (all valid)."""

    address_BLHM: Tensor
    read_valid_BL: Tensor | None
    log_keep_BLHM: Tensor
    write_valid_BL: Tensor | None


@torch.no_grad()
def measure_usage(traces: Sequence[UsageTrace], memory_BMD: Tensor) -> MemoryUsage:
    """Sums up a segment.

    Args:
        traces: of its writes, in order.
        memory_BMD: slots after the segment.
    """
    addresses, read_masks, log_keeps, write_masks = zip(*traces, strict=True)
    address_BLHM, log_keep_BLHM = torch.cat(addresses, 1), torch.cat(log_keeps, 1)
    read_BL, written_BL = _weights(read_masks, address_BLHM), _weights(write_masks, log_keep_BLHM)
    address_BLHM = address_BLHM / address_BLHM.sum(-1, keepdim=True)
    entropy_BL = torch.special.entr(address_BLHM).sum(-1).mean(-1) / math.log(address_BLHM.shape[-1])
    share_BM = torch.einsum("blhm,bl->bm", address_BLHM, read_BL)
    return MemoryUsage(
        address_entropy=_weighted_mean(entropy_BL, read_BL),
        keep_mean=_weighted_mean(log_keep_BLHM.exp().mean((2, 3)), written_BL),
        segment_keep=log_keep_BLHM.sum(1).exp().mean(),
        slot_norm=memory_BMD.norm(dim=-1).mean(),
        slot_share_BM=share_BM / share_BM.sum(-1, keepdim=True).clamp(min=1.0),
    )


def _weights(masks: Sequence[Tensor | None], like_BLHM: Tensor) -> Tensor:
    """Gives 1 where a token counts and 0 elsewhere, BL."""
    present = [mask for mask in masks if mask is not None]
    return torch.cat(present, 1).to(like_BLHM.dtype) if present else torch.ones_like(like_BLHM[:, :, 0, 0])


def _weighted_mean(value_BL: Tensor, weight_BL: Tensor) -> Tensor:
    """Gives the mean over what counts; 0 if nothing does."""
    return (value_BL * weight_BL).sum() / weight_BL.sum().clamp(min=1.0)
