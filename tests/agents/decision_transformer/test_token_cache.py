"""What RMDT keeps of the steps before a segment: the newest tokens, as each block was given them, without gradient."""

from typing import Any

import pytest
import torch

from agents.decision_transformer.memory_modules import TokenMemory
from agents.decision_transformer.model import SequenceModel
from tests.agents.decision_transformer.segments import STEPS, build, padded, segment

NUM_TOKENS, CACHED, STEP_TOKENS, LAYERS = 3, 4, 3, 2
TOKENS: dict[str, Any] = {"kind": "tokens", "num_tokens": NUM_TOKENS}
KEEPING = {**TOKENS, "cached_tokens": CACHED}


def kept(memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gives what is kept for each block, (B, C, D)."""
    return memory[:, NUM_TOKENS:].chunk(LAYERS, 1)


def given_to_blocks(model: SequenceModel, *arguments: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Gives the step tokens that each block was given, and the memory behind the segment."""
    given: list[torch.Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0][:, NUM_TOKENS:-NUM_TOKENS]))
        for block in model.backbone.blocks
    ]
    with torch.no_grad():
        _, memory = model(*arguments)
    for hook in hooks:
        hook.remove()
    assert memory is not None
    return given, memory


def test_the_newest_tokens_of_each_block_are_kept() -> None:
    model = build(memory=KEEPING)
    start = model.initial_memory(2)
    assert start is not None and start.shape == (2, NUM_TOKENS + LAYERS * CACHED, 16)
    assert not start[:, NUM_TOKENS:].any()
    memory = None
    for number in range(2):
        given, memory = given_to_blocks(model, segment(seed=number, first=number * STEPS), memory)
        for index in range(LAYERS):
            assert torch.equal(kept(memory)[index], given[index][:, -CACHED:])


def test_short_segments_push_out_the_oldest_and_padding_is_never_kept() -> None:
    """One step has 3 tokens: of 4 kept ones, the first is from the segment before."""
    model = build(memory=KEEPING)
    first, before = given_to_blocks(model, segment(steps=1))
    for index in range(LAYERS):
        assert not kept(before)[index][:, 0].any() and torch.equal(kept(before)[index][:, 1:], first[index])
    for inputs in (segment(steps=1, first=1), padded(segment(steps=1, first=1), STEPS, left=True)):
        given, after = given_to_blocks(model, inputs, before)
        for index in range(LAYERS):
            expected = torch.cat((first[index][:, -1:], given[index][:, :STEP_TOKENS]), 1)
            assert torch.equal(kept(after)[index], expected)


def test_an_empty_cache_is_as_none_and_a_filled_one_is_seen() -> None:
    keeping, plain = build(memory=KEEPING), build(memory=TOKENS)
    plain.load_state_dict(keeping.state_dict())
    first, second = segment(), segment(seed=2, first=STEPS)
    with torch.no_grad():
        one, memory = keeping(first)
        two, tokens = plain(first)
        torch.testing.assert_close(one.action, two.action, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(memory[:, :NUM_TOKENS], tokens, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(keeping(second, memory)[0].action, plain(second, tokens)[0].action, atol=1e-4)


def test_what_is_kept_is_seen_by_itself() -> None:
    """With equal memory tokens, outputs differ by what is kept of the segment before."""
    model, second = build(memory=KEEPING), segment(seed=2, first=STEPS)
    with torch.no_grad():
        memory = model(segment())[1]
        other = memory.clone()
        other[:, NUM_TOKENS:] = model(segment(seed=5))[1][:, NUM_TOKENS:]
        assert not torch.equal(model(second, memory)[0].action, model(second, other)[0].action)


def test_no_gradient_enters_the_segment_before() -> None:
    model = build(memory=KEEPING)
    inputs = segment()._replace(obs=segment().obs.requires_grad_())
    _, memory = model(inputs)
    assert memory.requires_grad  # the memory tokens carry gradient
    (gradient,) = torch.autograd.grad(memory[:, NUM_TOKENS:].sum(), inputs.obs, allow_unused=True, retain_graph=True)
    assert gradient is None or not gradient.any()
    (gradient,) = torch.autograd.grad(memory[:, :NUM_TOKENS].square().sum(), inputs.obs)
    assert gradient.any()


@pytest.mark.parametrize("cached", [0, CACHED])
def test_keeping_tokens_takes_no_parameters(cached: int) -> None:
    memory = build(memory={**TOKENS, "cached_tokens": cached}).memory
    assert isinstance(memory, TokenMemory)
    assert [tuple(parameter.shape) for parameter in memory.parameters()] == [(NUM_TOKENS, 16)]
