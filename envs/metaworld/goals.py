"""The goals of a benchmark: exactly the package's own, generated without the global RNG, and cached on disk.

A goal is the vector an environment draws at reset (object and target positions). The package draws 50 per task with
one ``np.random.seed(seed)`` stream over all tasks of a benchmark in order, running the simulator's 50 settling steps
for each draw. The vectors do not depend on those steps, so all but one are skipped; and the same stream comes from a
``RandomState`` of our own, so no global generator is touched.

Only the vectors are cached, as a plain ``.npz`` without pickle, under ``$SEXTANT_CACHE_DIR``,
``$XDG_CACHE_HOME/sextant`` or ``~/.cache/sextant``. A file whose hash does not match is made anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from envs.base import package_versions
from envs.metaworld.tasks import GOALS_PER_TASK


@dataclass(frozen=True, eq=False)
class GoalSet:
    """The goals of an ordered list of tasks.

    Attributes:
        seed: seed of the stream they were drawn from.
        vectors: per task the goals, float64 of shape (50, size); the size depends on the task (3 or 6 numbers).
    """

    seed: int
    vectors: Mapping[str, np.ndarray]

    @property
    def hash(self) -> str:
        """First 12 hex digits of the sha256 over names and vectors, in order."""
        digest = hashlib.sha256()
        for task, goals in self.vectors.items():
            digest.update(f"{task} {goals.shape}".encode())
            digest.update(np.ascontiguousarray(goals, dtype="<f8").tobytes())
        return digest.hexdigest()[:12]


def load_goals(tasks: tuple[str, ...], seed: int) -> GoalSet:
    """Gives the goals that ``metaworld`` makes for these tasks and this seed, from memory, disk, or anew.

    Args:
        tasks: task names in the benchmark's order, which decides the goals.
        seed: seed of the stream, as given to the package (its ML1 adds one for the test split).
    """
    return _load_goals(tasks, seed, cache_directory())


@functools.lru_cache(maxsize=64)
def _load_goals(tasks: tuple[str, ...], seed: int, directory: Path) -> GoalSet:
    path = directory / "metaworld-goals" / f"{_cache_key(tasks, seed)}.npz"
    goals = _read(path, tasks, seed)
    if goals is None:
        goals = generate_goals(tasks, seed)
        _write(path, goals)
    return goals


def generate_goals(tasks: tuple[str, ...], seed: int) -> GoalSet:
    """Draws the goals anew, about 0.25 s per task; the global numpy generator is neither read nor moved.

    Raises:
        RuntimeError: if a task's goals are not all different, which the package refuses too.
    """
    stream = np.random.RandomState(seed)
    return GoalSet(seed, {task: _draw(task, stream) for task in tasks})


def _draw(task: str, stream: np.random.RandomState) -> np.ndarray:
    """Draws one task's goals, shape (50, size), as ``metaworld._make_tasks`` does."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    simulator = cast("Any", ALL_V3_ENVIRONMENTS[task]())
    simulator._freeze_rand_vec = False
    simulator._set_task_called = True
    simulator.seeded_rand_vec = True
    simulator.np_random = stream  # RandomState(seed).uniform is the stream of np.random.seed(seed); np.random.uniform
    simulator._reset_hand = lambda steps=50: SawyerXYZEnv._reset_hand(simulator, steps=1)
    drawn = []
    for _ in range(GOALS_PER_TASK):
        simulator.reset()
        drawn.append(simulator._last_rand_vec)
    simulator.close()
    goals = np.array(drawn, dtype=np.float64)
    if len(np.unique(goals, axis=0)) != GOALS_PER_TASK:
        raise RuntimeError(f"{task}: only {len(np.unique(goals, axis=0))} of {GOALS_PER_TASK} goals differ")
    goals.setflags(write=False)
    return goals


def cache_directory() -> Path:
    """Gives the folder for things that can be made again; it may not exist yet."""
    if own := os.environ.get("SEXTANT_CACHE_DIR"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "sextant"
    return Path.home() / ".cache" / "sextant"


def _cache_key(tasks: tuple[str, ...], seed: int) -> str:
    versions = package_versions("metaworld", "mujoco")
    text = " ".join([*tasks, str(seed), *(f"{package}={version}" for package, version in versions.items())])
    return f"{len(tasks)}-tasks-seed-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _read(path: Path, tasks: tuple[str, ...], seed: int) -> GoalSet | None:
    """Reads a cached goal set; None if there is none, or if it is not what was written."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            vectors = {task: stored[task] for task in tasks}
            goals = GoalSet(seed, vectors)
            if str(stored["hash"]) != goals.hash:
                return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    for each in vectors.values():
        each.setflags(write=False)
    return goals


def _write(path: Path, goals: GoalSet) -> None:
    """Writes a goal set in one step; a cache that cannot be written is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, hash=np.array(goals.hash), **dict(goals.vectors))  # type: ignore[arg-type]
        os.replace(file.name, path)
    except OSError:
        return
