"""The working memory's equations: who is addressed, what is erased and added, what is read. Functions of arrays.

A memory of M slots is written with L tokens at once. All of them address the slots as they stand before the write, and
their effects are composed in the order of the tokens:

    M' = (prod_l k_l) M + sum_l (prod_{l' > l} k_l') a_l v_l

with k the share of a slot that a token keeps, a the share of the token's value v that it adds.

| here              | Kang et al. 2024                                                             |
|-------------------|------------------------------------------------------------------------------|
| score             | Q K^T / sqrt(d), with the slots' query projection moved to the tokens' side  |
| address w         | softmax of the scores, over the slots or over the tokens                     |
| strength beta     | a second score with its own projections, through a sigmoid or that softmax   |
| keep k, add a     | 1 - w (1 - beta) and w beta ("paper"); 1 - w beta and w beta ("convex")      |
| read              | sum_i w_il M_i                                                               |

Which form each ambiguity of the paper takes, and why: docs/dt_mem.md.

Legend: B rows of a batch, L tokens, G tokens of one step, H heads, M slots, D width, P width of one head (D / H).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Write = Literal["paper", "convex"]
Beta = Literal["sigmoid", "softmax"]
AddressAxis = Literal["slots", "tokens"]

MAX_ERASE = 1.0 - 1e-6
"""A token never erases a slot wholly, so that log(1 - erase) stays finite (docs/dt_mem.md)."""


def fold_query(key_HP: Tensor, query_weight_DD: Tensor) -> Tensor:
    """Moves the slots' query projection to the tokens' side: m Wq . k / sqrt(P) = m . (Wq^T k / sqrt(P)).

    Scores are then products with the slots themselves: however often the slots change in a segment, they are never
    projected, and each token is once.

    Args:
        key_HP: projected tokens, with any axes in front.
        query_weight_DD: weight of the slots' `nn.Linear`; its rows are split over the heads.

    Returns:
        folded keys HD, scaled, with the same axes in front.
    """
    num_heads, head_width = key_HP.shape[-2:]
    query_HPD = query_weight_DD.view(num_heads, head_width, -1) * head_width**-0.5
    return torch.einsum("...hp,hpd->...hd", key_HP, query_HPD)


def score(key_BLHD: Tensor, memory_BMD: Tensor) -> Tensor:
    """Gives how well each token fits each slot, BLHM. `key_BLHD` is what `fold_query` gave."""
    batch, num_tokens, num_heads, width = key_BLHD.shape
    flat = key_BLHD.reshape(batch, num_tokens * num_heads, width) @ memory_BMD.transpose(1, 2)
    return flat.view(batch, num_tokens, num_heads, -1)


def softmax_over(score_BLHM: Tensor, axis: AddressAxis, valid_BL: Tensor | None = None) -> Tensor:
    """Normalises scores: over the slots (each token's sum to 1), or over the tokens (each slot's sum to 1).

    Args:
        score_BLHM: scores.
        axis: which.
        valid_BL: bool; tokens that are not valid get nothing. Over the slots it plays no part.

    Returns:
        weights BLHM >= 0. Over the tokens and with no valid one in a row, that row's weights mean nothing.
    """
    if axis == "slots":
        return score_BLHM.softmax(-1)
    if valid_BL is not None:
        score_BLHM = score_BLHM.masked_fill(~valid_BL[:, :, None, None], torch.finfo(score_BLHM.dtype).min)
    return score_BLHM.softmax(1)


def read_address(score_BLHM: Tensor, axis: AddressAxis, num_step_tokens: int) -> Tensor:
    """Gives the address under which tokens read, BLHM: that of the write, but causal from token to token.

    Over the slots it is the softmax. Over the tokens, token g of a step is normalised over tokens 0..g of that step,
    so that nothing that comes later, in the step or in the chunk, has a say.

    Args:
        score_BLHM: scores.
        axis: what is normalised over.
        num_step_tokens: G; L must be a multiple.
    """
    if axis == "slots":
        return score_BLHM.softmax(-1)
    batch, _, num_heads, num_slots = score_BLHM.shape
    steps = score_BLHM.view(batch, -1, num_step_tokens, num_heads, num_slots)
    return (steps - steps.logcumsumexp(2)).exp().flatten(1, 2)


def write_strength(score_BLHM: Tensor, beta: Beta, axis: AddressAxis, valid_BL: Tensor | None = None) -> Tensor:
    """Gives beta BLHM in [0, 1]: the sigmoid of each score, or the softmax over the axis of the address."""
    return score_BLHM.sigmoid() if beta == "sigmoid" else softmax_over(score_BLHM, axis, valid_BL)


def write_gates(
    address_BLHM: Tensor, strength_BLHM: Tensor, write: Write, valid_BL: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gives the logarithm of what each token keeps of each slot, and the share of its value that it adds.

    Args:
        address_BLHM: w, in [0, 1].
        strength_BLHM: beta, in [0, 1].
        write: paper (keep 1 - w (1 - beta), add w beta) or convex (keep 1 - w beta, add w beta).
        valid_BL: bool; tokens that are not valid keep all and add nothing.

    Returns:
        log keep and add, both BLHM.

    Source: Kang et al. 2024, erase and add; convex: Graves et al. 2014, section 3.2, with erase and add in one.
    Differs: what is erased is at most 1 - 1e-6 of a slot.
    """
    add_BLHM = address_BLHM * strength_BLHM
    if write == "convex":
        add_BLHM = erase_BLHM = add_BLHM.clamp(max=MAX_ERASE)
    else:
        erase_BLHM = (address_BLHM * (1.0 - strength_BLHM)).clamp(max=MAX_ERASE)
    log_keep_BLHM = torch.log1p(-erase_BLHM)
    if valid_BL is None:
        return log_keep_BLHM, add_BLHM
    invalid = ~valid_BL[:, :, None, None]
    return log_keep_BLHM.masked_fill(invalid, 0.0), add_BLHM.masked_fill(invalid, 0.0)


def compose_writes(memory_BMHP: Tensor, log_keep_BLHM: Tensor, add_BLHM: Tensor, value_BLHP: Tensor) -> Tensor:
    """Writes tokens one after the other, exactly and at once: what a token adds is kept in part by those behind it.

    Args:
        memory_BMHP: slots before the write.
        log_keep_BLHM: see `write_gates`.
        add_BLHM: see `write_gates`.
        value_BLHP: what the tokens store.

    Returns:
        slots after the write, BMHP.

    Differs: the paper sums what the tokens erase, which is unstable once there are more tokens than slots
    (docs/dt_mem.md).
    """
    log_kept_BLHM = log_keep_BLHM.flip(1).cumsum(1).flip(1)  # by this token and all behind it
    log_kept_later_BLHM = F.pad(log_kept_BLHM[:, 1:], (0, 0, 0, 0, 0, 1))
    kept_BMH1 = log_kept_BLHM[:, 0].exp().transpose(1, 2).unsqueeze(-1)
    added_BMHP = torch.einsum("blhm,blhp->bmhp", add_BLHM * log_kept_later_BLHM.exp(), value_BLHP)
    return kept_BMH1 * memory_BMHP + added_BMHP


def read_slots(address_BLHM: Tensor, memory_BMHP: Tensor) -> Tensor:
    """Gives what the tokens read, BLHP: slots weighted by the address. Over the slots, a convex combination of them."""
    return torch.einsum("blhm,bmhp->blhp", address_BLHM, memory_BMHP)
