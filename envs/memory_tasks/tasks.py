"""The four tasks, each as arrays with a row per environment: what is drawn, what is seen, what an action does.

A task also knows the best action in every situation, with access to what the agent must remember.

Legend: N environments, R those listed in a call, K symbols, S sequence length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.memory_tasks.config import IDENTITY_STEPS, ROOM_STEPS, MemoryTasksProtocol
from envs.memory_tasks.streams import Streams

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

_GOAL, _CORRIDOR, _KEY, _STEPS = 0, 1, 2, 16
"""Numbers of an episode's draws; from ``_STEPS`` on there is one per step or symbol."""


class Outcome(NamedTuple):
    """What a step gave in the listed environments, each (R,)."""

    reward: Floats
    terminated: Bools
    truncated: Bools
    success: Bools


class Task(ABC):
    """The rules of one task over N environments.

    Args:
        protocol: the rules.
        num_envs: N.
        streams: the episodes' random numbers.
    """

    num_actions: int
    obs_size: int
    low = 0.0
    """Lower bound of the observations; the upper one is 1."""

    def __init__(self, protocol: MemoryTasksProtocol, num_envs: int, streams: Streams) -> None:
        self._streams = streams
        self._num_goals = protocol.num_goals
        self._corridors = (protocol.min_corridor or 0, protocol.max_corridor or 0)
        self.elapsed_N: Ints = np.zeros(num_envs, np.int64)
        self.corridor_N: Ints = np.zeros(num_envs, np.int64)
        self.goal_N: Ints = np.zeros(num_envs, np.int64)
        self.num_right_N: Ints = np.zeros(num_envs, np.int64)

    def begin(self, ids: Ints, goal_R: Ints) -> None:
        """Starts the episodes that the streams stand at; goals of -1 are drawn."""
        shortest, longest = self._corridors
        self.elapsed_N[ids] = self.num_right_N[ids] = 0
        self.corridor_N[ids] = shortest + self._streams.integers(ids, _CORRIDOR, longest - shortest + 1)
        drawn_R = self._streams.integers(ids, _GOAL, max(1, self._num_goals))
        self.goal_N[ids] = np.where(goal_R < 0, drawn_R, goal_R)

    @abstractmethod
    def step(self, ids: Ints, action_R: Ints) -> Outcome:
        """Plays an action in each of the listed environments and counts the step."""

    @abstractmethod
    def observe(self, ids: Ints) -> Floats:
        """Gives the observations (R, obs_size), freshly allocated."""

    @abstractmethod
    def optimal_actions(self, ids: Ints) -> Ints:
        """Gives the best actions (R,) now; 0 where every action is as good."""

    def optimal_returns(self, ids: Ints) -> NDArray[np.float64]:
        """Gives the best return (R,) of the episodes under way, counted from their start."""
        return np.ones(len(ids))


class TMaze(Task):
    """A cue, a corridor, and a turn: left or right as the cue said.

    The observation is (cue left, cue right, junction). The cue is seen before the first action only, the corridor looks
    the same everywhere, and neither time nor position is shown. Actions: forward, left, right, stay. In the corridor
    forward moves one cell, all else wastes the step; at the junction left and right end the episode, with 1 for the
    right turn and 0 for the wrong one, all else wastes the step. L + 1 actions are needed in a corridor of length L.

    Source: Bakker 2001, "Reinforcement learning with long short-term memory" (NIPS 14); Ni et al. 2023 (arXiv
    2307.03864), "passive T-maze". Differs: no penalties, lengths drawn per episode, no position in the observation.
    """

    FORWARD, LEFT, RIGHT, STAY = range(4)
    num_actions, obs_size = 4, 3

    def __init__(self, protocol: MemoryTasksProtocol, num_envs: int, streams: Streams) -> None:
        super().__init__(protocol, num_envs, streams)
        self._max_wasted_steps = protocol.max_wasted_steps or 0
        self.position_N: Ints = np.zeros(num_envs, np.int64)

    def begin(self, ids: Ints, goal_R: Ints) -> None:
        """Puts the agent before the cue; a goal of 0 is left, 1 right."""
        super().begin(ids, goal_R)
        self.position_N[ids] = 0

    def step(self, ids: Ints, action_R: Ints) -> Outcome:
        """Moves, turns or waits."""
        corridor_R = self.corridor_N[ids]
        at_junction_R = self.position_N[ids] == corridor_R
        decided_R = at_junction_R & ((action_R == self.LEFT) | (action_R == self.RIGHT))
        right_R = decided_R & (action_R == self.LEFT + self.goal_N[ids])
        self.position_N[ids] += ~at_junction_R & (action_R == self.FORWARD)
        self.elapsed_N[ids] += 1
        late_R = self.elapsed_N[ids] >= corridor_R + 1 + self._max_wasted_steps
        return Outcome(right_R.astype(np.float32), decided_R, late_R & ~decided_R, right_R)

    def observe(self, ids: Ints) -> Floats:
        """Gives cue and junction."""
        obs = np.zeros((len(ids), self.obs_size), np.float32)
        start_R = self.elapsed_N[ids] == 0
        obs[np.arange(len(ids)), self.goal_N[ids]] = start_R
        obs[:, 2] = self.position_N[ids] == self.corridor_N[ids]
        return obs

    def optimal_actions(self, ids: Ints) -> Ints:
        """Gives forward in the corridor, the cue's turn at the junction."""
        at_junction_R = self.position_N[ids] == self.corridor_N[ids]
        return np.where(at_junction_R, self.LEFT + self.goal_N[ids], self.FORWARD)


class KeyToDoor(Task):
    """A coloured key to pick up, a long way with noisy rewards, and a door with a lock for every colour.

    The first room takes 3 steps; at one of them, drawn per episode, the key lies before the agent and is seen. Picking
    it up then is worth nothing at once. Every step of the way shows +1 or -1 and pays that times ``distractor_reward``,
    whatever is done. At the door one action is left: opening the lock of the key's colour, with the key in hand, is
    worth 1. What is in hand is not seen.

    The observation is (key's colour one-hot, the way's sign, door). Actions: walk, pick up, open lock 0 .. K-1.

    Source: Hung et al. 2019, "Optimizing agent behavior over long time scales by transporting value" (arXiv
    1810.06721): its key-to-door (credit for the pick-up) joined with its passive visual match (memory of the colour).
    Differs: no pictures; with one colour it is the credit problem alone.
    """

    WALK, PICK_UP, OPEN = range(3)
    low = -1.0

    def __init__(self, protocol: MemoryTasksProtocol, num_envs: int, streams: Streams) -> None:
        super().__init__(protocol, num_envs, streams)
        self._num_colours = protocol.num_symbols or 1
        self._distractor_reward = protocol.distractor_reward or 0.0
        self.num_actions = self.obs_size = self._num_colours + 2
        self.key_step_N: Ints = np.zeros(num_envs, np.int64)
        self.has_key_N: Bools = np.zeros(num_envs, np.bool_)

    def begin(self, ids: Ints, goal_R: Ints) -> None:
        """Lays the key down; a goal is its colour."""
        super().begin(ids, goal_R)
        self.key_step_N[ids] = self._streams.integers(ids, _KEY, ROOM_STEPS)
        self.has_key_N[ids] = False

    def step(self, ids: Ints, action_R: Ints) -> Outcome:
        """Picks up, walks, or tries a lock."""
        self.has_key_N[ids] |= self._before_key(ids) & (action_R == self.PICK_UP)
        at_door_R = self._at_door(ids)
        opened_R = at_door_R & self.has_key_N[ids] & (action_R == self.OPEN + self.goal_N[ids])
        reward_R = opened_R + self._distractor_reward * self._sign(ids)
        self.elapsed_N[ids] += 1
        return Outcome(reward_R.astype(np.float32), at_door_R, np.zeros(len(ids), np.bool_), opened_R)

    def observe(self, ids: Ints) -> Floats:
        """Gives the key where it lies, the way's sign, and the door."""
        obs = np.zeros((len(ids), self.obs_size), np.float32)
        obs[np.arange(len(ids)), self.goal_N[ids]] = self._before_key(ids)
        obs[:, -2] = self._sign(ids)
        obs[:, -1] = self._at_door(ids)
        return obs

    def optimal_actions(self, ids: Ints) -> Ints:
        """Gives pick up at the key and the right lock at the door, walk elsewhere."""
        elsewhere_R = np.where(self._before_key(ids), self.PICK_UP, self.WALK)
        return np.where(self._at_door(ids), self.OPEN + self.goal_N[ids], elsewhere_R)

    def optimal_returns(self, ids: Ints) -> NDArray[np.float64]:
        """Gives 1 and the sum of the way's rewards, 1 on average."""
        way = np.arange(self._corridors[1])[None]
        sign_RT = 2 * self._streams.integers(ids, _STEPS + ROOM_STEPS + way, 2) - 1
        total_R = (sign_RT * (way < self.corridor_N[ids][:, None])).sum(axis=1)
        return 1.0 + self._distractor_reward * total_R

    def _before_key(self, ids: Ints) -> Bools:
        found: Bools = self.elapsed_N[ids] == self.key_step_N[ids]
        return found

    def _at_door(self, ids: Ints) -> Bools:
        there: Bools = self.elapsed_N[ids] == ROOM_STEPS + self.corridor_N[ids]
        return there

    def _sign(self, ids: Ints) -> Ints:
        """Gives +1 or -1 on the way, 0 in the rooms."""
        elapsed_R = self.elapsed_N[ids]
        on_way_R = (elapsed_R >= ROOM_STEPS) & (elapsed_R < ROOM_STEPS + self.corridor_N[ids])
        return np.where(on_way_R, 2 * self._streams.integers(ids, _STEPS + elapsed_R, 2) - 1, 0)


class Copy(Task):
    """Symbols one after the other, a delay, then the same symbols are asked for in the same order.

    The observation is (symbol one-hot, recall); recall is 1 while symbols are asked for. Action k names symbol k, worth
    1 / S if it is the right one; before the recall actions do nothing. An episode has 2 S + delay steps and succeeds if
    all symbols were right.

    Source: the copy task of Graves et al. 2014, "Neural Turing machines" (arXiv 1410.5401), played as an environment.
    """

    def __init__(self, protocol: MemoryTasksProtocol, num_envs: int, streams: Streams) -> None:
        super().__init__(protocol, num_envs, streams)
        self._length = protocol.sequence_length or 1
        self.num_actions = protocol.num_symbols or 1
        self.obs_size = self.num_actions + 1
        self.symbol_NS: Ints = np.zeros((num_envs, self._length), np.int64)

    def begin(self, ids: Ints, goal_R: Ints) -> None:
        """Draws delay and symbols."""
        super().begin(ids, goal_R)
        places = _STEPS + np.arange(self._length)[None]
        self.symbol_NS[ids] = self._streams.integers(ids, places, self.num_actions)

    def step(self, ids: Ints, action_R: Ints) -> Outcome:
        """Judges the action if a symbol is asked for."""
        place_R = self._recalled(ids)
        right_R = (place_R >= 0) & (action_R == self._symbol(ids, place_R))
        self.num_right_N[ids] += right_R
        self.elapsed_N[ids] += 1
        ended_R = place_R == self._length - 1
        success_R = ended_R & (self.num_right_N[ids] == self._length)
        return Outcome((right_R / self._length).astype(np.float32), ended_R, np.zeros(len(ids), np.bool_), success_R)

    def observe(self, ids: Ints) -> Floats:
        """Gives the symbol while they are shown, then nothing, then the request."""
        obs = np.zeros((len(ids), self.obs_size), np.float32)
        elapsed_R, place_R = self.elapsed_N[ids], self._recalled(ids)
        obs[np.arange(len(ids)), self._symbol(ids, elapsed_R)] = elapsed_R < self._length
        obs[:, -1] = (place_R >= 0) & (place_R < self._length)
        return obs

    def optimal_actions(self, ids: Ints) -> Ints:
        """Gives the symbol asked for."""
        place_R = self._recalled(ids)
        return np.where(place_R >= 0, self._symbol(ids, place_R), 0)

    def _recalled(self, ids: Ints) -> Ints:
        """Gives the place in the sequence that is asked for; negative before the recall."""
        place_R: Ints = self.elapsed_N[ids] - self._length - self.corridor_N[ids]
        return place_R

    def _symbol(self, ids: Ints, place_R: Ints) -> Ints:
        """Gives the symbols at these places, or at the nearest there are."""
        symbol_R: Ints = self.symbol_NS[ids, np.clip(place_R, 0, self._length - 1)]
        return symbol_R


class Identity(Task):
    """Shows one of K symbols, one-hot; naming it at once is worth 1 / 16. No memory is needed.

    An episode is truncated after 16 steps, as nothing ends in the task itself, and succeeds if all were right.

    Source: the identity environments of Stable-Baselines3's tests. Differs: the best return is 1.
    """

    def __init__(self, protocol: MemoryTasksProtocol, num_envs: int, streams: Streams) -> None:
        super().__init__(protocol, num_envs, streams)
        self.num_actions = self.obs_size = protocol.num_symbols or 1

    def step(self, ids: Ints, action_R: Ints) -> Outcome:
        """Judges the action against the symbol shown."""
        right_R = action_R == self.optimal_actions(ids)
        self.num_right_N[ids] += right_R
        self.elapsed_N[ids] += 1
        ended_R = self.elapsed_N[ids] >= IDENTITY_STEPS
        success_R = ended_R & (self.num_right_N[ids] == IDENTITY_STEPS)
        return Outcome((right_R / IDENTITY_STEPS).astype(np.float32), np.zeros(len(ids), np.bool_), ended_R, success_R)

    def observe(self, ids: Ints) -> Floats:
        """Gives the symbol."""
        return np.eye(self.num_actions, dtype=np.float32)[self.optimal_actions(ids)]

    def optimal_actions(self, ids: Ints) -> Ints:
        """Gives the symbol shown."""
        return self._streams.integers(ids, _STEPS + self.elapsed_N[ids], self.num_actions)


TASK_CLASSES: dict[str, type[Task]] = {"t_maze": TMaze, "key_to_door": KeyToDoor, "copy": Copy, "identity": Identity}
