"""Patches stay apart, pixels are scaled once, and each kind of token depends on what it should."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from agents.base_config import MinatarCnnConfig
from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.returns import ReturnCodec
from agents.decision_transformer.tokenizers import (
    ActionTokenizer,
    CnnTokenizer,
    PatchTokenizer,
    ReturnTokenizer,
    RewardTokenizer,
    VectorTokenizer,
    build_tokenizer,
    reward_ids,
)
from memory.data_summary import DataSummary

FRAMES = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
GRID = gymnasium.spaces.Box(0, 255, (4, 10, 10), np.uint8)
VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
SUMMARY = DataSummary(
    tasks=("one",),
    obs_mean=(1.0, 2.0, 3.0),
    obs_std=(2.0, 0.0, 0.5),
    max_length=5,
    return_quantiles={"one": (0.0,) * 101},
    max_abs_reward=1.0,
    num_episodes=1,
    num_steps=5,
    digests={},
)


def frames(count: int, shape: tuple[int, ...] = (4, 84, 84)) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(
    ("shape", "patch_size", "num_tokens"), [((4, 84, 84), 14, 36), ((4, 10, 10), 2, 25), ((4, 10, 10), 5, 4)]
)
def test_changing_one_patch_changes_exactly_its_token(shape: tuple[int, ...], patch_size: int, num_tokens: int) -> None:
    torch.manual_seed(0)
    tokenizer, obs = PatchTokenizer(shape, patch_size, 8), frames(1, shape)
    before_1GD = tokenizer(obs)
    assert before_1GD.shape == (1, num_tokens, 8)
    columns = shape[2] // patch_size
    for patch in (0, columns - 1, columns, num_tokens - 1):
        row, column = divmod(patch, columns)
        changed = obs.clone()
        changed[:, 1, row * patch_size + 1, (column + 1) * patch_size - 1] ^= 255
        differs_G = (tokenizer(changed) != before_1GD).any(-1)[0]
        assert differs_G.nonzero().flatten().tolist() == [patch]


def test_a_patch_token_is_the_product_with_its_pixels_scaled_once() -> None:
    torch.manual_seed(0)
    tokenizer, obs = PatchTokenizer((1, 4, 4), 2, 3), frames(1, (1, 4, 4))
    pixels_4 = obs[0, 0, 2:, :2].float().flatten() / 255.0  # the patch of row 1, column 0
    assert tokenizer.conv.bias is not None
    expected_D = tokenizer.conv.weight.flatten(1) @ pixels_4 + tokenizer.conv.bias + tokenizer.position[2]
    torch.testing.assert_close(tokenizer(obs)[0, 2], expected_D)


@pytest.mark.parametrize("space", [FRAMES, GRID], ids=["frames", "grid"])
@pytest.mark.parametrize("layout", ["dt", "mdt"])
def test_pixel_scale_is_the_same_in_training_and_evaluation(space: gymnasium.spaces.Box, layout: Any) -> None:
    torch.manual_seed(0)
    tokenizer: Any = build_tokenizer(DecisionTransformerConfig(width=8, layout=layout), space, None)
    obs = frames(2, space.shape)
    assert torch.equal(tokenizer.train()(obs), tokenizer.eval()(obs))
    assert (tokenizer(obs) - tokenizer(torch.zeros_like(obs))).abs().max() > 1e-3  # the scale is 1/255, not its square


def test_patch_positions_are_parameters_with_gradient() -> None:
    tokenizer = PatchTokenizer((4, 84, 84), 14, 8)
    tokenizer(frames(2)).square().sum().backward()
    assert tokenizer.position.grad is not None and (tokenizer.position.grad.abs().sum(-1) > 0).all()


def test_pooling_averages_neighbouring_patches() -> None:
    torch.manual_seed(0)
    tokenizer = PatchTokenizer((1, 4, 4), 1, 3, pool=4)
    unpooled = PatchTokenizer((1, 4, 4), 1, 3)
    unpooled.load_state_dict(tokenizer.state_dict())
    obs = frames(1, (1, 4, 4))
    each_1GD, pooled_1GD = unpooled(obs), tokenizer(obs)
    assert tokenizer.num_tokens == 4 and pooled_1GD.shape == (1, 4, 3)
    torch.testing.assert_close(pooled_1GD[:, 1], each_1GD[:, [2, 3, 6, 7]].mean(1))  # the upper right quarter


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_pooling_to_fewer_tokens(pool: int) -> None:
    assert PatchTokenizer((4, 84, 84), 14, 8, pool=pool)(frames(2)).shape == (2, pool, 8)


def test_vectors_are_normalised_and_constant_entries_only_shifted() -> None:
    tokenizer = VectorTokenizer(3, 4, SUMMARY.obs_mean, SUMMARY.obs_std)
    with torch.no_grad():
        tokenizer.linear.weight.copy_(torch.eye(4)[:, :3])
        tokenizer.linear.bias.zero_()
    token = tokenizer(torch.tensor([[5.0, 2.5, 2.0]]))
    assert token.tolist() == [[[2.0, 0.5, -2.0, 0.0]]]
    assert {"mean", "scale"} <= tokenizer.state_dict().keys()  # kept with the weights


def test_normalisation_can_be_left_out() -> None:
    config = DecisionTransformerConfig.model_validate({"width": 4, "tokenizer": {"kind": "vector", "normalize": False}})
    plain: Any = build_tokenizer(config, VECTOR, SUMMARY)
    assert plain.mean.tolist() == [0.0] * 3 and plain.scale.tolist() == [1.0] * 3
    usual: Any = build_tokenizer(DecisionTransformerConfig(width=4), VECTOR, SUMMARY)
    assert usual.mean.tolist() == [1.0, 2.0, 3.0] and usual.scale.tolist() == [2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("space", "layout", "kind", "num_tokens"),
    [
        (VECTOR, "dt", VectorTokenizer, 1),
        (VECTOR, "mdt", VectorTokenizer, 1),
        (FRAMES, "dt", CnnTokenizer, 1),
        (FRAMES, "mdt", PatchTokenizer, 36),
        (GRID, "dt", CnnTokenizer, 1),
        (GRID, "mdt", PatchTokenizer, 4),
    ],
)
def test_auto_follows_space_and_layout(space: Any, layout: Any, kind: type, num_tokens: int) -> None:
    tokenizer = build_tokenizer(DecisionTransformerConfig(width=8, layout=layout), space, None)
    assert isinstance(tokenizer, kind) and tokenizer.num_tokens == num_tokens
    obs = torch.from_numpy(np.stack([space.sample(), space.sample()]))
    assert tokenizer(obs).shape == (2, num_tokens, 8)


def test_cnn_token_reuses_the_bodies_of_other_agents() -> None:
    tokenizer = CnnTokenizer(MinatarCnnConfig(width=2), GRID, 8)
    assert tokenizer.body.num_features == 256 and tokenizer(frames(3, (4, 10, 10))).shape == (3, 1, 8)


@pytest.mark.parametrize(
    ("tokenizer", "space", "message"),
    [
        ({"kind": "vector"}, FRAMES, r"vector does not take observations of shape \(4, 84, 84\)"),
        ({"kind": "atari_patch"}, VECTOR, r"atari_patch does not take observations of shape \(3,\)"),
        ({"kind": "cnn"}, VECTOR, "cnn does not take"),
        ({"kind": "auto"}, gymnasium.spaces.Box(0, 1, (2, 2), np.float32), r"shape \(2, 2\)"),
        ({"kind": "auto"}, gymnasium.spaces.Discrete(2), r"Box observations, not Discrete\(2\)"),
        ({"kind": "atari_patch", "patch_size": 16}, FRAMES, "patch_size=16 does not divide images of 84 x 84"),
        ({"kind": "atari_patch", "patch_size": 84, "pool": 2}, FRAMES, "pool=2 exceeds the 1 patches"),
    ],
)
def test_tokenizers_that_do_not_fit_are_refused(tokenizer: Any, space: Any, message: str) -> None:
    config = DecisionTransformerConfig.model_validate({"tokenizer": tokenizer})
    with pytest.raises(ValueError, match=message):
        build_tokenizer(config, space, None)


def test_statistics_of_another_environment_are_refused() -> None:
    space = gymnasium.spaces.Box(-1, 1, (5,), np.float32)
    with pytest.raises(ValueError, match="have 3 entries, the environment's 5"):
        build_tokenizer(DecisionTransformerConfig(), space, SUMMARY)


def test_the_first_step_has_an_action_token_of_its_own() -> None:
    tokenizer = ActionTokenizer(gymnasium.spaces.Discrete(3), 4)
    assert tokenizer.table is not None and tokenizer.table.num_embeddings == 4
    first, later = torch.tensor([[True, True]]), torch.tensor([[False, False]])
    token = tokenizer(torch.tensor([[0, 2]]), first)
    assert torch.equal(token[0, 0], token[0, 1]) and torch.equal(token[0, 0], tokenizer.table.weight[3])
    assert torch.equal(tokenizer(torch.tensor([[0, 2]]), later)[0], tokenizer.table.weight[[0, 2]])


def test_a_vector_action_counts_for_nothing_at_the_first_step() -> None:
    tokenizer = ActionTokenizer(gymnasium.spaces.Box(-1, 1, (2,), np.float32), 4)
    assert tokenizer.linear is not None
    token = tokenizer(torch.ones(1, 2, 2), torch.tensor([[True, False]]))
    assert torch.equal(token[0, 0], tokenizer.linear.bias) and not torch.equal(token[0, 1], tokenizer.linear.bias)


def test_reward_ids_are_those_of_the_source() -> None:
    """0 none, 1 positive, 3 negative; 2 (terminal) is never given. Source: google-research/multi_game_dt."""
    assert reward_ids(torch.tensor([0.0, 0.3, 7.0, -0.1, -4.0])).tolist() == [0, 1, 1, 3, 3]
    signs = RewardTokenizer(4, None)
    assert torch.equal(signs(torch.tensor([[0.5]])), signs(torch.tensor([[9.0]])))


def test_scalar_tokens_are_linear_in_the_scaled_number() -> None:
    reward, target = RewardTokenizer(4, 10.0), ReturnTokenizer(4, 1000.0, None)
    for tokenizer, scale in ((reward, 10.0), (target, 1000.0)):
        zero, one, two = (tokenizer(torch.tensor([[number * scale]])) for number in (0.0, 1.0, 2.0))
        torch.testing.assert_close(two - one, one - zero)
        linear: Any = tokenizer.layer
        torch.testing.assert_close((one - zero)[0, 0], linear.weight[:, 0])


def test_return_codes_are_looked_up() -> None:
    tokenizer = ReturnTokenizer(4, 1.0, ReturnCodec())
    table: Any = tokenizer.layer
    assert torch.equal(tokenizer(torch.tensor([[-20.0, 55.2]]))[0], table.weight[[0, 75]])
