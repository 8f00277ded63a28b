"""The runs of a comparison: finding them, choosing their evaluations, grouping them, and checking their protocols."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sextant.config import CONFIG_FILE, load_run_config
from sextant.refusal import ConfigError
from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from trainers.evaluation_files import StoredEvaluation

CheckpointName = Literal["last", "best"]

OWN_TO_AN_ENV = frozenset({"env_name", "tasks", "goals_hash", "benchmark", "horizon", "num_episodes", "hash"})
"""Protocol fields that differ between envs by nature; between two envs only the others must agree."""


BUDGET_KEYS = ("total_env_steps", "total_gradient_steps", "data", "tasks", "episodes_per_task", "top_fraction")
"""Keys of a trainer that make two runs samples of one setting: how long, and offline on what."""


@dataclass(frozen=True)
class ComparedRun:
    """One run with the evaluation that enters the comparison.

    Attributes:
        path: run directory.
        settings: what makes its group, flat: agent, env rules and budget, without env identity, seed and machine.
        agent: name of the agent.
        seed: training seed.
        evaluation: the chosen one.
        unit: what its training is counted in: env steps or gradient steps.
    """

    path: Path
    settings: dict[str, Any]
    agent: str
    seed: int
    evaluation: StoredEvaluation
    unit: str = "env steps"

    @property
    def name(self) -> str:
        """Name of the run, as in its records."""
        return run_name(self.path)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Gives the run directories among and anywhere below the given folders, each once; links are not followed.

    Raises:
        ConfigError: naming a folder that holds none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        runs = list(_runs_below(path))
        if not runs:
            raise ConfigError(f"{path} is not a run directory, and holds none: no config.yaml there")
        for run in runs:
            found.setdefault(run.resolve(), run)
    if not found:
        raise ConfigError("compare needs at least one run directory")
    return list(found.values())


def _runs_below(path: Path) -> Iterator[Path]:
    """Gives run directories in the order of their paths; nothing inside one is looked at."""
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if CONFIG_FILE in files:
            subfolders.clear()
            yield Path(folder)


def load_run(path: Path, checkpoint: CheckpointName, protocol: str | None) -> ComparedRun:
    """Reads a run's config and evaluations, and gives it with the one evaluation that enters the comparison.

    Raises:
        ConfigError: if the run cannot be read, or has no fitting evaluation.
    """
    from trainers.evaluation_files import load_evaluations

    config = load_run_config(path)
    try:
        evaluations = load_evaluations(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    evaluation = choose_evaluation(path, evaluations, checkpoint, protocol)
    settings = group_settings(config.model_dump(mode="json"))
    unit = config.trainer.axis.replace("_", " ")
    return ComparedRun(path, settings, config.agent.name, config.seed, evaluation, unit)


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
            "name one with --protocol (id or hash)"
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
        if key not in ("game", "games", "task", "id", "benchmark", "num_threads", "workers", "max_simulators")
        and not key.startswith("evaluation_")
    }
    budget = {key: config["trainer"][key] for key in BUDGET_KEYS if key in config["trainer"]}
    if budget.get("data"):
        budget["data"] = [_setting_of(Path(path)) for path in budget["data"]]
    settings = flatten({"agent": config["agent"], "env": env, "trainer": budget})
    return {key: value for key, value in settings.items() if key not in OF_A_BASE}


def _setting_of(data: Path) -> str:
    """Names what makes two runs' data alike: of a run directory its agent, env and settings, not its seed."""
    if (data / CONFIG_FILE).exists():
        settings = group_settings(load_run_config(data).model_dump(mode="json"))
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        return f"replay of {data.resolve().parent.name} ({digest[:8]})"
    return str(data.parent if RUN_NAME.fullmatch(data.name) else data)


RUN_NAME = re.compile(r"\d+-\d{8}-\d{6}(-\d+)?")
"""Name of a run directory: its seed and when it was started."""

OF_A_BASE = ("agent.adaptation.base", "agent.adaptation.base_digest")
"""Keys that name one run among the bases of an adapted setting: another for every seed."""

LONGEST_LABEL = 60
"""Characters of a group's label beyond which settings are named by a letter and spelled out below the table."""


def group_labels(runs: Sequence[ComparedRun]) -> tuple[dict[Path, str], list[str]]:
    """Names each run's group: its agent's name, and where several settings share it, the keys in which they differ.

    Args:
        runs: all that are compared.

    Returns:
        the label of each run by its path, and a line for each label that is a letter because the keys are too many.
    """
    labels, legend, letters = {}, [], dict[str, str]()
    for run in runs:
        namesakes = [other.settings for other in runs if other.agent == run.agent]
        keys = sorted({key for settings in namesakes for key in settings})
        differing = [key for key in keys if len({repr(settings.get(key)) for settings in namesakes}) > 1]
        shown = ", ".join(f"{key}={run.settings.get(key, 'null')}" for key in differing)
        label = f"{run.agent} ({shown})" if shown else run.agent
        if len(label) > LONGEST_LABEL:
            if label not in letters:
                letters[label] = f"{run.agent} {chr(ord('A') + len(letters))}"
                legend.append(f"{letters[label]}: {shown}")
            label = letters[label]
        labels[run.path] = label
    return labels, legend
