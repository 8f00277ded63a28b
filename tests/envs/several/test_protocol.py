"""The protocol of several games: one hash over all their rules, the episodes of each as it has them alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envs.minatar.config import MinatarConfig, MinatarProtocol
from envs.protocols import Protocol
from envs.several.protocol import GamesProtocol


def rules(game: str, **settings: object) -> MinatarProtocol:
    shared = {"game": game, "full_action_space": True, "all_channels": True, "evaluation_episodes": 4}
    return MinatarConfig.model_validate(shared | settings).evaluation_protocol()


def test_one_hash_over_all_rules() -> None:
    usual = GamesProtocol.of([rules("breakout"), rules("asterix")])
    others = [
        GamesProtocol.of([rules("asterix"), rules("breakout")]),
        GamesProtocol.of([rules("breakout"), rules("freeway")]),
        GamesProtocol.of([rules("breakout"), rules("asterix"), rules("freeway")]),
        GamesProtocol.of([rules("breakout", sticky_prob=0.0), rules("asterix", sticky_prob=0.0)]),
    ]
    assert len({each.hash for each in (usual, *others)}) == 5
    assert usual.id == "games-minatar-eval-1+all_channels+full_action_space+num_episodes"
    assert usual.versions == rules("breakout").versions
    assert GamesProtocol.model_validate_json(usual.model_dump_json()).hash == usual.hash


def test_episodes_are_those_of_each_game_numbered_through() -> None:
    protocol = GamesProtocol.of([rules("breakout"), rules("asterix")])
    specs = protocol.episodes(3)
    assert [spec.index for spec in specs] == list(range(8)) and protocol.num_episodes == 8
    assert [spec.task for spec in specs] == ["minatar-breakout"] * 4 + ["minatar-asterix"] * 4
    alone = rules("asterix").episodes(3)
    assert [replace(spec, index=spec.index - 4) for spec in specs[4:]] == alone


def test_parts_keep_every_episode_and_leave_out_games_without_any() -> None:
    protocol = GamesProtocol.of([rules("breakout"), rules("asterix")])
    specs = protocol.episodes(0)
    assert protocol.parts(specs) == [(rules("breakout"), specs[:4]), (rules("asterix"), specs[4:])]
    assert protocol.parts(specs[5:6]) == [(rules("asterix"), specs[5:6])]


def test_any_other_protocol_is_one_part() -> None:
    protocol: Protocol = rules("breakout")
    specs = protocol.episodes(0)
    assert protocol.parts(specs[1:]) == [(protocol, specs[1:])]


def test_games_differ_in_nothing_else() -> None:
    with pytest.raises(ValueError, match="minatar-breakout and minatar-asterix differ in more than the game"):
        GamesProtocol.of([rules("breakout"), rules("asterix", sticky_prob=0.5)])
    with pytest.raises(ValueError, match="rules name a game twice: minatar-breakout, minatar-breakout"):
        GamesProtocol.of([rules("breakout"), rules("breakout")])
    with pytest.raises(ValueError, match="at least 2 items"):
        GamesProtocol.of([rules("breakout")])
