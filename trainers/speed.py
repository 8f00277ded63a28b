"""Speeds and shares of wall time between two log points."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """What a run has done so far.

    Attributes:
        env_steps: env steps, all envs together.
        updates: gradient steps.
        env_seconds, learner_seconds: wall time spent in the envs and in updates (unit: seconds).
    """

    env_steps: int
    updates: int
    env_seconds: float
    learner_seconds: float


class Stopwatch:
    """Measures from a mark; evaluations and checkpoints are left out by marking again after them."""

    def __init__(self, counts: Counts) -> None:
        """Sets the first mark."""
        self.mark(counts)

    def mark(self, counts: Counts) -> None:
        """Measures from here on."""
        self._started, self._from = time.perf_counter(), counts

    def read(self, counts: Counts) -> dict[str, float]:
        """Gives speeds (per second) and shares of wall time since the mark."""
        wall = max(time.perf_counter() - self._started, 1e-9)
        env_share = (counts.env_seconds - self._from.env_seconds) / wall
        learner_share = (counts.learner_seconds - self._from.learner_seconds) / wall
        return {
            "env_steps_per_second": (counts.env_steps - self._from.env_steps) / wall,
            "updates_per_second": (counts.updates - self._from.updates) / wall,
            "env_share": env_share,
            "learner_share": learner_share,
            "other_share": max(0.0, 1.0 - env_share - learner_share),
        }
