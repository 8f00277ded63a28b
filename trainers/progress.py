"""The live line of a training run, online or offline, and plain lines where there is no terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

SHOW_EVERY_SECONDS = 0.25
"""Least time between two looks at the live line while one thing goes on (unit: seconds)."""


@dataclass(frozen=True)
class Status:
    """What the line shows.

    Attributes:
        env_steps, total_env_steps: progress (unit: env steps).
        updates: gradient steps so far.
        steps_per_second: env steps per second since the last point.
        env_share, learner_share: shares of wall time spent in the envs and in updates; the rest is overhead.
        last_score, best_score: evaluation scores, or None before the first.
        train_return: mean raw return of recent training episodes, or None.
        activity: what is going on (``warm-up``, ``training``, ``evaluating``, ``saving``).
    """

    env_steps: int
    total_env_steps: int
    updates: int
    steps_per_second: float
    env_share: float
    learner_share: float
    last_score: float | None
    best_score: float | None
    train_return: float | None
    activity: str


@dataclass(frozen=True)
class OfflineStatus:
    """What the line of an offline run shows.

    Attributes:
        gradient_steps, total_gradient_steps: progress (unit: gradient steps).
        steps_per_second: gradient steps per second of training since the last boundary.
        items_per_second: what those were made on, per second.
        item: what that is ("env steps", "transitions").
        sampling_share, learner_share, evaluation_share: shares of this process's wall time; the rest is overhead.
        last_score, best_score: evaluation scores, or None before the first.
        activity: what is going on (``training``, ``evaluating``, ``saving``).
    """

    gradient_steps: int
    total_gradient_steps: int
    steps_per_second: float
    items_per_second: float
    item: str
    sampling_share: float
    learner_share: float
    evaluation_share: float
    last_score: float | None
    best_score: float | None
    activity: str


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def line(status: Status) -> str:
    """Gives the status as one line."""
    remaining = max(0, status.total_env_steps - status.env_steps)
    eta = _seconds(remaining / status.steps_per_second) if status.steps_per_second > 0 else "-"
    other = max(0.0, 1.0 - status.env_share - status.learner_share)
    return (
        f"{status.activity:<10} {status.env_steps:>9,}/{status.total_env_steps:,} env steps "
        f"({status.env_steps / status.total_env_steps:4.0%})  {status.updates:,} updates  "
        f"{status.steps_per_second:,.0f} steps/s  env {status.env_share:.0%} learner {status.learner_share:.0%} "
        f"other {other:.0%}  train {_score(status.train_return)}  last {_score(status.last_score)}  "
        f"best {_score(status.best_score)}  ETA {eta}"
    )


def offline_line(status: OfflineStatus) -> str:
    """Gives the status of an offline run as one line."""
    remaining = max(0, status.total_gradient_steps - status.gradient_steps)
    eta = _seconds(remaining / status.steps_per_second) if status.steps_per_second > 0 else "-"
    other = max(0.0, 1.0 - status.sampling_share - status.learner_share - status.evaluation_share)
    return (
        f"{status.activity:<10} {status.gradient_steps:>9,}/{status.total_gradient_steps:,} gradient steps "
        f"({status.gradient_steps / status.total_gradient_steps:4.0%})  {status.steps_per_second:,.1f} steps/s  "
        f"{status.items_per_second:,.0f} {status.item}/s  sampling {status.sampling_share:.0%} "
        f"learner {status.learner_share:.0%} evaluation {status.evaluation_share:.0%} other {other:.0%}  "
        f"last {_score(status.last_score)}  best {_score(status.best_score)}  ETA {eta}"
    )


class Progress:
    """Shows the latest status: rewritten in place on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None = None, *, plain_every_seconds: float = 10.0) -> None:
        """Prepares the display; nothing is shown before :meth:`show`.

        Args:
            console: where to print (default: standard error).
            plain_every_seconds: least time between two lines where the console is no terminal (unit: seconds).
        """
        self.console = console or Console(stderr=True)
        self._every = plain_every_seconds
        self._last_plain = -plain_every_seconds
        self._live: Live | None = None
        self._activity = ""
        self._due_at = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(Text(""), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def is_due(self, activity: str) -> bool:
        """Says whether to show a status now: the activity has changed, or some time has passed. Asking counts."""
        now = time.monotonic()
        if activity == self._activity and now < self._due_at:
            return False
        self._activity, self._due_at = activity, now + SHOW_EVERY_SECONDS
        return True

    def show(self, status: Status | OfflineStatus) -> None:
        """Shows a status."""
        text = line(status) if isinstance(status, Status) else offline_line(status)
        if self._live is not None:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._last_plain >= self._every:
            self._last_plain = time.monotonic()
            self.say(text)

    def say(self, message: str) -> None:
        """Prints a message above the line."""
        self.console.print(message, highlight=False, soft_wrap=True, markup=False)
