"""Sums over the processes that train one model together, under `torch.distributed`; the identity where there is one.

Every process holds the same weights and a slice of each batch's rows. Losses are divided by the number of valid steps
of all processes, and gradients summed, so that the step is that of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor


def num_processes() -> int:
    """Gives how many processes train together."""
    return torch.distributed.get_world_size() if _together() else 1


def process_rank() -> int:
    """Gives the place of this process among them."""
    return torch.distributed.get_rank() if _together() else 0


def summed(tensor: Tensor) -> Tensor:
    """Gives the sum of a tensor over all processes. Carries no gradient; each of them must call it."""
    if not _together():
        return tensor
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replaces gradients by their sums over all processes, in one exchange. Each of them must call it."""
    if not _together():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    totals = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, total in zip(gradients, totals, strict=True):
        gradient.copy_(total.view_as(gradient))


def gathered_rows(tensor: Tensor) -> Tensor:
    """Gives the rows of all processes in the order of their ranks. Each of them must call it with as many rows."""
    if not _together():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(num_processes())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def own_rows(tensor: Tensor) -> Tensor:
    """Gives this process's share of what `gathered_rows` gave."""
    return tensor.chunk(num_processes())[process_rank()]


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
