"""Speeds and shares of wall time between two log points."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
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


@dataclass(frozen=True)
class Mark:
    """A moment of an offline run.

    Attributes:
        at: reading of the clock (unit: seconds).
        gradient_steps: done by then.
        seconds: wall time spent in each phase by then (unit: seconds).
    """

    at: float
    gradient_steps: int
    seconds: dict[str, float]


class PhaseClock:
    """Wall time of an offline run by what it is spent on; a phase inside another counts for the inner one only."""

    PHASES = ("sampling", "learner", "evaluation", "saving")

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(self.PHASES, 0.0)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Counts the time of its body for one of the phases."""
        began, counted = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            inside = sum(self.seconds.values()) - counted
            self.seconds[phase] += time.perf_counter() - began - inside

    def mark(self, gradient_steps: int) -> Mark:
        """Gives what :meth:`read` measures from."""
        return Mark(time.perf_counter(), gradient_steps, dict(self.seconds))

    def read(self, since: Mark, gradient_steps: int) -> dict[str, float]:
        """Gives gradient steps per second of training, evaluations and saving left out, and shares of all wall time."""
        wall = max(time.perf_counter() - since.at, 1e-9)
        spent = {phase: seconds - since.seconds[phase] for phase, seconds in self.seconds.items()}
        training = max(wall - spent["evaluation"] - spent["saving"], 1e-9)
        return {
            "gradient_steps_per_second": (gradient_steps - since.gradient_steps) / training,
            **{f"{phase}_share": seconds / wall for phase, seconds in spent.items()},
            "other_share": max(0.0, 1.0 - sum(spent.values()) / wall),
        }
