"""Which slot of a flat array each env's transitions lie in: one ring per env, all arithmetic vectorised.

The transition that an env adds as its ``count``-th (from 0) lies at ``env * slots + count % slots``; its newest
``limit`` ones are held. Legend: E envs, B indices.
"""

from __future__ import annotations

import numpy as np


class Ring:
    """Counters and index arithmetic of E rings of equal length.

    Attributes:
        num_added_E: transitions each env ever added; only grows.
        start_E: value of ``num_added_E`` at the last reset; what was added before is not held.
    """

    def __init__(self, num_envs: int, slots: int, limit: int) -> None:
        """Makes empty rings.

        Args:
            num_envs: rings.
            slots: length of each in the flat array.
            limit: how many transitions of an env are held at most, <= slots.
        """
        self.num_envs, self.slots, self.limit = num_envs, slots, limit
        self.base_E = np.arange(num_envs) * slots
        self.num_added_E = np.zeros(num_envs, np.int64)
        self.start_E = np.zeros(num_envs, np.int64)

    @property
    def length_E(self) -> np.ndarray:
        """Transitions held per env."""
        return np.minimum(self.num_added_E - self.start_E, self.limit)

    @property
    def newest_E(self) -> np.ndarray:
        """Index of each env's newest transition (the slot before its next one where it has none)."""
        return self.base_E + (self.num_added_E - 1) % self.slots

    def next_slots(self, env_ids: np.ndarray, ahead: int = 0) -> np.ndarray:
        """Gives the index each env writes next, or the one ``ahead`` transitions after it."""
        return self.base_E[env_ids] + (self.num_added_E[env_ids] + ahead) % self.slots

    def shift(self, indices: np.ndarray, by: int | np.ndarray) -> np.ndarray:
        """Gives the indices ``by`` slots later in the same rings (earlier if negative); the shapes broadcast."""
        base = indices // self.slots * self.slots
        return base + (indices - base + by) % self.slots

    def age(self, indices: np.ndarray) -> np.ndarray:
        """Gives how many transitions were added after each one: 0 for the newest. Only right for held ones."""
        env, position = np.divmod(indices, self.slots)
        return (self.num_added_E[env] - 1 - position) % self.slots

    def is_held(self, indices: np.ndarray) -> np.ndarray:
        """Tells which indices hold a transition."""
        inside = (indices >= 0) & (indices < self.num_envs * self.slots)
        safe = np.where(inside, indices, 0)
        return inside & (self.age(safe) < self.length_E[safe // self.slots])

    def is_oldest(self, indices: np.ndarray) -> np.ndarray:
        """Tells which held transitions are the oldest of their env."""
        return self.age(indices) == self.length_E[indices // self.slots] - 1

    def all_indices(self) -> np.ndarray:
        """Gives every held transition, env by env, each env's in the order they were added."""
        return self.ranges(self.num_added_E - self.length_E)

    def ranges(self, first_E: np.ndarray) -> np.ndarray:
        """Gives the indices of the transitions from count ``first_E`` to the newest, env by env."""
        length_E = self.num_added_E - first_E
        env = np.repeat(np.arange(self.num_envs), length_E)
        offset = np.arange(len(env)) - np.repeat(np.cumsum(length_E) - length_E, length_E)
        return self.base_E[env] + (first_E[env] + offset) % self.slots

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Draws held transitions uniformly, with replacement.

        Args:
            rng: source of the numbers.
            num: how many.
        Raises:
            ValueError: if nothing is held.
        """
        length_E = self.length_E
        end_E = np.cumsum(length_E)
        if end_E[-1] == 0:
            raise ValueError(f"cannot sample {num} transitions from an empty replay")
        rank = rng.integers(end_E[-1], size=num)
        env = np.searchsorted(end_E, rank, side="right")
        age = end_E[env] - 1 - rank
        return self.base_E[env] + (self.num_added_E[env] - 1 - age) % self.slots
