"""How masks come about: gradual magnitude pruning, static random sparsity, SET, RigL. All but the first start sparse.

Sources: Obando-Ceron et al. 2024; Mocanu et al. 2018 (SET); Evci et al. 2020 (RigL); JaxPruner, pruners.py and
sparse_trainers.py at f133ee5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from agents.pruning.layers import Layer
from agents.pruning.masks import replaced_mask, top_mask
from agents.pruning.schedule import MaskSchedule, cosine_drop_fraction, cubic_sparsity


class Method:
    """Static random sparsity, and what the other methods change about it.

    Args:
        schedule: of mask updates; None where masks never change.
        drop_fraction: share of weights replaced at first; None where none are.
        generator: of random masks, on the CPU.

    Attributes:
        masks_gradients: whether Adam sees no gradient of masked weights, so that moments fade where nothing grows.
        skips_steps: whether the optimizer step that follows a mask update moves nothing.
    """

    masks_gradients: ClassVar[bool] = True
    skips_steps: ClassVar[bool] = False

    def __init__(self, schedule: MaskSchedule | None, drop_fraction: float | None, generator: torch.Generator) -> None:
        self.schedule = schedule
        self.drop_fraction = drop_fraction
        self.generator = generator

    def initialize(self, layers: Sequence[Layer]) -> None:
        """Sets the masks a run starts with: random ones of the final sparsity."""
        for layer in layers:
            if layer.final_sparsity:
                layer.set_mask(top_mask(self._random_scores(layer), layer.num_due(1.0)))

    def update(self, layers: Sequence[Layer], optimizer: torch.optim.Optimizer, step: int) -> bool:
        """Changes the masks if that is due before the gradient step that follows `step` others; says whether it was."""
        if self.schedule is None or not self.schedule.is_due(step):
            return False
        with torch.no_grad():
            for layer in layers:
                self._update_layer(layer, optimizer, step, self.schedule)
        return True

    def _update_layer(self, layer: Layer, optimizer: torch.optim.Optimizer, step: int, schedule: MaskSchedule) -> None:
        """Changes one mask; static ones stay."""

    def _random_scores(self, layer: Layer) -> Tensor:
        return torch.rand(layer.weight.shape, generator=self.generator).to(layer.weight.device)


class GradualMagnitude(Method):
    """Removes the smallest weights of each layer, as many as the cubic schedule says. Adam is left untouched."""

    masks_gradients = False

    def initialize(self, layers: Sequence[Layer]) -> None:
        """Leaves the network dense."""

    def _update_layer(self, layer: Layer, optimizer: torch.optim.Optimizer, step: int, schedule: MaskSchedule) -> None:
        num_kept = layer.num_due(cubic_sparsity(step, schedule.start, schedule.end, 1.0))
        if num_kept < layer.num_kept:
            layer.set_mask(top_mask(layer.weight.abs(), num_kept))


class RandomRegrowth(Method):
    """SET: replaces the smallest weights of each layer by others at random, which start at zero."""

    skips_steps = True

    def _update_layer(self, layer: Layer, optimizer: torch.optim.Optimizer, step: int, schedule: MaskSchedule) -> None:
        if layer.num_kept == layer.size:
            return
        assert self.drop_fraction is not None
        drop_fraction = cosine_drop_fraction(step, schedule.end, self.drop_fraction)
        before = layer.mask.bool()
        layer.set_mask(replaced_mask(before, layer.weight, self._growth_scores(layer), drop_fraction))
        settled = layer.mask.bool() <= before  # all but those that have just grown
        for moment in optimizer.state[layer.weight].values():
            if isinstance(moment, Tensor) and moment.shape == layer.weight.shape:
                moment.mul_(settled)

    def _growth_scores(self, layer: Layer) -> Tensor:
        return self._random_scores(layer)


class GradientRegrowth(RandomRegrowth):
    """RigL: replaces the smallest weights of each layer by those with the largest gradients, which start at zero."""

    def _growth_scores(self, layer: Layer) -> Tensor:
        assert layer.weight.grad is not None
        return layer.weight.grad.abs()


METHODS: dict[str, type[Method]] = {
    "magnitude": GradualMagnitude,
    "static": Method,
    "set": RandomRegrowth,
    "rigl": GradientRegrowth,
}
"""By the name in the config."""
