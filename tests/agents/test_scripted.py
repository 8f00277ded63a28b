"""Meta-World's experts act on visible goals, and refuse everything else."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from agents.scripted import ScriptedMetaworldAgent

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float64)
ACTIONS = gymnasium.spaces.Box(-1, 1, (4,), np.float32)


def expert(tasks: Any, space: gymnasium.Space[Any] = SPACE) -> ScriptedMetaworldAgent:
    return ScriptedMetaworldAgent(tasks, observation_space=space, action_space=ACTIONS, rng=np.random.default_rng(0))


def visible(num: int, size: int = 39) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.5, (num, size))


def test_the_reaching_expert_moves_towards_the_goal() -> None:
    obs = np.zeros((2, 39))
    obs[:, :3] = (0.0, 0.6, 0.2)
    obs[:, 36:39] = ((0.1, 0.8, 0.2), (-0.1, 0.5, 0.3))
    action, state = expert("reach-v3").act(obs)
    assert action.shape == (2, 4) and action.dtype == np.float32 and np.abs(action).max() <= 1 and state is None
    assert (np.sign(action[:, :2]) == np.sign(obs[:, 36:38] - obs[:, :2])).all()


def test_each_row_has_its_own_expert_and_one_hot_ids_are_ignored() -> None:
    obs = visible(2, size=49)
    space = gymnasium.spaces.Box(-np.inf, np.inf, (49,), np.float64)
    both = expert(["reach-v3", "push-v3"], space).act(obs)[0]
    assert np.array_equal(both[0], expert("reach-v3").act(obs[:1, :39])[0][0])
    assert np.array_equal(both[1], expert("push-v3").act(obs[1:, :39])[0][0])


def test_hidden_goals_are_refused() -> None:
    obs = visible(3)
    obs[1, 36:39] = 0.0
    with pytest.raises(ValueError, match=r"goal of 'push-v3' \(row 1\) is hidden"):
        expert("push-v3").act(obs)


def test_senseless_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="no scripted policy for task 'reach-v2'"):
        expert("reach-v2")
    with pytest.raises(ValueError, match=r"not shape \(4,\)"):
        expert("reach-v3", gymnasium.spaces.Box(-1, 1, (4,)))
    with pytest.raises(ValueError, match="3 observations for 2 tasks"):
        expert(["reach-v3", "push-v3"]).act(visible(3))
