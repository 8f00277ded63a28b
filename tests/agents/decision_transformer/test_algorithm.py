"""The update of sequence models: masks, memory over segments, what is trained, resuming, several processes."""

import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from agents.decision_transformer import DecisionTransformerConfig
from agents.decision_transformer.algorithm import LossParts
from agents.decision_transformer.inputs import segment_inputs
from agents.decision_transformer.model import Outputs
from agents.decision_transformer.optimization import decay_groups, learning_rate_factor
from agents.pruning.config import PruningConfig
from tests.agents.decision_transformer.small import (
    BOX,
    DISCRETE,
    MDT,
    SLOTS,
    TOKENS,
    VECTOR,
    Fixed,
    batch,
    build,
    global_batches,
    together,
    train,
)

CPU = torch.device("cpu")


def gradients(agent: Any, sample: Any) -> dict[str, torch.Tensor]:
    sums, counts, _ = agent.learner.losses(sample)
    (sums / counts.clamp(min=1)).sum().backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in agent.model.named_parameters()
    }


def test_losses_of_a_segment_by_hand() -> None:
    config = DecisionTransformerConfig(**{**MDT, "return_prediction": {"low": 0.0, "high": 1.0, "bins": 2}})
    parts = LossParts(config, discrete=True)
    assert parts.names == ("action_loss", "return_loss", "reward_loss", "action_accuracy")
    assert parts.weights == (1.0, 1.0, 1.0, 0.0)
    sample = batch(1)  # 4 steps, the last one padding
    sample.action[:] = [[[0, 1, 2, 0]]]
    sample.return_to_go[:] = [[[0.0, 1.0, 1.0, 0.0]]]
    sample.previous_reward[:] = [[[0.0, 1.0, -1.0, 0.0]]]
    action = torch.zeros(1, 4, 3)
    action[0, 1] = torch.tensor([0.0, math.log(2.0), 0.0])  # p = 1/4, 1/2, 1/4
    action[0, 3] = 1e6  # padding
    return_logits = torch.zeros(1, 4, 2)
    return_logits[0, 1, 1] = math.log(3.0)
    reward_logits = torch.zeros(1, 4, 4)
    reward_logits[0, 0] = torch.tensor([-9.0, 9.0, 9.0, 9.0])  # an episode's first step has no reward before it
    inputs = segment_inputs(sample, 0, CPU)
    sums, counts = parts(Outputs(action, return_logits, reward_logits, {}), inputs, torch.tensor(sample.action[:, 0]))
    expected = [2 * math.log(3.0) + math.log(2.0), 2 * math.log(2.0) - math.log(0.75), 2 * math.log(4.0), 2.0]
    assert sums.tolist() == pytest.approx(expected)
    assert counts.tolist() == [3, 3, 2, 3]


def test_losses_of_vectors_are_means_over_their_entries() -> None:
    parts = LossParts(DecisionTransformerConfig(), discrete=False)
    assert parts.names == ("action_loss",)
    sample = batch(1, discrete=False)
    sample.action[:] = 0.0
    mean = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [9.0, 9.0]]])
    inputs = segment_inputs(sample, 0, CPU)
    sums, counts = parts(Outputs(mean, None, None, {}), inputs, torch.tensor(sample.action[:, 0]))
    assert sums.tolist() == [0.75] and counts.tolist() == [3]


@pytest.mark.parametrize("memory", [{"kind": "none"}, SLOTS, TOKENS])
@pytest.mark.parametrize("discrete", [True, False])
def test_updates_lower_the_loss_on_a_fixed_batch(memory: dict[str, Any], discrete: bool) -> None:
    agent = build(action_space=DISCRETE if discrete else BOX, memory=memory, num_segments=2)
    dataset = Fixed(batch(num_segments=2, starts=[[True, False]] * 4, discrete=discrete))
    losses = []
    for _ in range(20):
        train(agent, dataset, 3)
        losses.append(agent.metrics()["loss"])
    assert losses[-1] < 0.7 * losses[0]
    assert agent.metrics().keys() >= {"loss", "action_loss", "grad_norm", "learning_rate"}
    assert ("memory/address_entropy" in agent.metrics()) == (memory is SLOTS)
    assert ("action_accuracy" in agent.metrics()) == discrete
    assert all(type(value) is float and math.isfinite(value) for value in agent.metrics().values())


def test_reports_are_means_over_the_period() -> None:
    agent, twin = build(), build(metrics_period=1)
    dataset, twin_dataset = (Fixed(batch(rng=np.random.default_rng(1)), batch()) for _ in range(2))
    seen = []
    for _ in range(3):
        assert "loss" not in agent.metrics()
        train(agent, dataset)
        train(twin, twin_dataset)
        seen.append(twin.metrics()["loss"])
    assert agent.metrics()["loss"] == pytest.approx(np.mean(seen))
    assert agent.metrics()["grad_norm"] == twin.metrics()["grad_norm"]


def test_padding_has_no_say() -> None:
    sample, other = batch(), batch()
    for array in (other.obs, other.action, other.previous_action, other.return_to_go, other.previous_reward):
        array[0, -1, -1] = 2
    agents = [build(memory=SLOTS), build(memory=SLOTS)]
    for agent, each in zip(agents, (sample, other), strict=True):
        train(agent, Fixed(each))
    weights = [agent.weights() for agent in agents]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("memory", [SLOTS, TOKENS, {**SLOTS, "placement": "per_block", "write": "convex"}])
def test_the_memory_goes_on_over_segments_and_updates(memory: dict[str, Any]) -> None:
    agent = build(memory=memory, num_segments=1)
    first, second = (batch(rng=np.random.default_rng(seed)) for seed in (0, 1))
    second.starts[:, 0] = [False, True, False, False]
    with torch.no_grad():
        agent.learner.losses(first)
        carried = agent.learner.stream_memory
        assert carried is not None
        sums, _, _ = agent.learner.losses(second)
        start, later = agent.model.initial_memory(4), agent.learner.stream_memory
        assert start is not None and later is not None
        mixed = torch.where(torch.tensor([False, True, False, False])[:, None, None], start, carried)
        inputs = segment_inputs(second, 0, CPU)
        outputs, after = agent.model(inputs, mixed)
        assert torch.equal(sums, agent.learner.parts(outputs, inputs, torch.tensor(second.action[:, 0]))[0])
        assert torch.equal(after, later)
        assert not torch.equal(carried[1], start[1])


def test_gradient_passes_through_a_later_segment_but_not_past_an_update() -> None:
    """With one write at each segment's end, only a later segment's loss can teach what to write."""
    memory = {**SLOTS, "chunk": 4}
    written = "memory.cells.0.write_value.weight"
    single = build(memory=memory, num_segments=1)
    first, second = batch(), batch(starts=False)
    assert gradients(single, first)[written].abs().max() == 0
    assert single.learner.stream_memory is not None and not single.learner.stream_memory.requires_grad
    single.model.zero_grad()
    assert gradients(single, second)[written].abs().max() == 0
    double = build(memory=memory, num_segments=2)
    assert gradients(double, batch(num_segments=2, starts=[[True, False]] * 4))[written].abs().max() > 0
    double.model.zero_grad()
    assert gradients(double, batch(num_segments=2, starts=True))[written].abs().max() == 0


@pytest.mark.parametrize(("memory", "name"), [(SLOTS, "initial_slots"), (TOKENS, "initial_tokens")])
def test_the_initial_memory_learns_where_episodes_start(memory: dict[str, Any], name: str) -> None:
    agent = build(memory=memory)
    grads = gradients(agent, batch())
    agent.model.zero_grad()
    later = gradients(agent, batch(starts=False))
    assert all(grad.abs().max() > 0 for key, grad in grads.items() if key.endswith(name))
    assert all(grad.abs().max() == 0 for key, grad in later.items() if key.endswith(name))


def test_windows_carry_nothing() -> None:
    agent = build()
    train(agent, Fixed(batch()))
    assert agent.learner.stream_memory is None and "stream_memory" not in agent.optimizer_state()


def test_a_batch_of_other_size_is_refused() -> None:
    agent = build(memory=SLOTS)
    train(agent, Fixed(batch(4)))
    with pytest.raises(ValueError, match=r"\(4, 5, 16\).*\(3, 5, 16\)"):
        train(agent, Fixed(batch(3)))


def test_only_what_is_adapted_changes() -> None:
    agent = build(memory=SLOTS, adaptation={"method": "lora", "rank": 2})
    before = {name: tensor.clone() for name, tensor in agent.weights().items()}
    held = sum(parameter.numel() for group in agent._optimizers()[0].param_groups for parameter in group["params"])
    assert held == 6 * 2 * 2 * 16
    train(agent, Fixed(batch()), 2)
    changed = {name for name, tensor in agent.weights().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.endswith(("lora_a", "lora_b")) for name in changed)


def test_clipping_bounds_the_step() -> None:
    agent = build(max_grad_norm=1e-3, metrics_period=1)
    train(agent, Fixed(batch()))
    assert agent.metrics()["grad_norm"] > 1e-3
    gradient = [parameter.grad for parameter in agent.learner.trainable if parameter.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradient)) == pytest.approx(1e-3, rel=1e-3)


def test_matrices_decay_and_nothing_else() -> None:
    agent = build(memory=SLOTS)
    decayed, other = decay_groups(agent.model, 0.1)
    assert decayed["weight_decay"] == 0.1 and other["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in agent.model.named_parameters()}
    kept = {names[id(parameter)] for parameter in other["params"]}
    assert {names[id(parameter)] for parameter in decayed["params"]} | kept == set(names.values())
    assert {"memory.cells.0.initial_slots", "embedding.timestep.weight", "embedding.action.table.weight"} <= kept
    assert all("norm" in name or name.endswith("bias") for name in kept if "backbone" in name)
    assert "heads.action.weight" not in kept and "memory.cells.0.write_value.weight" not in kept


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("none", [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.25, 0.5, 1.0, 0.5, 0.0, 0.0]),
        ("cosine", [0.25, 0.5, 1.0, 0.5, 0.0, 0.0]),
    ],
)
def test_the_learning_rate_warms_up_and_decays(decay: str, expected: list[float]) -> None:
    factor = learning_rate_factor(4, decay, 12)
    assert [factor(step) for step in (0, 1, 3, 8, 12, 20)] == pytest.approx(expected)
    assert learning_rate_factor(4, "cosine", 12)(6) == pytest.approx(0.5 + 0.25 * math.sqrt(2))
    assert learning_rate_factor(0, decay, 0)(0) in (0.0, 1.0)


def test_the_schedule_reaches_the_optimizer() -> None:
    agent = build(warmup_steps=4, decay="linear", steps=8)
    rates = []
    for _ in range(9):
        rates.append(agent.metrics()["learning_rate"])
        train(agent, Fixed(batch()))
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.0075, 0.005, 0.0025, 0.0])


def saved(agent: Any) -> tuple[dict[str, torch.Tensor], Any, Any]:
    file = io.BytesIO()
    torch.save(agent.optimizer_state(), file)
    file.seek(0)
    weights = {name: tensor.clone() for name, tensor in agent.weights().items()}
    return weights, torch.load(file, weights_only=True), json.loads(json.dumps(agent.counters()))


@pytest.mark.parametrize("memory", [{"kind": "none"}, SLOTS, TOKENS, {**TOKENS, "cached_tokens": 5}])
def test_a_resumed_run_goes_on_to_the_same_bits(memory: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"memory": memory, "num_segments": 2, "dropout": 0.1, "warmup_steps": 3}
    batches = [batch(num_segments=2, rng=np.random.default_rng(seed), starts=seed % 3 == 0) for seed in range(8)]
    agent, twin = build(**settings), build(seed=1, **settings)
    torch.manual_seed(0)
    train(agent, Fixed(*batches[:4]), 4)
    weights, optimizer, counters = saved(agent)
    random_state = torch.get_rng_state()
    given = copy.deepcopy(optimizer)
    train(agent, Fixed(*batches[4:]), 4)
    twin.load_weights(weights)
    twin.load_training_state(optimizer, counters)
    torch.set_rng_state(random_state)
    train(twin, Fixed(*batches[4:]), 4)
    assert all(torch.equal(tensor, twin.weights()[name]) for name, tensor in agent.weights().items())
    assert agent.metrics() == twin.metrics()
    assert json.dumps(agent.counters()) == json.dumps(twin.counters())
    assert str(agent.optimizer_state()) == str(twin.optimizer_state())
    assert str(given) == str(optimizer), "training went on in the loaded tensors"


def test_dropout_is_on_in_updates_alone() -> None:
    agent = build(dropout=0.5)
    assert not agent.model.training
    before = torch.get_rng_state()
    train(agent, Fixed(batch()))
    assert not agent.model.training and not torch.equal(torch.get_rng_state(), before)
    obs = np.ones((2, 3), np.float32)
    outputs = [agent.model(agent.initial_state(2).appended(torch.tensor(obs)).inputs())[0].action for _ in range(2)]
    assert torch.equal(*outputs)


def test_pruned_weights_stay_zero() -> None:
    agent = build(memory=SLOTS)
    PruningConfig(sparsity=0.5, method="static").attach(agent, total_gradient_steps=10, seed=np.random.SeedSequence(0))
    train(agent, Fixed(batch()), 3)
    assert agent.pruner is not None
    assert all((layer.weight == 0).sum() >= layer.size - layer.num_kept for layer in agent.pruner.layers)
    assert agent.metrics()["sparsity/total"] == pytest.approx(0.5, abs=0.05)


def test_updates_outside_of_a_training_step_are_refused() -> None:
    algorithm: Any = build().algorithm
    with pytest.raises(RuntimeError, match="training step"):
        algorithm.update(buffer=Fixed(batch()), sample_size=4)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    spawn(together, (2, str(tmp_path)), nprocs=2)
    alone = build(memory=SLOTS, num_segments=2, metrics_period=2)
    train(alone, Fixed(*global_batches()), 4)
    parts = [torch.load(tmp_path / f"2-{rank}.pt", weights_only=True) for rank in range(2)]
    for part in parts:
        for name, tensor in alone.weights().items():
            torch.testing.assert_close(part["weights"][name], tensor, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(part["memory"], alone.optimizer_state()["stream_memory"], rtol=1e-4, atol=1e-5)
        assert part["metrics"]["loss"] == pytest.approx(alone.metrics()["loss"], rel=1e-4)
        assert part["metrics"]["grad_norm"] == pytest.approx(alone.metrics()["grad_norm"], rel=1e-4)
    assert all(torch.equal(tensor, parts[1]["weights"][name]) for name, tensor in parts[0]["weights"].items())


def test_bf16_trains() -> None:
    agent = build(memory=SLOTS, precision="bf16", num_segments=2)
    train(agent, Fixed(batch(num_segments=2)), 3)
    assert math.isfinite(agent.metrics()["loss"])
    assert agent.learner.stream_memory is not None and agent.learner.stream_memory.dtype == torch.float32
    assert all(tensor.dtype != torch.bfloat16 for tensor in agent.weights().values())


def test_prompts_are_part_of_a_batch() -> None:
    agent = build(observation_space=VECTOR, prompt_steps=2)
    sample = batch(prompt_steps=2)
    losses = []
    for _ in range(10):
        train(agent, Fixed(sample), 3)
        losses.append(agent.metrics()["loss"])
    assert losses[-1] < losses[0]
