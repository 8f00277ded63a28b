"""What ``sextant compare`` does once its arguments are valid: groups runs by setting, compares their evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sextant.refusal import ConfigError
from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.compare import EpisodeScores, Improvement, Metric, Row, RunScore
    from analysis.curves import Curve
    from analysis.statistics import Interval
    from trainers.episodes import EpisodeRecord
    from trainers.evaluation_files import StoredEvaluation

CheckpointName = Literal["last", "best"]

OWN_TO_AN_ENV = frozenset({"env_name", "tasks", "goals_hash", "benchmark", "horizon", "num_episodes", "hash"})
"""Protocol fields that differ between envs by nature; between two envs only the others must agree."""


@dataclass(frozen=True)
class ComparedRun:
    """One run with the evaluation that enters the comparison.

    Attributes:
        path: run directory.
        settings: what makes its group, flat: agent, env rules and budget, without env identity, seed and machine.
        agent: name of the agent.
        seed: training seed.
        evaluation: the chosen one.
    """

    path: Path
    settings: dict[str, Any]
    agent: str
    seed: int
    evaluation: StoredEvaluation

    @property
    def name(self) -> str:
        """Name of the run, as in its records."""
        return run_name(self.path)


@dataclass(frozen=True)
class Comparison:
    """The outcome, and where it was written."""

    rows: list[Row]
    improvements: list[Improvement]
    scores: list[RunScore]
    metric: str
    warnings: list[str]
    directory: Path


def run_compare(
    paths: Sequence[Path],
    *,
    metric: str | None = None,
    checkpoint: CheckpointName = "last",
    protocol: str | None = None,
    allow_mixed: bool = False,
    out: Path | None = None,
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

    runs = [_load(path, checkpoint, protocol) for path in find_runs(paths)]
    warnings = check_protocols(runs, allow_mixed=allow_mixed)
    labels = group_labels(runs)
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
    comparison = Comparison(rows, better, scores, chosen.name, warnings, directory)
    from sextant.compare_files import comparison_table, write_comparison

    write_comparison(comparison, chosen, _curves(runs, labels, chosen), checkpoint)
    console = console or Console()
    console.print(comparison_table(comparison, chosen.title))
    for line in [*warnings, *map(improvement_text, better), f"table and plots: {directory}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return comparison


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Gives the run directories among and directly or one level below the given folders, each once.

    Raises:
        ConfigError: naming a folder that holds none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        configs = [
            file for pattern in ("config.yaml", "*/config.yaml", "*/*/config.yaml") for file in path.glob(pattern)
        ]
        if not configs:
            raise ConfigError(f"{path} is not a run directory, and holds none: no config.yaml there")
        for config in sorted(configs):
            found.setdefault(config.parent.resolve(), config.parent)
    if not found:
        raise ConfigError("compare needs at least one run directory")
    return list(found.values())


def _load(path: Path, checkpoint: CheckpointName, protocol: str | None) -> ComparedRun:
    from sextant.config import load_run_config
    from trainers.evaluation_files import load_evaluations

    config = load_run_config(path)
    try:
        evaluations = load_evaluations(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    evaluation = choose_evaluation(path, evaluations, checkpoint, protocol)
    settings = group_settings(config.model_dump(mode="json"))
    return ComparedRun(path, settings, config.agent.name, config.seed, evaluation)


def choose_evaluation(
    path: Path, evaluations: Sequence[StoredEvaluation], checkpoint: CheckpointName, protocol: str | None
) -> StoredEvaluation:
    """Gives the evaluation of a run that enters the comparison: of the most trained ``last`` (or ``best``) policy.

    What training itself evaluated last stands in for ``last`` where there is nothing newer.

    Raises:
        ConfigError: if there is none, or there are several protocols and none is named.
    """
    policies = ("training", "last") if checkpoint == "last" else ("best",)
    fitting = [each for each in evaluations if each.policy in policies]
    if protocol is not None:
        fitting = [each for each in fitting if protocol in (each.protocol["id"], each.protocol_hash)]
    named = f" protocol={protocol}" if protocol is not None else ""
    if not fitting:
        raise ConfigError(
            f"{path} has no evaluation of its {checkpoint} checkpoint{' under ' + protocol if protocol else ''}; "
            f"run `sextant evaluate run={path} checkpoint={checkpoint}{named}` first"
        )
    hashes = {each.protocol_hash: f"{each.protocol['id']} ({each.protocol_hash})" for each in fitting}
    if len(hashes) > 1:
        raise ConfigError(
            f"{path} was evaluated under several protocols: {', '.join(sorted(hashes.values()))}; "
            "name one with protocol=ID or its hash"
        )
    return max(fitting, key=lambda each: (each.env_steps, policies.index(each.policy), -each.seed))


def check_protocols(runs: Sequence[ComparedRun], *, allow_mixed: bool) -> list[str]:
    """Makes sure that all runs were evaluated under one protocol (between envs: under the same rules).

    Returns:
        warnings, empty unless ``allow_mixed`` let something pass.

    Raises:
        ConfigError: naming two hashes and the fields in which their protocols differ.
    """
    first: dict[str, ComparedRun] = {}
    for run in runs:
        env_name = run.evaluation.protocol["env_name"]
        other = first.setdefault(env_name, run)
        same_env = run.evaluation.protocol_hash != other.evaluation.protocol_hash
        between_envs = different_fields(runs[0].evaluation.protocol, run.evaluation.protocol, OWN_TO_AN_ENV)
        if same_env or between_envs:
            message = _mixed_message(other if same_env else runs[0], run)
            if not allow_mixed:
                raise ConfigError(f"{message}. Give --allow-mixed to compare them all the same")
            return [f"MIXED PROTOCOLS: {message}. Differences between groups may be differences between protocols."]
    return []


def different_fields(one: Mapping[str, Any], other: Mapping[str, Any], left_out: frozenset[str]) -> list[str]:
    """Gives ``field: value / value`` for each field in which two protocols differ."""
    names = [name for name in {**one, **other} if name not in left_out]
    return [f"{n}: {one.get(n)!r} / {other.get(n)!r}" for n in names if one.get(n) != other.get(n)]


def _mixed_message(one: ComparedRun, other: ComparedRun) -> str:
    a, b = one.evaluation.protocol, other.evaluation.protocol
    left_out = frozenset({"hash"}) if a["env_name"] == b["env_name"] else OWN_TO_AN_ENV
    fields = "; ".join(different_fields(a, b, left_out)) or "fields that were not recorded"
    return (
        f"the runs were evaluated under different protocols, {a['hash']} ({one.name}) and {b['hash']} ({other.name}), "
        f"which differ in {fields}"
    )


def group_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what makes two runs samples of one setting: agent, rules of training and budget, as flat keys.

    Seed, machine, output settings and the env's identity (game, task) are left out: they tell samples and tasks of
    one setting apart. So are evaluation settings, which the protocol check sees to.
    """
    from trainers.run_log import flatten

    env = {
        key: value
        for key, value in config["env"].items()
        if key not in ("game", "task", "id", "benchmark", "num_threads", "workers", "max_simulators")
        and not key.startswith("evaluation_")
    }
    budget = {"total_env_steps": config["trainer"]["total_env_steps"]}
    return flatten({"agent": config["agent"], "env": env, "trainer": budget})


def group_labels(runs: Sequence[ComparedRun]) -> dict[Path, str]:
    """Gives each run's group: its agent's name, and where several settings share it, the keys in which they differ."""
    labels = {}
    for run in runs:
        namesakes = [other.settings for other in runs if other.agent == run.agent]
        keys = sorted({key for settings in namesakes for key in settings})
        differing = [key for key in keys if len({repr(settings.get(key)) for settings in namesakes}) > 1]
        shown = ", ".join(f"{key}={run.settings.get(key, 'null')}" for key in differing)
        labels[run.path] = f"{run.agent} ({shown})" if shown else run.agent
    return labels


def _metric(name: str | None, runs: Sequence[ComparedRun]) -> Metric:
    from analysis.compare import METRICS
    from analysis.reference_scores import RANDOM_AND_HUMAN

    if name is not None:
        if name not in METRICS:
            raise ConfigError(f"metric={name} is not allowed: expected {' | '.join(METRICS)}")
        return METRICS[name]
    records = [record for run in runs for record in run.evaluation.records]
    tasks = {record.task for record in records}
    if all(record.success is not None for record in records):
        return METRICS["success"]
    return METRICS["human_normalised" if len(tasks) > 1 and tasks <= RANDOM_AND_HUMAN.keys() else "return"]


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
        found.append("Runs of one group were trained for different numbers of env steps (column env steps).")
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
