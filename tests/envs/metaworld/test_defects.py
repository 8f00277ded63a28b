"""Regression tests for the package's ten known defects (metaworld 3.1.1): ours does not have them.

Elsewhere: 1 and 4 in test_config.py, 3 in test_vector.py, 7, 9 and 10 in test_single.py.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import envs.metaworld
from envs.metaworld.config import MetaworldConfig
from envs.metaworld.tasks import ALL_TASKS
from envs.metaworld.vector import make_vector_env

pytest.importorskip("metaworld")

Expert = Callable[[str], Callable[[np.ndarray], np.ndarray]]


def test_defect_2_nothing_goes_through_the_packages_registered_ids() -> None:
    """``gym.make("Meta-World/ML1-train")`` raises; ours never asks for a registered id."""
    for path in Path(envs.metaworld.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("make", "make_vec"), f"{path.name}:{node.lineno}"


def test_defect_5_the_last_step_carries_its_own_info_and_nothing_resets_itself() -> None:
    """The package's evaluation reads ``final_info``, which exists in one autoreset mode only."""
    env = make_vector_env(MetaworldConfig(max_episode_steps=2).training_protocol(), 2, "sync")
    env.reset(seed=0)
    actions = np.zeros((2, 4), np.float32)
    env.step(actions)
    last, _, _, truncated, info = env.step(actions)
    assert truncated.all() and info["episode_over"].all() and info["success"].shape == (2,)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(actions)
    obs, info = env.reset()
    assert not info["episode_over"].any() and not np.array_equal(obs, last)


def test_defect_6_the_return_is_not_cut_at_success_unless_asked(expert: Expert) -> None:
    """The package forces a stop at success, so that a faster agent has a lower return."""
    config = MetaworldConfig(evaluation_goals=1, max_episode_steps=150)
    returns = {}
    for name in ("mw-eval-1", "mw-eval-1-stop"):
        env, act = config.make_single_env(config.evaluation_protocol(name)), expert("reach-v3")
        obs, info = env.reset(options={"goal_index": 0})
        rewards, successes = [], []
        while not info["episode_over"]:
            obs, reward, _, _, info = env.step(act(obs))
            rewards.append(float(reward))
            successes.append(float(info["success"]))
        returns[name] = sum(rewards)
        assert successes[-1] == 1
        assert len(rewards) == (150 if name == "mw-eval-1" else successes.index(1) + 1)
    assert returns["mw-eval-1"] > 2 * returns["mw-eval-1-stop"]


@pytest.mark.parametrize(
    "settings", [{"benchmark": "ML1", "task": "push-v3"}, {"benchmark": "ML10"}, {"benchmark": "ML45"}]
)
def test_defect_8_test_benchmarks_build_with_any_number_of_envs(settings: dict[str, Any]) -> None:
    """``gym.make_vec("Meta-World/ML10-test")`` raises "Invalid division of subtasks, expected 12 got 13"."""
    protocol = MetaworldConfig(**settings).evaluation_protocol()
    assert protocol.split == "test" and protocol.num_goals == 50
    env = make_vector_env(protocol, 3, "sync")
    specs = protocol.episodes(0)
    env.begin_episodes([0, 1, 2], [specs[0], specs[49], specs[-1]])
    obs, *_ = env.step(np.zeros((3, 4), np.float32))
    assert obs.shape == (3, 39) and not obs[:, 36:].any()
    env.close()


@pytest.mark.slow
def test_the_scripted_experts_solve_every_task(expert: Expert) -> None:
    """An oracle for all 50 tasks: near-perfect play is near-perfectly scored. Recorded: 97 of 100 episodes."""
    config = MetaworldConfig(benchmark="MT50", one_hot=True, evaluation_preset="mw-eval-1-stop", evaluation_goals=2)
    env = config.make_single_env(config.evaluation_protocol())
    solved = []
    for task in ALL_TASKS:
        for goal in range(2):
            act = expert(task)
            obs, info = env.reset(options={"task": task, "goal_index": goal})
            while not info["episode_over"]:
                obs, *_, info = env.step(act(obs))
            solved.append(float(info["success"]))
    assert np.mean(solved) >= 0.95
    env.close()
