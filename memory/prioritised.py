"""Proportional priorities: what to sample, how to weigh it, and how the errors change it.

Priority p = (|error| + 1e-10)**alpha, P(i) = p_i / sum(p), weight = (1 / p)**beta divided by the batch's largest.
Source: Schaul et al. 2016, sections 3.3-3.4; alpha = beta = 0.5, the offset and the division by the batch maximum as in
Dopamine's Rainbow. Differs: nothing; the number of transitions cancels in the division.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

SMALLEST_ERROR = 1e-10
"""Keeps a transition with zero error possible. Source: Dopamine's Rainbow, sqrt(loss + 1e-10)."""


class SumTree(Protocol):
    """The part of Tianshou's ``SegmentTree`` that is used; its sums are recomputed, never updated by differences."""

    def __getitem__(self, index: Any) -> Any: ...

    def __setitem__(self, index: Any, value: Any) -> None: ...

    def reduce(self) -> float:
        """Gives the sum of all leaves."""

    def get_prefix_sum_idx(self, value: Any) -> Any:
        """Gives the first leaf at which the running sum reaches each value (which it may change in place)."""


class Priorities:
    """Priorities of the transitions of one replay.

    Attributes:
        alpha: exponent of the error.
        beta: exponent of the weight; may be changed at any time.
        largest: the largest priority ever given; new transitions get it.
    """

    def __init__(self, tree: SumTree, size: int, alpha: float, beta: float) -> None:
        """Starts with nothing to sample.

        Args:
            tree: zeros, one leaf per slot.
            size: number of slots.
            alpha: exponent of the error, > 0.
            beta: exponent of the weight, >= 0.
        """
        self._tree, self._size = tree, size
        self.alpha, self.beta = alpha, beta
        self.largest = 1.0

    def replace(self, new: np.ndarray, gone: np.ndarray) -> None:
        """Takes transitions out of the draw, then gives new ones the largest priority seen."""
        if len(gone):
            self._tree[gone] = np.zeros(len(gone))
        self._tree[new] = np.full(len(new), self.largest)

    def clear(self) -> None:
        """Takes everything out of the draw; the largest priority stays."""
        self._tree[np.arange(self._size)] = np.zeros(self._size)

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draws slots in proportion to their priority, with replacement.

        Args:
            rng: source of the numbers.
            num: how many.
        Raises:
            ValueError: if nothing has a priority.
        """
        total = float(self._tree.reduce())
        if total <= 0:
            raise ValueError(f"cannot sample {num} transitions from an empty replay")
        below_total = np.nextafter(total, 0.0)
        indices = self._tree.get_prefix_sum_idx(np.minimum(rng.random(num) * total, below_total))
        while (empty := self._tree[indices] == 0).any():  # rounding at the edge of a sum; practically never
            again = rng.random(int(empty.sum())) * total
            indices[empty] = self._tree.get_prefix_sum_idx(np.minimum(again, below_total))
        return indices

    def weights(self, indices: np.ndarray) -> np.ndarray:
        """Gives the importance weights of a batch, float32, the largest being 1."""
        priority = self._tree[indices]
        return ((priority.min(initial=np.inf) / priority) ** self.beta).astype(np.float32)

    def update(self, indices: np.ndarray, errors: np.ndarray) -> None:
        """Sets priorities from the errors (losses or TD errors) of a batch.

        Args:
            indices: slots, all held.
            errors: one per slot; the sign is ignored.
        Raises:
            ValueError: if an error is not finite.
        """
        size = np.abs(np.asarray(errors, np.float64)).reshape(-1)
        if size.shape != indices.shape:
            raise ValueError(f"{len(indices)} indices but errors of shape {np.shape(errors)}")
        if not np.isfinite(size).all():
            raise ValueError(f"errors must be finite to serve as priorities, got {size[~np.isfinite(size)][0]}")
        if len(indices) == 0:
            return
        priority = (size + SMALLEST_ERROR) ** self.alpha
        self._tree[indices] = priority
        self.largest = max(self.largest, float(priority.max()))

    def leaves(self, indices: np.ndarray) -> np.ndarray:
        """Gives the priorities of some slots."""
        return self._tree[indices]

    def restore(self, indices: np.ndarray, leaves: np.ndarray, largest: float) -> None:
        """Sets exactly these priorities and no others."""
        self.clear()
        if len(indices):
            self._tree[indices] = leaves
        self.largest = largest
