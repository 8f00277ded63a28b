"""The slot memory: identity at first, causal, persistent, resettable, rows apart, and as a naive loop would do it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memory.working_memory import WorkingMemory

B, T, G, D, M = 3, 7, 2, 8, 5
FORMS = list(itertools.product(("paper", "convex"), ("sigmoid", "softmax"), ("slots", "tokens")))
CHUNKS = (0, 1, 3, T)
every_form = pytest.mark.parametrize(("write", "beta", "axis"), FORMS)
every_chunk = pytest.mark.parametrize("chunk", CHUNKS)


def make(write="paper", beta="sigmoid", axis="slots", *, heads=2, output=True, **sizes) -> WorkingMemory:
    """A memory whose output is not zero, so that what it reads is seen."""
    generator = torch.Generator().manual_seed(0)
    memory = WorkingMemory(
        sizes.get("width", D),
        sizes.get("slots", M),
        num_heads=heads,
        write=write,
        beta=beta,
        address_axis=axis,
        generator=generator,
    )
    if output:
        torch.nn.init.normal_(memory.output.weight, generator=generator)
    return memory


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*(shape or (B, T, G, D)), generator=torch.Generator().manual_seed(seed))


def naive(module: WorkingMemory, slots_MD: Tensor, token_TGD: Tensor, valid_T: list[bool], chunk: int):
    """One row, step by step and token by token, with the slots themselves projected. Gives reads TGD and slots."""
    size, heads = max(chunk, 1), module.num_heads
    slots_MD = slots_MD.clone()
    reads = torch.zeros_like(token_TGD)
    width = module.width // heads
    linear = {name.removesuffix(".weight"): tensor for name, tensor in module.named_parameters() if "norm" not in name}
    for start in range(0, len(token_TGD), size):
        steps = range(start, min(start + size, len(token_TGD)))
        after = slots_MD.clone()
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query, strength_query = ((slots_MD @ linear[n].T)[:, part] for n in ("address_query", "write_query"))
            chunk_LD = token_TGD[steps.start : steps.stop].flatten(0, 1)
            valid_L = torch.tensor([valid_T[t] for t in steps for _ in range(token_TGD.shape[1])])
            scores, strengths = (
                (chunk_LD @ linear[n].T)[:, part] @ q.T / math.sqrt(width)
                for n, q in (("address_key", query), ("write_key", strength_query))
            )
            value = (chunk_LD @ linear["write_value"].T)[:, part]

            def normalised(values_LM: Tensor, valid_L: Tensor = valid_L) -> Tensor:
                if module.address_axis == "slots":
                    return values_LM.softmax(-1)
                return values_LM.masked_fill(~valid_L[:, None], -torch.inf).softmax(0)

            address = normalised(scores)
            beta = strengths.sigmoid() if module.beta == "sigmoid" else normalised(strengths)
            for place in torch.nonzero(valid_L).flatten().tolist():
                w, b = address[place][:, None], beta[place][:, None]
                keep = 1 - w * (1 - b) if module.write_form == "paper" else 1 - w * b
                after[:, part] = keep * after[:, part] + w * b * value[place]
            seen = after if chunk == 0 else slots_MD
            for place, (step, token) in enumerate(itertools.product(steps, range(token_TGD.shape[1]))):
                if module.address_axis == "slots":
                    read_w = scores[place].softmax(-1)
                else:
                    first = (step - start) * token_TGD.shape[1]
                    read_w = scores[first : place + 1].softmax(0)[-1]
                reads[step, token, part] = read_w @ seen[:, part]
        slots_MD = after
    return reads, slots_MD


@every_form
@every_chunk
def test_equals_a_naive_loop(write, beta, axis, chunk):
    module = make(write, beta, axis).double()
    token = tokens().double()
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, :3] = False
    valid[2, 4:] = False
    slots = module.initial_state(B) + 0.5 * tokens(B, M, D, seed=2).double()
    recalled = module(slots, token, valid, chunk=chunk)
    for row in range(B):
        reads, after = naive(module, slots[row].detach(), token[row], valid[row].tolist(), chunk)
        expected = token[row] + module.output(module.norm(reads))
        torch.testing.assert_close(recalled.memory_BMD[row], after, rtol=1e-10, atol=1e-10)
        real = valid[row]
        torch.testing.assert_close(recalled.token_BTGD[row, real], expected[real], rtol=1e-10, atol=1e-10)


@every_form
def test_passes_tokens_unchanged_at_first(write, beta, axis):
    module, token = make(write, beta, axis, output=False), tokens()
    for chunk in CHUNKS:
        recalled = module(module.initial_state(B), token, None, chunk=chunk)
        assert torch.equal(recalled.token_BTGD, token)
        assert not torch.equal(recalled.memory_BMD, module.initial_state(B))


def test_initial_slots_are_distinct_and_learn():
    module = WorkingMemory(16, 8, generator=torch.Generator().manual_seed(0))
    assert torch.linalg.matrix_rank(module.initial_slots) == 8
    assert module.initial_slots.std().item() == pytest.approx(1.0, abs=0.2)
    small = WorkingMemory(16, 8, initial_std=0.25, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small.initial_slots, module.initial_slots / 4)
    again = WorkingMemory(16, 8, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    state = module.initial_state(3)
    assert state.dtype == torch.float32
    state.square().sum().backward()
    assert module.initial_slots.grad is not None
    torch.testing.assert_close(module.initial_slots.grad, 6 * module.initial_slots)


@every_form
@every_chunk
def test_is_causal_to_the_bit(write, beta, axis, chunk):
    module, token = make(write, beta, axis), tokens()
    before = module(module.initial_state(B), token, None, chunk=chunk).token_BTGD
    for step in range(T - 1):
        changed = token.clone()
        changed[:, step + 1 :] += tokens(B, T - step - 1, G, D, seed=3)
        after = module(module.initial_state(B), changed, None, chunk=chunk).token_BTGD
        assert torch.equal(after[:, : step + 1], before[:, : step + 1])
        assert not torch.equal(after[:, step + 1], before[:, step + 1])


@pytest.mark.parametrize("axis", ["slots", "tokens"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_read_before_write_is_causal_within_a_step_too(axis, chunk):
    module, token = make(axis=axis), tokens()
    changed = token.clone()
    changed[:, :, -1] += 1.0
    before, after = (module(module.initial_state(B), x, None, chunk=chunk).token_BTGD for x in (token, changed))
    assert torch.equal(after[:, :chunk, 0], before[:, :chunk, 0])
    assert not torch.equal(after[:, chunk, 0], before[:, chunk, 0])


def test_write_then_read_shows_a_step_to_itself_unless_it_is_not_written():
    module, token = make(), tokens()
    changed = token.clone()
    changed[:, 0, -1] += 1.0

    def first(x: Tensor, **written: Tensor) -> Tensor:
        return module(module.initial_state(B), x, None, chunk=0, **written).token_BTGD[:, 0, 0]

    assert not torch.equal(first(token), first(changed))
    assert torch.equal(first(token, written_BTWD=token[:, :, :1]), first(changed, written_BTWD=changed[:, :, :1]))


@every_form
def test_written_tokens_default_to_those_that_read(write, beta, axis):
    module, token = make(write, beta, axis), tokens()
    for chunk in CHUNKS:
        own = module(module.initial_state(B), token, None, chunk=chunk)
        same = module(module.initial_state(B), token, None, chunk=chunk, written_BTWD=token.clone())
        torch.testing.assert_close(same.token_BTGD, own.token_BTGD)
        torch.testing.assert_close(same.memory_BMD, own.memory_BMD)


@every_form
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_writes_and_never_matters(write, beta, axis, side):
    module, token = make(write, beta, axis), tokens()
    valid = torch.ones(B, T, dtype=torch.bool)
    padded = slice(0, 3) if side == "left" else slice(4, T)
    valid[1, padded] = False
    other = token.clone()
    other[1, padded] = 100.0
    for chunk in CHUNKS:
        a, b = (module(module.initial_state(B), x, valid, chunk=chunk) for x in (token, other))
        assert torch.equal(a.memory_BMD, b.memory_BMD)
        assert torch.equal(a.token_BTGD[valid], b.token_BTGD[valid])
        assert a.token_BTGD.isfinite().all()
    nothing = module(module.initial_state(B), token, torch.zeros_like(valid), chunk=3)
    assert torch.equal(nothing.memory_BMD, module.initial_state(B))


def test_a_segment_cut_short_equals_its_padded_form():
    module, token = make(), tokens()
    valid = torch.arange(T).expand(B, T) < 5
    for chunk in CHUNKS:
        long = module(module.initial_state(B), token, valid, chunk=chunk)
        short = module(module.initial_state(B), token[:, :5], None, chunk=chunk)
        torch.testing.assert_close(long.memory_BMD, short.memory_BMD)
        torch.testing.assert_close(long.token_BTGD[:, :5], short.token_BTGD)


@every_form
def test_permuted_slots_read_the_same(write, beta, axis):
    module, token = make(write, beta, axis).double(), tokens().double()
    slots = tokens(B, M, D, seed=5).double()
    order = torch.tensor([3, 0, 4, 1, 2])
    plain = module(slots, token, None, chunk=2)
    permuted = module(slots[:, order], token, None, chunk=2)
    torch.testing.assert_close(permuted.token_BTGD, plain.token_BTGD)
    torch.testing.assert_close(permuted.memory_BMD, plain.memory_BMD[:, order])


@every_form
def test_slots_differ_after_a_write_and_reads_differ_across_tokens(write, beta, axis):
    module = make(write, beta, axis)
    after = module.write(module.initial_state(1), tokens(1, 6, D))[0]
    assert torch.pdist(after).min() > 1e-3
    read = module.read(after.unsqueeze(0), tokens(1, 6, D, seed=6))[0]
    assert torch.pdist(read).min() > 1e-4


def test_reads_lie_within_the_slots():
    module = make()
    slots = tokens(B, M, D, seed=7)
    read = module.read(slots, 5 * tokens(B, 4, D))
    assert (read >= slots.amin(1, keepdim=True) - 1e-6).all()
    assert (read <= slots.amax(1, keepdim=True) + 1e-6).all()


def test_read_and_write_are_the_parts_of_a_segment():
    module, token = make(), tokens(B, 3, D)
    slots = tokens(B, M, D, seed=8)
    recalled = module(slots, token.unsqueeze(1), None, chunk=1)
    expected = token + module.output(module.norm(module.read(slots, token)))
    torch.testing.assert_close(recalled.token_BTGD[:, 0], expected)
    torch.testing.assert_close(recalled.memory_BMD, module.write(slots, token))
    partly = module.write(slots, token, torch.tensor([[True, True, False]]).expand(B, 3))
    torch.testing.assert_close(partly, module.write(slots, token[:, :2]))
    assert torch.equal(slots, tokens(B, M, D, seed=8))


def test_what_was_written_lasts_until_the_row_is_reset_and_stays_in_its_row():
    module = make()
    segments = [tokens(seed=seed) for seed in (10, 11, 12)]

    def third(first: Tensor, reset: int | None = None) -> Tensor:
        memory = module.initial_state(B)
        for place, segment in enumerate([first, *segments[1:]]):
            if reset is not None and place == 2:
                memory = memory.clone()
                memory[reset] = module.initial_state(1)[0]
            token, memory, _ = module(memory, segment, None, chunk=3)
        return token

    changed = segments[0].clone()
    changed[1] += 1.0
    plain, other = third(segments[0]), third(changed)
    assert (plain[1] - other[1]).abs().max() > 1e-4
    assert torch.equal(plain[[0, 2]], other[[0, 2]])
    assert torch.equal(third(segments[0], reset=1)[1], third(changed, reset=1)[1])
    assert torch.equal(third(segments[0], reset=1)[[0, 2]], plain[[0, 2]])


def test_gradient_comes_from_later_segments_but_not_past_a_detach():
    module = make()
    first, second = tokens(seed=13), tokens(seed=14)
    first.requires_grad_()

    def loss(*, detach: bool) -> Tensor:
        memory = module(module.initial_state(B), first, None, chunk=3).memory_BMD
        after = module(memory.detach() if detach else memory, second, None, chunk=T)  # its own write is never read
        return after.token_BTGD.square().mean()

    written = [module.write_value.weight, module.write_key.weight, module.write_query.weight, first]
    assert all(gradient.abs().max() > 0 for gradient in torch.autograd.grad(loss(detach=False), written))
    past = torch.autograd.grad(loss(detach=True), [*written, module.initial_slots], allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in past)


def test_ten_thousand_writes_of_ten_tokens_a_slot_do_not_overflow():
    slots, width = 4, 4
    module = make(heads=1, width=width, slots=slots)
    memory = module.initial_state(1)
    token = tokens(1, 10 * slots, width)
    with torch.no_grad():
        for _ in range(10_000):
            memory = module.write(memory, token)
        assert memory.isfinite().all()
        recalled = module(memory, token.unsqueeze(2), None, chunk=1)
    assert recalled.token_BTGD.isfinite().all()


def test_addresses_stay_in_float32_under_autocast():
    module = make(heads=1, width=64, slots=16)
    token = tokens(2, 6, 2, 64)
    exact = module(module.initial_state(2), token, None, chunk=2, usage=True)
    with torch.autocast("cpu", torch.bfloat16):
        half = token.bfloat16()
        recalled = module(module.initial_state(2), half, None, chunk=2, usage=True)
        read = module.read(recalled.memory_BMD, half[:, 0])
    assert recalled.token_BTGD.dtype == torch.bfloat16
    assert recalled.memory_BMD.dtype == read.dtype == torch.float32
    assert recalled.usage.slot_share_BM.dtype == torch.float32
    torch.testing.assert_close(recalled.usage.slot_share_BM.sum(-1), torch.ones(2), rtol=0, atol=1e-6)  # bf16: ~4e-3
    torch.testing.assert_close(recalled.memory_BMD, exact.memory_BMD, rtol=0, atol=0.05)
    assert not torch.equal(recalled.memory_BMD, recalled.memory_BMD.bfloat16().float())


def test_usage_by_hand():
    module = make(heads=1, slots=2)
    for layer in (module.address_query, module.write_query):
        torch.nn.init.zeros_(layer.weight)  # addresses 1/2, strengths 1/2: keep 1 - 1/4 a token
    slots = torch.zeros(B, 2, D)
    slots[:, 0, 0] = 4.0
    torch.nn.init.zeros_(module.write_value.weight)
    valid = torch.tensor([True, True, False]).expand(B, 3)
    usage = module(slots, tokens(B, 3, 1, D), valid, chunk=1, usage=True).usage
    assert usage.address_entropy.item() == pytest.approx(1.0)
    assert usage.keep_mean.item() == pytest.approx(0.75)
    assert usage.segment_keep.item() == pytest.approx(0.75**2)
    assert usage.slot_norm.item() == pytest.approx(4 * 0.75**2 / 2)
    assert usage.slot_share_BM.tolist() == [[0.5, 0.5]] * B
    assert set(usage.scalars()) == {"address_entropy", "keep_mean", "segment_keep", "slot_norm"}
    assert not any(value.requires_grad for value in usage)


def test_usage_is_one_sided_where_reads_are():
    module = make(heads=1, slots=2, width=2)
    for layer in (module.address_query, module.address_key):
        layer.weight.data.copy_(torch.eye(2))
    slots = torch.tensor([[[100.0, 0.0], [0.0, 100.0]]])
    usage = module(
        slots, torch.tensor([[[[9.0, 0.0]], [[0.0, 9.0]], [[0.0, 9.0]], [[0.0, 9.0]]]]), None, chunk=4, usage=True
    ).usage
    assert usage.slot_share_BM.flatten().tolist() == pytest.approx([0.25, 0.75])
    assert usage.address_entropy.item() == pytest.approx(0.0, abs=1e-6)


def test_learns_to_recall_a_cue_from_an_earlier_segment():
    """The second segment holds no cue: without the memory the loss stays that of a coin, ln 2."""
    generator = torch.Generator().manual_seed(0)
    module = WorkingMemory(16, 4, generator=generator)
    head = torch.nn.Linear(16, 2)
    torch.nn.init.normal_(head.weight, generator=generator)
    codes = torch.randn(3, 16, generator=generator)
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], 1e-2)
    for _ in range(150):
        cue = torch.randint(2, (32,), generator=generator)
        noise = 0.1 * torch.randn(32, 4, 1, 16, generator=generator)
        first = noise.clone()
        first[:, 0, 0] += codes[cue]
        memory = module(module.initial_state(32), first, None, chunk=2).memory_BMD
        token = module(memory, noise + codes[2], None, chunk=2).token_BTGD[:, 0, 0]
        loss = F.cross_entropy(head(token), cue)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    blank = module(module.initial_state(32), noise + codes[2], None, chunk=2).token_BTGD[:, 0, 0]
    assert F.cross_entropy(head(blank), cue).item() > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_slots": 1}, "num_slots=1: must be at least 2"),
        ({"num_heads": 3}, "num_heads=3: must divide width=8"),
        ({"num_heads": 0}, "num_heads=0: must divide width=8"),
        ({"initial_std": 0.0}, r"initial_std=0.0: must be positive"),
    ],
)
def test_refuses_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        WorkingMemory(D, **{"num_slots": 4, **arguments})


def test_refuses_another_s_memory_and_a_negative_chunk():
    module = make()
    with pytest.raises(ValueError, match=r"memory_BMD has shape \(2, 5, 8\): expected \(3, 5, 8\)"):
        module(module.initial_state(2), tokens(), None, chunk=1)
    with pytest.raises(ValueError, match=r"chunk=-1: must be 0"):
        module(module.initial_state(B), tokens(), None, chunk=-1)
