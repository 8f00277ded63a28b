"""Several games as one env: their names, rules and spaces."""

from __future__ import annotations

from typing import Any

import pytest

from envs.minatar.config import MinatarConfig
from envs.several import GamesConfig
from envs.several.protocol import GamesProtocol


def games(*names: str, suite: str = "minatar", **settings: Any) -> GamesConfig:
    return GamesConfig.model_validate({"suite": suite, "games": names, **settings})


def test_names_are_the_suites_own() -> None:
    assert games("SpaceInvaders", "MinAtar/Breakout-v1").games == ("space_invaders", "breakout")
    assert games("MsPacman", "ALE/Pong-v5", suite="atari").games == ("ms_pacman", "pong")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"suite": "minatar", "games": ["asterx", "breakout"]}, r"'asterx', did you mean 'asterix'"),
        ({"suite": "atari", "games": ["pogn", "breakout"]}, r"unknown game 'pogn': did you mean .*'pong'"),
        ({"suite": "minatar", "games": ["breakout", "pong"]}, r"unknown MinAtar game 'pong'"),
        ({"suite": "minatar", "games": ["breakout"]}, r"at least 2 items"),
        ({"suite": "minatar", "games": ["breakout", "Breakout"]}, r"breakout stands there more than once"),
        ({"suite": "procgen", "games": ["breakout", "asterix"]}, r"'atari' or 'minatar'"),
        (
            {"suite": "minatar", "games": ["breakout", "asterix"], "protocol": "dopamine"},
            r"protocol=dopamine has no ef",
        ),
        ({"suite": "minatar", "games": ["breakout", "asterix"], "num_threads": 1}, r"num_threads=1 has no effect"),
        (
            {"suite": "atari", "games": ["breakout", "pong"], "max_episode_steps": 9},
            r"max_episode_steps=9 has no effec",
        ),
        ({"suite": "atari", "games": ["breakout", "pong"], "protocol": "dopamin"}, r"dopamine"),
        ({"suite": "minatar", "games": ["breakout", "asterix"], "full_action_space": False}, r"full_action_space"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GamesConfig.model_validate(settings)


@pytest.mark.parametrize("suite", ["minatar", "atari"])
def test_all_games_show_the_same(suite: str) -> None:
    config = games("breakout", "freeway", "seaquest", suite=suite)
    protocol = config.evaluation_protocol()
    envs = [config.make_evaluation_env(each, 2) for each in (protocol, *protocol.rules)]
    shape, num_actions = ((10, 10, 10), 6) if suite == "minatar" else ((4, 84, 84), 18)
    for env in envs:
        assert env.single_observation_space.shape == shape and env.num_envs == 2
        assert getattr(env.single_action_space, "n", None) == num_actions
        assert env.reset(seed=0)[0].shape == (2, *shape)
        env.close()
    assert config.env_id == protocol.env_name == f"{suite}-games"


def test_the_rules_are_those_of_each_game_alone() -> None:
    config = games("freeway", "asterix", evaluation_episodes=3, sticky_prob=0.0, max_episode_steps=50)
    alone = MinatarConfig(
        game="asterix",
        full_action_space=True,
        all_channels=True,
        evaluation_episodes=3,
        sticky_prob=0.0,
        max_episode_steps=50,
    )
    assert config.game_config("asterix") == alone
    assert config.evaluation_protocol().rules[1] == alone.evaluation_protocol()
    assert config.evaluation_protocol("minatar-eval-1") == config.evaluation_protocol()
    with pytest.raises(ValueError, match="unknown protocol 'dopamine'"):
        config.evaluation_protocol("dopamine")


def test_atari_takes_a_preset_and_single_rules() -> None:
    config = games("pong", "breakout", suite="atari", protocol="dqn_zoo", evaluation_episodes=2, num_threads=1)
    protocol = config.evaluation_protocol()
    assert protocol.id == "games-dqn_zoo+full_action_space+num_episodes" and protocol.num_episodes == 4
    assert (protocol.evaluation_epsilon, protocol.frames_per_step, protocol.max_episode_steps) == (0.05, 4, 27_000)
    assert config.evaluation_protocol("machado2018").rules[0].full_action_space


def test_another_game_of_the_suite_keeps_the_spaces() -> None:
    held_out = games("breakout", "asterix").game_config("minatar-freeway")
    assert held_out == MinatarConfig(game="freeway", full_action_space=True, all_channels=True)
    with pytest.raises(ValueError, match="unknown MinAtar game 'pong'"):
        games("breakout", "asterix").game_config("pong")


def test_every_game_tells_its_own_actions() -> None:
    assert games("breakout", "freeway").action_sets() == {"minatar-breakout": (0, 1, 3), "minatar-freeway": (0, 2, 4)}
    assert games("pong", "freeway", suite="atari").action_sets() == {"pong": (0, 1, 3, 4, 11, 12), "freeway": (0, 2, 5)}


def test_nothing_is_trained_by_playing() -> None:
    with pytest.raises(ValueError, match="env=games is for evaluation alone"):
        games("breakout", "asterix").make_training_env()


def test_describe_is_complete() -> None:
    described = games("breakout", "asterix").describe()
    assert described["games"] == ["breakout", "asterix"]
    assert described["evaluation"]["hash"] == games("breakout", "asterix").evaluation_protocol().hash
    assert described["evaluation"]["rules"]["all_channels"] is True
    assert isinstance(games("breakout", "asterix").training_protocol(), GamesProtocol)
