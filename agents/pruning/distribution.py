"""How a network's sparsity is spread over its layers, and how many weights a layer keeps.

Sources: Evci et al. 2020, section 3 (Erdos-Renyi-Kernel, ERK); JaxPruner, sparsity_distributions.py at f133ee5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]


def uniform(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Gives every layer the same sparsity.

    Args:
        shapes: of each layer's weight.
        sparsity: share of zeros, in [0, 1).
    """
    return dict.fromkeys(shapes, sparsity)


def erk(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """Gives each layer a density in proportion to (sum of its dimensions) / (number of its weights).

    The factor of proportion is the one under which the network as a whole has the wanted sparsity. Where a layer's
    density would exceed 1 it stays dense, and the factor is found again without it.

    Args:
        shapes: of each layer's weight, kernel dimensions included.
        sparsity: share of zeros over all these weights, in [0, 1).

    Returns:
        the sparsity of each layer; 0 where it stays dense.

    Source: Evci et al. 2020, section 3; JaxPruner, get_sparsities_erdos_renyi, whose budget of floor(sparsity * n)
    zeros a layer of n weights is kept, since it decides single weights.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    spans = {name: sum(shape) for name, shape in shapes.items()}
    budget = sum(size - math.floor(sparsity * size) for size in sizes.values())
    sparse = dict.fromkeys(shapes)  # those not dense, in order
    while sparse:
        factor = budget / sum(spans[name] for name in sparse)
        densest = max(sparse, key=lambda name: spans[name] / sizes[name])
        if factor * spans[densest] <= sizes[densest]:
            return {name: 1.0 - factor * spans[name] / sizes[name] if name in sparse else 0.0 for name in shapes}
        del sparse[densest]
        budget -= sizes[densest]
    return dict.fromkeys(shapes, 0.0)


def num_kept(size: int, sparsity: float) -> int:
    """Gives how many of a layer's weights stay: size * (1 - sparsity), rounded half to even, at least 1.

    Source: JaxPruner, mask_calculator.py. Differs: float64, where JaxPruner computes in float32.
    """
    return max(1, round(size * (1.0 - sparsity)))


DISTRIBUTIONS: dict[str, Callable[[Shapes, float], dict[str, float]]] = {"erk": erk, "uniform": uniform}
"""By the name in the config."""
