"""Names, rules and protocols of the MinAtar games."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from envs.minatar.config import GAMES, MinatarConfig, MinatarProtocol, normalise_game


def test_the_games_are_the_packages() -> None:
    package = importlib.util.find_spec("minatar")
    assert package is not None and package.origin is not None
    files = (Path(package.origin).parent / "environments").glob("[a-z]*.py")
    assert sorted(path.stem for path in files) == sorted(GAMES)


@pytest.mark.parametrize(
    "name", ["space_invaders", "SpaceInvaders", "MinAtar/SpaceInvaders-v1", "minatar-space_invaders"]
)
def test_a_game_has_several_names(name: str) -> None:
    assert MinatarConfig(game=name).game == "space_invaders"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "brekout"}, r"unknown MinAtar game 'brekout', did you mean 'breakout'"),
        ({"game": "pong"}, r"unknown MinAtar game 'pong'"),
        ({}, r"game\s+Field required"),
        ({"game": "asterix", "sticky_prob": 1.5}, r"less than or equal to 1"),
        ({"game": "asterix", "max_episode_steps": 0}, r"greater than or equal to 1"),
        ({"game": "asterix", "frame_skip": 4}, r"frame_skip"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MinatarConfig.model_validate(settings)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert normalise_game("breakout") == "breakout"
    with pytest.raises(ValueError, match=r"need the package minatar: pip install -e '\.\[minatar\]'"):
        MinatarConfig(game="breakout")


def test_the_rules_are_the_packages_own_by_default() -> None:
    protocol = MinatarConfig(game="breakout").training_protocol()
    assert protocol.id == "minatar-train-1"
    assert (protocol.sticky_prob, protocol.difficulty_ramping, protocol.full_action_space) == (0.1, True, False)
    assert protocol.versions.keys() == {"minatar"} and protocol.versions["minatar"] != "missing"
    assert protocol.max_episode_steps == 5_000 and protocol.frames_per_step == 1


def test_protocols_say_what_differs() -> None:
    usual = MinatarConfig(game="seaquest")
    other = MinatarConfig(game="seaquest", sticky_prob=0.0, max_episode_steps=100, evaluation_episodes=5)
    assert usual.evaluation_protocol().id == "minatar-eval-1"
    assert other.training_protocol().id == "minatar-train-1+horizon+sticky_prob"
    assert other.evaluation_protocol().id == "minatar-eval-1+horizon+num_episodes+sticky_prob"
    assert other.evaluation_protocol().max_episode_steps == 100
    assert usual.evaluation_protocol().hash != other.evaluation_protocol().hash
    assert usual.evaluation_protocol() == usual.evaluation_protocol("minatar-eval-1")
    assert len({spec.seed for spec in usual.evaluation_protocol().episodes(0)}) == 30
    with pytest.raises(ValueError, match=r"unknown protocol 'dopamine' for minatar-seaquest"):
        usual.evaluation_protocol("dopamine")


def test_a_random_action_belongs_to_evaluation_alone() -> None:
    config = MinatarConfig(game="seaquest", evaluation_epsilon=0.01)
    assert config.training_protocol().id == "minatar-train-1"
    assert config.training_protocol().evaluation_epsilon == 0.0
    assert config.evaluation_protocol().evaluation_epsilon == 0.01


def test_no_name_is_an_atari_games() -> None:
    """Atari's human-normalised scores are looked up by game; a 10x10 Breakout has none."""
    config = MinatarConfig(game="breakout")
    assert config.env_id == config.training_protocol().env_name == "minatar-breakout"
    assert config.training_protocol().game == "breakout"


def test_the_packages_own_ids() -> None:
    assert MinatarConfig(game="space_invaders").id == "MinAtar/SpaceInvaders-v1"
    assert MinatarConfig(game="space_invaders", full_action_space=True).id == "MinAtar/SpaceInvaders-v0"


def test_describe_is_complete() -> None:
    described = MinatarConfig(game="freeway").describe()
    assert described["env_id"] == "minatar-freeway"
    fields = {key: value for key, value in described["evaluation"].items() if key in MinatarProtocol.model_fields}
    assert MinatarProtocol.model_validate(fields).hash == described["evaluation"]["hash"]


@pytest.mark.parametrize(
    ("role", "digest"), [("training_protocol", "4343add36f3f"), ("evaluation_protocol", "7d774bba2f16")]
)
def test_a_rule_that_is_not_used_leaves_the_hash_as_it_was(role: str, digest: str) -> None:
    """Hashes of minatar 1.0.15 from before there was ``all_channels``."""
    protocol = getattr(MinatarConfig(game="breakout"), role)()
    assert protocol.model_copy(update={"versions": {"minatar": "1.0.15"}}).hash == digest
    assert "all_channels" not in protocol.model_dump()
    padded = getattr(MinatarConfig(game="breakout", all_channels=True), role)()
    assert padded.hash != protocol.hash and padded.id.endswith("-1+all_channels")
    assert MinatarProtocol.model_validate(padded.model_dump()) == padded


def test_minimal_actions_are_told_where_there_are_others() -> None:
    assert MinatarConfig(game="freeway").action_sets() == {}
    assert MinatarConfig(game="freeway", full_action_space=True).action_sets() == {"minatar-freeway": (0, 2, 4)}
