"""Env oracles: the known best play earns exactly the known return; the checkers of gymnasium pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.classic.config import OURS, ClassicConfig
from envs.classic.envs import PixelCatchEnv

Policy = Callable[[np.ndarray], Any]


def play(env: gymnasium.Env[Any, Any], policy: Policy, seed: int | None = None) -> tuple[float, int]:
    """Gives return and length of one episode."""
    obs, _ = env.reset(seed=seed)
    total, length, over = 0.0, 0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(policy(obs))
        total, length, over = total + float(reward), length + 1, terminated or truncated
    return total, length


def catch(obs: np.ndarray) -> int:
    """Moves the paddle under the ball, from the newest frame alone."""
    frame = obs[-1]
    ball = np.flatnonzero((frame == PixelCatchEnv.BALL).any(axis=0)).mean()
    paddle = np.flatnonzero(frame[-1] == PixelCatchEnv.PADDLE).mean()
    return 1 + int(np.sign(np.round((ball - paddle) / PixelCatchEnv.CELL)))


BEST: dict[str, tuple[Policy, float]] = {
    "identity-v0": (lambda obs: int(obs.argmax()), 16.0),
    "identity-box-v0": (lambda obs: obs, 16.0),
    "pixel-catch-v0": (catch, 1.0),
}


def single(name: str) -> gymnasium.Env[Any, Any]:
    config = ClassicConfig(id=name)
    return config.make_single_env(config.evaluation_protocol())


@pytest.mark.parametrize("name", OURS)
def test_the_best_play_earns_exactly_the_best_return(name: str) -> None:
    env, (policy, best) = single(name), BEST[name]
    assert {play(env, policy, seed) for seed in range(40)} == {(best, OURS[name])}


@pytest.mark.parametrize("name", OURS)
def test_a_wrong_action_costs(name: str) -> None:
    wrong: dict[str, Policy] = {
        "identity-v0": lambda obs: (int(obs.argmax()) + 1) % 4,
        "identity-box-v0": lambda obs: np.sign(obs + 1e-9) - obs - np.sign(obs + 1e-9) * 2,
        "pixel-catch-v0": lambda obs: 2 - catch(obs) if catch(obs) != 1 else 0,
    }
    env = single(name)
    assert np.mean([play(env, wrong[name], seed)[0] for seed in range(40)]) < BEST[name][1] - 1


def test_without_looking_catch_is_worth_minus_one_half() -> None:
    """Exactly: over all columns the ball can start in, whatever the moves."""
    rng = np.random.default_rng(0)
    env = PixelCatchEnv()
    for moves in ([1] * 11, [0] * 11, list(rng.integers(3, size=11))):
        returns = []
        for column in range(PixelCatchEnv.GRID):
            env.reset(seed=0)
            env.ball_column = column
            returns.append(sum(env.step(np.int64(move))[1] for move in moves))
        assert np.mean(returns) == -0.5


def test_catch_can_be_won_from_every_column() -> None:
    env = PixelCatchEnv()
    for column in range(PixelCatchEnv.GRID):
        env.reset(seed=0)
        env.ball_column = column
        obs = env._draw()
        for _ in range(OURS["pixel-catch-v0"]):
            obs, reward, _, _, _ = env.step(np.int64(catch(obs)))
        assert reward == 1.0


def test_catch_has_ataris_observations_zero_padded_and_fresh() -> None:
    env = PixelCatchEnv()
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.uint8 and obs.shape == (4, 84, 84)
    assert not obs[:3].any() and obs[3].any()
    following, *_ = env.step(np.int64(1))
    np.testing.assert_array_equal(following[2], obs[3])
    assert not following[:2].any()


@pytest.mark.parametrize("name", OURS)
def test_gymnasiums_checker_passes(name: str) -> None:
    check_env(single(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", ["identity-v0", "identity-box-v0", "pixel-catch-v0", "CartPole-v1"])
def test_a_seed_decides_the_episode(name: str) -> None:
    def trace(seed: int) -> np.ndarray:
        env = single(name)
        env.action_space.seed(0)
        obs, _ = env.reset(seed=seed)
        return np.concatenate([obs.ravel(), *[env.step(env.action_space.sample())[0].ravel() for _ in range(8)]])

    np.testing.assert_array_equal(trace(3), trace(3))
    assert any(not np.array_equal(trace(3), trace(other)) for other in (4, 5))


@pytest.mark.parametrize("name", ["identity-v0", "pixel-catch-v0", "Pendulum-v1", "CartPole-v1"])
def test_the_vector_env_plays_given_episodes(name: str) -> None:
    config = ClassicConfig(id=name, num_envs=3)
    protocol = config.evaluation_protocol()
    env = config.make_evaluation_env(protocol, 3)
    specs = protocol.episodes(0)[:3]
    obs, info = env.begin_episodes([0, 1, 2], specs)
    alone = single(name)
    for row, spec in enumerate(specs):
        np.testing.assert_array_equal(obs[row], alone.reset(seed=spec.seed)[0])
    assert set(info) == {"raw_reward", "episode_over"}
    env.close()


def test_the_vector_env_says_when_episodes_are_over() -> None:
    env = ClassicConfig(id="identity-v0", num_envs=2).make_training_env()
    env.reset(seed=0)
    for step in itertools.count(1):  # noqa: B007
        _, _, terminated, truncated, info = env.step(np.zeros(2, np.int64))
        if info["episode_over"].any():
            break
    assert step == 16 and truncated.all() and not terminated.any()
    env.close()


def test_an_env_without_box_observations_is_refused() -> None:
    config = ClassicConfig(id="Taxi-v4")
    with pytest.raises(ValueError, match=r"Taxi-v4 has Discrete\(500\)"):
        config.make_single_env(config.training_protocol())
