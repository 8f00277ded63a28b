"""Rings of transitions as Tianshou's algorithms and Collector see a buffer: indices, neighbours, ends, ``add``.

Nominally a ``ReplayBufferManager`` (the Collector asks for one), but nothing of its storage is used: its ``add`` loops
over envs, its children lose the shared memory when loaded, ``hasnull`` copies everything, and its seed is ignored.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from tianshou.data import Batch, ReplayBufferManager

from memory.ring import Ring

if TYPE_CHECKING:
    from tianshou.data.batch import IndexType
    from tianshou.data.types import RolloutBatchProtocol

INPUT_KEYS = frozenset({"obs", "act", "rew", "terminated", "truncated", "done", "obs_next", "info", "policy"})


class RingBuffer(ReplayBufferManager, ABC):
    """Tianshou's interface over :class:`memory.ring.Ring`; storage, sampling and resetting are the subclass's.

    Attributes:
        ring: where each env's transitions lie.
        buffer_num: number of envs.
        maxsize: slots of the flat arrays.
    """

    ring: Ring
    _done: np.ndarray

    @abstractmethod
    def _insert(
        self,
        obs: Any,
        act: Any,
        rew: Any,
        terminated: Any,
        truncated: Any,
        obs_next: Any,
        episode_over: Any,
        env_ids: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Adds one transition per env.

        Returns:
            index, done, and return and length so far of its episode.
        """

    @abstractmethod
    def _batch(self, indices: np.ndarray) -> RolloutBatchProtocol:
        """Gives the transitions at these held indices."""

    def add(
        self, batch: RolloutBatchProtocol, buffer_ids: np.ndarray | list[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Adds a batch as Tianshou's Collector does; ``episode_over`` is read from ``info`` and is ``done`` otherwise.

        Args:
            batch: obs, act, rew, terminated, truncated, obs_next, one row per env.
            buffer_ids: the envs; all of them when None.
        Returns:
            index, episode return and episode length (0 while unfinished), index of the episode's first held transition.
        Raises:
            ValueError: as :meth:`add_step`, and for keys that this replay does not store.
        """
        unknown = set(batch.get_keys()) - INPUT_KEYS
        policy = batch.get("policy")
        if isinstance(policy, Batch):
            unknown |= {f"policy.{key}" for key in policy.get_keys()}
        if unknown:
            raise ValueError(f"this replay does not store {sorted(unknown)}; remove them before add()")
        info = batch.get("info")
        over = info.get("episode_over") if isinstance(info, Batch) else None
        if over is None:
            over = np.logical_or(batch.terminated, batch.truncated)
        index, done, returns, lengths = self._insert(
            batch.obs, batch.act, batch.rew, batch.terminated, batch.truncated, batch.obs_next, over, buffer_ids
        )
        if (lengths * done > self.ring.limit).any():
            warnings.warn(
                f"an episode of {lengths[done].max()} steps is longer than the {self.ring.limit} transitions kept per "
                "env; Tianshou's Collector counts only the part still held",
                stacklevel=2,
            )
        held = self.ring.length_E[index // self.ring.slots]
        return index, returns * done, lengths * done, self.ring.shift(index, 1 - np.minimum(lengths, held))

    def __getitem__(self, index: IndexType) -> RolloutBatchProtocol:
        """Gives transitions by index; a slice counts the held ones in the order of ``sample(0)``.

        Raises:
            IndexError: if an index holds no transition.
        """
        if isinstance(index, slice):
            return self._batch(self.ring.all_indices()[index])
        indices = np.asarray(index)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        if indices.ndim == 0:
            return self[indices[None]][0]
        held = self.ring.is_held(indices)
        if not held.all():
            raise IndexError(f"index {indices[~held].flat[0]} holds no transition (maxsize {self.maxsize})")
        return self._batch(indices)

    def get(self, index: Any, key: str, default_value: Any = None, stack_num: int | None = None) -> Batch | np.ndarray:
        """Gives one entry of the transitions at ``index``; ``stack_num`` has no effect, stacks are the env's."""
        if key not in self._meta.get_keys() and key != "obs_next" and default_value is not None:
            return default_value
        return self[index][key]

    @property
    def last_index(self) -> np.ndarray:  # type: ignore[override]
        """Index of each env's newest transition, (E,)."""
        return self.ring.newest_E

    @property
    def subbuffer_edges(self) -> np.ndarray:
        """Where each env's slots begin, and the end of the last one's."""
        return np.arange(self.buffer_num + 1) * self.ring.slots

    def get_buffer_indices(self, start: int, stop: int) -> np.ndarray:
        """Gives the indices from ``start`` up to but excluding ``stop`` in one env's ring; the whole ring if equal."""
        env, last_env = start // self.ring.slots, (stop - 1) // self.ring.slots
        if env != last_env:
            raise ValueError(f"start={start} and stop={stop} lie in the rings of envs {env} and {last_env}")
        num = (stop - 1 - start) % self.ring.slots + 1
        return self.ring.shift(np.full(num, start), np.arange(num))

    def __len__(self) -> int:
        return int(self.ring.length_E.sum())

    def unfinished_index(self) -> np.ndarray:
        """Gives the newest transition of each env whose episode has not ended."""
        newest = self.ring.newest_E[self.ring.length_E > 0]
        return newest[~self._done[newest]]

    def prev(self, index: int | np.ndarray) -> np.ndarray:
        """Gives the transition before each one, or itself where that is another episode's or not held."""
        index = np.asarray(index)
        before = self.ring.shift(index, -1)
        return np.where(self.ring.is_oldest(index) | self._done[before], index, before)

    def next(self, index: int | np.ndarray) -> np.ndarray:
        """Gives the transition after each one, or itself where it ends its episode or is the newest."""
        index = np.asarray(index)
        return np.where(self._done[index] | (self.ring.age(index) == 0), index, self.ring.shift(index, 1))

    def hasnull(self) -> bool:
        """Says False at once: NaN is refused on the way in."""
        return False

    @staticmethod
    def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a replay is saved with state() and new_data() and restored with load()")

    __reduce_ex__ = save_hdf5 = load_hdf5 = from_data = set_batch = update = dropnull = _refuse
