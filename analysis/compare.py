"""Compares groups of runs: point estimates with intervals over seeds, probability of improvement, learning curves.

A group is one setting trained with several seeds. Intervals exist from 3 seeds upward; below that the table says why
there is none.

Legend: R runs (seeds) of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.reference_scores import human_normalised
from analysis.statistics import (
    Floats,
    Interval,
    Statistic,
    TooFewSamples,
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean,
    probability_of_improvement,
)

ALL_TASKS = "all tasks"


@dataclass(frozen=True)
class EpisodeScores:
    """What a metric needs of the episodes of one run on one task; arrays are over episodes.

    Attributes:
        task: game or task.
        raw_return: raw returns.
        length: agent steps.
        success, success_last: successes at any step and at the last one; None where the env knows no success.
    """

    task: str
    raw_return: Floats
    length: Floats
    success: Floats | None = None
    success_last: Floats | None = None


def _known(values: Floats | None, name: str) -> Floats:
    if values is None:
        raise ValueError(f"metric {name!r}: these episodes know no success")
    return values


@dataclass(frozen=True)
class Metric:
    """A number per run and task.

    Attributes:
        name: as given to ``--metric``.
        title: for table and figure.
        score: gives the number from a run's episodes on a task.
        poolable: whether numbers of different tasks may be averaged.
        curves: columns of metrics.csv that show it over training, the preferred one first.
    """

    name: str
    title: str
    score: Callable[[EpisodeScores], float]
    poolable: bool
    curves: tuple[str, ...]


_RETURN_CURVES = ("eval/return_mean", "train/return_mean")
_SUCCESS_CURVES = ("eval/success_rate", "train/success_rate")
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("return", "raw return", lambda e: float(e.raw_return.mean()), False, _RETURN_CURVES),
        Metric(
            "human_normalised",
            "human-normalised score",
            lambda e: human_normalised(e.task, float(e.raw_return.mean())),
            True,
            _RETURN_CURVES,
        ),
        Metric(
            "success",
            "success rate (at any step)",
            lambda e: float(_known(e.success, "success").mean()),
            True,
            _SUCCESS_CURVES,
        ),
        Metric(
            "success_last",
            "success rate (at the last step)",
            lambda e: float(_known(e.success_last, "success_last").mean()),
            True,
            _SUCCESS_CURVES,
        ),
        Metric(
            "length",
            "episode length (agent steps)",
            lambda e: float(e.length.mean()),
            False,
            ("eval/length_mean", "train/length_mean"),
        ),
    )
}


@dataclass(frozen=True)
class RunScore:
    """One run's score on one task.

    Attributes:
        group: label of its setting.
        run: name of the run.
        seed: training seed.
        task: game or task.
        score: the metric over the run's episodes.
        num_episodes: episodes behind it.
        env_steps: training of the evaluated checkpoint (unit: env steps).
    """

    group: str
    run: str
    seed: int
    task: str
    score: float
    num_episodes: int
    env_steps: int


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a group on one task, or on all tasks together.

    Attributes:
        group, task: what is summarised; the task may be ``all tasks``.
        num_seeds: runs (the fewest of any task for ``all tasks``).
        episodes: fewest and most episodes behind a run's score.
        env_steps: least and most training of a run (unit: env steps).
        iqm, mean: over runs (and tasks).
        iqm_interval, mean_interval: over seeds, or None.
        low, high: worst and best run.
        note: what must be read with the numbers: why there is no interval, or that it is over few seeds.
    """

    group: str
    task: str
    num_seeds: int
    episodes: tuple[int, int]
    env_steps: tuple[int, int]
    iqm: float
    iqm_interval: Interval | None
    mean: float
    mean_interval: Interval | None
    low: float
    high: float
    note: str


@dataclass(frozen=True)
class Improvement:
    """Probability that a run of one group beats a run of another on the same task."""

    group: str
    other: str
    tasks: tuple[str, ...]
    probability: float
    interval: Interval | None
    note: str


def _interval_or_reason(make: Callable[[], Interval]) -> tuple[Interval | None, str]:
    try:
        interval = make()
    except TooFewSamples as error:
        return None, str(error)
    return interval, interval.note


def compare_scores(
    scores: Sequence[RunScore], *, rng: np.random.Generator, pool_tasks: bool, num_resamples: int = 10_000
) -> list[Row]:
    """Gives a row per group and task, and per group one over all its tasks where they may be pooled.

    Args:
        scores: one per run and task.
        rng: of the bootstrap.
        pool_tasks: whether scores of different tasks may be averaged.
        num_resamples: bootstrap resamples.

    Returns:
        rows, groups in their order of appearance.

    Raises:
        ValueError: if two runs of a group share seed and task, for they say the same thing twice.
    """
    _refuse_duplicates(scores)
    rows = []
    for group in dict.fromkeys(score.group for score in scores):
        own = [score for score in scores if score.group == group]
        tasks = sorted({score.task for score in own})
        parts = [(task, [[score for score in own if score.task == task]]) for task in tasks]
        if pool_tasks and len(tasks) > 1:
            parts.append((ALL_TASKS, [by_task for _, (by_task,) in parts]))
        rows += [_row(group, task, by_task, rng, num_resamples) for task, by_task in parts]
    return rows


def _row(group: str, task: str, by_task: list[list[RunScore]], rng: np.random.Generator, num_resamples: int) -> Row:
    values = [np.array([score.score for score in runs]) for runs in by_task]
    runs = [score for task_runs in by_task for score in task_runs]

    def interval(statistic: Statistic) -> tuple[Interval | None, str]:
        return _interval_or_reason(lambda: bootstrap_interval(values, statistic, rng=rng, num_resamples=num_resamples))

    iqm_interval, note = interval(iqm)
    mean_interval, _ = interval(mean)
    episodes, env_steps = [run.num_episodes for run in runs], [run.env_steps for run in runs]
    return Row(
        group=group,
        task=task,
        num_seeds=min(len(task_runs) for task_runs in by_task),
        episodes=(min(episodes), max(episodes)),
        env_steps=(min(env_steps), max(env_steps)),
        iqm=float(iqm(values)),
        iqm_interval=iqm_interval,
        mean=float(mean(values)),
        mean_interval=mean_interval,
        low=min(run.score for run in runs),
        high=max(run.score for run in runs),
        note=note,
    )


def _refuse_duplicates(scores: Iterable[RunScore]) -> None:
    seen: dict[tuple[str, str, int], str] = {}
    for score in scores:
        key = (score.group, score.task, score.seed)
        if key in seen:
            raise ValueError(
                f"{seen[key]} and {score.run} are the same setting ({score.group}) with the same seed {score.seed}: "
                "they are one sample, not two; leave one of them out"
            )
        seen[key] = score.run


def improvements(
    scores: Sequence[RunScore], *, rng: np.random.Generator, num_resamples: int = 10_000
) -> list[Improvement]:
    """Gives the probability of improvement of every group over each one before it, on the tasks both have.

    Args:
        scores: one per run and task.
        rng: of the bootstrap.
        num_resamples: bootstrap resamples.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        values.setdefault(score.group, {}).setdefault(score.task, []).append(score.score)
    groups = list(values)
    found = []
    for position, group in enumerate(groups):
        for other in groups[:position]:
            tasks = sorted(values[group].keys() & values[other].keys())
            if tasks:
                found.append(_improvement(group, other, tasks, values, rng, num_resamples))
    return found


def _improvement(
    group: str,
    other: str,
    tasks: list[str],
    values: dict[str, dict[str, list[float]]],
    rng: np.random.Generator,
    num_resamples: int,
) -> Improvement:
    x, y = ([np.array(values[name][task]) for task in tasks] for name in (group, other))
    interval, note = _interval_or_reason(lambda: improvement_interval(x, y, rng=rng, num_resamples=num_resamples))
    return Improvement(group, other, tuple(tasks), probability_of_improvement(x, y), interval, note)
