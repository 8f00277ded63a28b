"""The transitions of a replay as whole episodes, in the order in which each env played them.

Legend: E envs, T steps of an episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memory.frame_replay import FrameReplay

if TYPE_CHECKING:
    from memory.replay import Replay


@dataclass(frozen=True)
class ReplayEpisode:
    """What a replay holds of an episode.

    Attributes:
        obs: (T + 1, ...), single frames where the replay keeps such, the last observation included. Of a terminated
            game whose last frame was not kept it is zero.
        action: (T, ...) as the replay stores it.
        reward: (T,) float32, as the learner got it.
        terminated, truncated: of the last step; both False where the replay just ends, or a checkpoint cut the episode.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool


def replay_episodes(replay: Replay, max_episode_steps: int) -> Iterator[ReplayEpisode]:
    """Gives the episodes whose start the replay still holds, env by env; those still open too.

    With single frames an episode is a whole game, lost lives and all; else it ends where the learner's did.

    Args:
        replay: read only.
        max_episode_steps: the env's own limit; a shorter episode that is marked as truncated was cut from outside.
    """
    for index_T in _episode_slots(replay):
        last = int(index_T[-1])
        truncated = bool(replay._truncated[last]) and len(index_T) >= max_episode_steps
        yield ReplayEpisode(
            obs=_observations(replay, index_T),
            action=np.array(replay._fields["act"][index_T]),
            reward=np.array(replay._rew[index_T], np.float32),
            terminated=bool(replay._terminated[last]),
            truncated=truncated,
        )


def _episode_slots(replay: Replay) -> Iterator[np.ndarray]:
    """Gives the slots of each episode in order."""
    held = replay.ring.all_indices()
    if not len(held):
        return
    if isinstance(replay, FrameReplay):
        begins = replay._age[held] == 0
    else:
        first_ever = replay.ring.age(held) == replay.ring.num_added_E[held // replay.ring.slots] - 1
        after_another = replay._done[replay.ring.shift(held, -1)] & ~replay.ring.is_oldest(held)
        begins = first_ever | after_another
    first_of_env = np.concatenate([[True], np.diff(held // replay.ring.slots) > 0])
    starts = np.flatnonzero(begins | first_of_env)
    for start, end in zip(starts, [*starts[1:], len(held)], strict=True):
        if begins[start]:
            yield held[start:end]


def _observations(replay: Replay, index_T: np.ndarray) -> np.ndarray:
    """Gives T + 1 observations, or single frames."""
    last = replay.next_obs(index_T[-1:])
    if isinstance(replay, FrameReplay):
        return np.concatenate([replay._frames[index_T], last[:, -1]])
    return np.concatenate([replay._fields["obs"][index_T], last])
