"""ERK and uniform: JaxPruner's own numbers, and the kept weights of our networks to the integer."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from agents.base_config import ImpalaCnnConfig, NatureCnnConfig
from agents.networks import build_body
from agents.pruning.distribution import erk, num_kept, uniform

# Source of the values: JaxPruner f133ee5, sparsity_distributions.get_sparsities_erdos_renyi, run on these shapes.
JAXPRUNER = [
    ([(256, 3), (256, 256), (2, 256)], 0.8, [0.0, 0.8155975341796875, 0.0]),
    ([(256, 3), (256, 256), (2, 256)], 0.95, [0.0, 0.968536376953125, 0.0]),
    (
        [(1024, 39), (1024, 1024), (1024, 1024), (4, 1024)],
        0.95,
        [0.46876267777620395, 0.9610192745687148, 0.9610192745687148, 0.0],
    ),
    (
        [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (18, 512)],
        0.95,
        [0.8784306159535297, 0.9392153079767649, 0.930383344178517, 0.9564869394621739, 0.0],
    ),
    ([(1024, 64), (1024, 256), (6, 256)], 0.8, [0.5491427859744511, 0.8673949370513091, 0.0]),
    ([(64, 3, 5), (64, 64, 5), (10, 640)], 0.8, [0.5115789473684211, 0.9577083333333334, 0.33859649122807023]),
]


@pytest.mark.parametrize(("shapes", "sparsity", "expected"), JAXPRUNER)
def test_erk_is_jaxpruners(shapes: list[tuple[int, ...]], sparsity: float, expected: list[float]) -> None:
    named = {str(index): shape for index, shape in enumerate(shapes)}
    assert list(erk(named, sparsity).values()) == pytest.approx(expected, abs=1e-12)


# Kept weights at 95 %, six actions: first conv, residual convs of stack 1, first conv of stack 2, all later convs,
# hidden. Source: JaxPruner's function, as above.
IMPALA = {
    1: (501, 732, 1040, 1349, 84_470),
    2: (912, 1521, 2216, 2911, 179_341),
    3: (1350, 2374, 3491, 4608, 282_279),
    4: (1819, 3294, 4867, 6440, 393_289),
    5: (2321, 4280, 6343, 8405, 512_370),
}
PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
HEAD = {"head": (6, 512)}


def weight_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        body = build_body(config, PIXELS)
    return {name: tuple(weight.shape) for name, weight in body.named_parameters() if weight.ndim > 1} | HEAD


def kept(shapes: dict[str, tuple[int, ...]], sparsity: float) -> list[int]:
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    return [num_kept(size, value) for size, value in zip(sizes, erk(shapes, sparsity).values(), strict=True)]


@pytest.mark.parametrize("width", IMPALA)
def test_impala_keeps_as_many_weights_as_in_jaxpruner(width: int) -> None:
    first, stack1, stack2, later, hidden = IMPALA[width]
    counts = kept(weight_shapes(ImpalaCnnConfig(width=width)), 0.95)
    assert counts == [first, *[stack1] * 4, stack2, *[later] * 9, hidden, 3072]


def test_the_nature_cnn_keeps_as_many_weights_as_in_jaxpruner() -> None:
    assert kept(weight_shapes(NatureCnnConfig()), 0.95) == [1212, 2424, 3124, 192_462, 3072]


@pytest.mark.parametrize(("width", "total"), [(1, 2_082_880), (3, 6_823_104), (5, 12_337_472)])
@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.99])
def test_the_whole_has_the_sparsity_asked_for_and_the_output_layer_keeps_some(
    width: int, total: int, sparsity: float
) -> None:
    shapes = weight_shapes(ImpalaCnnConfig(width=width))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == total
    counts = kept(shapes, sparsity)
    assert abs(sum(counts) - (1 - sparsity) * total) <= len(counts) * 1.5
    assert counts[-1] >= 0.5 * 3072
    if sparsity == 0.99:  # as JaxPruner's function, to two digits
        assert 1 - counts[-1] / 3072 == pytest.approx({1: 0.39, 3: 0.235, 5: 0.145}[width], abs=0.005)


def test_zero_sparsity_is_dense_and_uniform_is_uniform() -> None:
    shapes = {"a": (3, 4), "b": (100, 100)}
    assert erk(shapes, 0.0) == {"a": 0.0, "b": 0.0}
    assert erk({"a": (2, 2)}, 0.1) == {"a": 0.0}
    assert uniform(shapes, 0.5) == {"a": 0.5, "b": 0.5}


def test_counts_round_half_to_even_and_never_reach_zero() -> None:
    assert [num_kept(5, 0.5), num_kept(7, 0.5), num_kept(10, 0.999), num_kept(10, 0.0)] == [2, 4, 1, 10]
