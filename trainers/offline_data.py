"""What an offline session samples from, whatever holds the data: one stream of batches with a state.

Legend: E episodes, L lanes, the rings of a replay that is filled from trajectories.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium

    from memory.replay import Replay
    from memory.trajectory_data import TrajectoryData
    from memory.trajectory_samplers import SegmentSampler

MAX_LANES = 64
"""Episodes that are written into a replay side by side (fewer calls; no result depends on it but the slots)."""

MAX_JOINT_STEPS = 8
"""Gradient steps that a value-based agent may take in one call, so that they share a forward of the target network."""


@dataclass(frozen=True)
class OfflineDataset:
    """Data and the stream of batches drawn from it.

    Attributes:
        source: what Tianshou's trainer samples from: ``source.sample(batch_size) -> (batch, indices)``.
        batch_size: of one gradient step, over all processes.
        item: what a batch is counted in ("transitions", "env steps").
        items_per_step: how many of them a gradient step learns from, over all processes.
        joint_steps: gradient steps that one call of the agent may take.
        state: gives what the next batches depend on: small arrays by name, and JSON.
        load: goes on from such a state, bit for bit. Raises ValueError where it is another dataset's.
    """

    source: Any
    batch_size: int
    item: str
    items_per_step: int
    joint_steps: int
    state: Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]
    load: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], None]


def segments_of(sampler: SegmentSampler) -> OfflineDataset:
    """Gives the stream of a sampler of trajectory segments; places padded out are counted too."""
    return OfflineDataset(
        source=sampler,
        batch_size=sampler.batch_size,
        item="env steps",
        items_per_step=sampler.batch_size * sampler.num_segments * sampler.context_length,
        joint_steps=1,
        state=sampler.state,
        load=lambda arrays, state: sampler.load(dict(arrays), dict(state)),
    )


def transitions_of(replay: Replay, rng: np.random.Generator, batch_size: int) -> OfflineDataset:
    """Gives the stream of transitions drawn uniformly from a replay that no longer changes.

    Args:
        replay: without priorities.
        rng: the very generator that the replay draws with.
        batch_size: transitions per gradient step.
    """

    def state() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        drawn = json.loads(json.dumps(rng.bit_generator.state, default=np.ndarray.tolist))
        return {}, {"transitions": len(replay), "rng": drawn}

    def load(arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        if state["transitions"] != len(replay):
            raise ValueError(f"the data has {len(replay)} transitions, the checkpoint's had {state['transitions']}")
        rng.bit_generator.state = state["rng"]

    return OfflineDataset(replay, batch_size, "transitions", batch_size, MAX_JOINT_STEPS, state, load)


def replay_of_trajectories(
    data: TrajectoryData,
    spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]],
    rng: np.random.Generator,
    say: Callable[[str], None],
) -> Replay:
    """Gives all transitions of trajectories as a replay; episodes that were cut bootstrap like truncated ones.

    Args:
        data: episodes.
        spaces: observations and actions of the env.
        rng: draws the samples; the replay owns it from now on.
        say: told the size before it is allocated.
    Raises:
        ReplayTooLarge: if they do not fit into memory.
    """
    from memory.config import ReplayConfig

    lanes = _lanes(data.length_E, min(MAX_LANES, data.num_episodes))
    longest = max(int(data.length_E[lane].sum()) for lane in lanes)
    replay = ReplayConfig(capacity=longest * len(lanes)).build(*spaces, num_envs=len(lanes), rng=rng, log=say)
    terminated_E = _terminated(data)
    episode_NL = [np.repeat(lane, data.length_E[lane]) for lane in lanes]
    step_NL = [np.concatenate([np.arange(length) for length in data.length_E[lane]]) for lane in lanes]
    for place in range(longest):
        ids = np.array([index for index, steps in enumerate(step_NL) if place < len(steps)])
        episode = np.array([episode_NL[index][place] for index in ids])
        step = np.array([step_NL[index][place] for index in ids])
        flat = data.first_step_E[episode] + step
        last = step == data.length_E[episode] - 1
        replay.add_step(
            obs=data.obs(episode, step),
            act=data.action[flat],
            rew=data.reward[flat],
            terminated=last & terminated_E[episode],
            truncated=last & ~terminated_E[episode],
            obs_next=data.obs(episode, step + 1),
            episode_over=last,
            env_ids=ids,
        )
    return replay


def _lanes(length_E: np.ndarray, num_lanes: int) -> list[np.ndarray]:
    """Deals episodes out to lanes, the longest first and each to the lane with the fewest steps."""
    lanes: list[list[int]] = [[] for _ in range(num_lanes)]
    loads = [(0, index) for index in range(num_lanes)]
    for episode in np.argsort(-length_E, kind="stable").tolist():
        steps, index = heapq.heappop(loads)
        lanes[index].append(episode)
        heapq.heappush(loads, (steps + int(length_E[episode]), index))
    return [np.array(lane, np.int64) for lane in lanes]


def _terminated(data: TrajectoryData) -> np.ndarray:
    """Says of each chosen episode whether its last step ended the task, (E,) bool."""
    lengths = np.concatenate([np.asarray(file.lengths_E, np.int64) for file in data.files])
    flags = np.concatenate([np.asarray(file.arrays["terminated"], bool) for file in data.files])
    first_steps = np.cumsum(lengths) - lengths
    return flags[np.searchsorted(first_steps, data.first_step_E)]
