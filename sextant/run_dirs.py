"""Run directories: their names, finding the one to go on with, and keeping two processes out of one."""

from __future__ import annotations

import fcntl
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sextant.config import TrainConfig


class RunError(RuntimeError):
    """A run that cannot be started or resumed; the message says why."""


class RunInterrupted(Exception):
    """A run that was stopped by a signal, after its checkpoint was written."""


def run_name(run_dir: Path) -> str:
    """Gives a run's name: its directory and the one above, e.g. ``dqn-pong/0-20260101-120000``."""
    return "/".join(run_dir.resolve().parts[-2:])


def new_run_dir(config: TrainConfig) -> Path:
    """Makes a directory that no other run has: ``<runs>/<agent>-<env>/<seed>-<time>``."""
    folder = _folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        candidate = folder / (f"{config.seed}-{stamp}" + (f"-{number}" if number > 1 else ""))
        with suppress(FileExistsError):
            candidate.mkdir()
            break
    return candidate


def _folder(config: TrainConfig) -> Path:
    """Gives the folder of all runs of an agent, pruned in a certain way or not, on an env."""
    pruning = config.agent.pruning
    sparse = "" if pruning is None else "pruned_" if pruning.method == "magnitude" else f"{pruning.method}_"
    return config.runs_dir / f"{sparse}{config.agent.label}-{config.env.env_id}"


def remove_if_empty(run_dir: Path) -> None:
    """Removes a run directory in which nothing was written but the lock."""
    if {path.name for path in run_dir.iterdir()} <= {".lock"}:
        (run_dir / ".lock").unlink(missing_ok=True)
        run_dir.rmdir()
        with suppress(OSError):  # other runs of this agent and env
            run_dir.parent.rmdir()


def find_run(config: TrainConfig) -> Path | None:
    """Finds the newest run directory that was started with the same config, or None."""
    from sextant.config import load_run_config

    wanted = _identity(config)
    folder = _folder(config)
    for path in sorted(folder.glob(f"{config.seed}-*/config.yaml"), reverse=True):
        try:
            saved = _identity(load_run_config(path.parent))
        except ValueError:
            continue
        if all(saved[key] == value for key, value in wanted.items() if value != "auto"):
            return path.parent
    return None


@contextmanager
def only_process(run_dir: Path) -> Iterator[None]:
    """Holds the run directory for this process.

    Raises:
        RunError: if another process holds it.
    """
    with open(run_dir / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is at work in {run_dir}") from None
        yield


def _identity(config: TrainConfig) -> dict[str, Any]:
    """The config without what may differ between two starts of one run."""
    return config.model_dump(mode="json", exclude={"resume", "runs_dir"})
