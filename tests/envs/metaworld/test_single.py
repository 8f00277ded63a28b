"""The single env: seeds that decide, goals that can be forced, and a horizon that is kept.

"Defect n" is the n-th defect of the package that our factory is built around (docs/decisions.md).
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.metaworld.config import MetaworldConfig
from envs.metaworld.goals import GoalSet, load_goals
from envs.metaworld.single import MetaworldEnv, SimulatorPool, make_worker_env
from envs.metaworld.tasks import ALL_TASKS

metaworld = pytest.importorskip("metaworld")

Expert = Callable[[str], Callable[[np.ndarray], np.ndarray]]
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (30, 4)).astype(np.float32)


def make(**settings: Any) -> MetaworldEnv:
    return MetaworldEnv(MetaworldConfig(**settings).training_protocol())


@pytest.fixture
def reach() -> Iterator[MetaworldEnv]:
    env = make()
    yield env
    env.close()


def rollout(env: MetaworldEnv, num_steps: int = 10, **reset: Any) -> np.ndarray:
    """Gives observations and rewards of one beginning of an episode, flat."""
    obs, _ = env.reset(**reset)
    trace = [obs]
    for action in ACTIONS[:num_steps]:
        obs, reward, *_ = env.step(action)
        trace += [obs, np.array([reward])]
    return np.concatenate(trace)


UNBOUNDED = pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity")
"""The checker advises against infinite bounds; object positions have no others."""


@UNBOUNDED
def test_gymnasiums_checker_passes(reach: MetaworldEnv) -> None:
    check_env(reach, skip_render_check=True)


@UNBOUNDED
def test_gymnasiums_checker_passes_with_several_tasks_and_one_hot_ids() -> None:
    check_env(make(benchmark="MT10", one_hot=True), skip_render_check=True)


def test_it_is_the_packages_own_env_step_for_step(reach: MetaworldEnv) -> None:
    theirs = metaworld.ALL_V3_ENVIRONMENTS["reach-v3"]()
    theirs.set_task(metaworld.MT1("reach-v3", seed=42).train_tasks[7])
    obs, _ = reach.reset(options={"goal_index": 7})
    np.testing.assert_array_equal(obs, theirs.reset()[0].astype(np.float32))
    for action in ACTIONS:
        obs, reward, _, _, info = reach.step(action)
        their_obs, their_reward, _, _, their_info = theirs.step(action)
        np.testing.assert_array_equal(obs, their_obs.astype(np.float32))
        assert (reward, info["success"]) == (their_reward, their_info["success"])


def test_a_seed_decides_goals_and_trajectory(reach: MetaworldEnv) -> None:
    def goals(seed: int) -> list[int]:
        first = reach.reset(seed=seed)[1]["goal_index"]
        return [first, *[reach.reset()[1]["goal_index"] for _ in range(5)]]

    assert goals(1) == goals(1)
    assert len(set(goals(1))) > 1
    assert goals(1) != goals(2)
    np.testing.assert_array_equal(rollout(reach, seed=1), rollout(make(), seed=1))


def test_a_forced_goal_is_that_goal_whatever_was_played_before(reach: MetaworldEnv) -> None:
    first = rollout(reach, seed=0, options={"task": "reach-v3", "goal_index": 3})
    other = rollout(reach, seed=9, options={"task": "reach-v3", "goal_index": 4})
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, rollout(reach, options={"task": "reach-v3", "goal_index": 3}))
    np.testing.assert_array_equal(first, rollout(make(), options={"task": None, "goal_index": 3}))
    obs, _ = reach.reset(options={"goal_index": 3})
    goal = load_goals(("reach-v3",), 42).vectors["reach-v3"][3, 3:]
    np.testing.assert_array_equal(obs[-3:], goal.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("reward_version", ["v2", "v1"])
def test_resets_do_not_depend_on_history_in_any_task(reward_version: str) -> None:
    protocol = MetaworldConfig(benchmark="MT50", reward_version=reward_version).training_protocol()
    for task in ALL_TASKS:
        env = MetaworldEnv(protocol)
        fresh = rollout(env, 20, options={"task": task, "goal_index": 3})
        rollout(env, 30, options={"task": task, "goal_index": 11})
        np.testing.assert_array_equal(fresh, rollout(env, 20, options={"task": task, "goal_index": 3}), task)
        env.close()


def test_no_global_generator_is_read_or_moved() -> None:
    before = str(np.random.get_state())  # noqa: NPY002
    env = make(benchmark="MT10", one_hot=True)
    first = rollout(env, seed=0, options={"task": "push-v3"})
    np.random.seed(123)  # noqa: NPY002
    moved = str(np.random.get_state())  # noqa: NPY002
    np.testing.assert_array_equal(first, rollout(env, seed=0, options={"task": "push-v3"}))
    assert str(np.random.get_state()) == moved != before  # noqa: NPY002


def test_one_hot_ids_follow_the_packages_order() -> None:
    env = make(benchmark="MT10", one_hot=True)
    assert env.observation_space.shape == (49,)
    for index, task in enumerate(metaworld.MT10_V3 if hasattr(metaworld, "MT10_V3") else env.protocol.tasks):
        if index in (0, 4, 9):
            obs, info = env.reset(options={"task": task})
            np.testing.assert_array_equal(obs[39:], np.eye(10)[index])
            assert info["task_index"] == index
            np.testing.assert_array_equal(env.step(ACTIONS[0])[0][39:], np.eye(10)[index])


def test_without_options_the_tasks_come_round_robin() -> None:
    env = make(benchmark="MT10")
    indices = [env.reset(seed=4)[1]["task_index"], *[env.reset()[1]["task_index"] for _ in range(9)]]
    assert indices == [(indices[0] + turn) % 10 for turn in range(10)]
    assert env.reset(seed=4)[1]["task_index"] == indices[0]


@pytest.mark.parametrize(("benchmark", "visible"), [("MT1", True), ("ML1", False)])
def test_the_goal_is_visible_in_mt_and_hidden_in_ml(benchmark: str, visible: bool) -> None:
    env = make(benchmark=benchmark, task="reach-v3")
    obs, _ = env.reset(seed=0)
    following = env.step(ACTIONS[0])[0]
    assert obs[36:39].any() == following[36:39].any() == visible


def test_the_goal_can_be_shown_or_hidden_against_the_benchmarks_habit() -> None:
    assert not make(goal_visible=False).reset(seed=0)[0][36:].any()
    assert make(benchmark="ML1", task="reach-v3", goal_visible=True).reset(seed=0)[0][36:].any()


def test_the_reward_version_takes_effect() -> None:
    traces = {version: rollout(make(reward_version=version), seed=0) for version in ("v1", "v2")}
    assert not np.array_equal(traces["v1"], traces["v2"])
    np.testing.assert_array_equal(traces["v1"][:39], traces["v2"][:39])


def test_no_step_past_the_horizon(reach: MetaworldEnv) -> None:
    reach.reset(seed=0)
    for step in range(1, 501):
        _, _, terminated, truncated, info = reach.step(np.zeros(4, np.float32))
        assert (terminated, truncated, info["episode_over"]) == (False, step == 500, step == 500)
    with pytest.raises(RuntimeError, match=r"over after 500 of at most 500 steps.*call reset"):
        reach.step(np.zeros(4, np.float32))
    reach.reset()
    reach.step(np.zeros(4, np.float32))


def test_a_shorter_horizon() -> None:
    env = make(max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(ACTIONS[0])[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(RuntimeError, match="of at most 3 steps"):
        env.step(ACTIONS[0])


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(RuntimeError, match="never started"):
        make().step(ACTIONS[0])


def test_success_is_per_step_and_episodes_go_on_after_it(reach: MetaworldEnv, expert: Expert) -> None:
    """The oracle: the scripted expert succeeds, and v2's reward is then close to its top of 10."""
    act = expert("reach-v3")
    obs, info = reach.reset(options={"goal_index": 0})
    assert info["success"] == 0
    successes, rewards = [], []
    for _ in range(120):
        obs, reward, terminated, truncated, info = reach.step(act(obs))
        assert not terminated and not truncated and not info["episode_over"]
        assert info["success"].dtype == np.float32 and info["raw_reward"] == np.float32(reward)
        successes.append(float(info["success"]))
        rewards.append(reward)
    assert successes[0] == 0 and successes[-1] == 1
    assert rewards[-1] > 9 > rewards[0]


def test_stop_at_success_terminates_on_the_first_one(expert: Expert) -> None:
    env = make(stop_at_success=True)
    act, over = expert("reach-v3"), False
    obs, _ = env.reset(options={"goal_index": 0})
    while not over:
        obs, _, terminated, truncated, info = env.step(act(obs))
        over = terminated or truncated
        assert info["success"] == info["episode_over"] == terminated
    assert terminated and not truncated
    with pytest.raises(RuntimeError, match="episode is over"):
        env.step(ACTIONS[0])


def test_infos_have_one_structure_at_reset_and_step(reach: MetaworldEnv) -> None:
    """Defect 10: the package's reset info is empty, which breaks dataset writers."""
    _, at_reset = reach.reset(seed=0)
    *_, at_step = reach.step(ACTIONS[0])
    assert {key: type(value) for key, value in at_reset.items()} == {key: type(v) for key, v in at_step.items()}
    assert set(at_reset) == {"success", "raw_reward", "episode_over", "task_index", "goal_index"}


@pytest.mark.parametrize(
    "action", [np.full(4, np.nan, np.float32), np.array([np.inf, 0, 0, 0]), np.zeros(3), np.zeros((1, 4))]
)
def test_actions_that_are_none_are_refused(reach: MetaworldEnv, action: np.ndarray) -> None:
    reach.reset(seed=0)
    with pytest.raises(ValueError, match="4 finite numbers, got"):
        reach.step(action)


def test_actions_outside_the_bounds_are_clipped_for_simulator_and_reward() -> None:
    outcomes = []
    for scale in (1.0, 50.0):
        env = make(task="push-v3")
        env.reset(seed=0)
        outcomes.append([env.step(scale * np.array([1, -1, 1, 1], np.float32))[:2] for _ in range(5)])
    for (obs, reward), (wild_obs, wild_reward) in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(obs, wild_obs)
        assert reward == wild_reward


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "push-v3"}, r"task 'push-v3' is not in mw-train-1"),
        ({"goal_index": 50}, r"goal_index must be in \[0, 50\), got 50"),
        ({"goal_index": -1}, r"got -1"),
        ({"goal": 3}, r"unknown reset options \['goal'\]"),
    ],
)
def test_wrong_reset_options_are_named(reach: MetaworldEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reach.reset(options=options)


def test_goals_of_another_protocol_are_refused() -> None:
    protocol = MetaworldConfig().training_protocol()
    with pytest.raises(ValueError, match="the protocol says"):
        MetaworldEnv(protocol, goals=GoalSet(0, {"reach-v3": np.zeros((50, 6))}))


def test_the_module_global_goal_count_is_never_touched() -> None:
    """Defect 7: ``num_goals=`` of the package's own ids overwrites ``_N_GOALS`` for the whole process."""
    config = MetaworldConfig(evaluation_goals=5)
    env = config.make_single_env(config.evaluation_protocol())
    assert env.reset(options={"goal_index": 4})[1]["goal_index"] == 4
    with pytest.raises(ValueError, match=r"\[0, 5\)"):
        env.reset(options={"goal_index": 5})
    assert metaworld._N_GOALS == 50


def test_an_env_can_be_pickled_before_it_renders() -> None:
    """Defect 9: what crosses to a worker is the recipe, never a simulator or a rendering context."""
    protocol = MetaworldConfig().training_protocol()
    recipe = pickle.dumps((make_worker_env, protocol, load_goals(("reach-v3",), 42), 1, "rgb_array"))
    build, *arguments = pickle.loads(recipe)
    env = build(*arguments)
    assert env.render_mode == "rgb_array"
    assert env.render() is None  # before a reset there is nothing to see, and no context is made
    env.reset(seed=0)
    env.close()
    env.close()


def test_a_worker_imports_neither_torch_nor_tianshou() -> None:
    code = "import sys, envs.metaworld.single; print(sorted({'torch', 'tianshou'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_a_pool_gives_back_what_fits_and_forgets_the_oldest() -> None:
    pool = SimulatorPool(max_idle=1)
    reach, push = pool.take("reach-v3"), pool.take("push-v3")
    pool.give("reach-v3", reach)
    assert pool.take("reach-v3") is reach
    pool.give("reach-v3", reach)
    pool.give("push-v3", push)
    assert pool.take("push-v3") is push
    assert pool.take("reach-v3") is not reach
    pool.close()
    pool.close()


def test_render_modes_are_checked() -> None:
    with pytest.raises(ValueError, match="got 'human'"):
        MetaworldEnv(MetaworldConfig().training_protocol(), render_mode="human")


def test_a_picture_or_a_reason(reach: MetaworldEnv) -> None:
    """Drawing needs an OpenGL of some kind: in a process of its own, with the software or hardware EGL if any."""
    assert reach.render() is None
    code = (
        "from envs import MetaworldConfig as C; c = C(); e = c.make_single_env(c.training_protocol(), 'rgb_array');"
        "e.reset(seed=0); print('picture', e.render().shape, e.render().dtype); e.close()"
    )
    environment = os.environ | {"MUJOCO_GL": "egl"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "picture (480, 480, 3) uint8" in ran.stdout or "Meta-World cannot draw here" in ran.stderr


def test_a_failure_to_draw_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    env = MetaworldEnv(MetaworldConfig().training_protocol(), render_mode="rgb_array")
    env.reset(seed=0)

    def fail() -> None:
        raise OSError("no context")

    monkeypatch.setattr(env._simulator, "render", fail)
    with pytest.raises(RuntimeError, match=r"cannot draw here \(OSError: no context\).*MUJOCO_GL=egl"):
        env.render()
