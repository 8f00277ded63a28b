"""Masks on the weights of torch optimizers: what makes any agent train sparsely without knowing it.

A hook before each optimizer step updates the masks when that is due, from the weights before the step; a hook after it
multiplies the weights by their masks. Adam sees the same parameters and moments as ever, a target network gets zeros
at its next copy, and nothing is left to do at acting time.

Sources: Obando-Ceron et al. 2024; JaxPruner, base_updater.py at f133ee5. Deviations: docs/pruning.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tianshou.algorithm.algorithm_base import LaggedNetworkAlgorithmMixin
from torch import Tensor, nn

from agents.pruning.config import PruningConfig
from agents.pruning.distribution import DISTRIBUTIONS
from agents.pruning.layers import Layer, readable_names
from agents.pruning.methods import METHODS, Method
from agents.pruning.schedule import MaskSchedule

if TYPE_CHECKING:
    from agents.interface import Agent


class PrunedOptimizer:
    """The masks of one optimizer's weights, with a count of its steps.

    Args:
        optimizer: hooked for good.
        layers: its pruned weights, at least one.
        method: decides on masks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, layers: list[Layer], method: Method) -> None:
        self.optimizer = optimizer
        self.layers = layers
        self.method = method
        self.num_steps = 0
        self.masks: list[Tensor] = [layer.mask for layer in layers]
        self.weights: list[Tensor] = [layer.weight for layer in layers]
        self._held: list[tuple[nn.Parameter, Tensor]] = []
        self._is_recorded = False
        method.initialize(layers)
        self.apply()
        optimizer.register_step_pre_hook(lambda *_: self._before_step())
        optimizer.register_step_post_hook(lambda *_: self._after_step())

    @property
    def is_sparse(self) -> bool:
        """Whether any weight is masked; nothing is multiplied until then."""
        return any(layer.num_kept < layer.size for layer in self.layers)

    def prepare_step(self) -> bool:
        """Updates the masks in place if that is due, and says whether it was.

        The hook does this by itself. Whoever replays a captured CUDA graph, where no hook runs, calls it before each
        replay and `count_step` after it; what the graph captured stays valid.
        """
        return self.method.update(self.layers, self.optimizer, self.num_steps)

    def count_step(self) -> None:
        """Counts a step; the hook does this by itself, but for replayed CUDA graphs (see `prepare_step`)."""
        self.num_steps += 1

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, the hooks only multiply: a step taken here is one that can be replayed (see `prepare_step`)."""
        self._is_recorded = True
        try:
            yield
        finally:
            self._is_recorded = False

    def _before_step(self) -> None:
        updated = False if self._is_captured() else self.prepare_step()
        if self.method.masks_gradients:
            for layer in self.layers:
                if layer.weight.grad is not None:
                    layer.weight.grad.mul_(layer.mask)
        if updated and self.method.skips_steps:
            self._hold_gradients()

    @torch.no_grad()
    def _after_step(self) -> None:
        if self._is_captured():  # recorded even while every mask is ones
            torch._foreach_mul_(self.weights, self.masks)
            return
        self.apply()
        for parameter, gradient in self._held:
            parameter.grad = gradient
        self._held.clear()
        self.count_step()

    def _is_captured(self) -> bool:
        return self._is_recorded or (self.weights[0].is_cuda and torch.cuda.is_current_stream_capturing())

    @torch.no_grad()
    def apply(self) -> None:
        """Sets the masked weights to zero."""
        if self.is_sparse:
            torch._foreach_mul_(self.weights, self.masks)

    def _hold_gradients(self) -> None:
        """Hides every gradient until after the step, which then moves nothing: parameters, moments, step counts."""
        for parameter in chain.from_iterable(group["params"] for group in self.optimizer.param_groups):
            if parameter.grad is not None:
                self._held.append((parameter, parameter.grad))
                parameter.grad = None


class Pruner:
    """All pruned optimizers of an agent.

    Each optimizer counts its own steps, and its weights as a whole have the sparsity asked for: the actor and the
    critics of SAC each, actor and critic of PPO together.

    Args:
        config: what to do.
        optimizers: of the agent, in its own order; those without a weight to prune are left alone.
        names: of the parameters.
        total_gradient_steps: length of the run, in steps of each optimizer.
        seed: of random masks and random growth.

    Raises:
        ValueError: if no weight is left to prune, or a pattern matches none.
    """

    def __init__(
        self,
        config: PruningConfig,
        optimizers: list[torch.optim.Optimizer],
        names: Mapping[str, nn.Parameter],
        *,
        total_gradient_steps: int,
        seed: np.random.SeedSequence,
    ) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        schedule = None
        if config.start is not None and config.end is not None and config.update_period is not None:
            schedule = MaskSchedule.of_run(total_gradient_steps, config.start, config.end, config.update_period)
        owned = [{id(parameter) for group in each.param_groups for parameter in group["params"]} for each in optimizers]
        trained = {name: parameter for name, parameter in names.items() if any(id(parameter) in own for own in owned)}
        chosen = _chosen(config, readable_names(trained))
        self.optimizers: list[PrunedOptimizer] = []
        for optimizer, own in zip(optimizers, owned, strict=True):
            weights = {name: weight for name, weight in chosen.items() if id(weight) in own}
            if not weights:
                continue
            shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
            sparsities = DISTRIBUTIONS[config.distribution](shapes, config.sparsity)
            layers = [Layer(name, weight, sparsities[name]) for name, weight in weights.items()]
            method = METHODS[config.method](schedule, config.drop_fraction, self.generator)
            self.optimizers.append(PrunedOptimizer(optimizer, layers, method))

    @property
    def layers(self) -> list[Layer]:
        """Every pruned weight, once."""
        return [layer for optimizer in self.optimizers for layer in optimizer.layers]

    def apply(self) -> None:
        """Sets the masked weights to zero: after weights were loaded that these masks did not shape."""
        for optimizer in self.optimizers:
            optimizer.apply()

    def metrics(self) -> dict[str, float]:
        """Gives the share of masked weights of each layer, and of all of them together. Reads no device memory."""
        layers = self.layers
        total = 1.0 - sum(layer.num_kept for layer in layers) / sum(layer.size for layer in layers)
        return {"sparsity/total": total, **{f"sparsity/{layer.name}": layer.sparsity for layer in layers}}

    # State

    def tensors(self) -> dict[str, Any]:
        """Gives the masks by layer (bool) and the generator's state: copies."""
        return {
            "masks": {layer.name: layer.mask.bool() for layer in self.layers},
            "generator": self.generator.get_state(),
        }

    def counters(self) -> dict[str, Any]:
        """Gives the steps of each optimizer, as JSON."""
        return {"num_steps": [optimizer.num_steps for optimizer in self.optimizers]}

    def load(self, tensors: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `tensors` and `counters` gave, and applies the masks. Neither argument is changed.

        Raises:
            ValueError: if the masks are of other layers.
        """
        masks, layers = tensors["masks"], self.layers
        names = [layer.name for layer in layers]
        if masks.keys() != set(names):
            raise ValueError(f"the state holds masks of {', '.join(masks)}; this agent prunes {', '.join(names)}")
        for layer in layers:
            layer.set_mask(masks[layer.name])
        self.generator.set_state(tensors["generator"].cpu())
        for optimizer, num_steps in zip(self.optimizers, counters["num_steps"], strict=True):
            optimizer.num_steps = num_steps
        self.apply()


def attach(config: PruningConfig, agent: Agent, *, total_gradient_steps: int, seed: np.random.SeedSequence) -> Pruner:
    """Makes an agent train sparsely; see `PruningConfig.attach`."""
    if agent.pruner is not None:
        raise ValueError(f"this {type(agent).__name__} is pruned already")
    algorithm = agent.algorithm
    agent.pruner = Pruner(
        config,
        agent._optimizers(),
        dict(algorithm.named_parameters()),
        total_gradient_steps=total_gradient_steps,
        seed=seed,
    )
    if any(optimizer.is_sparse for optimizer in agent.pruner.optimizers) and isinstance(
        algorithm, LaggedNetworkAlgorithmMixin
    ):
        algorithm._lagged_networks.full_parameter_update()  # targets start as copies of the sparse networks
    return agent.pruner


def _chosen(config: PruningConfig, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Gives the weights that the patterns choose, among those of two or more dimensions."""
    able = {name: parameter for name, parameter in parameters.items() if parameter.ndim > 1}
    for field, pattern in _patterns(config):
        if not any(fnmatchcase(name, pattern) for name in able):
            raise ValueError(f"pruning.{field}={pattern!r} matches no layer; there are {', '.join(able) or 'none'}")
    chosen = {
        name: parameter
        for name, parameter in able.items()
        if any(fnmatchcase(name, pattern) for pattern in config.include)
        and not any(fnmatchcase(name, pattern) for pattern in config.exclude)
    }
    if not chosen:
        raise ValueError(f"pruning.exclude={list(config.exclude)} leaves no layer to prune of {', '.join(able)}")
    return chosen


def _patterns(config: PruningConfig) -> Iterator[tuple[str, str]]:
    yield from (("include", pattern) for pattern in config.include)
    yield from (("exclude", pattern) for pattern in config.exclude)
