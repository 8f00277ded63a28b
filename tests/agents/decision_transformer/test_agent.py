"""Acting step by step: the same as whole segments, rows apart, returns asked for, prompts, ablations."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.decision_transformer.agent import DecisionTransformerAgent
from agents.decision_transformer.choosing import chosen_action, inferred_return, median_of_highest, shuffled_rows
from agents.decision_transformer.inputs import PromptInputs, SegmentInputs
from agents.decision_transformer.part_configs import InferredTargetConfig, NormalizedTargetConfig, RawTargetConfig
from agents.decision_transformer.returns import ReturnCodec, tilted_logits
from tests.agents.decision_transformer.small import (
    BOX,
    DISCRETE,
    MDT,
    PIXELS,
    SLOTS,
    STEPS,
    TOKENS,
    VECTOR,
    Fixed,
    batch,
    build,
    train,
)

NUM_ROWS, LENGTH = 3, 11  # two full segments of 4 and a part
MEMORIES: dict[str, dict[str, Any]] = {
    "none": {"memory": {"kind": "none"}, "num_segments": 2},
    "slots_step": {"memory": {**SLOTS, "chunk": 0}},
    "slots_1": {"memory": {**SLOTS, "chunk": 1, "write": "convex"}},
    "slots_3": {"memory": {**SLOTS, "chunk": 3, "address_axis": "tokens", "beta": "softmax"}},
    "slots_segment": {"memory": {**SLOTS, "chunk": STEPS}},
    "slots_per_block": {"memory": {**SLOTS, "placement": "per_block"}},
    "slots_mdt": {"memory": SLOTS, **MDT},
    "tokens": {"memory": TOKENS},
    "tokens_cached": {"memory": {**TOKENS, "cached_tokens": 5}},
    "tokens_mdt": {"memory": TOKENS, **MDT},
}


class Played:
    """What happened in some episodes played side by side, in the form a model is trained on."""

    def __init__(
        self, agent: DecisionTransformerAgent, length: int = LENGTH, num_rows: int = NUM_ROWS, **kwargs: Any
    ) -> None:
        rng = np.random.default_rng(5)
        shape = agent.observation_space.shape
        assert shape is not None
        self.obs: np.ndarray
        if agent.observation_space.dtype == np.uint8:
            self.obs = rng.integers(0, 256, (length, num_rows, *shape), dtype=np.uint8)
        else:
            self.obs = rng.standard_normal((length, num_rows, *shape), dtype=np.float32)
        self.reward = rng.choice([-1.0, 0.0, 0.5], (length, num_rows)).astype(np.float32)
        rows = np.arange(num_rows)
        state = agent.begin_episodes(agent.initial_state(num_rows), rows, ["a"] * num_rows)
        self.target = [state.target.numpy()]
        actions, self.states = [], [state]
        for t in range(length):
            action, state = agent.act(self.obs[t], state, **kwargs)
            state = agent.receive_rewards(state, rows, self.reward[t])
            actions.append(action)
            self.target.append(state.target.numpy())
            self.states.append(state)
        self.action = np.stack(actions)

    def inputs(self, steps: range, prompt: PromptInputs | None = None) -> SegmentInputs:
        """Some steps, padded on the right to K."""
        num_rows, padding = self.obs.shape[1], STEPS - len(steps)

        def rows_first(each: list[np.ndarray]) -> torch.Tensor:
            array = np.stack([*each, *[np.zeros_like(each[0])] * padding], axis=1)
            return torch.from_numpy(array)

        zero = np.zeros_like(self.action[0])
        return SegmentInputs(
            obs=rows_first([self.obs[t] for t in steps]),
            previous_action=rows_first([self.action[t - 1] if t else zero for t in steps]),
            previous_reward=rows_first([self.reward[t - 1] if t else np.zeros_like(self.reward[0]) for t in steps]),
            return_to_go=rows_first([self.target[t] for t in steps]),
            timestep=rows_first([np.full(num_rows, t) for t in steps]),
            valid=rows_first([np.full(num_rows, True) for _ in steps]),
            task=torch.zeros(num_rows, dtype=torch.int64),
            prompt=prompt,
        )


@pytest.mark.parametrize("settings", MEMORIES.values(), ids=MEMORIES.keys())
def test_acting_step_by_step_is_the_forward_of_whole_segments(settings: dict[str, Any]) -> None:
    agent = build(action_space=BOX, **settings)
    played = Played(agent)
    memory = agent.model.initial_memory(NUM_ROWS)
    for start in range(0, LENGTH, STEPS):
        steps = range(start, min(start + STEPS, LENGTH))
        with torch.no_grad():
            outputs, memory = agent.model(played.inputs(steps), memory)
        for place, t in enumerate(steps):
            np.testing.assert_allclose(played.action[t], outputs.action[:, place].numpy(), atol=1e-5, rtol=0)
        if len(steps) == STEPS and memory is not None:
            torch.testing.assert_close(played.states[start + STEPS].memory, memory, atol=1e-5, rtol=0)
    assert np.abs(np.diff(played.action, axis=0)).max() > 1e-3, "the actions are all the same"


@pytest.mark.parametrize("settings", [{}, MDT, {"position": "window"}], ids=["dt", "mdt", "window"])
def test_a_sliding_context_is_a_training_window(settings: dict[str, Any]) -> None:
    agent = build(action_space=BOX, **settings)
    assert agent.config.acting_context == "sliding"
    played = Played(agent)
    for t in range(LENGTH):
        with torch.no_grad():
            outputs, _ = agent.model(played.inputs(range(max(0, t - STEPS + 1), t + 1)))
        expected = outputs.action[:, min(t, STEPS - 1)].numpy()
        np.testing.assert_allclose(played.action[t], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, *MEMORIES.values()], ids=["sliding", *MEMORIES.keys()])
def test_resetting_a_row_leaves_the_others_bitwise_equal(settings: dict[str, Any]) -> None:
    agent = build(action_space=BOX, **settings)
    obs = np.random.default_rng(0).standard_normal((9, NUM_ROWS, 3), dtype=np.float32)
    left = right = agent.initial_state(NUM_ROWS)
    for t in range(9):
        if t in (3, 6):
            right = agent.begin_episodes(right, [1], ["b"])
        left_action, left = agent.act(obs[t], left)
        right_action, right = agent.act(obs[t], right)
        assert np.array_equal(left_action[[0, 2]], right_action[[0, 2]])
        assert t < 3 or not np.array_equal(left_action[1], right_action[1])
    alone = agent.begin_episodes(agent.initial_state(NUM_ROWS), [1], ["b"])
    for t in range(6, 9):
        action, alone = agent.act(obs[t], alone)
    assert np.array_equal(action[1], right_action[1]), "a restarted row remembers"


@pytest.mark.parametrize("name", ["slots_step", "slots_segment", "slots_per_block", "tokens"])
def test_what_the_first_segment_held_changes_the_third(name: str) -> None:
    agent = build(action_space=BOX, **MEMORIES[name])
    obs = np.random.default_rng(0).standard_normal((9, 2, 3), dtype=np.float32)
    obs[:, 1] = obs[:, 0]
    obs[0, 1] += 1.0

    def last_actions(memory_use: Any, reset_at: int | None = None) -> np.ndarray:
        agent.memory_use = memory_use
        state = agent.initial_state(2)
        for t in range(9):
            if t == reset_at:
                state = agent.reset_state(state, [0, 1])
            state = state.acted(torch.zeros_like(state.last_action))  # what was done must not tell
            action, state = agent.act(obs[t], state)
        return action

    carried = last_actions("carried")
    assert not np.array_equal(carried[0], carried[1])
    for forgetful in (last_actions("reset"), last_actions("carried", reset_at=4)):
        assert np.array_equal(forgetful[0], forgetful[1])
    unread = last_actions("zeroed_read")
    assert np.array_equal(unread[0], unread[1]) and not np.array_equal(unread, last_actions("reset"))
    shuffled = last_actions("shuffled")  # two rows, two swaps: each has its own again
    np.testing.assert_allclose(shuffled, carried, atol=1e-6)


def test_a_plain_model_knows_nothing_of_the_segment_before() -> None:
    agent = build(action_space=BOX, num_segments=2)
    played = Played(agent)
    state = played.states[STEPS]
    fresh = state.restarted(torch.arange(NUM_ROWS), state.target, state.task, None)
    fresh = replace(fresh, step=state.step, last_action=state.last_action, last_reward=state.last_reward)
    assert np.array_equal(agent.act(played.obs[STEPS], fresh)[0], agent.act(played.obs[STEPS], state)[0])


def test_a_zeroed_read_is_the_plain_model() -> None:
    agent = build(action_space=BOX, memory=SLOTS)
    plain = build(action_space=BOX, num_segments=2)
    plain.load_weights({name: tensor for name, tensor in agent.weights().items() if "memory" not in name})
    agent.memory_use = "zeroed_read"
    np.testing.assert_array_equal(Played(agent).action, Played(plain).action)


def test_shuffling_moves_every_row() -> None:
    memory = torch.arange(6.0).view(6, 1, 1).expand(6, 2, 3)
    orders = set()
    for seed in range(20):
        shuffled = shuffled_rows(memory, np.random.default_rng(seed))
        order = tuple(shuffled[:, 0, 0].tolist())
        assert sorted(order) == list(range(6)) and all(place != row for row, place in enumerate(order))
        orders.add(order)
    assert len(orders) > 10
    with pytest.raises(ValueError, match="got 1"):
        shuffled_rows(memory[:1], np.random.default_rng(0))


def test_the_model_always_sees_the_same_shapes() -> None:
    for settings in ({}, {"memory": SLOTS}, {**MDT, "acting": {"target": {"kind": "inferred"}}}):
        agent = build(**settings)
        seen = set()
        agent.model.register_forward_pre_hook(
            lambda _, args: seen.add(tuple(part.shape for part in args[0] if part is not None))  # noqa: B023
        )
        Played(agent)
        assert len(seen) == 1


# What is asked for


def test_returns_are_those_of_the_task_and_fall_with_rewards() -> None:
    agent = build(acting={"target": {"kind": "quantile", "quantile": 0.5}})
    state = agent.begin_episodes(agent.initial_state(3), [2, 0], ["b", "new"])
    pooled = float(np.median(np.concatenate([np.linspace(0, 10, 101), np.linspace(0, 20, 101)])))
    assert state.target.tolist() == pytest.approx([pooled, pooled, 10.0]) and state.task.tolist() == [-1, -1, 1]
    _, state = agent.act(np.zeros((3, 3), np.float32), state)
    state = agent.receive_rewards(state, np.array([1, 2]), np.array([2.5, np.nan], np.float32))
    assert state.target.tolist() == pytest.approx([pooled, pooled - 2.5, 10.0])
    assert agent.reset_state(state, [2]).target[2].item() == pytest.approx(pooled)
    agent.target = RawTargetConfig(value=7.0, multiplier=2.0)
    assert agent.begin_episodes(state, [1], ["a"]).target[1].item() == 14.0


def test_normalized_returns_lie_between_the_lowest_and_the_highest_of_the_data() -> None:
    lowest, highest = np.linspace(-5.0, 15.0, 101), np.linspace(0.0, 10.0, 101)
    agent = build(acting={"target": {"kind": "normalized", "value": 0.75}})
    agent.data = replace(agent.data, return_quantiles={"a": tuple(lowest), "b": tuple(highest)})
    assert [agent.target_return(task) for task in ("a", "b", "new")] == pytest.approx([10.0, 7.5, 10.0])
    agent.target = NormalizedTargetConfig(value=1.5)
    assert agent.target_return("b") == pytest.approx(15.0)


def test_the_action_before_is_the_one_that_was_executed() -> None:
    agent = build(action_space=BOX)
    obs = np.zeros((2, 3), np.float32)
    action, state = agent.act(obs, agent.initial_state(2))
    told = agent.replace_actions(state, np.array([1]), np.array([[0.25, -1.0]], np.float32))
    _, later = agent.act(obs, told)
    np.testing.assert_array_equal(later.previous_action[:, 1].numpy(), [action[0], [0.25, -1.0]])
    np.testing.assert_array_equal(state.last_action.numpy(), action, err_msg="the state before was changed")


def test_rewards_are_clipped_where_the_data_were() -> None:
    agent = build(reward_clip=True, acting={"target": {"kind": "raw", "value": 9.0}})
    _, state = agent.act(np.zeros((2, 3), np.float32), agent.initial_state(2))
    state = agent.receive_rewards(state, [0, 1], np.array([5.0, -0.5], np.float32))
    assert state.target.tolist() == [8.0, 9.5] and state.last_reward.tolist() == [1.0, -0.5]


@pytest.mark.parametrize("method", ["samples", "tilt"])
@pytest.mark.parametrize("memory", [{"kind": "none"}, SLOTS])
def test_inferred_returns_are_the_models_own_and_never_fall(method: str, memory: dict[str, Any]) -> None:
    agent = build(memory=memory, **MDT, acting={"target": {"kind": "inferred", "method": method}})
    played = Played(agent)
    state = played.states[2]
    inputs = state.inputs()
    with torch.no_grad():
        logits = agent.model(inputs, state.memory)[0].return_logits[:, 1]
    assert isinstance(agent.target, InferredTargetConfig)
    expected = inferred_return(logits, agent.codec, agent.target, None)
    assert torch.equal(state.return_to_go[:, 1], expected)
    if memory is SLOTS:  # written once a step, with the return that was asked for
        whole = played.states[STEPS].inputs()._replace(valid=torch.ones(NUM_ROWS, STEPS, dtype=torch.bool))
        with torch.no_grad():
            after = agent.model(whole, agent.model.initial_memory(NUM_ROWS))[1]
        assert after is not None and played.states[STEPS].memory is not None
        torch.testing.assert_close(played.states[STEPS].memory, after, atol=1e-6, rtol=0)


def test_exploring_draws_returns_and_actions_for_each_row() -> None:
    agent = build(**MDT, acting={"target": {"kind": "inferred", "method": "tilt", "kappa": 0.0}})
    obs = np.zeros((64, 3), np.float32)
    actions, state = agent.act(obs, explore=True)
    assert len(set(actions.tolist())) > 1 and len(set(state.return_to_go[:, 0].tolist())) > 4
    before = agent.counters()["rng"]
    greedy, _ = agent.act(obs)
    assert len(set(greedy.tolist())) == 1 and agent.counters()["rng"] == before


def test_the_answers_without_a_generator() -> None:
    codec = ReturnCodec(0.0, 3.0, 4)
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.0, 0.0, 0.9]]).clamp(min=1e-9).log()
    assert median_of_highest(logits, codec, 1).tolist() == [1.0, 3.0]
    assert median_of_highest(logits, codec, 2).tolist() == [2.0, 3.0]  # F = .4, .7, .9, 1; F^2 = .16, .49, .81, 1
    target = InferredTargetConfig(method="tilt", kappa=3.0)
    expected = tilted_logits(logits, codec, 3.0).argmax(-1).float()
    assert torch.equal(inferred_return(logits, codec, target, None), expected) and expected.tolist() == [3.0, 3.0]
    rng = np.random.default_rng(0)
    highest = [
        inferred_return(logits, codec, InferredTargetConfig(num_samples=2, return_temperature=1.0), rng)[0].item()
        for _ in range(400)
    ]
    assert np.median(highest) == 2.0


def test_choosing_actions() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(500, 1)
    everything, rng = torch.ones(500, 4, dtype=torch.bool), np.random.default_rng(0)
    assert set(chosen_action(logits, everything, None, None).tolist()) == {3}
    shares = np.bincount(chosen_action(logits, everything, None, rng).numpy(), minlength=4) / 500
    assert shares == pytest.approx(torch.softmax(logits[0], 0).numpy(), abs=0.06)
    assert set(chosen_action(logits, everything, 50.0, rng).tolist()) == {2, 3}
    some = everything.clone()
    some[:, 3] = False
    assert set(chosen_action(logits, some, 50.0, rng).tolist()) == {0, 2}
    assert chosen_action(logits, None, None, rng) is logits


def test_actions_that_a_task_lacks_become_noop() -> None:
    agent = build()
    obs = np.random.default_rng(0).standard_normal((64, 3), dtype=np.float32)
    agent.restrict_actions("b", [0, 2])
    state = agent.begin_episodes(agent.initial_state(64), range(64), ["a", "b"] * 32)
    free, _ = agent.act(obs, agent.initial_state(64), explore=True)
    with agent.using_rng(np.random.default_rng(0)):
        restricted, _ = agent.act(obs, state, explore=True)
    assert 1 in free and 1 in restricted[::2] and 1 not in restricted[1::2]
    with pytest.raises(ValueError, match=r"'c'.*a, b"):
        agent.restrict_actions("c", [0])
    with pytest.raises(ValueError, match=r"\[0, 5\].*0..2"):
        agent.restrict_actions("a", [0, 5])
    with pytest.raises(ValueError, match="discrete"):
        build(action_space=BOX).restrict_actions("a", [0])
    twin = build(seed=1)
    twin.load_weights(agent.weights(), acting_only=True)
    assert twin.policy.allowed_ZA is not None and not twin.policy.allowed_ZA[1, 1]


def test_prompts_are_of_the_task_and_part_of_the_weights() -> None:
    agent = build(action_space=BOX, prompt_steps=2)
    obs = np.ones((3, 3), np.float32)

    def first_actions(agent: DecisionTransformerAgent) -> np.ndarray:
        return agent.act(obs, agent.begin_episodes(agent.initial_state(3), range(3), ["a", "b", "new"]))[0]

    without = first_actions(agent)
    sample = batch(prompt_steps=2, discrete=False)
    agent.take_prompts(sample)
    actions = first_actions(agent)
    assert not np.array_equal(actions[:2], without[:2]) and np.array_equal(actions[2], without[2])
    assert sample.prompt_obs is not None and agent.policy.prompts is not None
    assert np.array_equal(agent.policy.prompts.obs[1].numpy(), sample.prompt_obs[1])
    twin = build(action_space=BOX, seed=1, prompt_steps=2)
    twin.load_weights(agent.weights(), acting_only=True)
    assert np.array_equal(first_actions(twin), actions)
    with pytest.raises(ValueError, match="num_prompt_steps=2"):
        agent.take_prompts(batch(discrete=False))
    with pytest.raises(ValueError, match="prompt_steps=0"):
        build().take_prompts(sample)


# The agent as every other


@pytest.mark.parametrize("action_space", [DISCRETE, BOX])
@pytest.mark.parametrize("observation_space", [VECTOR, PIXELS])
@pytest.mark.parametrize("settings", [{}, MDT, {"memory": SLOTS}], ids=["dt", "mdt", "slots"])
def test_every_space_can_be_played(observation_space: Any, action_space: Any, settings: dict[str, Any]) -> None:
    agent = build(observation_space, action_space, **settings)
    played = Played(agent, length=6)
    for action in played.action:
        assert all(action_space.contains(row) for row in agent.env_action(action).astype(action_space.dtype))
    assert np.array_equal(played.action, Played(agent, length=6).action)


def test_unbounded_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="finite action bounds"):
        build(action_space=VECTOR)


def test_a_saved_agent_acts_alike() -> None:
    agent, twin = build(memory=SLOTS), build(memory=SLOTS, seed=1)
    train(agent, Fixed(batch()), 2)
    file = io.BytesIO()
    torch.save(agent.optimizer_state(), file)
    file.seek(0)
    twin.load_weights(agent.weights())
    twin.load_training_state(torch.load(file, weights_only=True), json.loads(json.dumps(agent.counters())))
    assert np.array_equal(Played(agent).action, Played(twin).action)
    assert np.array_equal(Played(agent, explore=True).action, Played(twin, explore=True).action)
