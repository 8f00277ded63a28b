"""Low-rank adaptation: a frozen linear layer plus a trained product of two thin matrices, W + (alpha / rank) B A.

Layers are replaced in place. A replaced layer offers the sum as `weight`, so that code which multiplies by the weight
itself, as the working memory and torch's fused attention do, is adapted too.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", sections 4.1 and 4.2.

Legend: I inputs, O outputs, R rank, P parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Select = Callable[[str, nn.Linear], bool]
"""From a layer's name in its model and the layer to whether it is adapted."""
FUSED = {"qkv": 3}
"""Layers that are several projections in one, by the last part of their name: each projection is adapted on its own."""


class LoRALinear(nn.Module):
    """A linear layer whose own weight stays as it is.

    Training mode unmerges: what was merged is a copy, and would not learn.

    Args:
        base: the layer; its parameters are frozen.
        rank: R of each part, at least 1.
        alpha: the addition counts alpha / rank times.
        num_parts: P, into how many projections of their own the outputs fall: 3 for queries, keys and values in one.
        generator: of the initial weights. Default: torch's global one.

    Attributes:
        lora_a: (P R, I).
        lora_b: (O, R).

    Raises:
        ValueError: if the rank is below 1, or the parts do not divide the outputs.
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        *,
        num_parts: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank}: must be at least 1")
        if num_parts < 1 or base.out_features % num_parts:
            raise ValueError(f"num_parts={num_parts}: must divide the layer's {base.out_features} outputs")
        self.base = base.requires_grad_(False)
        self.rank, self.num_parts, self.scale = rank, num_parts, alpha / rank
        self.lora_a = nn.Parameter(base.weight.new_empty(num_parts * rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        reset_adapter_(self.lora_a, self.lora_b, generator)
        self._merged_OI: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """W + (alpha / rank) B A, (O, I); carries gradient to A and B unless merged."""
        if self._merged_OI is not None:
            return self._merged_OI
        a_PRI = self.lora_a.view(self.num_parts, self.rank, -1)
        b_POR = self.lora_b.view(self.num_parts, -1, self.rank)
        return self.base.weight + self.scale * (b_POR @ a_PRI).flatten(0, 1)

    @property
    def bias(self) -> nn.Parameter | None:
        """That of the frozen layer."""
        return self.base.bias

    @property
    def in_features(self) -> int:
        """I."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """O."""
        return self.base.out_features

    @property
    def is_merged(self) -> bool:
        """Whether one matrix is multiplied by instead of three."""
        return self._merged_OI is not None

    @torch.no_grad()
    def merge_(self) -> None:
        """Computes the sum once, for acting, and sets the mode to evaluation.

        W, A and B stay, so that unmerging gives back every bit. Who changes them in place unmerges first; loading a
        state dict and training mode do so by themselves.
        """
        self.eval()
        self._merged_OI = None
        self._merged_OI = self.weight

    def unmerge_(self) -> None:
        """Computes with W, A and B again."""
        self._merged_OI = None

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as torch does; unmerges for training."""
        if mode:
            self.unmerge_()
        return super().train(mode)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """Gives a plain layer with the sum as its weight."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None).to(self.base.weight)
        layer.weight.copy_(self.weight)
        if self.bias is not None:
            layer.bias.copy_(self.bias)
        return layer.train(self.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Gives a tensor with O in place of I as its last axis."""
        if self._merged_OI is not None:
            return F.linear(inputs, self._merged_OI, self.bias)
        low = F.linear(inputs, self.lora_a).chunk(self.num_parts, -1)
        parts = [F.linear(part, b_OR) for part, b_OR in zip(low, self.lora_b.chunk(self.num_parts), strict=True)]
        added: Tensor = self.scale * (parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        return self.base(inputs) + added

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or converts as torch does, what is merged too."""
        if self._merged_OI is not None:
            self._merged_OI = fn(self._merged_OI)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: object) -> None:
        """Loads as torch does; what was merged from the weights before is dropped."""
        self.unmerge_()
        super()._load_from_state_dict(*args)


def reset_adapter_(lora_a: Tensor, lora_b: Tensor, generator: torch.Generator | None = None) -> None:
    """Draws A as torch draws the weight of `nn.Linear` (Kaiming-uniform), and sets B to zero: the sum is W again."""
    nn.init.kaiming_uniform_(lora_a, a=math.sqrt(5), generator=generator)
    nn.init.zeros_(lora_b)


def lora_layers(module: nn.Module) -> dict[str, LoRALinear]:
    """Gives the adapted layers of a model by their names."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoRALinear)}


def add_lora(
    module: nn.Module, select: Select, rank: int, alpha: float, *, generator: torch.Generator | None = None
) -> list[nn.Parameter]:
    """Puts adapters on the selected linear layers of a model, in place.

    A layer called `name` becomes `name.base` with `name.lora_a` and `name.lora_b` beside it: load weights from before
    the adaptation first. Only the selected layers are frozen.

    Args:
        module: the model, not itself a linear layer.
        select: whether the `nn.Linear` of a name is adapted. Layers that are adapted already are not asked for.
        rank: R.
        alpha: scale times rank.
        generator: of the initial weights.

    Returns:
        the new parameters, exactly those that are to be trained: rank * (parts * inputs + outputs) numbers a layer,
        with one part except for those that `FUSED` lists.

    Raises:
        ValueError: if nothing is selected, or the rank is below 1.
    """
    linear = dict(_plain_linear(module))
    chosen = {name: layer for name, layer in linear.items() if select(name, layer)}
    if not chosen:
        raise ValueError(f"no linear layer is selected for adaptation; the model has {sorted(linear) or 'none'}")
    adapted = {
        name: LoRALinear(layer, rank, alpha, num_parts=FUSED.get(name.rpartition(".")[2], 1), generator=generator)
        for name, layer in chosen.items()
    }
    for name, layer in adapted.items():
        _replace(module, name, layer)
    return [parameter for layer in adapted.values() for parameter in (layer.lora_a, layer.lora_b)]


def merge_(module: nn.Module) -> None:
    """Merges all adapters of a model for acting, and sets their mode to evaluation."""
    for layer in lora_layers(module).values():
        layer.merge_()


def unmerge_(module: nn.Module) -> None:
    """Takes `merge_` back, to the bit."""
    for layer in lora_layers(module).values():
        layer.unmerge_()


def fold_(module: nn.Module) -> None:
    """Turns adapted layers into plain ones for good, under the names from before the adaptation.

    Zeros that pruning left in a weight do not survive: the addition is dense.
    """
    for name, layer in lora_layers(module).items():
        _replace(module, name, layer.folded())


def _plain_linear(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Linear]]:
    """Gives the linear layers below a model which are not adapted yet, with their names."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            yield f"{prefix}{name}", child
        elif not isinstance(child, LoRALinear):
            yield from _plain_linear(child, f"{prefix}{name}.")


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a layer in the place of that name."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
