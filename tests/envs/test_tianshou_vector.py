from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import BaseVectorEnv, DummyVectorEnv

from envs.base import EpisodeSpec
from envs.protocols import derive_seeds
from envs.tianshou_vector import GymVectorEnv, Info

KEYS = ("obs", "act", "rew", "terminated", "truncated", "done", "obs_next")


class Walk(gymnasium.Env[NDArray[np.float32], Any]):
    """Counts its steps; ends after as many as its seed says (mod 7, plus 1); tells what it was reset with."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    log: ClassVar[list[tuple[int | None, dict[str, Any] | None]]] = []

    def __init__(self, first_seed: int = 0) -> None:
        self.next_seed = first_seed
        self.time = 0

    def _obs(self) -> NDArray[np.float32]:
        return np.array([self.next_seed, self.time, 1000.0], dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self.log.append((seed, options))
        self.next_seed = self.next_seed + 1 if seed is None else seed
        self.time = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.time += 1
        over = self.time > self.next_seed % 7
        info = {"success": float(action == 2), "other": "text"} if self.time > 1 else {}
        return self._obs(), float(action), over and action == 1, over and action != 1, info


class TablePolicy(Policy):
    """Plays the rows of a table of numbers, whatever it sees."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        super().__init__(action_space=space, action_bound_method=None)
        self.rng = np.random.default_rng(0)

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Any:
        assert len(batch.info) in (0, len(batch.obs))
        if isinstance(self.action_space, gymnasium.spaces.Box):
            return Batch(act=self.rng.uniform(-2, 2, (len(batch.obs), 1)).astype(np.float32), state=None)
        return Batch(act=self.rng.integers(0, 2, len(batch.obs)), state=None)


class SeededFirst(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Seeds the first reset only, so that both vector environments see the same plain resets."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().__init__(env)
        self.first_seed: int | None = seed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        seed, self.first_seed = self.first_seed if seed is None else seed, None
        return self.env.reset(seed=seed, options=options)


def walks(num_envs: int = 4) -> GymVectorEnv:
    Walk.log.clear()
    envs = [partial(Walk, 10 * index) for index in range(num_envs)]
    return GymVectorEnv(SyncVectorEnv(envs, autoreset_mode=AutoresetMode.DISABLED))


def classic(name: str, seed: int) -> gymnasium.Env[Any, Any]:
    return SeededFirst(gymnasium.make(name), seed)


def collect(venv: BaseVectorEnv, run: Callable[[Collector[Any]], list[Any]]) -> tuple[Any, list[Any]]:
    policy = TablePolicy(venv.action_space[0])
    collector: Collector[Any] = Collector(policy, venv, VectorReplayBuffer(2400, len(venv)))
    collector.reset()
    stats = run(collector)
    return collector.buffer, stats


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("how", ["n_step", "n_episode", "mixed"])
def test_collects_the_same_bits_as_dummy_vector_env(name: str, how: str) -> None:
    factories: list[Callable[[], Any]] = [partial(classic, name, seed) for seed in (3, 1, 4, 15)]

    def run(collector: Collector[Any]) -> list[Any]:
        if how == "n_step":
            return [collector.collect(n_step=100), collector.collect(n_step=900)]
        if how == "n_episode":
            return [collector.collect(n_episode=9), collector.collect(n_episode=4)]
        return [collector.collect(n_step=40), collector.collect(n_episode=6), collector.collect(n_step=40)]

    ours, our_stats = collect(GymVectorEnv(SyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED)), run)
    theirs, their_stats = collect(DummyVectorEnv(factories), run)
    assert len(ours) == len(theirs) > 50
    for key in KEYS:
        expected = getattr(theirs, key)
        np.testing.assert_array_equal(getattr(ours, key), expected.astype(np.float32) if key == "rew" else expected)
    for mine, dummy in zip(our_stats, their_stats, strict=True):
        np.testing.assert_array_equal(mine.lens, dummy.lens)
        np.testing.assert_allclose(mine.returns, dummy.returns, rtol=1e-5)


def test_collector_of_tianshou_keeps_our_info() -> None:
    buffer, _ = collect(walks(), lambda collector: [collector.collect(n_step=200)])
    np.testing.assert_array_equal(buffer.info.raw_reward, buffer.rew)
    np.testing.assert_array_equal(buffer.info.episode_over, buffer.done)
    assert buffer.done.sum() > 20


def test_only_listed_envs_advance_in_the_order_listed() -> None:
    venv = walks()
    venv.reset(seed=[6, 13, 20, 27])
    obs, reward, _, truncated, info = venv.step(np.array([2, 1]), id=[3, 1])
    np.testing.assert_array_equal(obs, [[27, 1, 1000], [13, 1, 1000]])
    np.testing.assert_array_equal(reward, [2, 1])
    assert reward.dtype == np.float32
    assert not truncated.any()
    assert set(info) == {"raw_reward", "episode_over", "success"}
    obs, *_, info = venv.step(np.array([2, 0, 0, 2]))
    np.testing.assert_array_equal(obs[:, 1], [1, 2, 1, 2])
    np.testing.assert_array_equal(info["success"], [0, 0, 0, 1])
    assert info["success"].dtype == np.float32


def test_partial_resets_leave_the_others_alone() -> None:
    venv = walks()
    obs, info = venv.reset(seed=[6, 13, 20, 27])
    assert {key: value.tolist() for key, value in info.items()} == {
        "raw_reward": [0] * 4,
        "episode_over": [False] * 4,
        "success": [0] * 4,
    }
    venv.step(np.zeros(4, int))
    obs, info = venv.reset(2)
    np.testing.assert_array_equal(obs, [[21, 0, 1000]])
    assert len(info["raw_reward"]) == 1
    np.testing.assert_array_equal(venv.step(np.zeros(4, int))[0][:, 1], [2, 2, 1, 2])


def test_terminated_and_truncated_are_the_environments() -> None:
    venv = walks(2)
    venv.reset(seed=[0, 0])  # length 1
    _, _, terminated, truncated, info = venv.step(np.array([1, 2]))
    assert terminated.tolist() == [True, False]
    assert truncated.tolist() == [False, True]
    assert info["episode_over"].tolist() == [True, True]


def test_int_seed_gives_distinct_seeds_by_environment() -> None:
    venv = walks()
    venv.reset(seed=5)
    assert [seed for seed, _ in Walk.log] == derive_seeds(5, 4)
    Walk.log.clear()
    venv.reset(env_id=[2, 0], seed=5)
    assert [seed for seed, _ in Walk.log] == [derive_seeds(5, 4)[2], derive_seeds(5, 4)[0]]


def test_seed_is_used_by_the_next_reset_of_each_env_once() -> None:
    venv = walks()
    assert venv.seed([4, 5, 6, 7]) == [[4], [5], [6], [7]]
    venv.reset([1, 3])
    venv.reset()
    assert [seed for seed, _ in Walk.log] == [5, 7, 4, None, 6, None]
    venv.seed(5)
    venv.seed(None)
    Walk.log.clear()
    venv.reset()
    assert [seed for seed, _ in Walk.log] == [None] * 4


def test_begin_episodes_hands_each_env_its_seed_task_and_goal() -> None:
    venv = walks()
    venv.reset()
    venv.step(np.zeros(4, int))
    Walk.log.clear()
    specs = [EpisodeSpec(0, 41, "reach", 3), EpisodeSpec(1, 43, "push", None)]
    obs, _ = venv.begin_episodes([3, 0], specs)
    np.testing.assert_array_equal(obs[:, 0], [41, 43])
    assert Walk.log == [(41, {"task": "reach", "goal_index": 3}), (43, {"task": "push", "goal_index": None})]
    with pytest.raises(ValueError, match="3 environments, but 2"):
        venv.begin_episodes([0, 1, 2], specs)


def test_options_by_row_or_shared() -> None:
    venv = walks(2)
    venv.reset(options={"task": ["a", "b"], "speed": 3})
    assert [options for _, options in Walk.log] == [{"task": "a", "speed": 3}, {"task": "b", "speed": 3}]
    with pytest.raises(ValueError, match="'task' has 3 values for 2"):
        venv.reset(options={"task": ["a", "b", "c"]})
    with pytest.raises(TypeError, match="mood"):
        venv.reset(mood="good")


@pytest.mark.parametrize("ids", [[4], [-1], [0, 0], []])
def test_impossible_environments_are_refused(ids: list[int]) -> None:
    venv = walks()
    with pytest.raises(ValueError, match=r"distinct environments out of 0\.\.3"):
        venv.reset(ids)


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, -4], -4])
def test_impossible_seeds_are_refused(seed: int | list[int]) -> None:
    with pytest.raises(ValueError, match="seed"):
        walks().reset(seed=seed)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 1, 2, 3]), r"0\.\.2, got \[0, 1, 2, 3\]"),
        (np.array([0, 1, -1, 2]), r"got \[0, 1, -1, 2\]"),
        (np.array([0.0, 1.0, 2.0, 1.0]), "float64"),
        (np.array([True, False, True, False]), "bool"),
        (np.array([0, 1, 2]), r"shape \(4,\), got \(3,\)"),
        (np.array([[0], [1], [2], [1]]), r"got \(4, 1\)"),
    ],
)
def test_bad_discrete_actions_are_refused(action: NDArray[Any], message: str) -> None:
    venv = walks()
    venv.reset()
    with pytest.raises(ValueError, match=message):
        venv.step(action)


@pytest.fixture(scope="module")
def pendulums() -> Iterator[GymVectorEnv]:
    factories = [partial(gymnasium.make, "Pendulum-v1")] * 2
    venv = GymVectorEnv(SyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED), episode_info_keys=())
    venv.reset(seed=0)
    yield venv
    venv.close()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([[np.nan], [0.0]]), "nan"),
        (np.array([[2.1], [0.0]]), r"2\.1"),
        (np.array([[0.0], [-np.inf]]), "-inf"),
        (np.array([[0], [1]]), "int64"),
        (np.array([0.0, 1.0]), r"shape \(2, 1\)"),
    ],
)
def test_bad_box_actions_are_refused(pendulums: GymVectorEnv, action: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pendulums.step(action)


def test_rounding_at_the_bounds_is_clipped_not_refused(pendulums: GymVectorEnv) -> None:
    obs, *_, info = pendulums.step(np.array([[np.nextafter(np.float32(2), np.float32(3))], [-2.0]], np.float32))
    assert obs.dtype == np.float32
    assert set(info) == {"raw_reward", "episode_over"}


def test_returned_observations_are_the_callers() -> None:
    venv = walks(2)
    first, _ = venv.reset(seed=[6, 6])
    second = venv.step(np.zeros(2, int))[0]
    venv.step(np.zeros(2, int))
    np.testing.assert_array_equal(first[:, 1], [0, 0])
    np.testing.assert_array_equal(second[:, 1], [1, 1])


def test_autoresetting_and_foreign_vector_envs_are_refused() -> None:
    with pytest.raises(ValueError, match="NEXT_STEP"):
        GymVectorEnv(SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.NEXT_STEP))
    with pytest.raises(TypeError, match="DummyVectorEnv"):
        GymVectorEnv(DummyVectorEnv([Walk]))  # type: ignore[arg-type]


def test_what_tianshou_asks_of_a_vector_env() -> None:
    venv = walks(3)
    assert len(venv) == venv.env_num == venv.num_envs == 3
    assert venv.action_space == [Walk.action_space] * 3
    assert venv.observation_space[0] == Walk.observation_space
    assert venv.get_env_attr("spec", [1]) == [None]
    with pytest.raises(NotImplementedError, match="gravity"):
        venv.set_env_attr("gravity", 1.0)


def test_closing_twice_is_fine_and_using_a_closed_one_is_not() -> None:
    venv = walks(2)
    venv.close()
    venv.close()
    with pytest.raises(RuntimeError, match="closed"):
        venv.reset()


def test_info_is_one_dict_per_row_to_numpy() -> None:
    rows = np.empty(3, dtype=object)
    rows[:] = None
    rows[[2, 0]] = Info(raw_reward=np.array([1.0, 2.0]), episode_over=np.array([True, False]))
    assert rows.tolist() == [
        {"raw_reward": 2.0, "episode_over": False},
        None,
        {"raw_reward": 1.0, "episode_over": True},
    ]


@pytest.mark.parametrize("shared_memory", [True, False])
def test_worker_processes_do_what_the_calling_process_does(shared_memory: bool) -> None:
    factories = [partial(gymnasium.make, "CartPole-v1", max_episode_steps=12)] * 3
    sync = GymVectorEnv(SyncVectorEnv(factories, autoreset_mode=AutoresetMode.DISABLED))
    workers = GymVectorEnv(
        AsyncVectorEnv(
            factories, autoreset_mode=AutoresetMode.DISABLED, shared_memory=shared_memory, context="forkserver"
        )
    )
    rng = np.random.default_rng(0)
    try:
        np.testing.assert_array_equal(sync.reset(seed=3)[0], workers.reset(seed=3)[0])
        for _ in range(60):
            ids = rng.permutation(3)[: rng.integers(1, 4)]
            action = rng.integers(0, 2, len(ids))
            mine, theirs = sync.step(action, ids), workers.step(action, ids)
            for left, right in zip(mine[:4], theirs[:4], strict=True):
                np.testing.assert_array_equal(left, right)
            over = ids[mine[4]["episode_over"]]
            if len(over):
                seeds = rng.integers(0, 99, len(over)).tolist()
                np.testing.assert_array_equal(sync.reset(over, seed=seeds)[0], workers.reset(over, seed=seeds)[0])
        with pytest.raises(ValueError, match="got"):
            workers.step(np.array([0, 5, 1]))
    finally:
        workers.close()
        workers.close()
