from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from envs import EnvConfig
from envs.atari import ATARI_PRESETS, AtariConfig, atari_protocol, game_names, normalise_game

# (sticky, no-ops, fire, all actions), training: (life loss, clip, agent steps), evaluation: (games, epsilon, steps)
EXPECTED = {
    "dopamine": ((0.25, 0, False, False), (False, True, 27_000), (10, 0.001, 27_000)),
    "machado2018": ((0.25, 0, False, True), (False, True, 4_500), (100, 0.01, 4_500)),
    "ale_v5_raw": ((0.25, 0, False, False), (False, False, 27_000), (10, 0.001, 27_000)),
    "dqn_nature": ((0.0, 30, False, False), (True, True, 27_000), (30, 0.05, 4_500)),
    "baselines_v4": ((0.0, 30, True, False), (True, True, 27_000), (10, 0.05, 27_000)),
    "dqn_zoo": ((0.0, 30, False, False), (True, True, 27_000), (10, 0.05, 27_000)),
    "atari100k": ((0.0, 0, False, False), (True, True, 27_000), (100, 0.001, 27_000)),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_presets_hold_the_published_rules(name: str) -> None:
    dynamics, train, evaluate = EXPECTED[name]
    training, evaluation = (atari_protocol(name, "pong", role) for role in ("training", "evaluation"))
    for protocol in (training, evaluation):
        values = (protocol.sticky_prob, protocol.noop_max, protocol.fire_reset, protocol.full_action_space)
        assert values == dynamics
        assert (protocol.id, protocol.env_name, protocol.frame_skip) == (name, "pong", 4)
    assert (training.terminal_on_life_loss, training.clip_reward, training.max_episode_steps) == train
    assert (evaluation.num_episodes, evaluation.evaluation_epsilon, evaluation.max_episode_steps) == evaluate
    assert ATARI_PRESETS[name].source


def test_every_preset_is_in_the_table() -> None:
    assert set(EXPECTED) == set(ATARI_PRESETS)
    description = AtariConfig.model_fields["protocol"].description or ""
    assert all(name in description for name in ATARI_PRESETS)


def test_games_are_those_ale_py_registers() -> None:
    from ale_py import roms

    multi_player = {"combat", "joust", "maze_craze", "warlords"}
    assert set(game_names()) == set(roms.get_all_rom_ids()) - multi_player
    assert len(game_names()) > 100


@pytest.mark.parametrize(
    ("spelling", "game"),
    [
        ("ms_pacman", "ms_pacman"),
        ("MsPacman", "ms_pacman"),
        ("ALE/MsPacman-v5", "ms_pacman"),
        ("Pong", "pong"),
        ("Pong-v5", "pong"),
        ("TicTacToe3D", "tic_tac_toe_3d"),
        ("up-n-down", "up_n_down"),
    ],
)
def test_usual_spellings_are_understood(spelling: str, game: str) -> None:
    assert normalise_game(spelling) == game
    assert AtariConfig(game=spelling).env_id == game


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"game": "pogn"}, ["'pogn'", "'pong'"]),
        ({"game": "combat"}, ["'combat'"]),
        ({"game": "PongNoFrameskip-v4"}, ["'pong'", "protocol"]),
        ({"game": "pong", "protocol": "dopamin"}, ["'dopamin'", "'dopamine'"]),
        ({"game": "pong", "evaluation_preset": "machado"}, ["'machado'", "'machado2018'"]),
        ({"game": "pong", "sticky_prob": 1.5}, ["sticky_prob", "1.5"]),
        ({"game": "pong", "num_envs": 0}, ["num_envs", "0"]),
        ({"game": "pong", "stickyness": 0.1}, ["stickyness"]),
    ],
)
def test_wrong_values_are_named_at_once_with_the_nearest_right_one(fields: dict[str, Any], messages: list[str]) -> None:
    start = time.perf_counter()
    with pytest.raises(ValidationError) as caught:
        AtariConfig(**fields)
    assert time.perf_counter() - start < 0.5
    for message in messages:
        assert message in str(caught.value)


def test_changes_show_in_the_id_and_reach_where_they_belong() -> None:
    config = AtariConfig(game="pong", noop_max=30, clip_reward=False, evaluation_episodes=3)
    training, evaluation = config.training_protocol(), config.evaluation_protocol()
    assert (training.id, training.noop_max, training.clip_reward) == ("dopamine+clip_reward+noop_max", 30, False)
    assert (evaluation.id, evaluation.noop_max) == ("dopamine+noop_max+num_episodes", 30)
    assert evaluation.num_episodes == 3
    assert training.hash != atari_protocol("dopamine", "pong", "training").hash


def test_repeating_the_presets_value_changes_nothing() -> None:
    config = AtariConfig(game="pong", sticky_prob=0.25, terminal_on_life_loss=False, max_frames=108_000)
    assert config.training_protocol() == atari_protocol("dopamine", "pong", "training")
    assert config.evaluation_protocol() == atari_protocol("dopamine", "pong", "evaluation")


def test_evaluation_is_raw_and_whole_games_whatever_training_does() -> None:
    config = AtariConfig(game="pong", protocol="dqn_nature", clip_reward=True, terminal_on_life_loss=True)
    evaluation = config.evaluation_protocol()
    assert evaluation.id == "dqn_nature"
    assert not evaluation.clip_reward
    assert not evaluation.terminal_on_life_loss


def test_a_named_evaluation_preset_is_taken_as_published() -> None:
    config = AtariConfig(game="pong", sticky_prob=0.0, evaluation_preset="dqn_nature", evaluation_episodes=5)
    assert config.evaluation_protocol() == atari_protocol("dqn_nature", "pong", "evaluation").changed(num_episodes=5)
    assert config.evaluation_protocol("atari100k") == atari_protocol("atari100k", "pong", "evaluation")
    with pytest.raises(ValueError, match="'machado2018'"):
        config.evaluation_protocol("machado")


def test_the_agents_action_set_is_kept_under_another_preset() -> None:
    minimal = AtariConfig(game="pong").evaluation_protocol("machado2018")
    assert (minimal.id, minimal.full_action_space) == ("machado2018+full_action_space", False)
    full = AtariConfig(game="pong", protocol="machado2018")
    assert full.evaluation_protocol("dopamine").id == "dopamine+full_action_space"
    assert full.evaluation_protocol("machado2018").id == "machado2018"


def test_config_comes_out_of_the_union_and_describes_itself_as_json() -> None:
    config = TypeAdapter(EnvConfig).validate_python({"name": "atari", "game": "Qbert", "protocol": "baselines_v4"})
    assert isinstance(config, AtariConfig)
    described = json.loads(json.dumps(config.describe()))
    assert described["training"]["terminal_on_life_loss"] is True
    assert described["evaluation"]["hash"] == config.evaluation_protocol().hash
    assert all(field.description for field in AtariConfig.model_fields.values())
