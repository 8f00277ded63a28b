"""Masks against ones typed by hand, attention against its formula, initialisation and parameter counts."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from agents.decision_transformer.adapters import BottleneckAdapter
from agents.decision_transformer.backbone import (
    Backbone,
    SelfAttention,
    initialize_like_gpt2,
    segment_mask,
    surrounded_mask,
    with_earlier,
    with_padding,
)
from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.embedding import StepLayout


def rows(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.tolist()]


# action, two patches, return: the layout mdt with an observation of two tokens
TWO_PATCHES = StepLayout(num_obs_tokens=2, obs_start=1, return_at=3, reward_at=None, num_tokens=4)
VECTOR_STEP = StepLayout(num_obs_tokens=1, obs_start=2, return_at=1, reward_at=None, num_tokens=3)


def test_patches_of_one_frame_see_each_other_and_nothing_later() -> None:
    mask = segment_mask(TWO_PATCHES, 2, single_return=False)
    assert mask is not None
    assert rows(mask) == [
        "x.......",
        "xxx.....",
        "xxx.....",
        "xxxx....",
        "xxxxx...",
        "xxxxxxx.",
        "xxxxxxx.",
        "xxxxxxxx",
    ]


def test_only_the_first_return_token_is_seen() -> None:
    mask = segment_mask(VECTOR_STEP, 2, single_return=True)
    assert mask is not None
    assert rows(mask) == ["x.....", "xx....", "xxx...", "xxxx..", "xxxx..", "xxxx.x"]


def test_vectors_need_no_mask() -> None:
    assert segment_mask(VECTOR_STEP, 4, single_return=False) is None


def test_memory_tokens_and_prompt_around_a_segment() -> None:
    """Leading memory tokens see each other only, the prompt is causal, trailing memory tokens see all."""
    assert rows(surrounded_mask(None, 2, prompt=1, around=2)) == [
        "xx.....",
        "xx.....",
        "xxx....",
        "xxxx...",
        "xxxxx..",
        "xxxxxxx",
        "xxxxxxx",
    ]
    inner = torch.tensor([[True, True], [True, True]])
    assert rows(surrounded_mask(inner, 2, around=1)) == ["x...", "xxx.", "xxx.", "xxxx"]


def test_padded_tokens_are_seen_by_themselves_only() -> None:
    mask = with_padding(torch.ones(3, 3, dtype=torch.bool).tril(), torch.tensor([[True, False, True]]))
    assert mask.shape == (1, 1, 3, 3)
    assert rows(mask[0, 0]) == ["x..", "xx.", "x.x"]


def test_memory_tokens_do_not_see_tokens_from_before_the_segment() -> None:
    inner = with_padding(surrounded_mask(None, 2, around=1), torch.ones(1, 4, dtype=torch.bool))
    mask = with_earlier(inner, torch.tensor([[False, True, True]]), 1)
    assert rows(mask[0, 0]) == ["...x...", ".xxxx..", ".xxxxx.", "...xxxx"]


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_the_textbook_formula(num_heads: int, causal: bool) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, num_heads, 0.0).eval()
    x_BLD = torch.randn(2, 5, 8)
    mask_LL = torch.ones(5, 5, dtype=torch.bool).tril() if causal else torch.rand(5, 5) > 0.5
    mask_LL.fill_diagonal_(True)
    query, key, value = attention.qkv(x_BLD).chunk(3, -1)
    parts = []
    for head in range(num_heads):
        part = slice(head * 8 // num_heads, (head + 1) * 8 // num_heads)
        score_BLL = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(8 // num_heads)
        parts.append(score_BLL.masked_fill(~mask_LL, -math.inf).softmax(-1) @ value[..., part])
    expected_BLD = attention.output(torch.cat(parts, -1))
    torch.testing.assert_close(attention(x_BLD, None if causal else mask_LL), expected_BLD)
    torch.testing.assert_close(attention(x_BLD, mask_LL), expected_BLD)


def config(**given: Any) -> DecisionTransformerConfig:
    return DecisionTransformerConfig.model_validate(given)


@pytest.mark.parametrize(("width", "num_layers"), [(16, 1), (32, 3)])
def test_parameters_of_the_blocks_by_formula(width: int, num_layers: int) -> None:
    """A block: 12 D^2 weights, 9 D biases of four layers, 4 D of two norms; and 2 D of the final norm."""
    backbone = Backbone(config(width=width, num_layers=num_layers))
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count == num_layers * (12 * width**2 + 13 * width) + 2 * width


def test_blocks_of_the_release_have_its_size() -> None:
    """d512/L4 has 12.61M in its blocks; the release's plain model of 13.16M has embeddings and heads besides."""
    backbone = Backbone(config(width=512, num_layers=4, num_heads=8))
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 12_610_560


def test_initialisation_is_gpt2s() -> None:
    torch.manual_seed(0)
    backbone = Backbone(config(width=128, num_layers=8, adapter=4))
    initialize_like_gpt2(backbone, 8)
    for name, module in backbone.named_modules():
        if "adapter" in name.split("."):
            assert not isinstance(module, BottleneckAdapter) or not module.up.weight.any()
            continue
        if isinstance(module, nn.Linear):
            expected = 0.02 / 4.0 if name.endswith(("attention.output", "mlp_out")) else 0.02  # sqrt(2 * 8) = 4
            assert module.weight.std().item() == pytest.approx(expected, rel=0.03), name
            assert module.bias is None or not module.bias.any()


def test_initialisation_by_fan_in_depends_on_the_inputs_alone() -> None:
    torch.manual_seed(0)
    backbone = Backbone(config(width=128, num_layers=2))
    initialize_like_gpt2(backbone, 2, fan_in=True)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear):
            scale = 0.5 if name.endswith(("attention.output", "mlp_out")) else 1.0  # sqrt(2 * 2) = 2
            assert module.weight.std().item() == pytest.approx(scale * module.in_features**-0.5, rel=0.03), name


def test_adapters_change_nothing_at_first_and_then_do() -> None:
    torch.manual_seed(0)
    plain = Backbone(config(width=16, num_layers=2, dropout=0.0))
    adapted = Backbone(config(width=16, num_layers=2, dropout=0.0, adapter=3))
    adapted.load_state_dict(plain.state_dict(), strict=False)
    x_BLD = torch.randn(2, 5, 16)
    assert torch.equal(plain(x_BLD, None), adapted(x_BLD, None))
    extra = sum(p.numel() for p in adapted.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 2 * (2 * 16 * 3 + 3 + 16)
    for module in adapted.modules():
        if isinstance(module, BottleneckAdapter):
            nn.init.normal_(module.up.weight)
    assert not torch.equal(plain(x_BLD, None), adapted(x_BLD, None))


def test_seeing_earlier_tokens_equals_one_longer_segment() -> None:
    """Blocks that are given what they were given before, as Transformer-XL caches it, go on where they were."""
    torch.manual_seed(0)
    backbone = Backbone(config(width=16, num_layers=3, num_heads=2, dropout=0.0))
    whole_BLD = torch.randn(2, 7, 16)
    given: list[torch.Tensor] = []
    first_BLD = backbone(whole_BLD[:, :4], None, earlier=lambda _, x_BLD: given.append(x_BLD))
    mask = torch.ones(3, 7, dtype=torch.bool).tril(4)
    later_BLD = backbone(whole_BLD[:, 4:], mask, earlier=lambda index, _: given[index])
    torch.testing.assert_close(torch.cat((first_BLD, later_BLD), 1), backbone(whole_BLD, None), atol=1e-5, rtol=1e-5)
