"""A store of episodes: one HDF5 file per task, written in parts that survive any crash, read as a memory map.

Writing: every :meth:`TrajectoryWriter.add` makes a small file of its own in ``<task>.parts/``, written to a temporary
name, forced to disk and renamed; :func:`consolidate` merges the parts into ``<task>.h5``. Parts and merged files have
one format (``memory/trajectory_files.py``, ``docs/data.md``).

Legend: E episodes of a file, N steps of all of them, T steps of an episode.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from memory.trajectories import Episode
from memory.trajectory_facts import DatasetError, TrajectoryFacts, merge_facts
from memory.trajectory_files import PER_EPISODE, write_file
from memory.trajectory_reading import (
    NOT_TOLD,
    TrajectoryFile,
    episode_numbers,
    part_paths,
    parts_path,
    read_directory,
    task_path,
)

__all__ = [
    "DatasetError",
    "TrajectoryFacts",
    "TrajectoryFile",
    "TrajectoryWriter",
    "consolidate",
    "episode_numbers",
    "read_directory",
    "task_path",
]

_MAX_MAPPED = 4096  # files; Linux allows a process 65,530 mappings
_MAX_MAPPED_BYTES = 1 << 26


class TrajectoryWriter:
    """Adds episodes of one task to a folder; each is on the disk when :meth:`add` returns.

    Several writers, in several processes, may add to one task as long as their episode numbers differ.

    Attributes:
        facts: written with every part.
        next_episode: number of the next episode; may be set.
    """

    def __init__(
        self, directory: Path | str, facts: TrajectoryFacts, *, first_episode: int = 0, float16: bool = False
    ) -> None:
        """Starts a writer; nothing is written yet.

        Args:
            directory: of the dataset.
            facts: of the task.
            first_episode: number of the first episode added; the others follow.
            float16: store vector observations in half the bytes, rounded to 11 bits.
        Raises:
            ValueError: for a negative number, or float16 of what are no vectors.
        """
        if float16 and facts.observation_kind != "vector":
            raise ValueError(f"float16=True is for vector observations, these are {facts.observation_kind!r}")
        if first_episode < 0:
            raise ValueError(f"first_episode={first_episode} must be >= 0")
        self.facts = replace(facts, obs_dtype="float16") if float16 else facts
        self.next_episode = first_episode
        self._directory, self._open = Path(directory), True
        self._parts = parts_path(self._directory, facts.task)
        self._taken = set(episode_numbers(self._directory, facts.task))

    def add(self, *episodes: Episode) -> None:
        """Writes episodes as one part: all of them are kept, or none if killed meanwhile.

        Args:
            episodes: one, or a batch where many short ones would make too many files.
        Raises:
            ValueError: if one does not match the facts, its number is taken or the writer is closed.
        """
        numbers = range(self.next_episode, self.next_episode + len(episodes))
        if not self._open or not episodes:
            raise ValueError("add needs an open writer and at least one episode")
        path = self._parts / _part_name(numbers)
        if path.exists() or not self._taken.isdisjoint(numbers):
            raise ValueError(f"episode {numbers[0]} of task {self.facts.task!r} is already in {self._directory}")
        pieces = [_checked_piece(episode, self.facts) for episode in episodes]
        lengths_E = np.array([episode.length for episode in episodes])
        self._parts.mkdir(parents=True, exist_ok=True)
        write_file(path, self.facts, lengths_E, _table(episodes, numbers), pieces)
        self.next_episode = numbers.stop

    def close(self) -> None:
        """Ends the writer; the parts stay until :func:`consolidate` merges them."""
        self._open = False

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def consolidate(directory: Path | str, task: str) -> Path:
    """Merges the parts of a task into its file, ordered by episode number; only then removes them.

    May be interrupted and called again at any time. Reads and writes one episode at a time. Call it when the task's
    writers are closed.

    Args:
        directory: of the dataset.
        task: name of the task.
    Returns:
        the file.
    Raises:
        DatasetError: if a part is damaged, parts do not belong together, or there is nothing to merge.
    """
    path, folder = task_path(directory, task), parts_path(directory, task)
    parts = part_paths(folder)
    _remove_temporary(path)
    if not parts and not path.exists():
        raise DatasetError(f"{path}: does not exist, and there are no parts of it in {folder}")
    if parts:
        _merge(path, parts)
    for part in parts:
        _remove_temporary(part)
        part.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return path


class _Sources:
    """Opens each file once, as long as they are not too many or too large to stay mapped."""

    def __init__(self) -> None:
        self._files: dict[Path, TrajectoryFile] = {}
        self._verified: set[Path] = set()
        self._bytes = 0

    def open(self, path: Path) -> TrajectoryFile:
        """Gives a file, verified when it is first opened."""
        if path not in self._files:
            if len(self._files) >= _MAX_MAPPED or self._bytes >= _MAX_MAPPED_BYTES:
                self._files, self._bytes = {}, 0
            self._files[path] = TrajectoryFile.open(path, verify=path not in self._verified)
            self._verified.add(path)
            self._bytes += path.stat().st_size
        return self._files[path]


def _merge(path: Path, parts: Sequence[Path]) -> None:
    """Writes the file anew from itself and the parts."""
    files, rows = _Sources(), dict[int, tuple[Path, int]]()
    tables: dict[str, list[np.ndarray]] = {name: [] for name in (*PER_EPISODE, "length")}
    facts: list[TrajectoryFacts] = []
    for source in [*([path] if path.exists() else []), *parts]:
        file = files.open(source)
        facts += [file.facts] if file.facts not in facts else []
        keep = [index for index in range(file.num_episodes) if not _is_repeated(file, index, rows, files)]
        rows.update((int(file.arrays["episode_number"][index]), (source, index)) for index in keep)
        for name in PER_EPISODE:
            tables[name].append(file.arrays[name][keep])
        tables["length"].append(file.lengths_E[keep])
    if all(source == path for source, _ in rows.values()):
        return
    table = {name: np.concatenate(columns) for name, columns in tables.items()}
    order = np.argsort(table["episode_number"])
    table = {name: column[order] for name, column in table.items()}
    try:
        merged = merge_facts(facts)
    except ValueError as error:
        raise DatasetError(f"{path}: its parts do not belong together: {error}") from error
    places = (rows[number] for number in table["episode_number"].tolist())
    write_file(path, merged, table["length"], table, (files.open(source).piece(index) for source, index in places))


def _remove_temporary(path: Path) -> None:
    """Removes what killed processes left of a file."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        temporary.unlink()


def _is_repeated(file: TrajectoryFile, index: int, rows: Mapping[int, tuple[Path, int]], files: _Sources) -> bool:
    """Tells whether an episode is already there; one number for two different episodes is an error."""
    number = int(file.arrays["episode_number"][index])
    if number not in rows:
        return False
    path, other_index = rows[number]
    other = files.open(path).piece(other_index)
    if any(not np.array_equal(array, other[name]) for name, array in file.piece(index).items()):
        raise DatasetError(f"{file.path}: its episode {number} is not episode {number} of {path}")
    return True


def _table(episodes: Sequence[Episode], numbers: Sequence[int]) -> dict[str, np.ndarray]:
    goals = [NOT_TOLD if episode.goal_index is None else episode.goal_index for episode in episodes]
    return {
        "episode_number": np.array(numbers, np.int64),
        "terminated": np.array([episode.terminated for episode in episodes], bool),
        "truncated": np.array([episode.truncated for episode in episodes], bool),
        "seed": np.array([episode.seed for episode in episodes], np.int64),
        "goal_index": np.array(goals, np.int64),
        "noise": np.array([episode.noise for episode in episodes], np.float64),
        "source": np.array([episode.source.encode() for episode in episodes]),
    }


def _checked_piece(episode: Episode, facts: TrajectoryFacts) -> dict[str, np.ndarray]:
    """Gives an episode's flat arrays as stored.

    Raises:
        ValueError: naming what does not match the facts.
    """
    obs, action = episode.obs, episode.action
    if episode.task != facts.task:
        raise ValueError(f"task={episode.task!r} was given to the writer of task {facts.task!r}")
    if facts.obs_dtype == "float16" and obs.dtype == np.float32:
        with np.errstate(over="ignore"):
            obs = obs.astype(np.float16)
        if not np.isfinite(obs).all():
            raise ValueError(f"obs reaches {np.abs(episode.obs).max()}, float16 holds up to 65504")
    dtype, kind = obs.dtype.name, "discrete" if action.dtype == np.int64 else "continuous"
    if (dtype, obs.shape[1:]) != (facts.obs_dtype, facts.stored_shape):
        raise ValueError(f"obs is {dtype}{list(obs.shape[1:])}, expected {facts.obs_dtype}{list(facts.stored_shape)}")
    if (kind, action.shape[1:]) != (facts.action_kind, facts.action_shape):
        expected = f"{facts.action_kind} {list(facts.action_shape)}"
        raise ValueError(f"action is {kind} {list(action.shape[1:])}, expected {expected}")
    if facts.num_actions is not None and action.max() >= facts.num_actions:
        raise ValueError(f"action={action.max()} is not below num_actions={facts.num_actions}")
    success = np.full(episode.length, NOT_TOLD) if episode.success is None else episode.success
    return {"obs": obs, "action": action, "reward": episode.reward, "success": success.astype(np.int8)}


def _part_name(numbers: range) -> str:
    return f"{numbers[0]:08d}-{numbers[-1]:08d}.h5" if len(numbers) > 1 else f"{numbers[0]:08d}.h5"
