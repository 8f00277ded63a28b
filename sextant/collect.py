"""What ``sextant collect`` does once its arguments are valid: plays what is missing, stores it, shows what is there.

Every episode is on the disk when it ends. The same command, given again, goes on with what is missing; given with more
episodes, it adds them. A folder that holds the task under other facts is refused.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.collect_config import CollectConfig
from sextant.collect_plan import Plan, Unit, make_plan, with_facts
from sextant.refusal import ConfigError
from sextant.run_dirs import RunInterrupted, only_process, run_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from memory.trajectory_facts import TrajectoryFacts
    from sextant.collect_workers import Played
    from sextant.config import TrainConfig

_MAY_DIFFER = ("code_version", "extra.other_sources")


def run_collect(config: CollectConfig, *, console: Console | None = None) -> Path:
    """Makes a dataset, or goes on with it.

    Args:
        config: what is collected.
        console: for progress and table (default: standard output).

    Returns:
        the folder of the dataset.

    Raises:
        ConfigError: if the env, run or checkpoint cannot be used, or the folder holds other data.
        RunError: if another process collects into the folder, or a collecting process was killed.
        RunInterrupted: after Ctrl-C; every finished episode is stored.
        DatasetError: if a file in the folder is damaged.
    """
    from rich.console import Console

    from sextant.data import describe

    console = console or Console()
    if config.policy == "replay":
        from sextant.collect_replay import collect_replay

        config.out.mkdir(parents=True, exist_ok=True)
        with only_process(config.out):
            collect_replay(config, console)
    else:
        plan = _plan(config, console)
        config.out.mkdir(parents=True, exist_ok=True)
        with only_process(config.out):
            _collect(plan, console)
    describe(config.out, brief=True, console=console)
    return config.out


def _plan(config: CollectConfig, console: Console) -> Plan:
    """Decides what is played, and looks at the env's spaces."""
    from sextant.env_spaces import spaces_of_env

    train_config: TrainConfig | None = None
    source, env_steps = None, None
    if config.run is not None:
        from sextant.config import load_run_config
        from sextant.evaluate import intact_snapshot

        train_config = load_run_config(config.run)
        env_steps = intact_snapshot(config.run, config.checkpoint, console).env_steps
        source = f"run:{run_name(config.run)}@{env_steps}"
    plan = make_plan(config, train_config, source, env_steps)
    return with_facts(plan, *spaces_of_env(plan.env, plan.protocol))


def check_facts(directory: Path, facts: TrajectoryFacts, *, float16: bool = False) -> None:
    """Refuses a folder that holds a task's episodes under other facts; another commit of this code may go on.

    Args:
        directory: of the dataset.
        facts: of the episodes to be added.
        float16: whether they will be stored in half precision.
    Raises:
        ConfigError: naming what differs.
    """
    from dataclasses import replace

    from memory.trajectory_reading import TrajectoryFile, part_paths, parts_path, task_path

    path = task_path(directory, facts.task)
    stored = path if path.exists() else next(iter(part_paths(parts_path(directory, facts.task))), None)
    if stored is None:
        return
    wanted = (replace(facts, obs_dtype="float16") if float16 else facts).to_json()
    found = TrajectoryFile.open(stored, verify=False).facts.to_json()
    differing = {name: (found[name], value) for name, value in wanted.items() if found[name] != value}
    if lines := [
        f"  {name}: {json.dumps(there)} there, {json.dumps(here)} here"
        for name, (there, here) in _flat(differing)
        if name not in _MAY_DIFFER
    ]:
        text = "\n".join(lines)
        raise ConfigError(f"out={directory} holds other data of {facts.task}; take another folder:\n{text}")


def _flat(differing: dict[str, tuple[Any, Any]]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Gives what differs, inside of dicts key by key."""
    for name, (there, here) in differing.items():
        if isinstance(there, dict) and isinstance(here, dict):
            for key in sorted(there.keys() | here.keys()):
                if there.get(key) != here.get(key):
                    yield f"{name}.{key}", (there.get(key), here.get(key))
        else:
            yield name, (there, here)


def _collect(plan: Plan, console: Console) -> None:
    """Plays the missing episodes of every task and merges the parts of those that are complete."""
    from memory.trajectory_store import consolidate, episode_numbers
    from sextant.collect_workers import play_here, play_in_processes

    directory = plan.config.out
    for facts in plan.facts.values():
        check_facts(directory, facts, float16=plan.config.float16)
    present = {task: episode_numbers(directory, task) for task in plan.tasks}
    units = plan.units(present)
    left = Counter[str]()
    for unit in units:
        left[unit.task] += len(unit.missing)
    for task in plan.tasks:
        if present[task] and not left[task]:
            consolidate(directory, task)
    play = play_here if plan.config.workers == 1 or len(units) < 2 else play_in_processes
    try:
        with _Shown(console, units, sum(map(len, present.values()))) as shown:
            for played in play(plan, units):
                shown.add(played)
                left[played.task] -= played.kept
                if not left[played.task]:
                    consolidate(directory, played.task)
    except KeyboardInterrupt:
        done = sum(len(episode_numbers(directory, task)) - len(present[task]) for task in plan.tasks)
        console.print(
            f"stopped: {done} more episodes are stored in {directory}; the same command goes on", markup=False
        )
        raise RunInterrupted from None


class _Shown:
    """A progress line: episodes, steps per second, success so far."""

    def __init__(self, console: Console, units: list[Unit], num_present: int) -> None:
        self._total = sum(len(unit.missing) for unit in units)
        self._steps = self._told = self._successes = self._episodes = 0
        self._console, self._num_present = console, num_present
        self._started = time.perf_counter()
        self._bar: Progress

    def __enter__(self) -> _Shown:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._num_present:
            self._console.print(f"{self._num_present:,} episodes are there already, {self._total:,} are missing")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._bar.start()
        self._task = self._bar.add_task("starting", total=self._total)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        if self._episodes:
            self._console.print(f"{self._episodes:,} episodes, {self._text()}", markup=False, highlight=False)

    def add(self, played: Played) -> None:
        """Counts an episode."""
        self._steps += played.length
        if not played.kept:
            return
        self._episodes += 1
        if played.succeeded is not None:
            self._told += 1
            self._successes += played.succeeded
        self._bar.update(self._task, advance=1, description=f"{played.task}: {self._text()}")

    def _text(self) -> str:
        speed = self._steps / (time.perf_counter() - self._started)
        success = f", success {self._successes / self._told:.0%}" if self._told else ""
        return f"{self._steps:,} env steps, {speed:,.0f} steps/s{success}"
