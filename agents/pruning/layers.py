"""One pruned weight with its mask, and the names under which people meet it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agents.pruning.distribution import num_kept

_WRAPPERS = {"policy", "model", "body"}
"""Parts of a parameter's name that say only how networks are nested."""


class Layer:
    """A weight and its mask.

    Args:
        name: readable.
        weight: of two or more dimensions.
        final_sparsity: share of zeros in the end; 0 leaves the layer dense.

    Attributes:
        mask: float, 1 where the weight is kept, in the weight's own memory layout; only ever written in place.
        num_kept: ones in the mask, known without reading it.
    """

    def __init__(self, name: str, weight: nn.Parameter, final_sparsity: float) -> None:
        self.name = name
        self.weight = weight
        self.final_sparsity = final_sparsity
        self.size = weight.numel()
        self.mask = torch.ones_like(weight, requires_grad=False)
        self.num_kept = self.size

    @property
    def sparsity(self) -> float:
        """Share of masked weights, now."""
        return 1.0 - self.num_kept / self.size

    def num_due(self, progress: float) -> int:
        """Gives how many weights stay once `progress` (0 to 1) of the layer's final sparsity is due; all if none is."""
        sparsity = self.final_sparsity * progress
        return num_kept(self.size, sparsity) if sparsity else self.size

    def set_mask(self, kept: Tensor) -> None:
        """Writes a bool mask of the weight's shape."""
        self.mask.copy_(kept)
        self.num_kept = int(kept.sum())


def readable_names(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Names parameters as people do: `policy.model.body.layers.hidden.weight` is `layers.hidden`.

    Where two would get the same name, all keep their full ones.
    """
    short = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in parameters}
    short = {name: text.removesuffix(".weight") for name, text in short.items()}
    if len(set(short.values())) < len(short):
        return dict(parameters)
    return {short[name]: parameter for name, parameter in parameters.items()}
