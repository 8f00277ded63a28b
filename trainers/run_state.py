"""The numbers a run carries from one log point, evaluation and checkpoint to the next; all are saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

RECENT_EPISODES = 100
"""Training episodes behind the reported training return (source: Stable-Baselines3, ``stats_window_size``)."""


@dataclass
class RunState:
    """Counters of a run. An offline run has no env steps: its gradient steps stand in their place.

    Attributes:
        env_steps: env steps so far, all envs together.
        updates: gradient steps so far.
        episodes: finished training episodes so far (cut ones not counted).
        last_boundary: env steps at the last boundary.
        interval: index of the last checkpoint boundary; training env seeds derive from it.
        next_point: env steps at which the next log point is due.
        last_score, best_score: evaluation scores; None before the first.
        best_env_steps: env steps of the best score.
        recent_returns, recent_lengths, recent_successes: the latest training episodes, oldest first.
    """

    env_steps: int = 0
    updates: int = 0
    episodes: int = 0
    last_boundary: int = 0
    interval: int = 0
    next_point: int = 0
    last_score: float | None = None
    best_score: float | None = None
    best_env_steps: int | None = None
    recent_returns: list[float] = field(default_factory=list)
    recent_lengths: list[int] = field(default_factory=list)
    recent_successes: list[bool] = field(default_factory=list)

    def count_episode(self, raw_return: float, length: int, success: bool | None) -> None:
        """Enters a finished training episode."""
        self.episodes += 1
        self.recent_returns = [*self.recent_returns, raw_return][-RECENT_EPISODES:]
        self.recent_lengths = [*self.recent_lengths, length][-RECENT_EPISODES:]
        if success is not None:
            self.recent_successes = [*self.recent_successes, success][-RECENT_EPISODES:]

    def training_metrics(self) -> dict[str, float]:
        """Gives return, length and success rate of the latest training episodes; empty before the first."""
        metrics = {}
        if self.recent_returns:
            metrics["train/return_mean"] = sum(self.recent_returns) / len(self.recent_returns)
            metrics["train/length_mean"] = sum(self.recent_lengths) / len(self.recent_lengths)
        if self.recent_successes:
            metrics["train/success_rate"] = sum(self.recent_successes) / len(self.recent_successes)
        return metrics

    def score(self, score: float) -> bool:
        """Enters an evaluation score; says whether it is the best so far."""
        self.last_score = score
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_env_steps = score, self.env_steps
            return True
        return False

    def to_json(self) -> dict[str, Any]:
        """Gives the state as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuilds the state that :meth:`to_json` gave."""
        return cls(**data)
