"""Which tasks touch which slots: the reads of a run, task by task, and their picture.

Legend: Z tasks, M slots, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from agents.decision_transformer.processes import process_rank, summed

CELL, MARGIN, LABEL_WIDTH = 12, 6, 6
"""Pixels: of a slot's square, around the picture, and of a letter of a task's name."""
FULL, EMPTY = (178, 24, 43), (255, 255, 255)


class SlotUsage:
    """Sums of the shares in which each task's reads were spread over the slots.

    Args:
        tasks: names of the Z tasks.
        num_slots: M.
        device: of the sums.

    Attributes:
        sums_ZM: of this process, since the last `taken`; float64.
    """

    def __init__(self, tasks: Sequence[str], num_slots: int, device: torch.device) -> None:
        self.tasks = tuple(tasks)
        self.sums_ZM = torch.zeros(len(self.tasks), num_slots, dtype=torch.float64, device=device)

    def add(self, share_BM: Tensor, task_B: Tensor) -> None:
        """Adds how each row's reads were spread; rows of unknown tasks (negative) are left out."""
        known_B = task_B >= 0
        self.sums_ZM.index_add_(0, task_B[known_B], share_BM[known_B].to(self.sums_ZM))

    def state(self) -> Tensor:
        """Gives the sums of all processes. Each of them must call it."""
        return summed(self.sums_ZM)

    def load(self, sums_ZM: Tensor) -> None:
        """Takes up what `state` gave."""
        self.sums_ZM.copy_(sums_ZM if process_rank() == 0 else torch.zeros_like(sums_ZM))

    def taken(self) -> np.ndarray:
        """Gives the mean shares ZM of all processes, rows that sum to 1 (to 0 where nothing was read), and starts anew.

        Each process must call it.
        """
        sums_ZM = self.state()
        means_ZM = sums_ZM / sums_ZM.sum(1, keepdim=True).clamp(min=torch.finfo(sums_ZM.dtype).tiny)
        self.sums_ZM.zero_()
        return means_ZM.cpu().numpy()


def slots_image(tasks: Sequence[str], shares_ZM: np.ndarray) -> np.ndarray:
    """Draws a line of squares per task, a square per slot: white for no reads, red for the largest share there is.

    Args:
        tasks: names of the Z tasks.
        shares_ZM: their mean shares.

    Returns:
        uint8 RGB image, height x width x 3.
    """
    from PIL import Image, ImageDraw

    strength_ZM = shares_ZM / (shares_ZM.max() or 1.0)
    colour = EMPTY + strength_ZM[..., None] * (np.array(FULL) - EMPTY)
    squares = colour.round().astype(np.uint8).repeat(CELL, axis=0).repeat(CELL, axis=1)
    left = 2 * MARGIN + LABEL_WIDTH * max(map(len, tasks))
    image = Image.new("RGB", (left + squares.shape[1] + MARGIN, squares.shape[0] + 2 * MARGIN + CELL), EMPTY)
    image.paste(Image.fromarray(squares), (left, MARGIN + CELL))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left - 1, MARGIN + CELL - 1, left + squares.shape[1], MARGIN + CELL + squares.shape[0]), None, 0)
    scale = f"slots 0 to {shares_ZM.shape[1] - 1}; red: {shares_ZM.max():.3f} of a task's reads"
    draw.text((left, MARGIN - 3), scale, 0)
    for line, task in enumerate(tasks):
        draw.text((MARGIN, MARGIN + CELL * (line + 1)), task, 0)
    return np.asarray(image)
