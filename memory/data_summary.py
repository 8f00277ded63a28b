"""What an agent has to know about the trajectories it was trained on, in a record small enough to live in a run.

Kept as ``data.json`` in a run directory, so that a checkpoint can be evaluated, exported or resumed without its data.
Light: standard library only.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

NUM_QUANTILES = 101


@dataclass(frozen=True)
class DataSummary:
    """Statistics of a set of trajectories.

    Attributes:
        tasks: names, in the order in which a model numbers them.
        obs_mean: per observation entry over all tasks (never per task: that would tell the task); None for pixels.
        obs_std: standard deviation beside it.
        max_length: env steps of the longest episode.
        return_quantiles: per task the percentiles 0, 1, ..., 100 of the undiscounted returns.
        max_abs_reward: largest absolute reward of one step.
        num_episodes: in all tasks.
        num_steps: env steps in all tasks.
        digests: per file its digest, in hexadecimal.
        reward_clip: whether rewards, and so returns, are clipped to [-1, 1].
    """

    tasks: tuple[str, ...]
    obs_mean: tuple[float, ...] | None
    obs_std: tuple[float, ...] | None
    max_length: int
    return_quantiles: dict[str, tuple[float, ...]]
    max_abs_reward: float
    num_episodes: int
    num_steps: int
    digests: dict[str, str]
    reward_clip: bool = False

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks={self.tasks}: expected at least one name, and each once")
        if (self.obs_mean is None) != (self.obs_std is None):
            raise ValueError("obs_mean and obs_std must both be given or both be None")
        if self.obs_mean is not None and self.obs_std is not None:
            _check_statistics(self.obs_mean, self.obs_std)
        if set(self.return_quantiles) != set(self.tasks):
            raise ValueError(f"return_quantiles has tasks {sorted(self.return_quantiles)}, expected {self.tasks}")
        for task, quantiles in self.return_quantiles.items():
            _check_quantiles(task, quantiles)
        for name in ("max_length", "num_episodes", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")
        if not 0 <= self.max_abs_reward < math.inf:
            raise ValueError(f"max_abs_reward={self.max_abs_reward} must be >= 0 and finite")

    def return_quantile(self, task: str, quantile: float) -> float:
        """Gives the return that a fraction of a task's episodes stays at or below, linear between percentiles.

        Args:
            task: one of :attr:`tasks`.
            quantile: in [0, 1].
        Raises:
            ValueError: for another task or a quantile outside [0, 1].
        """
        if task not in self.return_quantiles:
            raise ValueError(f"task={task!r} is not in this data; it has {', '.join(self.tasks)}")
        if not 0 <= quantile <= 1:
            raise ValueError(f"quantile={quantile} must lie in [0, 1]")
        place = quantile * (NUM_QUANTILES - 1)
        low = min(int(place), NUM_QUANTILES - 2)
        values = self.return_quantiles[task]
        return values[low] + (place - low) * (values[low + 1] - values[low])

    def to_json(self) -> dict[str, Any]:
        """Gives plain lists, dicts, numbers and strings; :meth:`from_json` gives back an equal summary."""
        return json.loads(json.dumps(asdict(self), allow_nan=False))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DataSummary:
        """Reads what :meth:`to_json` gave.

        Raises:
            ValueError: for missing or unknown keys, or values out of range.
        """
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise ValueError(
                f"data summary: missing keys {sorted(names - set(data))}, unknown keys {sorted(set(data) - names)}"
            )
        return cls(
            tasks=tuple(data["tasks"]),
            obs_mean=_floats(data["obs_mean"]),
            obs_std=_floats(data["obs_std"]),
            max_length=int(data["max_length"]),
            return_quantiles={task: tuple(map(float, values)) for task, values in data["return_quantiles"].items()},
            max_abs_reward=float(data["max_abs_reward"]),
            num_episodes=int(data["num_episodes"]),
            num_steps=int(data["num_steps"]),
            digests=dict(data["digests"]),
            reward_clip=bool(data["reward_clip"]),
        )


def _floats(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))


def _check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std):
        raise ValueError(f"obs_mean has {len(mean)} entries, obs_std {len(std)}")
    if not all(map(math.isfinite, mean)) or not all(0 <= value < math.inf for value in std):
        raise ValueError("obs_mean must be finite, obs_std finite and >= 0")


def _check_quantiles(task: str, quantiles: Sequence[float]) -> None:
    if len(quantiles) != NUM_QUANTILES or not all(map(math.isfinite, quantiles)):
        raise ValueError(f"return_quantiles of {task!r}: expected {NUM_QUANTILES} finite values, got {len(quantiles)}")
    if any(high < low for low, high in itertools.pairwise(quantiles)):
        raise ValueError(f"return_quantiles of {task!r} must not decrease")
