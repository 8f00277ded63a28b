"""What happens inside a value network while it learns: dormant units, rank, norms, targets, gradients, filters.

Functions of arrays come first, then `measure`, which takes them on transitions of the agent's replay. Nothing here
draws from a generator of the run, keeps a gradient or changes a weight: a run that is measured trains to the same bits.

Sources: Sokar et al. 2023 (dormant units), Kumar et al. 2021 (effective rank), Lyle et al. 2023 (gradient cosines), put
together as in Obando-Ceron et al. 2024, figures 11 and 14.

Legend: B states or transitions, U units of a layer, F features, G gradients held at once, P parameters,
O filters, I input channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from agents.interface import Agent
from memory.replay import Replay

NUM_STATES = 512
"""States behind dormant units, effective rank (which it bounds) and target variance."""
NUM_GRADIENTS = 32
"""Transitions whose gradients are compared."""
DORMANT_THRESHOLDS = (0.0, 0.025, 0.1)
"""Scores up to which a unit counts as dormant; Sokar et al. 2023 report 0 to 0.1."""
RANK_DELTA = 0.01
"""Share of the singular values' sum that the effective rank leaves out (Kumar et al. 2021)."""
STATES_PER_FORWARD = 32
GRADIENT_NUMBERS = 2**26
"""Numbers of the gradients held at once, at most (256 MiB); wide networks hold fewer and compute them again."""

NEGATIVE, POSITIVE, ZERO, SEPARATOR = (33, 102, 172), (178, 24, 43), (0, 0, 0), (150, 150, 150)
IMAGE_WIDTH = 512


@runtime_checkable
class ValueLearner(Protocol):
    """What an agent offers to have its targets and gradients measured; neither method changes the agent or the replay.

    Both take all randomness (noise, fractions, augmentation) from the generator they are given.
    """

    def sample_targets(self, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Gives the regression target B of transitions; of a distribution its mean."""

    def sample_losses(self, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Gives the unweighted loss B of transitions, with the graph back to the online parameters."""


# ---------------------------------------------------------------------- functions of arrays


def num_dormant(activity_U: Tensor, threshold: float) -> int:
    """Counts the units of a layer whose activity is at most `threshold` times the layer's mean.

    Args:
        activity_U: mean absolute activation of each unit over states and positions.
        threshold: tau; 0 counts the units that are never active.
    Source: Sokar et al. 2023, definition 3.1; Dopamine, labs/redo/weight_recyclers.py, estimate_neuron_score. Differs:
        no 1e-9 in the denominator, which only a layer without any activity sees (all its units are dormant in both).
    """
    return int((activity_U <= threshold * activity_U.mean()).sum())


def effective_rank(features_BF: Tensor, delta: float = RANK_DELTA) -> int:
    """Counts the largest singular values that make up a share of 1 - delta of their sum; 0 for a zero matrix.

    Source: Kumar et al. 2021, section 3 (srank).

    Raises:
        ValueError: if a feature is not finite.
    """
    if not features_BF.isfinite().all():
        raise ValueError("features_BF holds numbers that are not finite")
    total_K = torch.linalg.svdvals(features_BF.cpu().double()).cumsum(0)
    if total_K[-1] == 0:
        return 0
    return int((total_K < (1 - delta) * total_K[-1]).sum()) + 1


def parameter_norm(network: nn.Module) -> float:
    """Gives the L2 norm of all parameters together, biases included."""
    return float(nn.utils.get_total_norm([parameter.detach() for parameter in network.parameters()]))


def cosine_matrix(gradient: Callable[[int], Tensor], num: int, num_held: int) -> np.ndarray:
    """Gives the cosines between vectors that are too long to hold all at once.

    Args:
        gradient: gives the i-th vector P; called more than once for the same i where not all are held.
        num: of vectors.
        num_held: vectors held at once, at least 1.

    Returns:
        symmetric (num, num) float64; a vector of zeros has cosine 0 with everything.
    """
    cosines = np.zeros((num, num))
    for start in range(0, num, num_held):
        stop = min(start + num_held, num)
        first_P = _unit(gradient(start))
        held_GP = first_P.new_empty(stop - start, len(first_P))
        held_GP[0] = first_P
        for row in range(1, stop - start):
            held_GP[row] = _unit(gradient(start + row))
        cosines[start:stop, start:stop] = (held_GP @ held_GP.T).cpu().numpy()
        for index in range(stop, num):
            cosines[start:stop, index] = cosines[index, start:stop] = (held_GP @ _unit(gradient(index))).cpu().numpy()
    return cosines


def _unit(vector_P: Tensor) -> Tensor:
    norm = vector_P.norm()
    return vector_P / norm if norm > 0 else vector_P


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """Gives the entries of a square matrix that are not on its diagonal, as a vector."""
    return matrix[~np.eye(len(matrix), dtype=bool)]


def filter_image(weight_OIHW: np.ndarray) -> np.ndarray:
    """Draws convolution filters as a heat map: blue below zero, white near it, red above, black for exact zeros.

    Args:
        weight_OIHW: filters; each becomes a tile with its input channels side by side. Colours are scaled to the
            largest absolute weight.

    Returns:
        uint8 RGB image, height x width x 3.
    """
    num_filters, num_inputs, height, width = weight_OIHW.shape
    strength = weight_OIHW / (np.abs(weight_OIHW).max() or 1.0)
    end = np.where(strength[..., None] < 0, np.array(NEGATIVE), np.array(POSITIVE))
    colour = 255 + np.abs(strength)[..., None] * (end - 255)
    colour[weight_OIHW == 0] = ZERO
    tiles = colour.transpose(0, 2, 1, 3, 4).reshape(num_filters, height, num_inputs * width, 3)
    _, tile_height, tile_width, _ = tiles.shape
    columns = min(num_filters, math.ceil(math.sqrt(num_filters * tile_height / tile_width)))
    rows = math.ceil(num_filters / columns)
    grid = np.empty((rows * (tile_height + 1) + 1, columns * (tile_width + 1) + 1, 3))
    grid[:] = SEPARATOR
    for index, tile in enumerate(tiles):
        top, left = index // columns * (tile_height + 1) + 1, index % columns * (tile_width + 1) + 1
        grid[top : top + tile_height, left : left + tile_width] = tile
    enlarge = max(1, IMAGE_WIDTH // grid.shape[1])
    return grid.round().astype(np.uint8).repeat(enlarge, axis=0).repeat(enlarge, axis=1)


# ---------------------------------------------------------------------- measuring an agent


def value_network(agent: Agent) -> nn.Module | None:
    """Gives an agent's online network of body and head that values discrete actions; None if it has none."""
    policy = getattr(agent._algorithm, "policy", None)
    model = getattr(policy, "model", None)
    return model if isinstance(model, nn.Module) and hasattr(model, "body") and hasattr(model, "head") else None


def first_filters(agent: Agent) -> np.ndarray | None:
    """Gives a copy of the weights OIHW of the value network's first convolution; None where there is none."""
    network = value_network(agent)
    for module in network.modules() if network is not None else ():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().float().cpu().numpy().copy()
    return None


def measure(agent: Agent, replay: Replay, rng: np.random.Generator) -> dict[str, float]:
    """Measures a value-based agent on transitions drawn uniformly from its replay.

    Args:
        agent: any; without a value network nothing is measured. `ValueLearner`s get the last three values too.
        replay: the agent's; is only read.
        rng: of the sample and of the agent's draws; not one that training draws from.

    Returns:
        empty, or ``dormant_share_<threshold>`` (of the units behind the ReLUs and tanhs of the network),
        ``effective_rank`` (of what the head reads; nan where that is not finite), ``parameter_norm``,
        ``target_variance`` (units of return squared), ``gradient_cosine`` and ``gradient_cosine_abs`` (means over all
        pairs of transitions of the cosine of their loss gradients, and of its absolute value).
    """
    network = value_network(agent)
    if network is None or len(replay) == 0:
        return {}
    indices = replay.ring.draw(rng, NUM_STATES)
    activities, features_BF = _activities_and_features(network, cast(Any, replay[indices]).obs)
    num_units = sum(len(activity_U) for activity_U in activities)
    values = {
        f"dormant_share_{tau:g}": sum(num_dormant(activity_U, tau) for activity_U in activities) / num_units
        for tau in DORMANT_THRESHOLDS
        if num_units
    }
    finite = bool(features_BF.isfinite().all())
    values["effective_rank"] = float(effective_rank(features_BF)) if finite else math.nan
    values["parameter_norm"] = parameter_norm(network)
    if isinstance(agent, ValueLearner):
        values["target_variance"] = float(_targets(agent, replay, indices, rng).var(correction=0))
        cosines = off_diagonal(_gradient_cosines(agent, network, replay, indices[:NUM_GRADIENTS], rng))
        values["gradient_cosine"] = float(cosines.mean())
        values["gradient_cosine_abs"] = float(np.abs(cosines).mean())
    return values


@torch.inference_mode()
def _activities_and_features(network: nn.Module, obs: np.ndarray) -> tuple[list[Tensor], Tensor]:
    """Gives the mean absolute activation U of every activation layer, and the features BF that the head reads.

    A layer that sees several rows per state (implicit quantiles) is averaged over them.
    """
    activity: dict[nn.Module, Tensor] = {}
    features: list[Tensor] = []
    chunks = np.array_split(np.arange(len(obs)), math.ceil(len(obs) / STATES_PER_FORWARD))

    def add_activity(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        mean_U = output.float().abs().mean(dim=[axis for axis in range(output.ndim) if axis != 1])
        activity[module] = activity.get(module, torch.zeros_like(mean_U)) + mean_U * weight

    def keep_features(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features.append(inputs[0].float().reshape(num_rows, -1, inputs[0].shape[-1]).mean(dim=1))

    head = network.head
    assert isinstance(head, nn.Module)
    layers = [module for module in network.modules() if isinstance(module, nn.ReLU | nn.Tanh)]
    hooks = [layer.register_forward_hook(add_activity) for layer in layers]
    with _removed([*hooks, head.register_forward_pre_hook(keep_features)]):
        for chunk in chunks:
            num_rows, weight = len(chunk), len(chunk) / len(obs)
            network(obs[chunk])
    return list(activity.values()), torch.cat(features)


@contextmanager
def _removed(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Takes hooks away again."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _targets(agent: ValueLearner, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
    starts = range(0, len(indices), STATES_PER_FORWARD)
    return torch.cat(
        [agent.sample_targets(replay, indices[start : start + STATES_PER_FORWARD], rng).float() for start in starts]
    )


def _gradient_cosines(
    agent: ValueLearner, network: nn.Module, replay: Replay, indices: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Gives the cosines between the loss gradients of single transitions with respect to all parameters."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    num_held = max(1, min(len(indices), GRADIENT_NUMBERS // sum(parameter.numel() for parameter in parameters)))

    def gradient(index: int) -> Tensor:
        [loss] = agent.sample_losses(replay, indices[index : index + 1], rng)
        parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in parts])

    with torch.enable_grad():
        return cosine_matrix(gradient, len(indices), num_held)
