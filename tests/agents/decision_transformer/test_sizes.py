"""Parameter counts against sums typed by hand, and widths that meet a given total."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.model import SequenceModel
from agents.decision_transformer.sizes import count_parameters, solve_width, total_parameters

FRAMES = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
ATARI_ACTIONS = gymnasium.spaces.Discrete(18)
STATE = gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float32)
TORQUE = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
SLOTS = {"kind": "slots", "num_slots": 64}


def config(**given: Any) -> DecisionTransformerConfig:
    return DecisionTransformerConfig.model_validate(given)


def model(settings: DecisionTransformerConfig, obs: Any = STATE, action: Any = TORQUE) -> SequenceModel:
    return SequenceModel(settings, obs, action)


def test_plain_model_on_metaworld_by_formula() -> None:
    counts = count_parameters(model(config()))
    assert counts.embedding == (4 + 1) * 128 + (1 + 1) * 128 + (39 + 1) * 128 + 1000 * 128 + 2 * 128
    assert counts.backbone == 3 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert (counts.heads, counts.memory, counts.adapters) == (4 * 128 + 4, 0, 0)
    assert counts.total == counts.trainable == 729_860


def test_multi_game_model_on_atari_by_formula() -> None:
    """Four steps of 39 tokens at d512/L4, as the smallest Multi-Game Decision Transformer."""
    mdt = {"layout": "mdt", "position": "window", "return_prediction": {}, "reward_prediction": True}
    settings = config(width=512, num_layers=4, num_heads=8, context_length=4, use_reward_tokens=True, **mdt)
    counts = count_parameters(model(settings, FRAMES, ATARI_ACTIONS))
    tables = (18 + 1) + 4 + 121  # actions and none yet, rewards, returns
    assert counts.embedding == (4 * 14 * 14 + 1 + 36 + tables + 4 * 39) * 512
    assert counts.backbone == 12_610_560
    assert counts.heads == (18 + 121 + 4) * (512 + 1)
    assert counts.total == 13_257_871


@pytest.mark.parametrize(("placement", "cells"), [("post", 1), ("per_block", 3)])
def test_slots_by_formula(placement: str, cells: int) -> None:
    """Six projections, the initial slots and a norm for each cell."""
    counts = count_parameters(model(config(memory={**SLOTS, "placement": placement})))
    assert counts.memory == cells * (6 * 128**2 + 64 * 128 + 2 * 128)
    assert counts.total == 729_860 + counts.memory


def test_memory_tokens_and_adapters_by_formula() -> None:
    counts = count_parameters(model(config(memory={"kind": "tokens"}, adapter=16)))
    assert counts.memory == 5 * 128
    assert counts.adapters == 3 * (2 * 16 * 128 + 16 + 128)
    assert counts.total == 729_860 + counts.memory + counts.adapters


def test_frozen_parameters_are_counted_but_not_as_trainable() -> None:
    plain = model(config())
    plain.backbone.requires_grad_(False)
    counts = count_parameters(plain)
    assert counts.trainable == counts.total - counts.backbone
    assert "729,860 parameters (embedding 134,272, backbone" in str(counts)


CONFIGS: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "plain": ({}, STATE, TORQUE),
    "slots": ({"memory": {**SLOTS, "num_heads": 4}, "num_heads": 2}, STATE, TORQUE),
    "rmdt": ({"memory": {"kind": "tokens"}}, STATE, TORQUE),
    "adapter_window": ({"adapter": 8, "position": "window"}, STATE, TORQUE),
    "cnn": ({}, FRAMES, ATARI_ACTIONS),
    "patches": ({"layout": "mdt", "return_prediction": {}, "use_reward_tokens": True}, FRAMES, ATARI_ACTIONS),
}


@pytest.mark.parametrize(("given", "obs", "action"), CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("width", [8, 48])
def test_counts_without_building_are_those_of_the_built_model(
    given: dict[str, Any], obs: Any, action: Any, width: int
) -> None:
    settings = config(width=width, **given)
    assert total_parameters(settings, obs, action) == count_parameters(model(settings, obs, action)).total


def test_a_plain_model_of_the_same_total_as_one_with_a_memory() -> None:
    remembering, plain = config(memory=SLOTS, num_heads=4), config(num_heads=4)
    target = total_parameters(remembering, STATE, TORQUE)
    solution = solve_width(plain, STATE, TORQUE, target)
    assert solution.width > 128 and solution.width % 4 == 0
    assert solution.parameters == count_parameters(model(plain.model_copy(update={"width": solution.width}))).total
    for other in (solution.width - 4, solution.width + 4):
        count = total_parameters(plain.model_copy(update={"width": other}), STATE, TORQUE)
        assert abs(count - target) > abs(solution.parameters - target)
    assert str(solution).startswith(f"width {solution.width}: {solution.parameters:,} parameters for {target:,} asked")


def test_the_width_at_hand_is_found_again() -> None:
    solution = solve_width(config(width=64), STATE, TORQUE, 729_860)
    assert (solution.width, solution.parameters, solution.target) == (128, 729_860, 729_860)


def test_widths_suit_the_heads_of_the_memory_too() -> None:
    assert (
        solve_width(config(memory={**SLOTS, "num_heads": 5}, width=130, num_heads=2), STATE, TORQUE, 10**6).width % 10
        == 0
    )


def test_targets_below_any_model_are_refused() -> None:
    with pytest.raises(ValueError, match="target=100: the narrowest model, width=2, has "):
        solve_width(config(), STATE, TORQUE, 100)


def test_solving_draws_no_random_numbers_that_others_would_miss() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    solve_width(config(), STATE, TORQUE, 10**6)
    assert torch.equal(torch.rand(3), expected)
