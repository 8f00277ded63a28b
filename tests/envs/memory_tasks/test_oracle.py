"""Known play earns the known return, exactly: the oracle 1, every policy without memory its bound, random play chance.

Policies and action sequences are enumerated, one per environment of a wide vector env.

Legend: N environments, T steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.memory_tasks.config import TASKS, MemoryTasksConfig
from envs.memory_tasks.known import known_returns
from envs.memory_tasks.tasks import Copy, KeyToDoor
from envs.memory_tasks.vector import MemoryTasksVector
from trainers.evaluation import evaluate_random

Chooser = Callable[[NDArray[np.int64], NDArray[np.float32], int], NDArray[np.int64]]
"""Gives actions for (environments, their observations, the step)."""


def vector(num_envs: int, **settings: Any) -> MemoryTasksVector:
    return MemoryTasksConfig.model_validate({"num_envs": num_envs, **settings}).make_training_env()


def play(env: MemoryTasksVector, obs_N: NDArray[Any], choose: Chooser) -> tuple[NDArray[Any], ...]:
    """Plays one episode in every env, those still open only; gives returns, lengths and successes (N,)."""
    returns_N, lengths_N = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    successes_N = np.zeros(env.num_envs, bool)
    open_ids, step = np.arange(env.num_envs), 0
    while len(open_ids):
        obs, reward, _, _, info = env.step(choose(open_ids, obs_N[open_ids], step), id=open_ids)
        obs_N[open_ids] = obs
        returns_N[open_ids] += reward
        lengths_N[open_ids] += 1
        successes_N[open_ids] |= info["success"] > 0
        open_ids, step = open_ids[~info["episode_over"]], step + 1
    return returns_N, lengths_N, successes_N


def sequences(num_actions: int, length: int) -> NDArray[np.int64]:
    """Gives every sequence of actions (num_actions^length, length)."""
    return np.array(list(itertools.product(range(num_actions), repeat=length)))


def by_observation(kinds: list[list[float]], table: NDArray[np.int64]) -> Chooser:
    """Gives policies without memory: table (N, kinds) holds each env's action for every kind of observation."""

    def choose(ids: NDArray[np.int64], obs: NDArray[np.float32], step: int) -> NDArray[np.int64]:
        matches = (obs[:, None] == np.array(kinds, np.float32)[None]).all(axis=-1)
        assert (matches.sum(axis=1) == 1).all(), "an observation that is not listed"
        return table[ids, matches.argmax(axis=1)]

    return choose


# The oracle

CASES: list[dict[str, Any]] = [
    {"task": "t_maze"},
    {"task": "t_maze", "min_corridor": 1, "max_corridor": 3, "max_wasted_steps": 0},
    {"task": "key_to_door"},
    {"task": "key_to_door", "min_corridor": 1, "max_corridor": 1, "num_symbols": 1, "distractor_reward": 3.0},
    {"task": "copy"},
    {"task": "copy", "min_corridor": 1, "max_corridor": 2, "num_symbols": 7, "sequence_length": 3},
    {"task": "identity"},
    {"task": "identity", "num_symbols": 2},
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_the_oracle_earns_the_best_return_in_every_episode(settings: dict[str, Any]) -> None:
    env = vector(300, **settings)
    protocol: Any = env.protocol
    obs, _ = env.reset(seed=0)
    best_N, corridor_N = env.optimal_returns(), env.task.corridor_N.copy()
    returns, lengths, successes = play(env, obs, lambda ids, obs, step: env.optimal_actions(ids))
    np.testing.assert_allclose(returns, best_N, atol=1e-5)
    assert successes.all()
    assert lengths.max() == protocol.max_episode_steps - (protocol.max_wasted_steps or 0)
    if protocol.task == "t_maze":
        assert np.array_equal(lengths, corridor_N + 1)
    if protocol.task != "key_to_door":
        assert np.array_equal(best_N, np.ones(300)) and (np.abs(returns - 1) < 1e-6).all()


@pytest.mark.parametrize("task", TASKS)
def test_in_evaluation_the_oracle_succeeds_always_with_a_mean_return_of_one(task: Any) -> None:
    config = MemoryTasksConfig(task=task)
    protocol = config.evaluation_protocol()
    env = config.make_evaluation_env(protocol, protocol.num_episodes)
    obs, _ = env.begin_episodes(None, protocol.episodes(0))
    returns, _, successes = play(env, obs, lambda ids, obs, step: env.optimal_actions(ids))
    assert successes.all()
    spread = 0.02 * 60**0.5 if task == "key_to_door" else 0.0
    assert abs(returns.mean() - 1.0) <= 5 * spread / 10 + 1e-6


def test_the_oracle_recovers_from_mistakes() -> None:
    env = vector(64, task="t_maze", min_corridor=3, max_corridor=6, max_wasted_steps=10)
    obs, _ = env.reset(seed=0)
    assert play(env, obs, lambda ids, obs, step: env.optimal_actions(ids) if step > 9 else ids * 0 + 3)[2].all()


# Without memory

MAZE = [[1.0, 0, 0], [0.0, 1, 0], [0.0, 0, 0], [0.0, 0, 1]]


@pytest.mark.parametrize("max_wasted_steps", [0, 1, 7])
@pytest.mark.parametrize("corridors", [(1, 1), (4, 4), (2, 5)])
def test_no_policy_of_the_newest_observation_beats_one_half_in_the_t_maze(
    corridors: tuple[int, int], max_wasted_steps: int
) -> None:
    """All 4^4 policies, against both cues in the same maze: at most one of the two mazes is solved by each."""
    policies = sequences(4, len(MAZE))
    env = vector(
        2 * len(policies),
        task="t_maze",
        min_corridor=corridors[0],
        max_corridor=corridors[1],
        max_wasted_steps=max_wasted_steps,
    )
    for seed in range(4):
        goals = np.repeat([0, 1], len(policies)).tolist()
        obs, _ = env.reset(seed=[seed] * env.num_envs, options={"goal_index": goals})
        returns, _, successes = play(env, obs, by_observation(MAZE, np.tile(policies, (2, 1))))
        mean_by_policy = returns.reshape(2, -1).mean(axis=0)
        assert mean_by_policy.max() == known_returns(env.protocol)["memoryless"] == 0.5  # type: ignore[arg-type]
        assert np.array_equal(returns, successes)
        straight = (policies[:, :3] == 0).all(axis=1) & np.isin(policies[:, 3], [1, 2])
        assert (mean_by_policy[straight] == 0.5).all()


def test_the_cue_leaves_no_trace_in_the_observations() -> None:
    """Whatever is done, the two cues look alike from the second observation on: no window without the first helps."""
    actions = sequences(4, 6)
    env = vector(2 * len(actions), task="t_maze", min_corridor=3, max_corridor=3, max_wasted_steps=2)
    obs, _ = env.reset(seed=[0] * env.num_envs, options={"goal_index": [0, 1] * len(actions)})
    assert not np.array_equal(obs[0], obs[1])
    seen: list[NDArray[Any]] = []

    def choose(ids: NDArray[np.int64], obs: NDArray[np.float32], step: int) -> NDArray[np.int64]:
        if step:
            assert np.array_equal(ids[::2] + 1, ids[1::2]), "both cues' episodes last equally long"
            assert np.array_equal(obs[::2], obs[1::2])
            seen.append(obs)
        return actions[ids // 2, step]

    play(env, obs, choose)
    assert len(seen) == 5


def test_without_steps_to_waste_the_time_of_arrival_tells_nothing() -> None:
    """A policy of the newest observation and the time, too, is at one half: it decides at step L or never."""
    actions = sequences(4, 4)
    env = vector(2 * len(actions), task="t_maze", min_corridor=3, max_corridor=3, max_wasted_steps=0)
    obs, _ = env.reset(seed=0, options={"goal_index": [0, 1] * len(actions)})
    returns, lengths, _ = play(env, obs, lambda ids, obs, step: actions[ids // 2, step])
    assert (lengths == 4).all()
    pairs = returns.reshape(-1, 2)
    assert pairs.sum() == 2, "one sequence of actions per cue"
    assert pairs.sum(axis=1).max() == 1, "and not the same one"


def test_dawdling_on_one_cue_is_a_memory_kept_in_time() -> None:
    """Why `max_wasted_steps=0` exists: with steps to waste, observation and time together solve the maze."""

    def dawdle(ids: NDArray[np.int64], obs: NDArray[np.float32], step: int) -> NDArray[np.int64]:
        at_junction = obs[:, 2] == 1
        return np.where(at_junction, step - 2, np.where(obs[:, 1] == 1, 3, 0))

    env = vector(2, task="t_maze", min_corridor=3, max_corridor=3, max_wasted_steps=1)
    obs, _ = env.reset(seed=0, options={"goal_index": [0, 1]})
    assert play(env, obs, dawdle)[0].tolist() == [1.0, 1.0]


def test_no_policy_of_the_newest_observation_opens_more_than_its_share_of_doors() -> None:
    """All 4^6 policies with two colours, against both."""
    kinds = [[0.0, 0, 0, 0], [1.0, 0, 0, 0], [0.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, -1, 0], [0.0, 0, 0, 1]]
    policies = sequences(4, len(kinds))
    rules = {"min_corridor": 2, "max_corridor": 2, "num_symbols": 2, "distractor_reward": 0.0}
    env = vector(2 * len(policies), task="key_to_door", **rules)
    for seed in range(3):
        goals = np.repeat([0, 1], len(policies)).tolist()
        obs, _ = env.reset(seed=[seed] * env.num_envs, options={"goal_index": goals})
        returns, _, _ = play(env, obs, by_observation(kinds, np.tile(policies, (2, 1))))
        best = returns.reshape(2, -1).mean(axis=0).max()
        assert best == known_returns(env.protocol)["memoryless"] == 0.5  # type: ignore[arg-type]


def test_no_policy_of_the_newest_observation_copies_more_than_its_share() -> None:
    """All policies against all sequences of two out of three symbols: the mean is a third for every one of them."""
    policies, symbols = sequences(3, 2), sequences(3, 2)  # actions: unless asked, and when asked
    env = vector(
        len(policies) * len(symbols), task="copy", min_corridor=1, max_corridor=1, num_symbols=3, sequence_length=2
    )
    env.reset(seed=0)
    assert isinstance(env.task, Copy)
    env.task.symbol_NS[:] = np.tile(symbols, (len(policies), 1))
    table = np.repeat(policies, len(symbols), axis=0)
    first = env.task.observe(np.arange(env.num_envs))
    returns, _, _ = play(env, first, lambda ids, obs, step: table[ids, obs[:, -1].astype(int)])
    mean_by_policy = returns.reshape(len(policies), len(symbols)).mean(axis=1)
    np.testing.assert_allclose(mean_by_policy, known_returns(env.protocol)["memoryless"])  # type: ignore[arg-type]


# Random play

RANDOM_CASES: list[tuple[dict[str, Any], int, int]] = [
    ({"task": "t_maze", "min_corridor": 1, "max_corridor": 1, "max_wasted_steps": 3}, 4, 5),
    ({"task": "t_maze", "min_corridor": 3, "max_corridor": 3, "max_wasted_steps": 2}, 4, 6),
    ({"task": "t_maze", "min_corridor": 2, "max_corridor": 2, "max_wasted_steps": 0}, 4, 3),
    ({"task": "key_to_door", "min_corridor": 1, "max_corridor": 1, "num_symbols": 2, "distractor_reward": 0.0}, 4, 5),
    ({"task": "key_to_door", "min_corridor": 2, "max_corridor": 2, "num_symbols": 1, "distractor_reward": 0.0}, 3, 6),
    ({"task": "copy", "min_corridor": 1, "max_corridor": 1, "num_symbols": 3, "sequence_length": 2}, 3, 5),
    ({"task": "identity", "num_symbols": 2}, 2, 16),
]


@pytest.mark.parametrize(("settings", "num_actions", "length"), RANDOM_CASES, ids=str)
def test_the_mean_over_all_action_sequences_is_the_known_chance_level(
    settings: dict[str, Any], num_actions: int, length: int
) -> None:
    """Uniform random play is every sequence equally often; each is played in an episode of the same seed."""
    actions = sequences(num_actions, length)
    env = vector(len(actions), **settings)
    obs, _ = env.reset(seed=[7] * len(actions))
    returns, _, _ = play(env, obs, lambda ids, obs, step: actions[ids, step])
    assert returns.mean() == pytest.approx(known_returns(env.protocol)["random"], rel=1e-6)  # type: ignore[arg-type]


def test_random_evaluation_is_at_chance_within_its_error() -> None:
    for settings in (
        {"task": "t_maze", "min_corridor": 1, "max_corridor": 4, "max_wasted_steps": 20},
        {"task": "key_to_door", "min_corridor": 1, "max_corridor": 4, "num_symbols": 1},
        {"task": "copy", "min_corridor": 1, "max_corridor": 3},
        {"task": "identity"},
    ):
        config = MemoryTasksConfig.model_validate({**settings, "evaluation_episodes": 1000})
        protocol = config.evaluation_protocol()
        records = evaluate_random(config.make_evaluation_env, protocol, seed=1, num_envs=250)
        returns = np.array([record.raw_return for record in records])
        chance = known_returns(protocol)["random"]
        assert abs(returns.mean() - chance) < 4 * returns.std() / 1000**0.5, settings
        assert {record.stop_reason for record in records} <= {"terminated", "truncated"}, "no episode meets the guard"


def test_without_the_key_no_lock_opens() -> None:
    env = vector(60, task="key_to_door", min_corridor=2, max_corridor=3)
    assert isinstance(env.task, KeyToDoor)
    obs, _ = env.reset(seed=0)

    def never_pick_up(ids: NDArray[np.int64], obs: NDArray[np.float32], step: int) -> NDArray[np.int64]:
        best = env.optimal_actions(ids)
        return np.where(best == KeyToDoor.PICK_UP, KeyToDoor.WALK, best)

    best = env.optimal_returns()
    returns, _, successes = play(env, obs, never_pick_up)
    assert not successes.any()
    np.testing.assert_allclose(returns, best - 1.0, atol=1e-6)
