"""Names, limits and protocols of the small environments."""

from __future__ import annotations

import gymnasium
import pytest

from envs.classic.config import USUAL, ClassicConfig, ClassicProtocol


def test_the_usual_time_limits_are_gymnasiums() -> None:
    assert {name: gymnasium.spec(name).max_episode_steps for name in USUAL} == USUAL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "CartPole-v9"}, r"unknown environment 'CartPole-v9', did you mean 'CartPole-v1'"),
        ({"id": "identity-v1"}, r"did you mean 'identity-v0'"),
        ({"id": "some.module:Env-v0"}, r"names a module to import"),
        ({"id": "identity-v0", "max_episode_steps": 9}, r"always lasts 16 steps, got max_episode_steps=9"),
        ({"num_env": 3}, r"num_env\b"),
        ({"num_envs": 0}, r"greater than or equal to 1"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassicConfig.model_validate(settings)


def test_protocols_say_what_differs() -> None:
    usual, short = ClassicConfig(), ClassicConfig(max_episode_steps=100, evaluation_episodes=5)
    assert usual.evaluation_protocol().id == "classic-eval-1"
    assert short.evaluation_protocol().id == "classic-eval-1+horizon+num_episodes"
    assert short.evaluation_protocol().max_episode_steps == 100
    assert usual.evaluation_protocol().hash != short.evaluation_protocol().hash
    assert len({spec.seed for spec in usual.evaluation_protocol().episodes(0)}) == 20
    with pytest.raises(ValueError, match="unknown protocol 'dopamine'"):
        usual.evaluation_protocol("dopamine")


def test_the_limit_given_is_the_limit_played() -> None:
    config = ClassicConfig(id="Pendulum-v1", max_episode_steps=7)
    env = config.make_single_env(config.training_protocol())
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(7)] == [False] * 6 + [True]


def test_describe_is_complete() -> None:
    described = ClassicConfig(id="Pendulum-v1").describe()
    assert described["env_id"] == "Pendulum-v1"
    assert ClassicProtocol.model_validate(
        {key: value for key, value in described["evaluation"].items() if key in ClassicProtocol.model_fields}
    ).hash == described["evaluation"]["hash"]  # fmt: skip
