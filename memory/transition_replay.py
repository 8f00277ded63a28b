"""A replay that keeps observations as they come: vectors, images that are no stacks, on-policy rollouts.

Legend: E envs, N envs of one call, B batch.
"""

from __future__ import annotations

import numpy as np

from memory.arrays import same_rows
from memory.replay import Replay
from memory.storage import allocate


class TransitionReplay(Replay):
    """Keeps ``obs`` and ``obs_next`` of every transition as they come: vector observations, or on-policy rollouts."""

    def _allocate_obs(self) -> dict[str, np.ndarray]:
        shape = (self.maxsize, *self.obs_shape)
        return {name: allocate(shape, self.obs_dtype, self.config.directory) for name in ("obs", "obs_next")}

    def _is_open(self, env_ids: np.ndarray) -> np.ndarray:
        return (self.ring.num_added_E[env_ids] > 0) & ~self._done[self.ring.newest_E[env_ids]]

    def _continues(self, env_ids: np.ndarray, obs: np.ndarray) -> np.ndarray:
        return same_rows(self._fields["obs_next"][self.ring.newest_E[env_ids]], obs)

    def _write_obs(self, env_ids: np.ndarray, obs: np.ndarray, obs_next: np.ndarray, starts: np.ndarray) -> None:
        index = self.ring.next_slots(env_ids)
        self._fields["obs"][index] = obs
        self._fields["obs_next"][index] = obs_next

    def _detach(self, env_ids: np.ndarray) -> None:
        pass

    def _gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._fields["obs"][indices], self._fields["obs_next"][indices]
