"""Every mask update of the networks at their full size, to the weight, against exact arithmetic of the equations."""

from fractions import Fraction

import gymnasium
import numpy as np
import pytest
import torch

from agents.base_config import ImpalaCnnConfig, NatureCnnConfig
from agents.interface import seeded_initialization
from agents.networks import build_body
from agents.pruning import PruningConfig
from agents.pruning.distribution import erk
from agents.pruning.pruner import PrunedOptimizer, Pruner
from agents.value_based.q_networks import QNetwork
from tests.agents.pruning.test_distribution import IMPALA

PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
SPARSITY = 0.95
RUN = 500  # gradient steps: masks change before steps 100, 103, ..., 400
DUE = [step for step in range(RUN) if 100 <= step <= 400 and (step - 100) % 3 == 0]
NATURE = (1212, 2424, 3124, 192_462, 3072)


def pruned(config: ImpalaCnnConfig | NatureCnnConfig) -> PrunedOptimizer:
    """Gives the masks of a network of the given kind, with six actions, under an optimizer that never steps."""
    seed = np.random.SeedSequence(0)
    with seeded_initialization(seed):
        network = QNetwork(build_body(config, PIXELS), 6, initialization="glorot")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[parameter == 0] = 1e-9  # so that every zero is a mask's
    pruner = Pruner(
        PruningConfig(sparsity=SPARSITY),
        [torch.optim.SGD(network.parameters())],
        dict(network.named_parameters()),
        total_gradient_steps=RUN,
        seed=seed,
    )
    return pruner.optimizers[0]


def exact_count(size: int, final: float, step: int) -> int:
    """Gives the kept weights by rational arithmetic: s(t) = s_F (1 - (1 - (t - t0) / (t1 - t0))^3), half to even."""
    sparsity = Fraction(final) * (1 - (1 - Fraction(step - 100, 300)) ** 3)
    return max(1, round(size * (1 - sparsity))) if final else size


def update_masks(optimizer: PrunedOptimizer, steps: list[int]) -> None:
    """Makes the mask updates before the given gradient steps, and checks each of them."""
    finals = erk({layer.name: tuple(layer.weight.shape) for layer in optimizer.layers}, SPARSITY)
    kept = {layer.name: layer.size for layer in optimizer.layers}
    for step in steps:
        optimizer.num_steps = step
        before = [torch.count_nonzero(layer.weight.detach()).item() for layer in optimizer.layers]
        assert optimizer.prepare_step(), f"no update at step {step}"
        optimizer.apply()
        for layer, nonzero in zip(optimizer.layers, before, strict=True):
            expected = exact_count(layer.size, finals[layer.name], step)
            assert expected <= kept[layer.name] == nonzero, "a masked weight came back"
            assert torch.count_nonzero(layer.weight.detach()).item() == expected == layer.num_kept, (layer.name, step)
            kept[layer.name] = expected


def final_counts(optimizer: PrunedOptimizer) -> list[int]:
    return [int(layer.mask.sum()) for layer in optimizer.layers]


def test_there_are_a_hundred_mask_updates_in_the_run() -> None:
    schedule = pruned(NatureCnnConfig(hidden_width=8)).method.schedule
    assert schedule is not None and [step for step in range(RUN) if schedule.is_due(step)] == DUE and len(DUE) == 101


def test_the_nature_cnn_is_exact_at_every_mask_update() -> None:
    optimizer = pruned(NatureCnnConfig())
    update_masks(optimizer, DUE)
    assert final_counts(optimizer) == list(NATURE)


@pytest.mark.parametrize(
    ("width", "steps"),
    [
        *((1, DUE), (2, DUE[::10]), (3, DUE[::20]), (4, DUE[::25]), (5, DUE[::25])),
        *(pytest.param(width, DUE, marks=pytest.mark.slow) for width in (2, 3, 4, 5)),
    ],
)
def test_impala_is_exact_at_mask_updates(width: int, steps: list[int]) -> None:
    optimizer = pruned(ImpalaCnnConfig(width=width))
    update_masks(optimizer, steps)
    first, stack1, stack2, later, hidden = IMPALA[width]
    assert final_counts(optimizer) == [first, *[stack1] * 4, stack2, *[later] * 9, hidden, 3072]
