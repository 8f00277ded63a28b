"""Bottleneck adapters: a small residual network behind the MLP of each block, all that is trained on a new task.

Source: Houlsby et al. 2019; Xu et al. 2023, Hyper-DT, whose hyper-network is left out.

Legend: D width, R width of the bottleneck.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BottleneckAdapter(nn.Module):
    """Adds to its input what a bottleneck makes of it; at first nothing.

    Args:
        width: D.
        bottleneck: R, at least 1.
        generator: of the initial weights. Default: torch's global one.

    Raises:
        ValueError: if the bottleneck is empty.

    Source: Houlsby et al. 2019, section 2.1. Differs: the output starts at exactly zero, and the non-linearity is a
    ReLU.
    """

    def __init__(self, width: int, bottleneck: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if bottleneck < 1:
            raise ValueError(f"bottleneck={bottleneck}: must be at least 1")
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.normal_(self.down.weight, std=width**-0.5, generator=generator)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Gives a tensor of the same shape, D last."""
        bend: Tensor = self.up(F.relu(self.down(hidden)))
        return hidden + bend
