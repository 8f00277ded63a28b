"""The vector environment keeps the contract: partial steps and resets, seeds, goals, errors; and the single one too."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch, Collector, VectorReplayBuffer

from envs.base import EpisodeSpec
from envs.memory_tasks.config import TASKS, MemoryTasksConfig
from envs.memory_tasks.vector import MemoryTasksVector

SHORT: dict[str, dict[str, Any]] = {
    "t_maze": {"min_corridor": 2, "max_corridor": 5, "max_wasted_steps": 3},
    "key_to_door": {"min_corridor": 1, "max_corridor": 4},
    "copy": {"min_corridor": 1, "max_corridor": 4, "sequence_length": 2},
    "identity": {},
}


class RandomPolicy(Policy):
    """Uniform actions."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        super().__init__(action_space=space, action_bound_method=None)
        self.rng = np.random.default_rng(0)

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Any:
        assert isinstance(self.action_space, gymnasium.spaces.Discrete)
        return Batch(act=self.rng.integers(0, self.action_space.n, len(batch.obs)), state=None)


def config(task: str, **settings: Any) -> MemoryTasksConfig:
    return MemoryTasksConfig.model_validate({"task": task, **SHORT[task], **settings})


def vector(task: str, num_envs: int = 3, **settings: Any) -> MemoryTasksVector:
    return config(task, num_envs=num_envs, **settings).make_training_env()


def episode(env: MemoryTasksVector, row: int, first_obs: np.ndarray) -> list[tuple[Any, ...]]:
    """Plays the row's episode with actions that depend on time alone, the others standing still."""
    num_actions = int(env.single_action_space.n)  # type: ignore[attr-defined]
    seen: list[tuple[Any, ...]] = [(first_obs.tobytes(),)]
    while True:
        action = np.array([(len(seen) * 7 // 3) % num_actions])
        obs, reward, terminated, truncated, info = env.step(action, id=[row])
        seen.append((obs[0].tobytes(), reward[0], terminated[0], truncated[0], info["success"][0]))
        if info["episode_over"][0]:
            return seen


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_gives_the_same_episodes_whatever_the_number_of_envs(task: str) -> None:
    wide, alone = vector(task, 5), vector(task, 1)
    obs, _ = wide.reset(seed=[11, 12, 13, 14, 15])
    for row in (3, 0, 4):
        again, _ = alone.reset(seed=[11 + row])
        assert episode(wide, row, obs[row]) == episode(alone, 0, again[0])
        following, unseeded = wide.reset([row])[0], alone.reset()[0]
        assert episode(wide, row, following[0]) == episode(alone, 0, unseeded[0])


@pytest.mark.parametrize("task", TASKS)
def test_the_single_env_plays_the_same_episodes(task: str) -> None:
    env, single = vector(task, 1), config(task).make_single_env(config(task).training_protocol())
    for seed in (3, None, 9):
        obs, info = env.reset(seed=None if seed is None else [seed])
        one, _ = single.reset(seed=seed)
        assert info["success"].tolist() == [0.0] and np.array_equal(obs[0], one)
        over = False
        while not over:
            action = single.optimal_action()
            assert action == env.optimal_actions()[0]
            obs, reward, terminated, truncated, info = env.step(np.array([action]))
            one, *rest = single.step(np.int64(action))
            assert np.array_equal(obs[0], one)
            assert rest == [reward[0], terminated[0], truncated[0], {"success": info["success"][0]}]
            over = bool(info["episode_over"][0])


@pytest.mark.parametrize("task", TASKS)
def test_gymnasiums_checker_passes(task: str) -> None:
    env = config(task).make_single_env(config(task).training_protocol(), "rgb_array")
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    env.step(np.int64(0))
    frame = env.render()
    size = config(task).make_training_env().task.obs_size
    assert frame.shape == (32, 16 * size, 3) and frame.dtype == np.uint8
    assert frame[16:].max() == 128, "time goes on"


def test_a_frame_shows_the_observation() -> None:
    env = config("t_maze").make_single_env(config("t_maze").training_protocol(), "rgb_array")
    env.reset(seed=0, options={"goal_index": 1})
    frame = env.render()
    assert frame[0, ::16, 0].tolist() == [0, 255, 0]
    assert frame[16:].max() == 0
    quiet = config("t_maze").make_single_env(config("t_maze").training_protocol())
    quiet.reset(seed=0)
    assert quiet.render() is None


@pytest.mark.parametrize("task", TASKS)
def test_only_the_listed_envs_advance_and_reset(task: str) -> None:
    env, twin = vector(task, 4), vector(task, 4)
    for each in (env, twin):
        each.reset(seed=1)
    env.step(np.zeros(2, np.int64), id=[3, 1])
    assert env.task.elapsed_N.tolist() == [0, 1, 0, 1]
    env.step(np.zeros(1, np.int64), id=[1])
    env.reset([3])
    assert env.task.elapsed_N.tolist() == [0, 2, 0, 0]
    untouched = np.array([0, 2])
    assert np.array_equal(env.task.observe(untouched), twin.task.observe(untouched))
    assert np.array_equal(env.task.corridor_N[untouched], twin.task.corridor_N[untouched])
    assert np.array_equal(env.optimal_returns(untouched), twin.optimal_returns(untouched))


def test_rows_come_in_the_order_listed() -> None:
    env = vector("t_maze")
    env.reset(seed=0, options={"goal_index": [0, 1, 0]})
    obs, info = env.reset([2, 0], seed=[8, 9], options={"goal_index": [1, 0]})
    assert obs.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert env.task.goal_N.tolist() == [0, 1, 1]
    assert set(info) == {"raw_reward", "episode_over", "success"} and all(len(rows) == 2 for rows in info.values())


def test_an_episode_specification_fixes_the_goal_and_the_seed_all_else() -> None:
    env = vector("key_to_door", 2)
    specs = [EpisodeSpec(0, 40, "key_to_door", 2), EpisodeSpec(1, 41, "key_to_door", 2)]
    env.begin_episodes([0, 1], specs)
    assert env.task.goal_N.tolist() == [2, 2]
    corridors, returns = env.task.corridor_N.copy(), env.optimal_returns()
    env.begin_episodes([1, 0], specs)
    assert np.array_equal(env.task.corridor_N, corridors[::-1])
    assert np.array_equal(env.optimal_returns(), returns[::-1])
    env.reset(seed=[40, 40], options={"goal_index": [None, 1]})
    assert env.task.corridor_N.tolist() == [corridors[0]] * 2


def test_without_goals_the_cue_is_drawn_evenly() -> None:
    env = vector("t_maze", 2000)
    env.reset(seed=0)
    assert abs(env.task.goal_N.mean() - 0.5) < 5 * 0.5 / 2000**0.5
    counts = np.bincount(env.task.corridor_N, minlength=6)
    assert counts[:2].tolist() == [0, 0]
    assert np.abs(counts[2:] - 500).max() < 5 * 500**0.5


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("t_maze", {"goal_index": 2}, r"t_maze has 2 goals, numbered from 0, got goal_index=2"),
        ("t_maze", {"goal_index": [0, 1, -1]}, r"got goal_index=-1"),
        ("copy", {"goal_index": 0}, r"copy has 0 goals"),
        ("copy", {"task": "t_maze"}, r"these environments play 'copy', not 't_maze'"),
        ("copy", {"delay": 3}, r"unknown reset option 'delay'"),
        ("t_maze", {"goal_index": [0, 1]}, r"'goal_index' has 2 values for 3 environments"),
    ],
)
def test_impossible_options_are_refused(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vector(task).reset(options=options)


def test_a_refused_reset_changes_nothing() -> None:
    env, twin = vector("t_maze"), vector("t_maze")
    env.reset(seed=5)
    twin.reset(seed=5)
    with pytest.raises(ValueError, match="goal_index=7"):
        env.reset(options={"goal_index": 7})
    assert np.array_equal(env.reset()[0], twin.reset()[0])
    assert np.array_equal(env.task.corridor_N, twin.task.corridor_N)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([0, 0, 4], r"expected actions in 0\.\.3, got \[0, 0, 4\]"),
        ([0.0, 0.0, 0.0], r"whole-number actions"),
        ([0, 0], r"shape \(3,\)"),
    ],
)
def test_impossible_actions_are_refused(action: list[Any], message: str) -> None:
    env = vector("t_maze")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(np.array(action))
    assert env.task.elapsed_N.tolist() == [0, 0, 0]


def test_episodes_must_be_begun() -> None:
    env = vector("identity", 2)
    with pytest.raises(RuntimeError, match=r"reset environments \[0, 1\] first"):
        env.step(np.zeros(2, np.int64))
    env.reset(seed=0)
    for _ in range(16):
        env.step(np.zeros(1, np.int64), id=[1])
    with pytest.raises(RuntimeError, match=r"reset environments \[1\] first"):
        env.step(np.zeros(2, np.int64))
    env.step(np.zeros(1, np.int64), id=[0])
    with pytest.raises(TypeError, match="speed"):
        env.reset(speed=3)
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset()


def test_returned_arrays_are_the_callers() -> None:
    env = vector("identity", 2)
    obs, info = env.reset(seed=0)
    kept = env.task.observe(np.arange(2))
    obs[:], info["success"][:] = 9, 9
    assert np.array_equal(env.task.observe(np.arange(2)), kept)
    _, reward, _, _, info = env.step(env.optimal_actions())
    reward[:] = 9
    assert info["raw_reward"].tolist() == [1 / 16, 1 / 16]
    info["episode_over"][:] = True
    env.step(np.zeros(2, np.int64))


def test_work_is_done_once_a_step() -> None:
    env, calls = vector("identity", 2), []
    env.reset(seed=0)
    env.step(np.zeros(2, np.int64), meanwhile=lambda: calls.append(1))
    assert calls == [1]


def test_seeds_set_beforehand_are_used_once() -> None:
    env, twin = vector("copy"), vector("copy")
    env.seed([5, 6, 7])
    twin.reset(seed=[5, 6, 7])
    assert np.array_equal(env.reset()[0], twin.task.observe(np.arange(3)))
    assert np.array_equal(env.task.corridor_N, twin.task.corridor_N)


@pytest.mark.parametrize("task", TASKS)
def test_tianshous_collector_takes_it(task: str) -> None:
    env = vector(task, 3)
    buffer = VectorReplayBuffer(600, 3)
    collector: Collector[Any] = Collector(RandomPolicy(env.single_action_space), env, buffer)
    collector.reset(gym_reset_kwargs={"seed": 0})
    result = collector.collect(n_step=300)
    assert result.n_collected_steps == 300 and result.n_collected_episodes > 5
    assert np.isin(buffer.done[: len(buffer)], [0, 1]).all()
