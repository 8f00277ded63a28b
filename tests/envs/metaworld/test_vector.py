"""Vector envs: the kind of workers changes no bit, tasks are shared out evenly, episodes can be prescribed."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from envs.metaworld import vector as vector_module
from envs.metaworld.config import MetaworldConfig
from envs.metaworld.single import MetaworldEnv
from envs.metaworld.vector import Kind, MetaworldVector, make_vector_env

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (12, 2, 4)).astype(np.float32)


def make(num_envs: int, kind: Kind = "sync", **settings: Any) -> MetaworldVector:
    return make_vector_env(MetaworldConfig(**settings).training_protocol(), num_envs, kind)


def trace(env: MetaworldVector) -> list[np.ndarray]:
    """Gives everything two envs show over two short episodes and a partial reset."""
    seen = []
    for seed in (5, None):
        seen.append(env.reset(seed=seed)[0])
        for step, action in enumerate(ACTIONS):
            *arrays, info = env.step(action)
            seen += [*arrays, *info.values()]
            if step == 6:
                seen.append(env.reset(1)[0])
    seen.append(env.step(ACTIONS[0, :1], 1)[0])
    return seen


def test_in_process_and_worker_processes_give_the_same_bits() -> None:
    both = []
    for kind in ("sync", "async"):
        env = make(2, kind, benchmark="MT10", one_hot=True, max_episode_steps=12)
        assert env.kind == kind
        both.append(trace(env))
        env.close()
        env.close()
    assert len(both[0]) == len(both[1])
    for here, there in zip(*both, strict=True):
        np.testing.assert_array_equal(here, there)
        assert here.dtype == there.dtype


def test_the_vector_env_is_its_single_envs() -> None:
    env = make(2)
    obs, info = env.reset(seed=[3, 4], options={"goal_index": [1, None]})
    singles = [MetaworldEnv(MetaworldConfig().training_protocol()) for _ in range(2)]
    alone = [
        single.reset(seed=seed, options={"task": "reach-v3", "goal_index": goal})[0]
        for single, seed, goal in zip(singles, (3, 4), (1, None), strict=True)
    ]
    np.testing.assert_array_equal(obs, alone)
    assert set(info) == {"raw_reward", "episode_over", "success", "task_index", "goal_index"}
    obs, reward, *_ = env.step(ACTIONS[0])
    stepped = [single.step(action) for single, action in zip(singles, ACTIONS[0], strict=True)]
    np.testing.assert_array_equal(obs, [each[0] for each in stepped])
    np.testing.assert_array_equal(reward, np.array([each[1] for each in stepped], np.float32))


def test_idle_environments_stand_still() -> None:
    env = make(2, max_episode_steps=3)
    env.reset(seed=0)
    for action in ACTIONS[:3]:
        _, _, _, truncated, _ = env.step(action[:1], 0)
    assert truncated.tolist() == [True]
    assert [env.step(action[1:], 1)[3].item() for action in ACTIONS[:3]] == [False, False, True]


def test_tasks_are_begun_equally_often() -> None:
    env = make(3, benchmark="MT10", one_hot=True, max_episode_steps=1)
    obs, _ = env.reset(seed=0)
    begun = Counter(obs[:, 39:].argmax(axis=1).tolist())
    for ids in ([2, 0], [1], [0, 1, 2], [2], [0, 1, 2], [0, 1, 2], [2, 1], [0, 1]):
        begun.update(env.reset(ids)[0][:, 39:].argmax(axis=1).tolist())
    assert begun == dict.fromkeys(range(10), 2)


def test_the_first_task_depends_on_the_seed_alone() -> None:
    env = make(1, benchmark="MT10", one_hot=True)

    def first(seed: int) -> int:
        return int(env.reset(seed=seed)[0][0, 39:].argmax())

    firsts = [first(seed) for seed in range(12)]
    assert len(set(firsts)) > 3
    env.reset()
    assert [first(seed) for seed in range(12)] == firsts
    env.seed(3)
    assert int(env.reset()[0][0, 39:].argmax()) == firsts[3]


def test_evaluation_episodes_are_played_as_specified() -> None:
    config = MetaworldConfig(benchmark="MT10", one_hot=True, evaluation_goals=2, workers="sync")
    protocol = config.evaluation_protocol()
    env = config.make_evaluation_env(protocol, 2)
    specs = [spec for spec in protocol.episodes(0) if spec.task in ("push-v3", "door-open-v3")]
    single = config.make_single_env(protocol)
    for row in (0, 2):
        obs, _ = env.begin_episodes([1, 0], specs[row : row + 2])
        for got, spec in zip(obs, specs[row : row + 2], strict=True):
            options = {"task": spec.task, "goal_index": spec.goal_index}
            np.testing.assert_array_equal(got, single.reset(seed=spec.seed, options=options)[0])
        env.step(ACTIONS[0])
    env.close()


@pytest.mark.parametrize("value", [np.nan, 1.5])
def test_actions_outside_the_space_are_refused(value: float) -> None:
    env = make(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=re.escape(str(value))):
        env.step(np.full((2, 4), value, np.float32))


def test_a_success_rate_is_not_biased_towards_quick_envs() -> None:
    """Defect 3: five envs on one task, an agent that solves goal 0 only: the truth is 0.2, the package says 1.0."""
    config = MetaworldConfig(evaluation_goals=5, evaluation_preset="mw-eval-1-stop", max_episode_steps=60)
    protocol = config.evaluation_protocol()
    env = make_vector_env(protocol, 5, "sync")
    obs, _ = env.begin_episodes(range(5), protocol.episodes(0))
    target = obs[0, 36:39]  # goal 0: every env's hand goes there
    success = np.zeros(5, bool)
    running = np.arange(5)
    while len(running):
        action = np.clip(10 * (target - obs[running, :3]), -1, 1)
        move = np.column_stack([action, np.zeros(len(running))]).astype(np.float32)
        obs[running], _, _, _, info = env.step(move, running)
        success[running] |= info["success"] > 0
        running = running[~info["episode_over"]]
    assert success.tolist() == [True, False, False, False, False]
    env.close()


def test_auto_measures_prints_and_keeps_the_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_module, "_choices", {})
    monkeypatch.setattr(vector_module, "_cores", lambda: 2)
    monkeypatch.setattr(vector_module, "steps_per_second", lambda env: {"sync": 100.0, "async": 300.0}[env.kind])
    built: list[tuple[int, Kind]] = []
    real = vector_module._build

    def build(protocol: Any, goals: Any, max_simulators: int, num_envs: int, kind: Kind) -> MetaworldVector:
        built.append((num_envs, kind))
        env = real(protocol, goals, max_simulators, 1, "sync")
        monkeypatch.setattr(type(env), "kind", property(lambda _: built[-1][1]))
        return env

    monkeypatch.setattr(vector_module, "_build", build)
    lines: list[str] = []
    protocol = MetaworldConfig().training_protocol()
    for _ in range(2):
        make_vector_env(protocol, 6, "auto", log=lines.append)
    assert built == [(2, "sync"), (2, "async"), (6, "async"), (6, "async")]
    assert "async (measured with 2 environments on 2 cores: sync 100, async 300 env steps/s)" in lines[0]
    assert len(lines) == 1  # said once


def test_auto_needs_no_measurement_for_one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_module, "_choices", {})
    lines: list[str] = []
    env = make_vector_env(MetaworldConfig().training_protocol(), 1, "auto", log=lines.append)
    assert env.kind == "sync" and "nothing runs side by side" in lines[0]


def test_auto_falls_back_where_processes_cannot_be_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_module, "_choices", {})
    monkeypatch.setattr(vector_module, "_cores", lambda: 2)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("daemonic processes are not allowed to have children")

    monkeypatch.setattr(vector_module, "AsyncVectorEnv", refuse)
    lines: list[str] = []
    env = make_vector_env(MetaworldConfig().training_protocol(), 2, "auto", log=lines.append)
    assert env.kind == "sync" and "daemonic" in lines[0]


def test_speed_is_measured() -> None:
    assert vector_module.steps_per_second(make(1), num_steps=5) > 1
