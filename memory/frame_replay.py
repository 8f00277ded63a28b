"""A replay that keeps each frame once and rebuilds the stacks: 7,056 bytes per Atari transition instead of 56,448.

The envs give zero-padded stacks of the newest ``stack`` frames. Of each only the newest frame is stored; the one that
a step led to is written ahead into the slot of the next transition. ``age`` of a slot says how many earlier frames
belong to the same game (up to ``max(stack - 1, 1)``): it places the zero padding, and 0 means that a new stream of
frames starts there. A lost life ends returns, not the stream: the env shows the true history across it.

- The frame after a transition lies in the next slot, unless a new stream starts there: a truncated or cut episode
  keeps its last frame aside, in :class:`FinalFrames`; after a terminated one there is nothing to bootstrap from, so its
  newest next frame is given as zeros.
- Each ring has ``stack`` slots more than it holds transitions, so that the oldest still have all their frames.

Source: Dopamine's circular replay buffer. Differs: no transition at a seam is refused or wrong (its padding frames, its
truncations). Tianshou's ``stack_num`` repeats the first frame instead of zeros, stops at lost lives, and bootstraps a
truncated episode from its own observation.

Legend: E envs, N envs of one call, B batch, S stack, H height, W width.
"""

from __future__ import annotations

import numpy as np

from memory.arrays import same_rows
from memory.replay import Replay
from memory.storage import allocate


class FinalFrames:
    """Frames kept aside for some slots of a replay, freed when the slot is written again.

    Attributes:
        row: for every slot the place of its frame in ``frames``, -1 where it has none.
        frames: grows as needed.
    """

    def __init__(self, num_slots: int, frame_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Starts empty.

        Args:
            num_slots: of the replay.
            frame_shape: (H, W).
            dtype: of the frames.
        """
        self.row = np.full(num_slots, -1, np.int32)
        self.frames = np.zeros((0, *frame_shape), dtype)
        self._free: list[int] = []

    def put(self, slots: np.ndarray, frames: np.ndarray) -> None:
        """Keeps one frame for each of some distinct slots, replacing what they had."""
        self.free(slots)
        missing = len(slots) - len(self._free)
        if missing > 0:
            held = len(self.frames)
            grow = max(missing, held // 2, 16)
            self.frames = np.concatenate([self.frames, np.zeros((grow, *self.frames.shape[1:]), self.frames.dtype)])
            self._free += range(held + grow - 1, held - 1, -1)
        rows = [self._free.pop() for _ in slots]
        self.row[slots] = rows
        self.frames[rows] = frames

    def free(self, slots: np.ndarray) -> None:
        """Drops the frames of these slots, where they have any."""
        rows = self.row[slots]
        if (rows >= 0).any():
            self._free += rows[rows >= 0].tolist()
            self.row[slots] = -1

    @property
    def num_held(self) -> int:
        """Frames kept now."""
        return len(self.frames) - len(self._free)


class FrameReplay(Replay):
    """Keeps single frames of zero-padded stacks (S, H, W).

    Attributes:
        stack: S.
        finals: last frames of truncated and cut episodes.
    """

    finals: FinalFrames

    def _allocate_obs(self) -> dict[str, np.ndarray]:
        self.stack, *frame_shape = self.obs_shape
        self._history = max(self.stack - 1, 1)
        self.finals = FinalFrames(self.maxsize, tuple(frame_shape), self.obs_dtype)
        self._frames = allocate((self.maxsize, *frame_shape), self.obs_dtype, self.config.directory)
        self._age = np.zeros(self.maxsize, np.uint8)
        self._num_checks, self._rows_between = 0, max(1, frame_shape[0] // 8)
        return {"obs": self._frames, "age": self._age}

    @property
    def nbytes(self) -> int:
        """Bytes of the per-transition arrays (kept final frames aside), in memory and file."""
        return super().nbytes + self.finals.row.nbytes

    def _is_open(self, env_ids: np.ndarray) -> np.ndarray:
        return self._age[self.ring.next_slots(env_ids)] > 0

    def _continues(self, env_ids: np.ndarray, obs: np.ndarray) -> np.ndarray:
        return same_rows(self._frames[self.ring.next_slots(env_ids)], obs[:, -1])

    def _check_obs(
        self, env_ids: np.ndarray, obs: np.ndarray, obs_next: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> None:
        """Refuses stacks that could not be rebuilt from their newest frames.

        Args:
            env_ids: envs that add, (N,).
            obs: their stacks, (N, S, H, W).
            obs_next: the stacks the steps led to.
            starts: which of them start a new stream of frames, (N,).
            ends: which of them keep no next frame, (N,).
        """
        if starts.any() and obs[starts, :-1].any():
            raise ValueError(
                f"envs {env_ids[starts].tolist()}: the first stack of an episode must be zero but for its newest "
                "frame, to be kept as single frames; use frames='full' for other padding or rollouts begun mid-episode"
            )
        # Some rows at each step, others at the next: all of them would take as long as everything else done here.
        rows = slice(self._num_checks % self._rows_between, None, self._rows_between)
        self._num_checks += 1
        slides = ends | same_rows(obs_next[:, :-1, rows], obs[:, 1:, rows])
        if not slides.all():
            raise ValueError(
                f"envs {env_ids[~slides].tolist()}: obs_next must be obs moved on by one frame "
                "to be kept as single frames; use frames='full' for observations that are no stacks"
            )

    def _write_obs(self, env_ids: np.ndarray, obs: np.ndarray, obs_next: np.ndarray, starts: np.ndarray) -> None:
        slot, following = self.ring.next_slots(env_ids), self.ring.next_slots(env_ids, 1)
        if self.finals.num_held:
            self.finals.free(slot)
        if starts.any():
            self._frames[slot[starts]] = obs[starts, -1]
            self._age[slot[starts]] = 0
        self._frames[following] = obs_next[:, -1]
        self._age[following] = np.minimum(self._age[slot] + 1, self._history)

    def _detach(self, env_ids: np.ndarray) -> None:
        newest, following = self.ring.newest_E[env_ids], self.ring.next_slots(env_ids)
        bootstraps = ~self._terminated[newest]
        if bootstraps.any():
            self.finals.put(newest[bootstraps], self._frames[following[bootstraps]])
        self._age[following] = 0

    def _gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives both stacks as views of one gather of S + 1 frames per transition."""
        window_BS = self.ring.shift(indices[:, None], np.arange(1 - self.stack, 2))
        frames_BSHW = self._frames.take(window_BS, axis=0, mode="clip")  # clip: indices are in range, no second check
        padding_B = self.stack - 1 - self._age[indices].astype(np.int64)
        if (padding_B > 0).any():
            frames_BSHW[np.arange(self.stack + 1) < padding_B[:, None]] = 0
        no_next_B = self._age[window_BS[:, -1]] == 0
        if no_next_B.any():
            row = self.finals.row[indices[no_next_B]]
            last = np.zeros((len(row), *self._frames.shape[1:]), self.obs_dtype)
            last[row >= 0] = self.finals.frames[row[row >= 0]]
            frames_BSHW[no_next_B, -1] = last
        return frames_BSHW[:, :-1], frames_BSHW[:, 1:]

    def _pending(self) -> dict[str, np.ndarray]:
        following = self.ring.next_slots(self._all_envs)
        return {"pending_frame": self._frames[following], "pending_age": self._age[following]}

    def _load_pending(self, arrays: dict[str, np.ndarray]) -> None:
        following = self.ring.next_slots(self._all_envs)
        self._frames[following] = arrays["pending_frame"]
        self._age[following] = arrays["pending_age"]

    def _extra_data(self, index: np.ndarray) -> dict[str, np.ndarray]:
        kept = index[self.finals.row[index] >= 0]
        return {"final_index": kept, "final_frame": self.finals.frames[self.finals.row[kept]]}

    def _load_extra_data(self, chunk: dict[str, np.ndarray]) -> None:
        self.finals.free(chunk["index"])
        self.finals.put(chunk["final_index"], chunk["final_frame"])
