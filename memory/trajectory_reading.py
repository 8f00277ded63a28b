"""Trajectory files as memory maps, and where the files of a dataset lie.

Legend: E episodes of a file, N steps of all of them, T steps of an episode, A action shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import numpy as np

from memory.trajectories import Episode, episode_sums
from memory.trajectory_facts import DatasetError, TrajectoryFacts
from memory.trajectory_files import FLAT, map_file

NOT_TOLD = -1
"""In ``success`` where the env does not tell, in ``goal_index`` where there are no goals."""


@dataclass(frozen=True, eq=False)
class TrajectoryFile:
    """A trajectory file, memory-mapped: nothing but the pages that are looked at is in memory.

    Attributes:
        path: of the file.
        facts: what is true of all its episodes.
        digest: sha256 of its content, hexadecimal; equal content gives equal digests.
        arrays: all datasets by name, read-only.
    """

    path: Path
    facts: TrajectoryFacts
    digest: str
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> TrajectoryFile:
        """Maps a file, having checked its schema.

        Args:
            path: an ``.h5`` file.
            verify: read it once to compare its digest (about a second per GB); False checks size and schema only.
        Raises:
            DatasetError: naming the file and what is wrong with it.
        """
        facts, digest, arrays = map_file(Path(path), verify=verify)
        return cls(Path(path), facts, digest, arrays)

    @property
    def obs(self) -> np.ndarray:
        """Stored observations of all episodes, (N + E, ...): T + 1 for each; episode e's begin at obs_starts_E[e]."""
        return self.arrays["obs"]

    @property
    def action(self) -> np.ndarray:
        """Actions, (N,) int64 or (N, A) float32."""
        return self.arrays["action"]

    @property
    def reward(self) -> np.ndarray:
        """Rewards as the env gave them, (N,) float32."""
        return self.arrays["reward"]

    @property
    def success(self) -> np.ndarray:
        """After each step, (N,) int8: 1 success, 0 none, -1 where the env does not tell."""
        return self.arrays["success"]

    @property
    def offsets_E1(self) -> np.ndarray:
        """Place of each episode's first step in ``action``, ``reward``, ``success``; N at the end. (E + 1,) int64."""
        return self.arrays["episode_offsets"]

    @cached_property
    def obs_starts_E(self) -> np.ndarray:
        """Place of each episode's first observation in ``obs``, (E,) int64."""
        return self.offsets_E1[:-1] + np.arange(self.num_episodes)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.offsets_E1) - 1

    @property
    def num_steps(self) -> int:
        """N, env steps as the agent counts them."""
        return int(self.offsets_E1[-1])

    @cached_property
    def lengths_E(self) -> np.ndarray:
        """Steps of each episode, int64."""
        return np.diff(self.offsets_E1)

    @cached_property
    def returns_E(self) -> np.ndarray:
        """Undiscounted sum of each episode's rewards, float64."""
        return episode_sums(self.reward, self.offsets_E1)

    @cached_property
    def successes_E(self) -> np.ndarray:
        """Whether any step of each episode was a success, float64: 1 or 0; NaN where the env does not tell."""
        best_E = np.maximum.reduceat(self.success, self.offsets_E1[:-1]).astype(np.float64)
        return np.where(best_E < 0, np.nan, best_E)

    def episode(self, index: int) -> Episode:
        """Gives one episode; its arrays are views of the mapped file.

        Args:
            index: place in the file, in [0, E).
        Raises:
            IndexError: for another index.
        """
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"{self.path}: episode {index} does not exist, it has {self.num_episodes}")
        arrays, goal = self.arrays, int(self.arrays["goal_index"][index])
        piece = self.piece(index)
        told = bool((piece["success"] >= 0).all())
        return Episode(
            obs=piece["obs"],
            action=piece["action"],
            reward=piece["reward"],
            terminated=bool(arrays["terminated"][index]),
            truncated=bool(arrays["truncated"][index]),
            success=piece["success"] == 1 if told else None,
            task=self.facts.task,
            seed=int(arrays["seed"][index]),
            goal_index=None if goal == NOT_TOLD else goal,
            noise=float(arrays["noise"][index]),
            source=arrays["source"][index].decode(),
        )

    def piece(self, index: int) -> dict[str, np.ndarray]:
        """Gives one episode's rows of the flat datasets as they are stored, by name."""
        steps = slice(self.offsets_E1[index], self.offsets_E1[index + 1])
        observations = slice(steps.start + index, steps.stop + index + 1)
        return {name: self.arrays[name][observations if name == "obs" else steps] for name in FLAT}

    def __repr__(self) -> str:
        return f"TrajectoryFile({self.path}, {self.num_episodes:,} episodes, {self.num_steps:,} steps)"


def read_directory(path: Path | str, *, verify: bool = True) -> list[TrajectoryFile]:
    """Opens a dataset.

    Args:
        path: a folder with a file per task, or one file.
        verify: as for :meth:`TrajectoryFile.open`.
    Returns:
        the files, sorted by task.
    Raises:
        DatasetError: if there is none, one is damaged, or parts were not merged yet.
    """
    path = Path(path)
    if not path.is_dir():
        return [TrajectoryFile.open(path, verify=verify)]
    for folder in sorted(path.glob("*.parts")):
        if part_paths(folder):
            raise DatasetError(f"{folder}: holds episodes that are not merged yet; call consolidate first")
    files = [TrajectoryFile.open(file, verify=verify) for file in sorted(path.glob("*.h5"))]
    if not files:
        raise DatasetError(f"{path}: holds no .h5 files")
    return sorted(files, key=lambda file: file.facts.task)


def task_path(directory: Path | str, task: str) -> Path:
    """Gives the file of a task; characters that file names cannot hold are written as in URLs."""
    return Path(directory) / f"{quote(task, safe=' ')}.h5"


def episode_numbers(directory: Path | str, task: str) -> list[int]:
    """Gives the numbers of all episodes of a task, merged or not, in order: what a resumed collection may skip.

    Raises:
        DatasetError: if the file is damaged.
    """
    path = task_path(directory, task)
    numbers = set(TrajectoryFile.open(path, verify=False).arrays["episode_number"].tolist()) if path.exists() else set()
    for part in part_paths(parts_path(directory, task)):
        numbers.update(_numbers_of(part))
    return sorted(numbers)


def parts_path(directory: Path | str, task: str) -> Path:
    """Gives the folder of a task's parts."""
    return task_path(directory, task).with_suffix(".parts")


def part_paths(folder: Path) -> list[Path]:
    """Gives the parts in a folder; none where there is no folder."""
    return sorted(folder.glob("[0-9]*.h5"))


def _numbers_of(part: Path) -> range:
    first, _, last = part.stem.partition("-")
    return range(int(first), int(last or first) + 1)
