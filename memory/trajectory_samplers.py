"""Batches for sequence models: windows that start from the initial memory, and streams that carry it on.

- :class:`WindowSampler` (``reset``): every row is the K steps up to a drawn one, padded on the left. It has no past.
- :class:`StreamSampler` (``stream``): every row plays an episode, S segments of K steps per batch, and the next batch
  goes on where it stopped, so that a row's memory can be carried over segments and batches. Padded on the right at the
  end of an episode; the next segment of the row begins another, and says so in ``starts``.

Nothing here loops over episodes or rows. Rows are always drawn for the whole batch; several processes that train one
model draw the same batch and take their slice of it.

Legend: B rows, S segments of a row, K steps of a segment (context length), P steps of a prompt, E episodes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, Literal, Self, get_args

import numpy as np

from memory.segment_batch import SegmentBatch
from memory.trajectory_data import TrajectoryData

__all__ = ["Balance", "SegmentBatch", "SegmentSampler", "StreamSampler", "WindowSampler"]

Balance = Literal["steps", "tasks", "episodes"]


class SegmentSampler(ABC):
    """What both samplers share: their numbers, the slice of a process, reading, and the state of the drawing.

    Args:
        data: episodes.
        context_length: K.
        num_segments: S.
        batch_size: rows of the whole batch, over all processes.
        rng: draws; owned by the sampler from here on.
        balance: what is equally likely: the ``steps`` of the data, its ``tasks``, or its ``episodes``.
    Raises:
        ValueError: if a number is below 1, or the balance unknown.
    """

    def __init__(
        self,
        data: TrajectoryData,
        *,
        context_length: int,
        num_segments: int,
        batch_size: int,
        rng: np.random.Generator,
        balance: Balance,
    ) -> None:
        for name, value in {"context_length": context_length, "num_segments": num_segments}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        if balance not in get_args(Balance):
            raise ValueError(f"balance={balance!r}: must be one of {', '.join(get_args(Balance))}")
        self.data = data
        self.context_length, self.num_segments, self.batch_size = context_length, num_segments, batch_size
        self.balance: Balance = balance
        self._rng = rng
        self._slice = slice(0, batch_size)
        self._ends_E = np.cumsum(data.length_E)  # in the steps of the chosen episodes, one after the other

    def rows(self, rank: int, world: int) -> Self:
        """Makes :meth:`sample` give one process's slice of the batch; the drawing stays that of the whole batch.

        Args:
            rank: of this process, in [0, world).
            world: number of processes; divides the batch size.
        Raises:
            ValueError: otherwise.
        """
        if not 0 <= rank < world or self.batch_size % world:
            raise ValueError(f"rank={rank}, world={world}: need 0 <= rank < world, and world divides {self.batch_size}")
        share = self.batch_size // world
        self._slice = slice(rank * share, (rank + 1) * share)
        return self

    def sample(self, batch_size: int) -> tuple[SegmentBatch, np.ndarray]:
        """Draws the next batch.

        Args:
            batch_size: that of the constructor.
        Returns:
            the rows of this process, and for each the place of its newest (windows) or first (streams) real step in
            the data, (B,) int64.
        Raises:
            ValueError: for another batch size.
        """
        if batch_size != self.batch_size:
            raise ValueError(f"batch_size={batch_size}: this sampler was built for {self.batch_size}")
        return self._draw()

    @abstractmethod
    def _draw(self) -> tuple[SegmentBatch, np.ndarray]:
        """Draws for the whole batch and reads this process's rows."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Gives everything the next batches depend on: small arrays by name, and JSON."""
        rng = json.loads(json.dumps(self._rng.bit_generator.state, default=np.ndarray.tolist))
        return {name: array.copy() for name, array in self._arrays().items()}, {"layout": self._layout(), "rng": rng}

    def load(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Goes on as the sampler that gave this :meth:`state`, bit for bit.

        Raises:
            ValueError: if that one drew from other data, or had other numbers.
        """
        saved, own = state["layout"], self._layout()
        differing = {name: (saved.get(name), own[name]) for name in own if saved.get(name) != own[name]}
        if differing:
            raise ValueError(f"the saved sampler differs (saved, this one): {differing}")
        for name, array in self._arrays().items():
            array[:] = arrays[name]
        self._rng.bit_generator.state = state["rng"]

    def _arrays(self) -> dict[str, np.ndarray]:
        """Gives the arrays of the state, the live ones."""
        return {}

    def _layout(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "data": self.data.fingerprint,
            "context_length": self.context_length,
            "num_segments": self.num_segments,
            "batch_size": self.batch_size,
            "balance": self.balance,
        }

    def _read(self, episode_BS: np.ndarray, first_step_BS: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Reads segments; steps before an episode's start and after its end are not valid.

        Args:
            episode_BS: episodes.
            first_step_BS: step of the segment's first place; may be negative.
            length: K.
        """
        data = self.data
        step = first_step_BS[..., None] + np.arange(length)
        last_step = data.length_E[episode_BS][..., None] - 1
        valid = (step >= 0) & (step <= last_step)
        step = np.minimum(np.maximum(step, 0), last_step)
        flat = data.first_step_E[episode_BS][..., None] + step
        read = {
            "obs": data.obs(np.broadcast_to(episode_BS[..., None], step.shape), step),
            "return_to_go": data.return_to_go[flat],
            "timestep": step,
            "action": data.action[flat],
            "reward": data.reward[flat],
            "previous_action": data.action[flat - 1],  # at step 0 another episode's: made zero below
            "previous_reward": data.reward[flat - 1],
        }
        first = step == 0
        read["previous_action"][first], read["previous_reward"][first] = 0, 0
        if not valid.all():
            for array in read.values():
                array[~valid] = 0
        return read | {"valid": valid}

    def _episode_at(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives episode and step of places in the steps of all chosen episodes."""
        episode = np.searchsorted(self._ends_E, place, side="right")
        return episode, place - (self._ends_E[episode] - self.data.length_E[episode])


class WindowSampler(SegmentSampler):
    """Windows of K steps that end at a drawn step, padded on the left, each from the initial memory (S = 1).

    With ``balance="steps"`` every step is equally likely to be a window's newest: episodes in proportion to their
    length. ``tasks``: every task is equally likely, then every step of it; ``episodes``: every episode, then every step
    of it.

    Args:
        data, context_length, batch_size, rng, balance: see :class:`SegmentSampler`.
        num_prompt_steps: P; up to so many steps of the row's task, ending at a uniformly drawn one; 0 for no prompt.
    Raises:
        ValueError: if a number is out of range.
    Source: Chen et al. 2021 (Decision Transformer), trajectories sampled in proportion to length; Xu et al. 2022
        (Prompt-DT) for prompts.
    """

    def __init__(
        self,
        data: TrajectoryData,
        *,
        context_length: int,
        batch_size: int,
        rng: np.random.Generator,
        balance: Balance = "steps",
        num_prompt_steps: int = 0,
    ) -> None:
        if num_prompt_steps < 0:
            raise ValueError(f"num_prompt_steps={num_prompt_steps}: must be at least 0")
        super().__init__(
            data, context_length=context_length, num_segments=1, batch_size=batch_size, rng=rng, balance=balance
        )
        self.num_prompt_steps = num_prompt_steps
        steps_of_task = np.bincount(data.task_E, weights=data.length_E, minlength=len(data.tasks)).astype(np.int64)
        self._task_ends = np.cumsum(steps_of_task)
        self._task_firsts = self._task_ends - steps_of_task

    def _draw(self) -> tuple[SegmentBatch, np.ndarray]:
        place_B = self._places()
        episode_B, step_B = self._episode_at(place_B)
        task_B = self.data.task_E[episode_B]
        prompt = self._prompt(task_B) if self.num_prompt_steps else {}
        episode_B1, task_B1 = episode_B[self._slice, None], task_B[self._slice, None]
        read = self._read(episode_B1, step_B[self._slice, None] - self.context_length + 1, self.context_length)
        batch = SegmentBatch(**read, starts=np.ones(episode_B1.shape, bool), task=task_B1, **prompt)
        return batch, place_B[self._slice]

    def _places(self) -> np.ndarray:
        """Draws the newest steps of the windows, as places in the steps of all chosen episodes."""
        if self.balance == "steps":
            return self._rng.integers(0, self._ends_E[-1], self.batch_size)
        if self.balance == "tasks":
            return self._steps_of(self._rng.integers(0, len(self.data.tasks), self.batch_size))
        episode_B = self._rng.integers(0, self.data.num_episodes, self.batch_size)
        length_B = self.data.length_E[episode_B]
        return self._ends_E[episode_B] - length_B + self._rng.integers(0, length_B)

    def _steps_of(self, task_B: np.ndarray) -> np.ndarray:
        """Draws a uniform step of each of these tasks."""
        return self._rng.integers(self._task_firsts[task_B], self._task_ends[task_B])

    def _prompt(self, task_B: np.ndarray) -> dict[str, np.ndarray]:
        episode_B, step_B = self._episode_at(self._steps_of(task_B))
        episode_B, step_B = episode_B[self._slice], step_B[self._slice]
        read = self._read(episode_B, step_B - self.num_prompt_steps + 1, self.num_prompt_steps)
        names = ("obs", "action", "return_to_go", "timestep", "valid")
        return {f"prompt_{name}": read[name] for name in names}

    def _layout(self) -> dict[str, Any]:
        return super()._layout() | {"num_prompt_steps": self.num_prompt_steps}


class StreamSampler(SegmentSampler):
    """Rows that play their episodes from segment to segment and from batch to batch.

    A row's segments follow each other without gap or overlap, K steps each from where the row entered the episode.
    After its last segment another episode is drawn. ``balance`` says what takes equal shares of the rows' steps in the
    long run: ``steps`` (every step of the data), ``tasks`` or ``episodes``.

    Args:
        data, context_length, num_segments, batch_size, rng, balance: see :class:`SegmentSampler`.
        random_offset: enter an episode at a random multiple of K, not at its start, so that the initial memory meets
            more than first steps; late steps then come up more often than early ones.
    Raises:
        ValueError: if a number is out of range.
    Source: docs/dt_mem.md, "memory across samples".
    """

    def __init__(
        self,
        data: TrajectoryData,
        *,
        context_length: int,
        num_segments: int,
        batch_size: int,
        rng: np.random.Generator,
        balance: Balance = "steps",
        random_offset: bool = False,
    ) -> None:
        super().__init__(
            data,
            context_length=context_length,
            num_segments=num_segments,
            batch_size=batch_size,
            rng=rng,
            balance=balance,
        )
        self.random_offset = random_offset
        self._segments_E = -(-data.length_E // context_length)
        self._cumulated_E = np.cumsum(self._probabilities())
        self._cumulated_E /= self._cumulated_E[-1]
        self._episode_B = np.zeros(batch_size, np.int64)
        self._step_B = np.zeros(batch_size, np.int64)
        self._starts_B = np.ones(batch_size, bool)
        self._enter(np.ones(batch_size, bool))

    def _probabilities(self) -> np.ndarray:
        """Gives the weight of drawing each episode: its share of the steps, over the steps that are then played."""
        data = self.data
        played_E = data.length_E.astype(np.float64)
        if self.random_offset:  # the mean over equally likely entries
            played_E -= self.context_length * (self._segments_E - 1) / 2
        if self.balance == "episodes":
            return 1.0 / played_E
        if self.balance == "steps":
            return data.length_E / played_E
        steps_of_task = np.bincount(data.task_E, weights=data.length_E, minlength=len(data.tasks))
        share_E: np.ndarray = data.length_E / steps_of_task[data.task_E]
        return share_E / played_E

    def _enter(self, rows_B: np.ndarray) -> None:
        """Draws another episode for these rows."""
        count = int(rows_B.sum())
        if not count:
            return
        episode = np.searchsorted(self._cumulated_E, self._rng.random(count), side="right")
        self._episode_B[rows_B] = episode
        segment = self._rng.integers(0, self._segments_E[episode]) if self.random_offset else 0
        self._step_B[rows_B] = segment * self.context_length
        self._starts_B[rows_B] = True

    def _draw(self) -> tuple[SegmentBatch, np.ndarray]:
        shape = (self.batch_size, self.num_segments)
        episode_BS, step_BS, starts_BS = np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape, bool)
        for segment in range(self.num_segments):
            episode_BS[:, segment], step_BS[:, segment] = self._episode_B, self._step_B
            starts_BS[:, segment] = self._starts_B
            self._step_B += self.context_length
            self._starts_B[:] = False
            self._enter(self._step_B >= self.data.length_E[self._episode_B])
        episode_BS, step_BS, starts_BS = episode_BS[self._slice], step_BS[self._slice], starts_BS[self._slice]
        read = self._read(episode_BS, step_BS, self.context_length)
        batch = SegmentBatch(**read, starts=starts_BS, task=self.data.task_E[episode_BS])
        first_B = episode_BS[:, 0]
        return batch, self._ends_E[first_B] - self.data.length_E[first_B] + step_BS[:, 0]

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"episode": self._episode_B, "step": self._step_B, "starts": self._starts_B}

    def _layout(self) -> dict[str, Any]:
        return super()._layout() | {"random_offset": self.random_offset}
