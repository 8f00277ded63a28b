"""The replay on Tianshou's buffer interface: flat preallocated arrays, one ring per env, exact restore.

Nominally a ``ReplayBufferManager`` (Tianshou's Collector asks for one), but nothing of its storage is used: its ``add``
loops over envs, its children lose the shared memory when loaded, ``hasnull`` copies everything, its seed is ignored.

Rules that hold for every replay here:

- ``done`` (terminated or truncated) ends returns; ``episode_over`` says that the game itself ended. A lost life is the
  first without the second.
- An env whose next ``obs`` is not its last ``obs_next`` was reset from outside: the open episode is closed as
  truncated, so that no stored episode spans two. Twice in a row is an error: then no transition would bootstrap right.
- NaN is refused on the way in; therefore ``hasnull`` has nothing to look for.
- ``info`` and ``policy`` are not stored (``info.episode_over`` is read); any other extra key is refused, never dropped.

Legend: E envs of the replay, N envs of one call, B batch, K steps of an n-step return.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from tianshou.data import Batch, SegmentTree

from memory.arrays import array_spec, checked_array, checked_env_ids
from memory.prioritised import Priorities
from memory.replay_buffer import RingBuffer
from memory.replay_state import load_replay, replay_data, replay_state
from memory.returns import n_step_return
from memory.ring import Ring
from memory.storage import allocate

if TYPE_CHECKING:
    import gymnasium as gym
    from tianshou.data.types import RolloutBatchProtocol

    from memory.config import ReplayConfig
    from memory.replay_state import ReplayData


class Replay(RingBuffer):
    """What both layouts share; subclasses say how observations are kept.

    Attributes:
        config: what it was built from.
        buffer_num: number of envs E.
        maxsize: slots of the flat arrays, a little more than the capacity where frames are single.
        num_breaks_E: per env, how often it was reset from outside while an episode was open.
        priorities: of the transitions, or None when sampling is uniform.
        update_weight: (indices, errors) -> None, sets priorities; exists only where there are any, as Tianshou expects.
    """

    _history = 1  # transitions before the oldest held one that a restored replay still looks at
    update_weight: Callable[[np.ndarray, Any], None]

    def __init__(
        self,
        config: ReplayConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        num_envs: int,
        rng: np.random.Generator,
    ) -> None:
        """Allocates everything.

        Args:
            config: size, layout and sampling.
            observation_space: of one env.
            action_space: of one env, as the policy sees it.
            num_envs: E.
            rng: draws the samples; the replay owns it from now on.
        Raises:
            ReplayTooLarge: if the file for storage='file' does not fit its disk.
            ValueError: for spaces without shape, or a capacity below one transition per env.
        """
        self._meta = cast(Any, Batch())
        self.options = {"stack_num": 1, "ignore_obs_next": False, "save_only_last_obs": False, "sample_avail": False}
        self.stack_num = 1
        self.config, self.buffer_num, self._rng = config, num_envs, rng
        self.obs_shape, self.obs_dtype = array_spec(observation_space)
        self.act_shape, self.act_dtype = array_spec(action_space)
        slots = config.slots_per_env(self.obs_shape, self.obs_dtype.itemsize, num_envs)
        self.ring = Ring(num_envs, slots, limit=config.capacity // num_envs)
        self.maxsize = num_envs * slots
        self._fields = {
            "act": allocate((self.maxsize, *self.act_shape), self.act_dtype),
            "rew": np.zeros(self.maxsize),
            "terminated": np.zeros(self.maxsize, bool),
            "truncated": np.zeros(self.maxsize, bool),
            "done": np.zeros(self.maxsize, bool),
            **self._allocate_obs(),
        }
        self._meta.__dict__.update(self._fields)
        self._rew, self._terminated = self._fields["rew"], self._fields["terminated"]
        self._truncated, self._done = self._fields["truncated"], self._fields["done"]
        self._all_envs = np.arange(num_envs)
        self._return_E = np.zeros(num_envs)
        self._length_E = np.zeros(num_envs, np.int64)
        self._began_broken_E = np.zeros(num_envs, bool)
        self.num_breaks_E = np.zeros(num_envs, np.int64)
        self.priorities: Priorities | None = None
        if config.prioritised:
            self.priorities = Priorities(SegmentTree(self.maxsize), self.maxsize, config.alpha, config.beta)
            self.update_weight = self._update_weight

    # ------------------------------------------------------------------ how observations are kept

    @abstractmethod
    def _allocate_obs(self) -> dict[str, np.ndarray]:
        """Gives the arrays that hold observations, one row per slot, by name."""

    @abstractmethod
    def _is_open(self, env_ids: np.ndarray) -> np.ndarray:
        """Tells for which envs the next observation is expected to continue the last one."""

    @abstractmethod
    def _continues(self, env_ids: np.ndarray, obs: np.ndarray) -> np.ndarray:
        """Tells which observations are what the env's newest transition led to."""

    def _check_obs(
        self, env_ids: np.ndarray, obs: np.ndarray, obs_next: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> None:
        """Raises ValueError for observations that cannot be kept; ``starts`` begin, ``ends`` have no next frame."""

    @abstractmethod
    def _write_obs(self, env_ids: np.ndarray, obs: np.ndarray, obs_next: np.ndarray, starts: np.ndarray) -> None:
        """Stores the observations for the envs' next transitions."""

    @abstractmethod
    def _detach(self, env_ids: np.ndarray) -> None:
        """Ends the stream of frames after the envs' newest transitions, keeping their true last observations."""

    @abstractmethod
    def _gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives ``obs`` and ``obs_next`` of these transitions, freshly allocated."""

    def _counters(self) -> dict[str, np.ndarray]:
        """Gives the per-env counters themselves, to be copied or written."""
        return {
            "num_added": self.ring.num_added_E,
            "start": self.ring.start_E,
            "episode_return": self._return_E,
            "episode_length": self._length_E,
            "began_broken": self._began_broken_E,
            "num_breaks": self.num_breaks_E,
        }

    def _pending(self) -> dict[str, np.ndarray]:
        """Gives what the layout knows beyond the transitions: observations that belong to none yet."""
        return {}

    def _load_pending(self, arrays: dict[str, np.ndarray]) -> None:
        """Restores what :meth:`_pending` gave; the counters are restored already."""

    def _extra_data(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Gives what some slots hold beyond the fields."""
        return {}

    def _load_extra_data(self, chunk: dict[str, np.ndarray]) -> None:
        """Restores what :meth:`_extra_data` gave; drops what the chunk's slots had before."""

    # ------------------------------------------------------------------ adding

    def add_step(
        self,
        *,
        obs: np.ndarray,
        act: np.ndarray,
        rew: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        obs_next: np.ndarray,
        episode_over: np.ndarray,
        env_ids: np.ndarray | None = None,
    ) -> None:
        """Adds one transition for each env listed; all arrays are copied.

        Args:
            obs: what the actions were chosen from, (N, *obs_shape).
            act: actions as the policy sees them, (N, *act_shape).
            rew: rewards to learn from, (N,).
            terminated: no bootstrapping after this transition, (N,).
            truncated: the episode was cut off here but would have gone on, (N,).
            obs_next: what the step led to; the true last observation where the episode ended.
            episode_over: a new episode starts with the next transition; only where terminated or truncated.
            env_ids: N distinct envs in [0, E); all of them when None.
        Raises:
            ValueError: for wrong shapes or dtypes, NaN, unknown envs, contradicting flags, or broken streams.
        """
        self._insert(obs, act, rew, terminated, truncated, obs_next, episode_over, env_ids)

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
        ids = self._all_envs if env_ids is None else checked_env_ids(env_ids, self.buffer_num)
        flag = np.dtype(bool)
        obs = checked_array("obs", obs, (len(ids), *self.obs_shape), self.obs_dtype)
        obs_next = checked_array("obs_next", obs_next, (len(ids), *self.obs_shape), self.obs_dtype)
        act = checked_array("act", act, (len(ids), *self.act_shape), self.act_dtype)
        rew = checked_array("rew", rew, (len(ids),), self._rew.dtype)
        terminated = checked_array("terminated", terminated, (len(ids),), flag)
        truncated = checked_array("truncated", truncated, (len(ids),), flag)
        over = checked_array("episode_over", episode_over, (len(ids),), flag)
        done = terminated | truncated
        if (over & ~done).any():
            raise ValueError(f"episode_over without terminated or truncated in envs {ids[over & ~done].tolist()}")

        is_open = self._is_open(ids)
        starts = ~(is_open & self._continues(ids, obs))
        self._check_obs(ids, obs, obs_next, starts, terminated & over)
        broken = is_open & starts
        if broken.any():
            self._close_broken(ids[broken])
        index = self.ring.next_slots(ids)
        self._write_obs(ids, obs, obs_next, starts)
        self._fields["act"][index] = act
        self._rew[index] = rew
        self._terminated[index] = terminated
        self._truncated[index] = truncated
        self._done[index] = done
        if self.priorities is not None:
            full = self.ring.length_E[ids] == self.ring.limit
            self.priorities.replace(index, gone=self.ring.next_slots(ids, -self.ring.limit)[full])
        self.ring.num_added_E[ids] += 1
        if over.any():
            self._detach(ids[over])
        return index, done, *self._count_episodes(ids, rew, done)

    def _count_episodes(self, ids: np.ndarray, rew: np.ndarray, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives return and length so far of the newest transitions' episodes; forgets those that are done."""
        self._return_E[ids] += rew
        self._length_E[ids] += 1
        returns, lengths = self._return_E[ids], self._length_E[ids]
        if done.any():
            over = ids[done]
            self._return_E[over], self._length_E[over], self._began_broken_E[over] = 0.0, 0, False
        return returns, lengths

    def cut(self) -> None:
        """Closes every open episode as truncated, to bootstrap from its true next observation.

        The next transition of each env then starts a new episode. Used where all envs are reset from outside.
        """
        self._close(self._all_envs[self._is_open(self._all_envs)])

    def _close(self, ids: np.ndarray) -> None:
        newest = self.ring.newest_E[ids]
        unmarked = newest[~self._done[newest]]
        self._truncated[unmarked] = True
        self._done[unmarked] = True
        self._detach(ids)
        self._return_E[ids], self._length_E[ids], self._began_broken_E[ids] = 0.0, 0, False

    def _close_broken(self, ids: np.ndarray) -> None:
        again = self._began_broken_E[ids] & (self._length_E[ids] == 1)
        if again.any():
            raise ValueError(
                f"envs {ids[again].tolist()}: obs is not the obs_next before it, twice in a row; "
                "each transition must start where the last one of its env ended"
            )
        self._close(ids)
        self._began_broken_E[ids] = True
        self.num_breaks_E[ids] += 1

    # ------------------------------------------------------------------ sampling

    def sample(self, batch_size: int | None) -> tuple[RolloutBatchProtocol, np.ndarray]:
        """Draws transitions uniformly over all that are held, or in proportion to their priorities.

        Args:
            batch_size: how many; 0 gives all, env by env in time order; None gives all in random order.
        Returns:
            batch with obs, act, rew, terminated, truncated, done, obs_next (and weight, float32, where there are
            priorities), in arrays of its own, and the indices.
        Raises:
            ValueError: if the replay is empty or ``batch_size`` negative.
        """
        indices = self.sample_indices(batch_size)
        return self._batch(indices), indices

    def sample_indices(self, batch_size: int | None) -> np.ndarray:
        """Gives the indices that :meth:`sample` would draw."""
        if batch_size is None:
            return self._rng.permutation(self.ring.all_indices())
        if batch_size < 0:
            raise ValueError(f"batch_size must be >= 0 or None, got {batch_size}")
        if batch_size == 0:
            return self.ring.all_indices()
        return (self.priorities or self.ring).draw(self._rng, batch_size)

    def _batch(self, indices: np.ndarray) -> RolloutBatchProtocol:
        obs, obs_next = self._gather(indices)
        batch = Batch()
        entries = batch.__dict__  # Batch's own constructor checks every value, slower than all the copying here
        entries["obs"], entries["obs_next"] = obs, obs_next
        for name in ("act", "rew", "terminated", "truncated", "done"):
            entries[name] = self._fields[name][indices]
        entries["info"], entries["policy"] = Batch(), Batch()
        for name in self._meta.__dict__.keys() - self._fields.keys():  # what a hook or algorithm attached
            entries[name] = self._meta.__dict__[name][indices]
        if self.priorities is not None:
            entries["weight"] = self.priorities.weights(indices)
        return cast("RolloutBatchProtocol", batch)

    def next_obs(self, indices: np.ndarray) -> np.ndarray:
        """Gives what these transitions led to; at truncations the true last observation of the episode."""
        return self._gather(indices)[1]

    def n_step(self, indices: np.ndarray, n_step: int, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums the rewards of up to ``n_step`` transitions, stopping at ``done`` and at the newest one.

        Args:
            indices: first transitions, (B,).
            n_step: K, >= 1.
            gamma: discount per env step.
        Returns:
            return_B: sum of gamma**k * reward, float32; discount_B: what multiplies the value of ``next_obs`` of the
            last transition, gamma**(number of transitions) * (1 - terminated), float32; index of that last transition.
        Raises:
            ValueError: if ``n_step`` is below 1.
        """
        rew, done, terminated = self._rew, self._done, self._terminated
        return n_step_return(self.ring, rew, done, terminated, indices, n_step, gamma)

    def _update_weight(self, index: np.ndarray, new_weight: Any) -> None:
        """Sets the priorities of a batch from its losses or TD errors (array or tensor); dropped slots are skipped."""
        assert self.priorities is not None
        if hasattr(new_weight, "detach"):
            new_weight = new_weight.detach().cpu().numpy()
        held = self.ring.is_held(index)
        self.priorities.update(index[held], np.asarray(new_weight).reshape(-1)[held])

    def set_beta(self, beta: float) -> None:
        """Sets the exponent of the importance weights.

        Raises:
            ValueError: if the replay has no priorities, or beta is negative.
        """
        if self.priorities is None or not beta >= 0:
            raise ValueError(f"beta={beta}: must be >= 0, and needs prioritised=true")
        self.priorities.beta = beta

    # ------------------------------------------------------------------ what it holds

    @property
    def num_added(self) -> np.ndarray:
        """Transitions each env ever added, (E,) int64; only grows."""
        return self.ring.num_added_E.copy()

    @property
    def nbytes(self) -> int:
        """Bytes of the per-transition arrays (kept final frames aside), in memory and file."""
        tree = 16 * (1 << (self.maxsize - 1).bit_length()) if self.priorities is not None else 0
        return sum(array.nbytes for array in self._fields.values()) + tree

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {self.buffer_num} x {self.ring.limit:,} transitions)"

    def reset(self, keep_statistics: bool = False) -> None:
        """Forgets all transitions; episodes under way go on.

        Args:
            keep_statistics: keep the running return and length of those episodes.
        """
        self.ring.start_E[:] = self.ring.num_added_E
        if self.priorities is not None:
            self.priorities.clear()
        if not keep_statistics:
            self._return_E[:], self._length_E[:] = 0.0, 0

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Gives everything that is not in :meth:`new_data`: counters, pending frames, priorities, the generator.

        Returns:
            small arrays by name, and JSON.
        """
        return replay_state(self)

    def new_data(self, since: np.ndarray | None) -> ReplayData:
        """Gives the transitions added since a checkpoint, and the newest one it held, in flat arrays.

        They are read when they are used: before the replay changes.

        Args:
            since: :attr:`num_added` at that checkpoint; None gives everything that is held.
        """
        return replay_data(self, since)

    def load(self, chunks: Iterable[ReplayData], state: tuple[dict[str, np.ndarray], dict[str, Any]]) -> None:
        """Restores the replay, its sampling stream included.

        Args:
            chunks: what :meth:`new_data` gave, oldest first; chunks without any held transition may be missing.
            state: what :meth:`state` gave with the last of them.
        Raises:
            ValueError: if they were made by a replay of other shape, or do not cover every held transition.
        """
        load_replay(self, chunks, state)
