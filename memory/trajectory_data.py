"""The union of trajectory files as flat arrays, to be indexed by step: what the samplers draw from.

Actions, rewards and returns-to-go of all files lie in memory, one step after the other. Vector observations do too, up
to a limit; pixels stay in their memory-mapped files, and stacks of frames are rebuilt when they are read.

Legend: E episodes, O observation shape, P percentiles; * any leading shape.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memory.data_summary import NUM_QUANTILES, DataSummary
from memory.trajectories import frame_stacks

if TYPE_CHECKING:
    from memory.trajectory_facts import TrajectoryFacts
    from memory.trajectory_reading import TrajectoryFile

MAX_RESIDENT_BYTES = 4 * 2**30
"""Vector observations above this stay in their files. 50 Meta-World tasks x 1000 episodes of 100 steps are 0.8 GB."""

_ROWS_AT_ONCE = 2**18  # of float64 statistics: 80 MB at 39 numbers
_AGREEING_FACTS = ("observation_kind", "obs_shape", "action_kind", "num_actions", "action_size", "goal_visible")


class TrajectoryData:
    """Episodes of one or several tasks, from one or several files each.

    Attributes:
        tasks: names; their places are the task indices.
        facts: of the first file. All files agree in what an agent sees and does.
        clip_reward: whether rewards (and so returns) are clipped to [-1, 1].
        task_E: task index, int64; episodes of one task follow each other.
        length_E: steps, int64.
        return_E: undiscounted sum of the (clipped) rewards, float64.
        first_step_E: place of the first step in the flat arrays, int64.
        action, reward, return_to_go: flat arrays over the steps of all files; rewards are clipped where asked for.
        obs_mean, obs_std: per observation entry, over the observations acted on in all tasks together, float32 (std is
            0 where an entry never changes); None for pixels.

    Args:
        files: opened trajectory files; those of tasks that are not asked for are passed over.
        clip_reward: clip every reward to [-1, 1]; rewards of files whose facts say so are clipped in any case.
        tasks: which, in the order of their indices; None for all, in the order of the files.
        episodes_per_task: only the first so many of each task (demonstrations to adapt from); None for all.
        top_fraction: of those, only this share of each task with the highest return, at least one, in (0, 1].
    Raises:
        ValueError: if there is no episode, a task is unknown, files differ in what an agent sees or does, or a number
            is out of range.
    Source: docs/dt_mem.md: statistics over all tasks, since those of one task would tell which it is.
    """

    def __init__(
        self,
        files: Sequence[TrajectoryFile],
        *,
        clip_reward: bool = False,
        tasks: Sequence[str] | None = None,
        episodes_per_task: int | None = None,
        top_fraction: float = 1.0,
    ) -> None:
        if episodes_per_task is not None and episodes_per_task < 1:
            raise ValueError(f"episodes_per_task={episodes_per_task}: must be at least 1, or None for all")
        if not 0 < top_fraction <= 1:
            raise ValueError(f"top_fraction={top_fraction}: must be in (0, 1]")
        self.tasks = _chosen_tasks(files, tasks)
        self.files = _ordered_files(files, self.tasks)
        self.facts: TrajectoryFacts = self.files[0].facts
        self.clip_reward = clip_reward or any(file.facts.reward_clip for file in self.files)
        _check_agreement(self.files)
        self.action = np.concatenate([file.action for file in self.files])
        self.reward = np.concatenate([self._clipped(file, clip_reward) for file in self.files])
        self._index_episodes()
        self.return_to_go, self.return_E = _returns(self.reward, self.first_step_E, self.length_E)
        self._select(episodes_per_task, top_fraction)
        self.observations = Observations(self.files)
        self.obs_mean, self.obs_std = self._obs_statistics()

    def _clipped(self, file: TrajectoryFile, clip_reward: bool) -> np.ndarray:
        reward = np.asarray(file.reward, np.float32)
        return np.clip(reward, -1.0, 1.0) if clip_reward or file.facts.reward_clip else reward

    def _index_episodes(self) -> None:
        """Places every episode of every file in the flat arrays."""
        counts = [file.num_episodes for file in self.files]
        self.length_E = np.concatenate([np.asarray(file.lengths_E, np.int64) for file in self.files])
        self.task_E = np.repeat([self.tasks.index(file.facts.task) for file in self.files], counts).astype(np.int64)
        ends_E = np.cumsum(self.length_E)
        self.first_step_E = ends_E - self.length_E
        self.first_obs_E = self.first_step_E + np.arange(len(self.length_E))  # each has one observation more

    def _select(self, episodes_per_task: int | None, top_fraction: float) -> None:
        """Keeps the first or the best episodes of each task."""
        kept = []
        for index in range(len(self.tasks)):
            episodes = np.flatnonzero(self.task_E == index)[:episodes_per_task]
            count = max(1, round(top_fraction * len(episodes)))
            best = np.argsort(-self.return_E[episodes], kind="stable")[:count]
            kept.append(np.sort(episodes[best]))
        chosen_E = np.concatenate(kept)
        for name in ("length_E", "task_E", "first_step_E", "first_obs_E", "return_E"):
            setattr(self, name, getattr(self, name)[chosen_E])

    @property
    def num_episodes(self) -> int:
        """Episodes in all tasks."""
        return len(self.length_E)

    @property
    def num_steps(self) -> int:
        """Env steps in all tasks."""
        return int(self.length_E.sum())

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of a sha256 over the files' digests and the episodes and rewards that are used."""
        digest = hashlib.sha256("".join(file.digest for file in self.files).encode())
        for array in (self.first_step_E, self.length_E, self.task_E):
            digest.update(array.astype("<i8").tobytes())
        digest.update(str(self.clip_reward).encode())
        return digest.hexdigest()[:16]

    def summary(self) -> DataSummary:
        """Gives what a trained agent has to know of the data, small enough for its run directory."""
        quantiles = {
            task: tuple(np.percentile(self.return_E[self.task_E == index], np.linspace(0, 100, NUM_QUANTILES)).tolist())
            for index, task in enumerate(self.tasks)
        }
        return DataSummary(
            tasks=self.tasks,
            obs_mean=None if self.obs_mean is None else tuple(self.obs_mean.tolist()),
            obs_std=None if self.obs_std is None else tuple(self.obs_std.tolist()),
            max_length=int(self.length_E.max()),
            return_quantiles=quantiles,
            max_abs_reward=float(np.abs(self.reward[self._steps()]).max()),
            num_episodes=self.num_episodes,
            num_steps=self.num_steps,
            digests={f"{index}/{file.path.name}": file.digest for index, file in enumerate(self.files)},
            reward_clip=self.clip_reward,
        )

    def obs(self, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Gives observations as an agent sees them.

        Args:
            episode: places in the per-episode arrays, (*).
            step: of the episode, 0-based; the length gives the last observation, (*).
        Returns:
            (*, *O) float32, or uint8 for pixels; an array of its own.
        """
        return self.observations.gather(self.first_obs_E[episode], step)

    def _steps(self) -> np.ndarray:
        """Gives the flat places of all steps of the chosen episodes."""
        return _ranges(self.first_step_E, self.length_E)

    def _obs_statistics(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Gives mean and standard deviation of what was acted on, in two passes of float64."""
        if self.facts.observation_kind != "vector":
            return None, None
        rows = _ranges(self.first_obs_E, self.length_E)
        pieces = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
        mean = sum(self._vectors(piece).sum(axis=0) for piece in pieces) / len(rows)
        variance = sum(((self._vectors(piece) - mean) ** 2).sum(axis=0) for piece in pieces) / len(rows)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        return self.observations.gather(rows, np.zeros_like(rows)).astype(np.float64)


class Observations:
    """The observations of several files behind one row number.

    Args:
        files: which agree in kind and shape.
        max_resident_bytes: vectors up to this are copied into memory, as one array.
    """

    def __init__(self, files: Sequence[TrajectoryFile], max_resident_bytes: int = MAX_RESIDENT_BYTES) -> None:
        facts = files[0].facts
        self._shape = tuple(facts.obs_shape)
        self._stack_num = facts.stack_num if facts.observation_kind == "frames" else None
        self._arrays = [file.obs for file in files]
        self._is_pixels = all(array.dtype == np.uint8 for array in self._arrays)
        if facts.observation_kind == "vector" and sum(array.nbytes for array in self._arrays) <= max_resident_bytes:
            self._arrays = [np.concatenate(self._arrays)]
        self._first_row = np.cumsum([0, *(len(array) for array in self._arrays)])

    def gather(self, first_row: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Gives observations.

        Args:
            first_row: of their episodes, (*).
            step: of the episode, 0-based, (*).
        Returns:
            (*, *O) float32, or uint8 for pixels.
        """
        if len(self._arrays) == 1:
            return self._read(0, first_row, step)
        file = np.searchsorted(self._first_row, first_row, side="right") - 1
        found = np.empty((*first_row.shape, *self._shape), np.uint8 if self._is_pixels else np.float32)
        for each in np.unique(file):
            mine = file == each
            found[mine] = self._read(int(each), first_row[mine] - self._first_row[each], step[mine])
        return found

    def _read(self, file: int, first_row: np.ndarray, step: np.ndarray) -> np.ndarray:
        array = self._arrays[file]
        if self._stack_num is not None:
            return frame_stacks(array, first_row, step, self._stack_num)
        found = np.asarray(array.take(first_row + step, axis=0))
        return found if self._is_pixels else found.astype(np.float32, copy=False)


def _chosen_tasks(files: Sequence[TrajectoryFile], tasks: Sequence[str] | None) -> tuple[str, ...]:
    """Gives the task names in the order of their indices."""
    known = tuple(dict.fromkeys(file.facts.task for file in files if file.num_episodes))
    if not known:
        raise ValueError(f"no episode in {len(files)} trajectory files")
    chosen = known if tasks is None else tuple(tasks)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"tasks={list(chosen)}: give at least one, and none twice")
    for task in chosen:
        if task not in known:
            close = difflib.get_close_matches(task, known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(known[:12])}"
            raise ValueError(f"tasks: no episodes of {task!r} in these files; {hint}")
    return chosen


def _ordered_files(files: Sequence[TrajectoryFile], tasks: tuple[str, ...]) -> list[TrajectoryFile]:
    """Gives the files of the chosen tasks, those of one task beside each other."""
    mine = [file for file in files if file.facts.task in tasks and file.num_episodes]
    return sorted(mine, key=lambda file: tasks.index(file.facts.task))


def _check_agreement(files: Sequence[TrajectoryFile]) -> None:
    first = files[0]
    for file in files[1:]:
        for name in _AGREEING_FACTS:
            own, other = getattr(first.facts, name), getattr(file.facts, name)
            if own != other:
                raise ValueError(
                    f"{file.path} has {name}={other!r}, but {first.path} has {own!r}: "
                    "one agent can only be trained on files that agree in it"
                )


def _returns(reward: np.ndarray, first_step_E: np.ndarray, length_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the undiscounted sum of rewards from every step to its episode's end, that of its last step included.

    Args:
        reward: flat, float32.
        first_step_E: places of the episodes' first steps, ascending, without gaps.
        length_E: their steps.
    Returns:
        the sums over the steps, float32; those of the first steps, (E,) float64.
    """
    return_to_go, return_E = np.empty(len(reward), np.float32), np.empty(len(length_E))
    for episode, (first, length) in enumerate(zip(first_step_E.tolist(), length_E.tolist(), strict=True)):
        sums = np.cumsum(reward[first : first + length][::-1], dtype=np.float64)[::-1]
        return_to_go[first : first + length] = sums
        return_E[episode] = sums[0]
    return return_to_go, return_E


def _ranges(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Gives first, first + 1, ..., first + length - 1 of every pair, one after the other."""
    ends = np.cumsum(length)
    return np.repeat(first - (ends - length), length) + np.arange(ends[-1])
