"""The units of a value network that can be told apart: one layer gives them, and one kind of layer reads them.

Legend: U units of a layer, B states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from agents.heads import NoisyLinear
from agents.networks import ImpalaStack
from agents.value_based.q_networks import QNetwork

STATES_PER_FORWARD = 32
WEIGHTED = (nn.Linear, nn.Conv2d, NoisyLinear)


@dataclass(frozen=True)
class UnitLayer:
    """Units (channels of a convolution, or entries of a vector) between two layers.

    Attributes:
        incoming: names of the modules that make the units, a layer and the norm behind it: the first axis of each of
            their parameters counts the units.
        activation: name of the module whose output is a unit's activity.
        outgoing: names of the layers that read the units and nothing else; the second axis of their weights counts
            them, once per position where images were flattened.
    """

    incoming: tuple[str, ...]
    activation: str
    outgoing: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in metrics."""
        return self.incoming[0].removeprefix("body.")


def unit_layers(network: QNetwork) -> list[UnitLayer]:
    """Gives the layers of units, from the observation to the head.

    In a residual stack these are the units inside each block. Those that are added up along the stack have several
    sources and readers, and are left out, as in Dopamine, labs/redo/weight_recyclers.py (network='resnet').
    """
    found: list[UnitLayer] = []
    incoming: tuple[str, ...] = ()
    activation = ""
    for name, module in _in_order(network):
        if isinstance(module, WEIGHTED):
            if incoming and activation:
                found.append(UnitLayer(incoming, activation, (name,)))
            incoming, activation = (name,), ""
        elif isinstance(module, nn.LayerNorm) and incoming and not activation:
            incoming = (*incoming, name)
        elif isinstance(module, nn.ReLU | nn.Tanh):
            activation = name
        elif isinstance(module, ImpalaStack):
            incoming, activation = (), ""
            found += [_inside(f"{name}.{block}", getattr(module, block)) for block in ("block1", "block2")]
    if incoming and activation:
        found.append(UnitLayer(incoming, activation, head_layers(network)))
    return found


def head_layers(network: QNetwork) -> tuple[str, ...]:
    """Gives the names of the layers that read the features: one, or those of value and advantage."""
    return tuple(
        name
        for name, module in network.named_modules()
        if name.split(".")[0] == "head" and isinstance(module, WEIGHTED)
    )


@torch.inference_mode()
def activity(network: QNetwork, layers: Sequence[UnitLayer], obs: np.ndarray) -> list[Tensor]:
    """Gives the mean absolute activation U of every layer's units over states and positions.

    Args:
        network: is only run, on a few states at a time.
        layers: of it.
        obs: B... states.
    """
    sums: dict[str, Tensor] = {}
    share = 0.0

    def adder(name: str) -> Callable[..., None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            mean_U = output.float().abs().mean(dim=[axis for axis in range(output.ndim) if axis != 1])
            sums[name] = sums.get(name, torch.zeros_like(mean_U)) + mean_U * share

        return add

    modules = dict(network.named_modules())
    hooks = [modules[layer.activation].register_forward_hook(adder(layer.activation)) for layer in layers]
    try:
        for start in range(0, len(obs), STATES_PER_FORWARD):
            chunk = obs[start : start + STATES_PER_FORWARD]
            share = len(chunk) / len(obs)
            network(chunk)
    finally:
        for hook in hooks:
            hook.remove()
    return [sums[layer.activation] for layer in layers]


def _in_order(network: QNetwork) -> Iterator[tuple[str, nn.Module]]:
    """Gives the parts of the body, and of what an implicit network puts behind it, in the order of the forward."""
    yield from ((f"body.layers.{name}", module) for name, module in network.body.layers.named_children())
    behind = getattr(network, "hidden", None)
    if isinstance(behind, nn.Module):
        yield from ((f"hidden.{name}", module) for name, module in behind.named_children())


def _inside(name: str, block: nn.Module) -> UnitLayer:
    norm = (f"{name}.norm2",) if isinstance(block.norm2, nn.LayerNorm) else ()
    return UnitLayer((f"{name}.conv1", *norm), f"{name}.relu2", (f"{name}.conv2",))
