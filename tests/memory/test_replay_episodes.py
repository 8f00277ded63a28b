"""Episodes out of a replay: every one whose start is held, whole, with the end it really had."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memory import ReplayConfig
from memory.replay_episodes import ReplayEpisode, replay_episodes

LIMIT = 5
ENDINGS = ("terminated", "truncated", "cut", "terminated")
LENGTHS = (3, LIMIT, 2, 4)  # of one env's episodes; 14 steps, then 2 of an open one


def observations(pixels: bool, episode: int, length: int) -> np.ndarray:
    """Gives (length + 1) observations that tell episode and step: vectors, or stacks of two frames."""
    if not pixels:
        return np.stack([np.full(length + 1, episode), np.arange(length + 1)], axis=1).astype(np.float32)
    newest = 10 * (episode + 1) + np.arange(length + 1)
    frames = np.stack([np.where(np.arange(length + 1) > 0, newest - 1, 0), newest], axis=1)
    return np.broadcast_to(frames[:, :, None, None], (length + 1, 2, 20, 20)).astype(np.uint8)


def filled(pixels: bool, capacity: int) -> Any:
    """Gives the replay of one env after LENGTHS episodes with their ENDINGS, and two steps of another."""
    space = gym.spaces.Box(0, 255, (2, 20, 20), np.uint8) if pixels else gym.spaces.Box(-99, 99, (2,), np.float32)
    config = ReplayConfig(capacity=capacity)
    replay = config.build(space, gym.spaces.Discrete(9), 1, np.random.default_rng(0), lambda line: None)
    for number, (length, ending) in enumerate(zip((*LENGTHS, 2), (*ENDINGS, "open"), strict=True)):
        obs = observations(pixels, number, length)
        for step in range(length):
            last = step == length - 1
            replay.add_step(
                obs=obs[step : step + 1],
                act=np.array([step + 1]),
                rew=np.array([10.0 * number + step]),
                terminated=np.array([last and ending == "terminated"]),
                truncated=np.array([last and ending == "truncated"]),
                obs_next=obs[step + 1 : step + 2],
                episode_over=np.array([last and ending in ("terminated", "truncated")]),
            )
        if ending == "cut":
            replay.cut()
    return replay


def check(found: ReplayEpisode, pixels: bool, number: int, length: int, ending: str) -> None:
    expected = observations(pixels, number, length)
    if pixels:
        expected = expected[:, -1].copy()
        expected[-1] = (
            expected[-1] if ending != "terminated" else 0
        )  # nothing is bootstrapped from it, so it is not kept
    assert found.obs.tolist() == expected.tolist()
    assert found.action.tolist() == list(range(1, length + 1))
    assert found.reward.tolist() == [10.0 * number + step for step in range(length)]
    assert (found.terminated, found.truncated) == (ending == "terminated", ending == "truncated")


@pytest.mark.parametrize("pixels", [False, True])
def test_every_episode_comes_out_as_it_was_played(pixels: bool) -> None:
    found = list(replay_episodes(filled(pixels, 100), LIMIT))
    assert len(found) == 5
    for number, (length, ending) in enumerate(zip((*LENGTHS, 2), (*ENDINGS, "open"), strict=True)):
        check(found[number], pixels, number, length, ending)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize(("capacity", "first"), [(16, 0), (14, 1), (13, 1), (12, 2), (8, 2), (7, 3)])
def test_an_episode_whose_start_was_overwritten_is_left_out(pixels: bool, capacity: int, first: int) -> None:
    """16 transitions were added: a replay of 13 holds the last 13, which begin with the second episode."""
    found = list(replay_episodes(filled(pixels, capacity), LIMIT))
    starts = [int(episode.reward[0]) // 10 for episode in found]
    # of vectors it is not known whether an episode began exactly with the oldest transition
    unknown = not pixels and capacity in (13, 8)
    assert starts == list(range(first + unknown, 5))


def test_an_empty_replay_has_no_episodes() -> None:
    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    replay = ReplayConfig(capacity=8).build(
        space, gym.spaces.Discrete(2), 2, np.random.default_rng(0), lambda line: None
    )
    assert list(replay_episodes(replay, LIMIT)) == []
