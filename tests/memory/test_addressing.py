"""The memory's equations against numbers typed by hand, a loop over tokens, and the properties they promise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memory.addressing import (
    compose_writes,
    fold_query,
    read_address,
    read_slots,
    score,
    softmax_over,
    write_gates,
    write_strength,
)

FORMS = ("paper", "convex")


def written_one_by_one(memory: Tensor, address: Tensor, strength: Tensor, value: Tensor, form: str) -> Tensor:
    """The write of one row and head, as a loop over tokens and slots. memory MP, address and strength LM, value LP."""
    memory = memory.clone()
    for w_M, beta_M, v_P in zip(address, strength, value, strict=True):
        for i, (w, beta) in enumerate(zip(w_M, beta_M, strict=True)):
            keep = 1 - w * (1 - beta) if form == "paper" else 1 - w * beta
            memory[i] = keep * memory[i] + w * beta * v_P
    return memory


def test_a_write_of_two_tokens_by_hand():
    # One row, head and column; two slots holding 8 and 4; token 1 writes 2, token 2 writes 6.
    memory = torch.tensor([[[[8.0]], [[4.0]]]], dtype=torch.float64)
    address = torch.tensor([[[[0.5, 0.5]], [[0.25, 0.75]]]], dtype=torch.float64)
    strength = torch.tensor([[[[0.5, 0.0]], [[1.0, 0.5]]]], dtype=torch.float64)
    value = torch.tensor([[[[2.0]], [[6.0]]]], dtype=torch.float64)
    # paper, slot 1: 0.75 * 8 + 0.25 * 2 = 6.5, then 1 * 6.5 + 0.25 * 6 = 8.
    # paper, slot 2: 0.5 * 4 + 0 = 2, then 0.625 * 2 + 0.375 * 6 = 3.5.
    after = compose_writes(memory, *write_gates(address, strength, "paper"), value)
    assert after.flatten().tolist() == pytest.approx([8.0, 3.5], abs=1e-12)
    # convex, slot 1: 0.75 * 8 + 0.25 * 2 = 6.5, then 0.75 * 6.5 + 0.25 * 6 = 6.375; slot 2: 4, then 0.625 * 4 + 2.25.
    after = compose_writes(memory, *write_gates(address, strength, "convex"), value)
    assert after.flatten().tolist() == pytest.approx([6.375, 4.75], abs=1e-12)


def test_scores_and_reads_by_hand():
    key = torch.tensor([[[[1.0, 2.0, 0.0, 0.0]]]])  # one row, token and head; P = 4, so scores are halved
    query_weight = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4])
    memory = torch.tensor([[[2.0, 0.0, 9.0, 0.0], [0.0, 1.0, 0.0, 9.0]]])
    # Wq m = (2, 0, 0, 0) and (0, 3, 0, 0): products with the key 2 and 6, halved 1 and 3.
    scores = score(fold_query(key, query_weight), memory)
    assert scores.flatten().tolist() == pytest.approx([1.0, 3.0])
    address = softmax_over(scores, "slots").flatten().tolist()
    assert address == pytest.approx([1 / (1 + math.e**2), 1 / (1 + math.e**-2)])
    read = read_slots(torch.tensor([[[[0.25, 0.75]]]]), memory.unsqueeze(2))
    assert read.flatten().tolist() == [0.5, 0.75, 2.25, 6.75]


def test_heads_score_their_own_rows_of_the_query():
    generator = torch.Generator().manual_seed(0)
    key, weight = torch.randn(2, 3, 2, 4, generator=generator), torch.randn(8, 8, generator=generator)
    memory = torch.randn(2, 5, 8, generator=generator)
    queries = (memory @ weight.T).view(2, 5, 2, 4)
    expected = torch.einsum("bmhp,blhp->blhm", queries, key) / 4**0.5
    torch.testing.assert_close(score(fold_query(key, weight), memory), expected)


@pytest.mark.parametrize("axis", ["slots", "tokens"])
def test_addresses_sum_to_one_along_their_axis_and_skip_what_is_invalid(axis):
    scores = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(1))
    valid = torch.tensor([[True, True, False, True, False, True], [True] * 6])
    address = softmax_over(scores, axis, valid)
    assert (address >= 0).all()
    torch.testing.assert_close(
        address.sum(3 if axis == "slots" else 1),
        torch.ones(2, 6 if axis == "slots" else 3, 3) if axis == "slots" else torch.ones(2, 3, 4),
    )
    if axis == "tokens":
        assert (address[0, [2, 4]] == 0).all()
        kept = softmax_over(scores[:1, [0, 1, 3, 5]], "tokens")
        torch.testing.assert_close(address[:1, [0, 1, 3, 5]], kept)


def test_reading_over_tokens_is_causal_within_a_step():
    scores = torch.tensor([0.0, math.log(3.0), math.log(4.0), 5.0]).view(1, 4, 1, 1)
    address = read_address(scores, "tokens", num_step_tokens=2).flatten()
    # Steps of two tokens: 1, 3 / (1 + 3); then 1, e^5 / (4 + e^5).
    assert address.tolist() == pytest.approx([1.0, 0.75, 1.0, math.e**5 / (4 + math.e**5)])
    alone = read_address(scores[:, :3], "tokens", num_step_tokens=3).flatten()
    assert alone.tolist() == pytest.approx([1.0, 0.75, 0.5])


def test_strength_is_a_sigmoid_or_the_softmax_of_the_address():
    scores = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(write_strength(scores, "sigmoid", "slots"), scores.sigmoid())
    for axis in ("slots", "tokens"):
        assert torch.equal(write_strength(scores, "softmax", axis), softmax_over(scores, axis))


@pytest.mark.parametrize("form", FORMS)
def test_gates_are_within_bounds_and_finite_at_the_ends(form):
    address = torch.tensor([0.0, 1.0, 1.0, 0.5]).view(1, 1, 1, 4)
    strength = torch.tensor([1.0, 0.0, 1.0, 0.5]).view(1, 1, 1, 4)
    log_keep, add = write_gates(address, strength, form)
    expected_keep = [1.0, 1e-6, 1.0, 0.75] if form == "paper" else [1.0, 1.0, 1e-6, 0.75]
    assert log_keep.exp().flatten().tolist() == pytest.approx(expected_keep, rel=0.05)
    assert log_keep.isfinite().all()
    assert add.flatten().tolist() == pytest.approx([0.0, 0.0, 1.0, 0.25], abs=2e-6)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=25)
@given(num_tokens=st.integers(1, 40), num_slots=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_composition_equals_a_loop_over_tokens(form, num_tokens, num_slots, seed):
    generator = torch.Generator().manual_seed(seed)
    batch, heads, head_width = 2, 2, 3
    memory = torch.randn(batch, num_slots, heads, head_width, generator=generator, dtype=torch.float64)
    shape = (batch, num_tokens, heads, num_slots)
    address = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(-1)
    strength = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).sigmoid()
    value = torch.randn(batch, num_tokens, heads, head_width, generator=generator, dtype=torch.float64)
    valid = torch.rand(batch, num_tokens, generator=generator) < 0.8
    log_keep, add = write_gates(address, strength, form, valid)
    after = compose_writes(memory, log_keep, add, value)
    for row in range(batch):
        real = valid[row]
        for head in range(heads):
            expected = written_one_by_one(
                memory[row, :, head], address[row, real, head], strength[row, real, head], value[row, real, head], form
            )
            torch.testing.assert_close(after[row, :, head], expected, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(num_tokens=st.integers(1, 80), seed=st.integers(0, 2**31))
def test_convex_writes_stay_in_the_hull_of_slots_and_values(num_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(1, 8, 1, 5, generator=generator, dtype=torch.float64)
    value = 3 * torch.randn(1, num_tokens, 1, 5, generator=generator, dtype=torch.float64)
    address, strength = (
        (5 * torch.randn(1, num_tokens, 1, 8, generator=generator, dtype=torch.float64)).softmax(-1) for _ in range(2)
    )
    after = compose_writes(memory, *write_gates(address, strength.sqrt(), "convex"), value)[0, :, 0]
    lowest = torch.minimum(memory[0, :, 0], value[0, :, 0].amin(0))
    highest = torch.maximum(memory[0, :, 0], value[0, :, 0].amax(0))
    assert ((after >= lowest - 1e-12) & (after <= highest + 1e-12)).all()


@pytest.mark.parametrize("num_tokens", [1, 8, 80])
def test_the_paper_s_write_keeps_a_share_for_ten_tokens_a_slot(num_tokens):
    generator = torch.Generator().manual_seed(3)
    address = torch.randn(4, num_tokens, 1, 8, generator=generator).softmax(-1)
    strength = torch.rand(4, num_tokens, 1, 8, generator=generator)
    log_keep, _ = write_gates(address, strength, "paper")
    keep = log_keep.sum(1).exp()
    assert ((keep >= 0) & (keep <= 1)).all()
    assert (keep > 0).any()
    if num_tokens == 80:  # what the paper's sum would keep of most slots is less than nothing
        assert ((1 - (address * (1 - strength)).sum(1)) < 0).float().mean() > 0.9


def test_reads_are_convex_combinations_of_the_slots():
    generator = torch.Generator().manual_seed(4)
    memory = torch.randn(3, 6, 2, 4, generator=generator)
    address = read_address(4 * torch.randn(3, 5, 2, 6, generator=generator), "slots", 5)
    assert (address >= 0).all()
    torch.testing.assert_close(address.sum(-1), torch.ones(3, 5, 2))
    read = read_slots(address, memory)
    lowest, highest = memory.amin(1).unsqueeze(1), memory.amax(1).unsqueeze(1)
    assert ((read >= lowest - 1e-6) & (read <= highest + 1e-6)).all()
