"""What ``sextant adapt`` does once its arguments are valid: makes the configs of adapted runs, and runs them.

An adapted run is an offline run like any other: its config is that of its base with ``agent.adaptation`` set and data,
length and env replaced. What it takes from its base, and when, is in :mod:`sextant.base_run`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.adapt_config import AdaptConfig
from sextant.base_run import WEIGHTS_FILE, tasks_of
from sextant.config import TrainConfig, load_run_config, validated
from sextant.refusal import ConfigError, refuse_missing
from sextant.training_evaluation import evaluation_scores

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_ADAPTER_WIDTH = 16
"""Width of the bottlenecks that method=adapters adds to a base without any. Source: docs/dt_mem.md."""

_TASK_KEY = {"metaworld": "task", "memory_tasks": "task", "classic": "id", "atari": "game", "minatar": "game"}


def run_adapt(config: AdaptConfig, *, console: Console | None = None) -> list[Path]:
    """Adapts a trained model, once or to each task by itself.

    Args:
        config: what is adapted to what.
        console: for the closing table (default: standard output).

    Returns:
        the run directories, in the order of the tasks.

    Raises:
        ConfigError: if base, data and settings cannot be used together.
        RunError: if a run cannot be started.
        RunInterrupted: after SIGTERM or Ctrl-C, when the checkpoint is written; later tasks are not started.
    """
    from rich.console import Console

    from sextant.train import run_train

    console = console or Console()
    base, digest = load_run_config(config.run), base_digest(config, console)
    configs = [adapted_config(config, base, digest, tasks) for tasks in _task_groups(config)]
    run_dirs = []
    for each in configs:
        if config.per_task:
            console.print(f"adapting to {', '.join(tasks_of(each))}", markup=False)
        run_dirs.append(run_train(each))
    for line in _result_lines(configs, run_dirs):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if config.bank is not None:
        from sextant.adapters_bank import write_bank

        console.print(f"adapters of {len(run_dirs)} tasks: {write_bank(run_dirs, config.bank)}", markup=False)
    return run_dirs


def base_digest(config: AdaptConfig, console: Console) -> str | None:
    """Gives the sha256 of the weights that are taken from the base; None for method=scratch, which takes none.

    Raises:
        ConfigError: if the base has no such checkpoint, or is no sequence model.
    """
    from sextant.evaluate import intact_snapshot

    agent: Any = load_run_config(config.run).agent
    if not hasattr(agent, "adaptation"):
        raise ConfigError(f"run={config.run}: agent={agent.name} cannot be adapted, only decision_transformer can")
    if config.method == "scratch":
        return None
    snapshot = intact_snapshot(config.run, config.checkpoint, console)
    return hashlib.sha256((snapshot.path / WEIGHTS_FILE).read_bytes()).hexdigest()


def adapted_config(
    config: AdaptConfig, base: TrainConfig, digest: str | None, tasks: tuple[str, ...] | None
) -> TrainConfig:
    """Gives the config of an adapted run: the base's, changed as asked for.

    Args:
        config: the keys of the command.
        base: config of the base.
        digest: see :func:`base_digest`.
        tasks: of the run; None for all of the data.

    Returns:
        the config. On one task, the run is evaluated in that task, unless ``env.*`` says otherwise.

    Raises:
        ConfigError: if it cannot be run.
    """
    from omegaconf import OmegaConf

    data = base.model_dump(mode="json")
    adaptation = config.adaptation(digest).model_dump(mode="json")
    data["agent"] |= {"pruning": None, "adaptation": adaptation, "warmup_steps": _warmup(config)}
    if config.learning_rate is not None:
        data["agent"]["learning_rate"] = config.learning_rate
    if config.method == "adapters" and data["agent"]["adapter"] is None:
        data["agent"]["adapter"] = DEFAULT_ADAPTER_WIDTH
    data["trainer"] |= _length(config, tasks)
    if tasks is not None and len(tasks) == 1 and not config.env:
        data["env"] = env_of_task(data["env"], tasks[0])
    data["resume"] = config.resume
    for name in ("seed", "device", "threads", "runs_dir"):
        value = getattr(config, name)
        data[name] = data[name] if value is None else str(value) if name == "runs_dir" else value
    changes = {group: getattr(config, group) for group in ("agent", "env", "trainer")}
    merged: Any = OmegaConf.to_container(OmegaConf.merge(data, changes))
    return validated(TrainConfig, merged)


def env_of_task(env: dict[str, Any], task: str) -> dict[str, Any]:
    """Gives an env config, as plain data, that plays one task only.

    A task of a Meta-World benchmark is played by itself, with as much of the goal to be seen, and with its own 50 goals
    instead of those that the benchmark draws for all its tasks in turn. One game of several keeps their spaces.
    """
    from envs.metaworld.tasks import is_meta_learning

    if env["name"] == "games":
        return _game_alone(env, task)
    narrowed = {**env, _TASK_KEY[env["name"]]: task}
    if env["name"] == "metaworld" and env["task"] is None:
        visible = env["goal_visible"]
        shown = not is_meta_learning(env["benchmark"]) if visible is None else visible
        narrowed |= {"benchmark": "single", "goal_visible": shown, "evaluation_split": None}
    return narrowed


def _game_alone(env: dict[str, Any], task: str) -> dict[str, Any]:
    """Gives the config of one game as it is among several; it need not be one of them."""
    from envs import GamesConfig

    try:
        return GamesConfig.model_validate(env).game_config(task).model_dump(mode="json")
    except ValueError as error:
        raise ConfigError(f"{task} is not a game that env.suite={env['suite']} has: {error}") from error


def _task_groups(config: AdaptConfig) -> list[tuple[str, ...] | None]:
    """Gives the tasks of each run."""
    if not config.per_task:
        return [config.tasks]
    return [(task,) for task in config.tasks or _tasks_in(config.data)]


def _tasks_in(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Gives the tasks in trajectory files, in their order."""
    from memory.trajectory_reading import read_directory

    refuse_missing("data", paths)
    files = [file for path in paths for file in read_directory(Path(path), verify=False)]
    return tuple(dict.fromkeys(file.facts.task for file in files if file.num_episodes))


def _warmup(config: AdaptConfig) -> int:
    return config.total_gradient_steps // 10 if config.warmup_steps is None else config.warmup_steps


def _length(config: AdaptConfig, tasks: tuple[str, ...] | None) -> dict[str, Any]:
    """Gives the keys of the trainer that an adapted run does not take from its base."""
    return {
        "data": list(config.data),
        "tasks": None if tasks is None else list(tasks),
        "episodes_per_task": config.episodes_per_task,
        "top_fraction": 1.0,
        "total_gradient_steps": config.total_gradient_steps,
        "checkpoint_every_gradient_steps": config.period,
        "evaluate_every_gradient_steps": config.period,
        "evaluate_at_start": True,
        "evaluate_at_end": True,
        "evaluation_episodes": config.evaluation_episodes,
    }


def _result_lines(configs: list[TrainConfig], run_dirs: list[Path]) -> list[str]:
    """Gives a line for each run: its score before the first gradient step and after the last, and where it lies."""
    lines = ["", f"{'tasks':<32}{'before':>10}{'after':>10}{'best':>10}  run directory"]
    for each, run_dir in zip(configs, run_dirs, strict=True):
        tasks = ", ".join(tasks_of(each)) or "all"
        scores = evaluation_scores(run_dir)
        steps = sorted(scores)
        shown = [f"{score:>10.4g}" for score in (scores[steps[0]], scores[steps[-1]], max(scores.values()))]
        lines.append(f"{tasks:<32}{''.join(shown)}  {run_dir}")
    return lines
