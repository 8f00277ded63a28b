"""Statistics of few runs: point estimates, stratified bootstrap intervals, probability of improvement, Wilson.

Scores come as one array per task, runs along the last axis; a plain matrix means (runs, tasks), as in rliable. Every
statistic also takes leading axes, so that a bootstrap computes all its resamples at once. Scores of different tasks
are pooled as they are: normalise them first.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv 2108.13264); tested against its library, rliable 1.2.0.

Legend: R runs, T tasks, S bootstrap resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.floating] | Sequence[ArrayLike]
"""A matrix (R, T), a vector (R,) of one task, or T arrays (..., R_t) with as many runs as each task has."""
Statistic = Callable[[Scores], Floats]

MIN_SEEDS = 3
"""Below this many seeds no interval is given."""
FEW_SEEDS = 5
"""Below this many seeds an interval is labelled as one over few seeds."""
_RESAMPLES_AT_ONCE = 1000  # bounds the memory of a bootstrap: 1000 x 57 games x 5 runs x 8 bytes = 2.3 MB


class TooFewSamples(ValueError):
    """An interval was asked from fewer seeds or episodes than can carry one."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval and what it is over.

    Attributes:
        low, high: bounds, in the unit of the scores.
        confidence: share of resamples inside, such as 0.95.
        over: what was resampled: ``seeds`` (says how training varies) or ``episodes`` (says only how well one
            policy's score is known).
        count: smallest number of seeds or episodes in a task.
    """

    low: float
    high: float
    confidence: float
    over: Literal["seeds", "episodes"]
    count: int

    @property
    def note(self) -> str:
        """What a table must print beside the interval."""
        few = ", few" if self.over == "seeds" and self.count < FEW_SEEDS else ""
        return f"{self.confidence:.0%} over {self.count} {self.over}{few}"

    def __str__(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}] ({self.note})"


def _tasks(scores: Scores) -> list[Floats]:
    """Gives one float array per task, runs along the last axis."""
    if isinstance(scores, np.ndarray):
        if scores.ndim not in (1, 2):
            raise ValueError(f"a score matrix must be (runs,) or (runs, tasks), got shape {scores.shape}")
        columns = scores.reshape(len(scores), -1).T
        tasks: list[Floats] = [np.asarray(column, np.float64) for column in columns]
    else:
        tasks = [np.asarray(task, np.float64) for task in scores]
    if not tasks or any(task.ndim == 0 or task.shape[-1] == 0 for task in tasks):
        raise ValueError(f"every task needs at least one run, got shapes {[task.shape for task in tasks]}")
    if any(np.isnan(task).any() for task in tasks):
        raise ValueError("scores hold NaN")
    return tasks


def iqm(scores: Scores) -> Floats:
    """Gives the interquartile mean: the mean of the middle half of all runs and tasks together.

    Source: rliable ``aggregate_iqm``, a 25 % trimmed mean over everything; int(0.25 n) values go at either end.
    """
    pooled = np.sort(np.concatenate(_tasks(scores), axis=-1), axis=-1)
    cut = int(0.25 * pooled.shape[-1])
    return np.asarray(pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1))


def mean(scores: Scores) -> Floats:
    """Gives the mean over tasks of each task's mean over runs."""
    return np.asarray(np.mean([task.mean(axis=-1) for task in _tasks(scores)], axis=0))


def median(scores: Scores) -> Floats:
    """Gives the median over tasks of each task's mean over runs (with one task: that task's mean)."""
    return np.asarray(np.median([task.mean(axis=-1) for task in _tasks(scores)], axis=0))


def optimality_gap(scores: Scores, target: float = 1.0) -> Floats:
    """Gives how far all runs together stay below a target on average; lower is better."""
    pooled = np.concatenate(_tasks(scores), axis=-1)
    return np.asarray(target - np.minimum(pooled, target).mean(axis=-1))


def performance_profile(scores: Scores, thresholds: ArrayLike) -> Floats:
    """Gives, for each threshold, the share of all runs that score above it."""
    pooled = np.concatenate([task.reshape(-1) for task in _tasks(scores)])
    return np.asarray((pooled[None, :] > np.asarray(thresholds, np.float64)[:, None]).mean(axis=1))


def _resample(tasks: list[Floats], count: int, rng: np.random.Generator) -> list[Floats]:
    """Draws runs with replacement within each task: T arrays (S, R_t)."""
    return [task[rng.integers(task.size, size=(count, task.size))] for task in tasks]


def _percentiles(
    draw: Callable[[int], Floats], num_resamples: int, confidence: float, over: Literal["seeds", "episodes"], count: int
) -> Interval:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if count < MIN_SEEDS:
        raise TooFewSamples(f"no interval below {MIN_SEEDS} {over}, got {count}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    sizes = [min(_RESAMPLES_AT_ONCE, num_resamples - done) for done in range(0, num_resamples, _RESAMPLES_AT_ONCE)]
    values_S = np.concatenate([draw(size) for size in sizes])
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values_S, [tail, 100.0 - tail])
    return Interval(float(low), float(high), confidence, over, count)


def bootstrap_interval(
    scores: Scores,
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    over: Literal["seeds", "episodes"] = "seeds",
) -> Interval:
    """Gives the percentile interval of a statistic by a stratified bootstrap: runs are resampled within each task.

    Args:
        scores: one score per run and task; for ``over="episodes"``, one per episode of a single run and task.
        statistic: such as :func:`iqm`; must accept leading axes.
        rng: source of the resampling; the same state gives the same interval.
        num_resamples: bootstrap resamples (rliable's default is 50,000).
        confidence: share of resamples inside the interval.
        over: what the last axis counts.

    Returns:
        the interval; tasks are taken as fixed.

    Raises:
        TooFewSamples: if a task has fewer than 3 runs (or episodes).
        ValueError: if scores are empty or NaN, or an argument is out of range.
    Source: rliable ``get_interval_estimates(method="percentile", task_bootstrap=False)``.
    """
    tasks = _tasks(scores)
    smallest = min(task.shape[-1] for task in tasks)
    return _percentiles(lambda size: statistic(_resample(tasks, size, rng)), num_resamples, confidence, over, smallest)


def episode_interval(
    returns: Scores, *, rng: np.random.Generator, num_resamples: int = 10_000, confidence: float = 0.95
) -> Interval:
    """Gives the interval of one run's mean score over its episodes. It says nothing about other training seeds.

    Raises:
        TooFewSamples: if a task has fewer than 3 episodes.
    """
    return bootstrap_interval(
        returns, mean, rng=rng, num_resamples=num_resamples, confidence=confidence, over="episodes"
    )


def _task_pairs(scores_x: Scores, scores_y: Scores) -> tuple[list[Floats], list[Floats]]:
    tasks_x, tasks_y = _tasks(scores_x), _tasks(scores_y)
    if len(tasks_x) != len(tasks_y):
        raise ValueError(f"both groups need the same tasks, got {len(tasks_x)} and {len(tasks_y)}")
    return tasks_x, tasks_y


def _improvement(tasks_x: list[Floats], tasks_y: list[Floats]) -> Floats:
    shares = []
    for x, y in zip(tasks_x, tasks_y, strict=True):
        difference = x[..., :, None] - y[..., None, :]
        shares.append((difference > 0).mean(axis=(-2, -1)) + 0.5 * (difference == 0).mean(axis=(-2, -1)))
    return np.asarray(np.mean(shares, axis=0))


def probability_of_improvement(scores_x: Scores, scores_y: Scores) -> float:
    """Gives the probability that a run of X beats a run of Y on the same task, averaged over tasks; ties count half.

    Raises:
        ValueError: if the groups differ in their number of tasks.
    Source: rliable ``probability_of_improvement`` (Mann-Whitney U / (n_x n_y)).
    """
    return float(_improvement(*_task_pairs(scores_x, scores_y)))


def improvement_interval(
    scores_x: Scores,
    scores_y: Scores,
    *,
    rng: np.random.Generator,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Gives the percentile interval of :func:`probability_of_improvement`, resampling both groups within each task.

    Raises:
        TooFewSamples: if a task has fewer than 3 runs in either group.
        ValueError: if the groups differ in their number of tasks.
    """
    tasks_x, tasks_y = _task_pairs(scores_x, scores_y)
    smallest = min(task.shape[-1] for task in tasks_x + tasks_y)

    def draw(size: int) -> Floats:
        return _improvement(_resample(tasks_x, size, rng), _resample(tasks_y, size, rng))

    return _percentiles(draw, num_resamples, confidence, "seeds", smallest)


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Gives Wilson's score interval of a success rate; unlike the normal one it stays inside [0, 1] and is not empty.

    Args:
        successes: successful episodes.
        total: all episodes.
        confidence: two-sided confidence level.

    Raises:
        ValueError: if ``successes`` is not within 0..``total`` or ``total`` is 0.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", equation 1.
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"successes must lie in 0..total and total be at least 1, got {successes} of {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, shrink = successes / total, 1.0 / (1.0 + z * z / total)
    centre = shrink * (rate + z * z / (2 * total))
    half = shrink * z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == total else centre + half
    return low, high
