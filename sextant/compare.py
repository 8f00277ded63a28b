"""What ``sextant compare`` does once its arguments are valid: groups runs by setting, compares their evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.compare_runs import CheckpointName, ComparedRun, check_protocols, find_runs, group_labels, load_run
from sextant.refusal import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.compare import EpisodeScores, Improvement, Metric, Row, RunScore
    from analysis.curves import Curve
    from analysis.statistics import Interval
    from trainers.episodes import EpisodeRecord


@dataclass(frozen=True)
class Comparison:
    """The outcome, where it was written, and what training is counted in."""

    rows: list[Row]
    improvements: list[Improvement]
    scores: list[RunScore]
    metric: str
    warnings: list[str]
    directory: Path
    unit: str = "env steps"


def run_compare(
    paths: Sequence[Path],
    *,
    metric: str | None = None,
    checkpoint: CheckpointName = "last",
    protocol: str | None = None,
    allow_mixed: bool = False,
    out: Path | None = None,
    names: Mapping[Path, str] | None = None,
    num_resamples: int = 10_000,
    seed: int = 0,
    console: Console | None = None,
) -> Comparison:
    """Compares runs by their evaluation episodes.

    Args:
        paths: run directories, or folders that hold some.
        metric: ``return`` | ``human_normalised`` | ``success`` | ``success_last`` | ``length``; None chooses.
        checkpoint: which policy of each run.
        protocol: id of the protocol whose evaluations are compared; needed where runs have several.
        allow_mixed: compare results of different protocols all the same, with a warning.
        out: folder for table and plots (default: ``comparisons/<groups>``).
        names: label of all runs below a folder; None names groups by the settings in which they differ.
        num_resamples: bootstrap resamples.
        seed: of the bootstrap.
        console: for the table (default: standard output).

    Returns:
        the comparison.

    Raises:
        ConfigError: if a run or its evaluation is missing, protocols differ, or the metric does not fit.
    """
    import numpy as np
    from rich.console import Console

    from analysis.compare import compare_scores, improvements

    runs = [load_run(path, checkpoint, protocol) for path in find_runs(paths)]
    warnings = check_protocols(runs, allow_mixed=allow_mixed)
    labels, legend = group_labels(runs) if names is None else ({run.path: _named(run, names) for run in runs}, [])
    chosen = _metric(metric, runs)
    rng = np.random.default_rng(seed)
    try:
        scores = [score for run in runs for score in _scores(run, labels[run.path], chosen)]
        rows = compare_scores(scores, rng=rng, pool_tasks=chosen.poolable, num_resamples=num_resamples)
    except (ValueError, KeyError) as error:
        raise ConfigError(str(error.args[0])) from error
    better = improvements(scores, rng=rng, num_resamples=num_resamples)
    warnings += _warnings(rows, chosen)
    directory = out or Path("comparisons") / _folder_name(list(dict.fromkeys(labels.values())))
    units = {run.unit for run in runs}
    unit = units.pop() if len(units) == 1 else "training steps"
    comparison = Comparison(rows, better, scores, chosen.name, warnings, directory, unit)
    from sextant.compare_files import comparison_table, write_comparison

    write_comparison(comparison, chosen, _curves(runs, labels, chosen), checkpoint)
    console = console or Console()
    table, shared = comparison_table(comparison, chosen.title, console.width)
    console.print(table)
    for line in [*([shared] if shared else []), *legend]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in [*warnings, *map(improvement_text, better), f"table and plots: {directory}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return comparison


def _metric(name: str | None, runs: Sequence[ComparedRun]) -> Metric:
    from analysis.compare import METRICS
    from analysis.reference_scores import RANDOM_AND_HUMAN

    if name is not None:
        if name not in METRICS:
            raise ConfigError(f"--metric {name} is not allowed: expected {' | '.join(METRICS)}")
        return METRICS[name]
    records = [record for run in runs for record in run.evaluation.records]
    tasks = {record.task for record in records}
    if all(record.success is not None for record in records):
        return METRICS["success"]
    return METRICS["human_normalised" if len(tasks) > 1 and tasks <= RANDOM_AND_HUMAN.keys() else "return"]


def _named(run: ComparedRun, names: Mapping[Path, str]) -> str:
    return next(name for folder, name in names.items() if run.path.resolve().is_relative_to(folder.resolve()))


def _scores(run: ComparedRun, group: str, metric: Metric) -> list[RunScore]:
    from analysis.compare import RunScore

    by_task: dict[str, list[EpisodeRecord]] = {}
    for record in run.evaluation.records:
        by_task.setdefault(record.task, []).append(record)
    return [
        RunScore(
            group=group,
            run=run.name,
            seed=run.seed,
            task=_task_label(run, task),
            score=metric.score(_episode_scores(task, records)),
            num_episodes=len(records),
            env_steps=run.evaluation.env_steps,
        )
        for task, records in by_task.items()
    ]


def _task_label(run: ComparedRun, task: str) -> str:
    env_name = run.evaluation.protocol["env_name"]
    return task if task == env_name else f"{env_name}/{task}"


def _episode_scores(task: str, records: Sequence[EpisodeRecord]) -> EpisodeScores:
    import numpy as np

    from analysis.compare import EpisodeScores

    knows_success = all(record.success is not None for record in records)
    return EpisodeScores(
        task=task,
        raw_return=np.array([record.raw_return for record in records], np.float64),
        length=np.array([record.length for record in records], np.float64),
        success=np.array([record.success for record in records], np.float64) if knows_success else None,
        success_last=np.array([record.success_last for record in records], np.float64) if knows_success else None,
    )


def _curves(runs: Sequence[ComparedRun], labels: Mapping[Path, str], metric: Metric) -> list[Curve]:
    from analysis.curves import align, choose_column, read_columns

    by_env: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        groups = by_env.setdefault(run.evaluation.protocol["env_name"], {})
        groups.setdefault(labels[run.path], []).append(read_columns(run.path / "metrics.csv"))
    curves = []
    for env_name, groups in by_env.items():
        column = choose_column([columns for members in groups.values() for columns in members], metric.curves)
        if column is not None:
            curves += [align(group, env_name, column, members) for group, members in groups.items()]
    return [curve for curve in curves if curve is not None]


def _warnings(rows: Sequence[Row], metric: Metric) -> list[str]:
    found = []
    if len({row.task for row in rows}) > 1 and not metric.poolable:
        found.append(f"No row over all tasks: {metric.title} of different tasks cannot be averaged.")
    if len({row.episodes for row in rows} | {(row.episodes[0],) * 2 for row in rows}) > 1:
        found.append("The runs were evaluated on different numbers of episodes (column episodes).")
    if any(row.env_steps[0] != row.env_steps[1] for row in rows):
        found.append("Runs of one group were trained for different numbers of steps (fifth column).")
    return found


def improvement_text(improvement: Improvement) -> str:
    """Gives the probability of improvement as a sentence."""
    tasks = f" (mean over {len(improvement.tasks)} tasks)" if len(improvement.tasks) > 1 else ""
    return (
        f"P({improvement.group} > {improvement.other}) = {improvement.probability:.2f}"
        f"{interval_text(improvement.interval)}{tasks}; {improvement.note}"
    )


def interval_text(interval: Interval | None) -> str:
    """Gives the bounds as `` [low, high]``; nothing where there is no interval."""
    return "" if interval is None else f" [{interval.low:.4g}, {interval.high:.4g}]"


def _folder_name(labels: Sequence[str]) -> str:
    import re

    words = [re.sub(r"[^A-Za-z0-9._=-]+", "_", label).strip("_") for label in labels]
    return "-vs-".join(words)[:100]
