"""Prunes a network of your own while any torch optimizer trains it, to an exact number of weights.

    python examples/prune_your_own_network.py [magnitude|rigl|set|static]

The same pruner is behind ``sextant train agent=... agent.pruning.sparsity=0.9``; docs/pruning.md describes the methods.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from agents.pruning import PruningConfig
from agents.pruning.pruner import Pruner

GRADIENT_STEPS = 1_000


def main(method: str = "magnitude") -> Pruner:
    """Fits a sine with 10 % of the weights and prints how many are left in each layer.

    Args:
        method: a name that ``agent.pruning.method`` takes.
    Returns:
        the pruner after training.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    pruner = Pruner(
        PruningConfig.model_validate({"method": method, "sparsity": 0.9}),
        [optimizer],
        dict(network.named_parameters()),
        total_gradient_steps=GRADIENT_STEPS,
        seed=np.random.SeedSequence(0),
    )
    x_BI = torch.linspace(-torch.pi, torch.pi, 256)[:, None]  # B samples, I inputs
    for _ in range(GRADIENT_STEPS):
        loss = nn.functional.mse_loss(network(x_BI), x_BI.sin())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()  # the pruner's hooks update the masks before it and apply them after it
    for layer in pruner.layers:
        nonzero = int(layer.weight.count_nonzero())
        print(f"{layer.name}: {layer.num_kept} of {layer.size} weights kept, {nonzero} of them not zero")
    kept, size = sum(layer.num_kept for layer in pruner.layers), sum(layer.size for layer in pruner.layers)
    print(f"total: {kept} of {size} weights kept, sparsity {1 - kept / size:.4f}, loss {loss.item():.4f}")
    return pruner


if __name__ == "__main__":
    main(*sys.argv[1:2])
