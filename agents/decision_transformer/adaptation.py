"""Fits a trained sequence model to new data: freezes it but for the chosen parameters, and adds low-rank ones.

Source: Kang et al. 2024 for LoRA on the memory's projections; the other choices are its controls (docs/dt_mem.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agents.decision_transformer.adaptation_config import AdaptationConfig
from agents.decision_transformer.adapters import BottleneckAdapter
from agents.decision_transformer.lora import add_lora, lora_layers, unmerge_
from memory.working_memory import WorkingMemory

if TYPE_CHECKING:
    from agents.decision_transformer.model import SequenceModel

INITIAL_MEMORY = ("initial_slots", "initial_tokens")
"""Last parts of the names under which memories keep what they start with (DT-Mem's slots, RMDT's tokens)."""


@dataclass(frozen=True)
class AdaptationReport:
    """What is trained of a model, and what is not.

    Attributes:
        method: of the adaptation.
        trainable: numbers that are trained.
        total: numbers of all parameters, additions included.
        trainable_names: of the parameters that are trained.
        frozen_names: of all others.
    """

    method: str
    trainable: int
    total: int
    trainable_names: tuple[str, ...]
    frozen_names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method}: {self.trainable:,} of {self.total:,} parameters are trained"


def apply_adaptation(
    model: SequenceModel, config: AdaptationConfig, *, generator: torch.Generator | None = None
) -> AdaptationReport:
    """Makes the parameters that a config chooses trainable, and no others, in place.

    Args:
        model: whose `memory`, `backbone` and `heads` are told apart.
        config: what to train.
        generator: of added weights. Default: torch's global one.

    Returns:
        what is trained, by name and number.

    Raises:
        ValueError: if the model lacks what is to be trained.
    """
    whole = config.method in ("full", "scratch")
    model.requires_grad_(whole)
    if config.method == "lora":
        _add_lora(model, config, generator)
    elif not whole:
        _thaw(_part(model, config.method), f"method={config.method}")
    if config.also_initial_slots:
        _thaw(_part(model, "initial_slots"), "also_initial_slots=true")
    if config.also_heads:
        _thaw(_part(model, "heads"), "also_heads=true")
    return adaptation_report(model, config.method)


def adaptation_report(model: nn.Module, method: str) -> AdaptationReport:
    """Counts what is trained of a model. Raises ValueError if nothing is."""
    named = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    if not trained:
        raise ValueError(f"method={method} trains none of the model's {len(named)} parameters")
    return AdaptationReport(
        method=method,
        trainable=sum(parameter.numel() for parameter in trained.values()),
        total=sum(parameter.numel() for parameter in named.values()),
        trainable_names=tuple(trained),
        frozen_names=tuple(name for name in named if name not in trained),
    )


@torch.no_grad()
def load_base_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies the weights of a model from before its adaptation into the adapted one.

    Low-rank additions and bottleneck adapters stay as they are where the base has none. A base that was adapted alike
    brings its own.

    Args:
        model: adapted.
        weights: parameters and buffers by their names in the base. A layer's `name.weight` finds its way to
            `name.base.weight`.

    Raises:
        ValueError: if a tensor is missing, unknown or of another shape. Nothing is changed then.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    adapted = {f"{name}.{part}" for name in lora_layers(model) for part in ("weight", "bias")}
    given = {_under_base(name) if name in adapted else name: tensor for name, tensor in weights.items()}
    added = set(_added_names(model))
    if missing := sorted(own.keys() - given.keys() - added):
        raise ValueError(f"the base lacks {', '.join(missing)}")
    if unknown := sorted(given.keys() - own.keys()):
        raise ValueError(f"the base holds {', '.join(unknown)}, which this model has not")
    for name, tensor in given.items():
        if own[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} in the base: expected {tuple(own[name].shape)}")
    unmerge_(model)
    for name, tensor in given.items():
        own[name].copy_(tensor)


def _under_base(name: str) -> str:
    """Gives the name of an adapted layer's own weight or bias."""
    layer, _, part = name.rpartition(".")
    return f"{layer}.base.{part}"


def _added_names(model: nn.Module) -> Iterator[str]:
    """Gives the names of what a base need not have."""
    for name in lora_layers(model):
        yield from (f"{name}.lora_a", f"{name}.lora_b")
    for name, module in model.named_modules():
        if isinstance(module, BottleneckAdapter):
            yield from (f"{name}.{part}" for part in module.state_dict())


def _add_lora(model: SequenceModel, config: AdaptationConfig, generator: torch.Generator | None) -> None:
    """Adapts the linear layers of the memory's cells, of the blocks, or of both."""
    cells = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, WorkingMemory))
    bottlenecks = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BottleneckAdapter))
    if config.where != "transformer" and not cells:
        raise ValueError(f"where={config.where}: this model has no slot memory to adapt")

    def selected(name: str, _: nn.Linear) -> bool:
        if name.startswith(cells):
            return config.where != "transformer"
        return config.where != "memory" and name.startswith("backbone.") and not name.startswith(bottlenecks)

    add_lora(model, selected, config.rank, config.alpha, generator=generator)


def _part(model: SequenceModel, part: str) -> list[nn.Parameter]:
    """Gives the parameters of the heads, the initial memory, or the bottleneck adapters."""
    if part == "heads":
        return list(model.heads.parameters())
    if part == "initial_slots":
        return [tensor for name, tensor in model.named_parameters() if name.rpartition(".")[2] in INITIAL_MEMORY]
    modules = [module for module in model.modules() if isinstance(module, BottleneckAdapter)]
    return [parameter for module in modules for parameter in module.parameters()]


def _thaw(parameters: list[nn.Parameter], asked: str) -> None:
    """Makes parameters trainable. Raises ValueError if there are none."""
    if not parameters:
        reason = "bottleneck adapters: set agent.adapter" if asked == "method=adapters" else "memory"
        raise ValueError(f"{asked}: this model has no {reason}")
    for parameter in parameters:
        parameter.requires_grad_(True)
