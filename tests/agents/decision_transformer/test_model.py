"""What every sequence model must hold to: causality to the bit, rows apart, padding without effect, memory off = DT."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from agents.decision_transformer.adapters import BottleneckAdapter
from agents.decision_transformer.heads import Outputs
from agents.decision_transformer.inputs import SegmentInputs, aligned, realigned, segment_inputs
from agents.decision_transformer.memory_modules import SlotMemory
from agents.decision_transformer.model import SequenceModel
from memory.trajectory_samplers import SegmentBatch
from tests.agents.decision_transformer.segments import (
    BOX,
    DISCRETE,
    GRID,
    MDT,
    STEPS,
    VECTOR,
    build,
    padded,
    prompt,
    segment,
)

SLOTS: dict[str, Any] = {"kind": "slots", "num_slots": 5, "chunk": 2}
TOKENS: dict[str, Any] = {"kind": "tokens", "num_tokens": 3}
CACHED = {**TOKENS, "cached_tokens": 4}
NO_PREDICTION = {**MDT, "return_prediction": None, "reward_prediction": False}
DT_REWARDS: dict[str, Any] = {"use_reward_tokens": True}


def slot_variants() -> Iterator[tuple[str, dict[str, Any]]]:
    for placement in ("post", "per_block"):
        for chunk in (0, 1, 4, STEPS):
            for write in ("paper", "convex"):
                name = f"{placement}_{write}_chunk{chunk}"
                yield name, {"memory": {**SLOTS, "placement": placement, "chunk": chunk, "write": write}}
    for axis in ("slots", "tokens"):
        for chunk in (0, 2):
            memory = {**SLOTS, "address_axis": axis, "beta": "softmax", "chunk": chunk, "num_heads": 2}
            yield f"softmax_over_{axis}_chunk{chunk}", {"memory": memory}


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bc": {"condition_on_return": False},
    "rewards": {**DT_REWARDS, "reward_prediction": True},
    "window": {"position": "window"},
    "single_return": {"single_return_token": True},
    "mdt": MDT,
    "mdt_single_return": {**MDT, "single_return_token": True},
    "mdt_slots": {**MDT, "memory": SLOTS},
    "mdt_slots_per_block": {**MDT, "memory": {**SLOTS, "placement": "per_block", "chunk": 1}},
    "mdt_slots_chunk0": {**NO_PREDICTION, "memory": {**SLOTS, "chunk": 0}},
    "rmdt": {"memory": TOKENS},
    "rmdt_mdt": {**MDT, "memory": TOKENS},
    "rmdt_cached": {"memory": CACHED},
    "adapter": {"adapter": 3},
    **dict(slot_variants()),
}
PATCHED = {
    "patches": MDT,
    "patches_2x2": {**MDT, "tokenizer": {"kind": "minatar_patch", "patch_size": 2}},
    "patches_dt": {"tokenizer": {"kind": "minatar_patch"}},
    "patches_pooled": {**MDT, "tokenizer": {"kind": "minatar_patch", "patch_size": 2, "pool": 3}},
    "patches_slots": {**MDT, "memory": {**SLOTS, "write_tokens": 2}},
    "patches_slots_chunk0": {**NO_PREDICTION, "memory": {**SLOTS, "chunk": 0, "write_tokens": 1}},
    "patches_slots_per_block": {**MDT, "memory": {**SLOTS, "placement": "per_block", "write_tokens": 2}},
    "patches_rmdt": {**MDT, "memory": TOKENS},
    "cnn": {},
}
CASES = [
    *((name, given, VECTOR, space) for name, given in VARIANTS.items() for space in (DISCRETE, BOX)),
    *((name, given, GRID, DISCRETE) for name, given in PATCHED.items()),
]
IDS = [f"{name}-{'box' if space is BOX else 'discrete'}" for name, _, _, space in CASES]
every_case = pytest.mark.parametrize(("name", "given", "obs_space", "action_space"), CASES, ids=IDS)


@torch.no_grad()
def run(model: SequenceModel, inputs: SegmentInputs, memory: torch.Tensor | None = None) -> tuple[Outputs, Any]:
    return model(inputs, memory)


def changed_at(inputs: SegmentInputs, step: int, *names: str) -> SegmentInputs:
    """Gives the segment with other content at one step, in the named fields."""
    other: dict[str, Any] = {}
    for name in names:
        field = getattr(inputs, name).clone()
        if field.dtype == torch.uint8:
            field[:, step] = 255 - field[:, step]
        elif name == "previous_action" and not field.dtype.is_floating_point:
            field[:, step] = (field[:, step] + 1) % 4
        else:
            field[:, step] = -field[:, step] + 3
        other[name] = field
    return inputs._replace(**other)


def tensors(outputs: Outputs) -> list[torch.Tensor]:
    return [part for part in outputs[:3] if part is not None]


@every_case
@pytest.mark.parametrize("step", [1, 3, 5])
def test_nothing_of_a_step_is_known_before_it(
    name: str, given: dict[str, Any], obs_space: Any, action_space: Any, step: int
) -> None:
    """a_t, r_t, s_{t+1} and the return asked for at t+1 leave all outputs up to step t as they are, to the bit."""
    model, inputs = build(obs_space, action_space, **given), segment(obs_space, action_space)
    other = changed_at(inputs, step, "previous_action", "previous_reward", "obs", "return_to_go")
    before, after = run(model, inputs)[0], run(model, other)[0]
    for one, two in zip(tensors(before), tensors(after), strict=True):
        assert torch.equal(one[:, :step], two[:, :step])
        assert not torch.equal(one[:, step], two[:, step])


@every_case
def test_the_action_depends_on_all_that_came_before_it(
    name: str, given: dict[str, Any], obs_space: Any, action_space: Any
) -> None:
    model, inputs = build(obs_space, action_space, **given), segment(obs_space, action_space)
    before = run(model, inputs)[0].action
    seen = ["obs", "previous_action"]
    if given.get("condition_on_return", True):
        seen += ["return_to_go"]
    if given.get("use_reward_tokens"):
        seen += ["previous_reward"]
    for field in seen:
        step = 0 if field == "return_to_go" else 2  # with single_return_token later ones count for nothing
        after = run(model, changed_at(inputs, step, field))[0].action
        assert not torch.equal(before[:, step], after[:, step]), f"{field} has no effect"
        assert not torch.equal(before[:, -1], after[:, -1]), f"{field} is forgotten"


@pytest.mark.parametrize("name", ["mdt", "mdt_slots", "mdt_slots_per_block", "rmdt_mdt"])
def test_predictions_do_not_see_what_they_predict(name: str) -> None:
    model, inputs = build(**VARIANTS[name]), segment()
    before = run(model, inputs)[0]
    assert before.return_logits is not None and before.reward_logits is not None
    asked = run(model, changed_at(inputs, 3, "return_to_go"))[0]
    assert torch.equal(before.return_logits[:, :4], asked.return_logits[:, :4])  # type: ignore[index]
    assert not torch.equal(before.action[:, 3], asked.action[:, 3])
    paid = run(model, changed_at(inputs, 3, "previous_reward"))[0]
    assert torch.equal(before.reward_logits[:, :4], paid.reward_logits[:, :4])  # type: ignore[index]
    assert not torch.equal(before.return_logits[:, 3], paid.return_logits[:, 3])  # type: ignore[index]


@pytest.mark.parametrize("given", [VARIANTS["single_return"], VARIANTS["mdt_single_return"]], ids=["dt", "mdt"])
def test_later_return_tokens_count_for_nothing(given: dict[str, Any]) -> None:
    model, inputs = build(**given), segment()
    other = inputs._replace(return_to_go=torch.cat((inputs.return_to_go[:, :1], inputs.return_to_go[:, 1:] - 9), 1))
    assert torch.equal(run(model, inputs)[0].action, run(model, other)[0].action)


@every_case
def test_rows_never_interact(name: str, given: dict[str, Any], obs_space: Any, action_space: Any) -> None:
    model, inputs = build(obs_space, action_space, **given), segment(obs_space, action_space, rows=3)
    other = inputs
    for step in range(STEPS):
        other = changed_at(other, step, "obs", "previous_action", "return_to_go")
    fields: Any = (torch.cat((a[:2], b[2:])) for a, b in zip(inputs[:7], other[:7], strict=True))
    mixed = SegmentInputs(*fields)
    (one, memory_one), (two, memory_two) = run(model, inputs), run(model, mixed)
    for a, b in zip(tensors(one), tensors(two), strict=True):
        assert torch.equal(a[:2], b[:2]) and not torch.equal(a[2], b[2])
    if memory_one is not None:
        assert torch.equal(memory_one[:2], memory_two[:2]) and not torch.equal(memory_one[2], memory_two[2])


@every_case
def test_the_side_of_the_padding_changes_nothing(
    name: str, given: dict[str, Any], obs_space: Any, action_space: Any
) -> None:
    """Nor does the padding itself: four steps alone say what they say among padding, and leave the same memory."""
    model, inputs = build(obs_space, action_space, **given), segment(obs_space, action_space, steps=4)
    alone, memory = run(model, inputs)
    left, memory_left = run(model, padded(inputs, STEPS, left=True))
    right, memory_right = run(model, padded(inputs, STEPS, left=False))
    for plain, one, two in zip(tensors(alone), tensors(left), tensors(right), strict=True):
        torch.testing.assert_close(one[:, STEPS - 4 :], plain, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(two[:, :4], plain, atol=1e-6, rtol=1e-5)
        assert one.isfinite().all() and two.isfinite().all()
    if memory is not None:
        torch.testing.assert_close(memory_left, memory, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(memory_right, memory, atol=1e-6, rtol=1e-5)


@every_case
def test_evaluation_draws_nothing(name: str, given: dict[str, Any], obs_space: Any, action_space: Any) -> None:
    model, inputs = build(obs_space, action_space, **given), segment(obs_space, action_space)
    torch.manual_seed(1)
    one, memory_one = run(model, inputs)
    torch.manual_seed(2)
    two, memory_two = run(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two), strict=True))
    assert memory_one is None or torch.equal(memory_one, memory_two)


@every_case
def test_every_parameter_gets_gradient(name: str, given: dict[str, Any], obs_space: Any, action_space: Any) -> None:
    """Over two segments, the memory carried. Position and patch tables learn, unlike in the authors' release."""
    model = build(obs_space, action_space, **given)
    for module in model.modules():
        if isinstance(module, BottleneckAdapter):
            torch.nn.init.normal_(module.up.weight)
    memory, loss = None, torch.zeros(())
    for number in range(2):
        inputs = segment(obs_space, action_space, seed=number, first=number * STEPS)
        outputs, memory = model(inputs, memory)
        loss = loss + sum(part.square().sum() for part in tensors(outputs))
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), f"{parameter_name} gets no gradient"


@pytest.mark.parametrize(
    "given",
    [{}, MDT, {"condition_on_return": False}, {"position": "window", "use_reward_tokens": True}],
    ids=["dt", "mdt", "bc", "window"],
)
@pytest.mark.parametrize("placement", ["post", "per_block"])
def test_slots_start_as_the_plain_model_exactly(given: dict[str, Any], placement: str) -> None:
    """Wo is zero at first; and the plain model's weights fit into the one with a memory."""
    inputs = segment()
    plain = build(**given)
    remembering = build(reads=False, memory={**SLOTS, "placement": placement}, seed=3, **given)
    missing = remembering.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("memory.") for name in missing)
    expected, none = run(plain, inputs)
    found, memory = run(remembering, inputs)
    assert none is None and memory is not None
    assert all(torch.equal(a, b) for a, b in zip(tensors(expected), tensors(found), strict=True))


def test_the_same_seed_gives_the_same_backbone_with_and_without_a_memory() -> None:
    plain, remembering, tokens = (
        build().state_dict(),
        build(memory=SLOTS).state_dict(),
        build(memory=TOKENS).state_dict(),
    )
    assert all(torch.equal(plain[name], remembering[name]) and torch.equal(plain[name], tokens[name]) for name in plain)


@pytest.mark.parametrize("memory", [SLOTS, {**SLOTS, "placement": "per_block"}, {**SLOTS, "chunk": 0}, TOKENS, CACHED])
def test_what_segment_one_held_changes_segment_three(memory: dict[str, Any]) -> None:
    """And starting anew in between removes it."""
    model = build(memory=memory)
    first, middle, last = (segment(seed=seed, first=STEPS * seed) for seed in range(3))
    other = changed_at(first, 2, "obs")
    state_one, state_two = (run(model, middle, run(model, start)[1])[1] for start in (first, other))
    assert not torch.equal(run(model, last, state_one)[0].action, run(model, last, state_two)[0].action)
    forgotten = run(model, last)[0].action
    assert torch.equal(run(model, last, model.initial_memory(2))[0].action, forgotten)


@pytest.mark.parametrize("memory", [SLOTS, {**SLOTS, "placement": "per_block"}, {**SLOTS, "chunk": 0}, TOKENS, CACHED])
def test_a_row_without_steps_keeps_its_memory(memory: dict[str, Any]) -> None:
    model, inputs = build(memory=memory), segment()
    before = run(model, inputs)[1]
    empty = inputs._replace(valid=torch.tensor([[True], [False]]).expand(2, STEPS))
    outputs, after = run(model, empty, before)
    assert torch.equal(after[1], before[1]) and not torch.equal(after[0], before[0])
    assert outputs.action.isfinite().all()


def test_memory_shapes_and_distinct_slots() -> None:
    post, blocks, tokens = build(memory=SLOTS), build(memory={**SLOTS, "placement": "per_block"}), build(memory=TOKENS)
    for model, size in ((post, 5), (blocks, 10), (tokens, 3)):
        memory = model.initial_memory(4)
        assert memory is not None and memory.shape == (4, size, 16) and memory.dtype == torch.float32
        assert torch.linalg.matrix_rank(memory[0]) == size
    assert build().initial_memory(4) is None


def test_memory_usage_is_reported_on_request() -> None:
    inputs = segment()
    for placement, size in (("post", 5), ("per_block", 10)):
        model = build(memory={**SLOTS, "placement": placement})
        with torch.no_grad():
            outputs, _ = model(inputs, usage=True)
        assert outputs.usage.keys() == {"address_entropy", "keep_mean", "segment_keep", "slot_norm"}
        assert 0 < outputs.usage["address_entropy"] <= 1
        assert outputs.slot_share_BM is not None and outputs.slot_share_BM.shape == (2, size)
        torch.testing.assert_close(outputs.slot_share_BM.sum(1), torch.ones(2))
    assert run(model, inputs)[0].usage == {} and run(model, inputs)[0].slot_share_BM is None


def test_written_tokens_are_averages_of_patches() -> None:
    model = build(GRID, **{**MDT, "memory": {**SLOTS, "write_tokens": 2}})
    assert isinstance(model.memory, SlotMemory)
    token = torch.randn(2, STEPS, model.embedding.layout.num_tokens, 16)  # action, reward, 4 patches, return
    written = model.memory.written(token)
    assert written is not None and written.shape == (2, STEPS, 5, 16)
    torch.testing.assert_close(written[:, :, 2], token[:, :, 2:4].mean(2))
    torch.testing.assert_close(written[:, :, 3], token[:, :, 4:6].mean(2))
    assert torch.equal(written[:, :, [0, 1, 4]], token[:, :, [0, 1, 6]])


def test_more_written_tokens_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="write_tokens=2 exceeds the 1 tokens"):
        build(memory={**SLOTS, "write_tokens": 2})


def test_continuous_actions_stay_in_bounds_and_logits_do_not() -> None:
    model = build(VECTOR, BOX)
    with torch.no_grad():
        model.heads.action.weight.mul_(1000.0)
    assert run(model, segment(VECTOR, BOX))[0].action.abs().max() <= 1.0
    assert run(model, segment(VECTOR, BOX))[0].action.shape == (2, STEPS, 2)
    assert run(build(), segment())[0].action.shape == (2, STEPS, 4)


def test_unbounded_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="finite action bounds"):
        build(VECTOR, gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32))


def test_a_prompt_is_seen_and_its_padding_is_not() -> None:
    model, inputs, steps = build(prompt_steps=5), segment(), prompt()
    without, shown = run(model, inputs)[0].action, run(model, inputs._replace(prompt=steps))[0].action
    assert shown.shape == without.shape and not torch.equal(shown, without)
    other = steps._replace(action=(steps.action + 1) % 4)
    assert not torch.equal(run(model, inputs._replace(prompt=other))[0].action[:, 0], shown[:, 0])
    longer = prompt(steps=5)._replace(valid=torch.tensor([[True] * 3 + [False] * 2]).expand(2, 5))
    fields = {name: getattr(longer, name).clone() for name in longer._fields}
    for name, field in fields.items():
        field[:, :3] = getattr(steps, name)
    padded_prompt = steps._replace(**fields)
    torch.testing.assert_close(run(model, inputs._replace(prompt=padded_prompt))[0].action, shown, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("given", [{}, MDT, {"position": "window"}], ids=["dt", "mdt", "window"])
def test_a_prompted_model_is_causal_too(given: dict[str, Any]) -> None:
    model, inputs = build(prompt_steps=3, **given), segment()._replace(prompt=prompt())
    other = changed_at(inputs, 3, "previous_action", "obs", "return_to_go")
    before, after = run(model, inputs)[0].action, run(model, other)[0].action
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.equal(before[:, 3], after[:, 3])


def test_prompts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="prompt_steps=0"):
        run(build(), segment()._replace(prompt=prompt()))
    with pytest.raises(ValueError, match="prompt of 3 steps exceeds prompt_steps=2"):
        run(build(prompt_steps=2), segment()._replace(prompt=prompt()))


def test_segments_beyond_the_position_table_are_refused() -> None:
    with pytest.raises(ValueError, match="segment of 7 steps exceeds context_length=6"):
        run(build(position="window"), segment(steps=7))


def test_later_timesteps_share_the_last_vector() -> None:
    model = build()
    late = segment(first=100)
    assert torch.equal(run(model, late)[0].action, run(model, late._replace(timestep=late.timestep + 5))[0].action)


@pytest.mark.parametrize(
    "given",
    [{}, {"memory": SLOTS}, {"memory": TOKENS}, {"memory": CACHED}, MDT],
    ids=["dt", "slots", "rmdt", "rmdt_cached", "mdt"],
)
def test_bf16_is_close_and_keeps_memory_and_outputs_in_float32(given: dict[str, Any]) -> None:
    full, half = build(**given), build(precision="bf16", **given)
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())
    (one, memory_one), (two, memory_two) = run(full, segment()), run(half, segment())
    for a, b in zip(tensors(one), tensors(two), strict=True):
        assert b.dtype == torch.float32 and not torch.equal(a, b)
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)
    if memory_one is not None:
        assert memory_two.dtype == torch.float32
        torch.testing.assert_close(memory_one, memory_two, atol=0.1, rtol=0.1)


def test_dropout_is_drawn_in_training_only() -> None:
    model, inputs = build(dropout=0.5).train(), segment()
    assert not torch.equal(run(model, inputs)[0].action, run(model, inputs)[0].action)


def test_alignment_moves_padding_to_the_right_and_back() -> None:
    inputs = padded(segment(steps=4), STEPS, left=True)
    moved, places = aligned(inputs)
    assert moved.valid.tolist() == [[True] * 4 + [False] * 2] * 2
    assert torch.equal(moved.obs[:, :4], inputs.obs[:, 2:])
    assert torch.equal(realigned(moved.obs, places), inputs.obs)


def test_segments_of_a_batch_become_tensors() -> None:
    shape = (3, 2, STEPS)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    batch = SegmentBatch(
        obs=np.random.default_rng(0).standard_normal((*shape, 5)).astype(np.float32),
        previous_action=numbers % 4,
        previous_reward=numbers.astype(np.float32),
        return_to_go=numbers.astype(np.float32),
        timestep=numbers,
        action=numbers % 4,
        reward=numbers.astype(np.float32),
        valid=np.ones(shape, bool),
        starts=np.ones(shape[:2], bool),
        task=np.array([[0, 1], [1, 1], [0, 0]]),
    )
    inputs = segment_inputs(batch, 1, torch.device("cpu"))
    assert torch.equal(inputs.timestep, torch.from_numpy(numbers[:, 1])) and inputs.task.tolist() == [1, 1, 0]
    assert inputs.obs.shape == (3, STEPS, 5) and inputs.valid.dtype == torch.bool and inputs.prompt is None
    assert run(build(), inputs)[0].action.shape == (3, STEPS, 4)
