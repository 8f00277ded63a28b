"""What each adaptation trains of a model: names and exact counts; nothing else moves; it takes a base's weights."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from agents.decision_transformer.adaptation import apply_adaptation, load_base_weights
from agents.decision_transformer.adaptation_config import AdaptationConfig
from agents.decision_transformer.adapters import BottleneckAdapter
from agents.decision_transformer.config import DecisionTransformerConfig
from agents.decision_transformer.inputs import SegmentInputs
from agents.decision_transformer.lora import lora_layers
from agents.decision_transformer.model import SequenceModel

B, K, OBS, A, D, LAYERS = 2, 4, 3, 2, 8, 2
SLOTS = {"kind": "slots", "num_slots": 4, "chunk": 2}


def make(memory: dict[str, Any] | None = None, seed: int = 0, **fields: Any) -> SequenceModel:
    config = DecisionTransformerConfig.model_validate(
        {"width": D, "num_layers": LAYERS, "context_length": K, "dropout": 0.0, "memory": memory or {"kind": "none"}}
        | fields
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        box = gymnasium.spaces.Box
        model = SequenceModel(config, box(-1, 1, (OBS,), np.float32), box(-1, 1, (A,), np.float32))
        for name, parameter in model.named_parameters():
            if name.endswith("output.weight") and name.startswith("memory."):
                nn.init.normal_(parameter)
    return model


def act(model: SequenceModel) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    inputs = SegmentInputs(
        obs=torch.randn(B, K, OBS, generator=generator),
        previous_action=torch.randn(B, K, A, generator=generator).tanh(),
        previous_reward=torch.zeros(B, K),
        return_to_go=torch.ones(B, K),
        timestep=torch.arange(K).expand(B, K),
        valid=torch.ones(B, K, dtype=torch.bool),
        task=torch.zeros(B, dtype=torch.int64),
    )
    return model(inputs)[0].action


def under(names: tuple[str, ...], *prefixes: str) -> bool:
    return bool(names) and all(name.startswith(prefixes) for name in names)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("memory", 6 * 2 * 4 * D),
        ("transformer", LAYERS * 4 * 18 * D),  # q, k, v, o: 2 D each; in and out of the MLP: 5 D each
        ("both", 6 * 2 * 4 * D + LAYERS * 4 * 18 * D),
    ],
)
def test_lora_counts_are_those_of_the_formula(where, count):
    model = make(SLOTS)
    report = apply_adaptation(model, AdaptationConfig(where=where))
    assert report.trainable == count
    assert report.total == sum(parameter.numel() for parameter in model.parameters())
    assert all("lora_" in name for name in report.trainable_names)
    assert len(report.trainable_names) + len(report.frozen_names) == len(list(model.parameters()))
    assert str(report) == f"lora: {count:,} of {report.total:,} parameters are trained"


def test_lora_on_each_block_s_memory_counts_them_all():
    model = make(SLOTS | {"placement": "per_block"})
    assert apply_adaptation(model, AdaptationConfig(rank=2)).trainable == LAYERS * 6 * 2 * 2 * D


def test_rank_4_on_the_plain_d512_model_of_4_layers_is_147_456():
    """The number that docs/dt_mem.md finds to match LoRA on every linear layer of a model WITHOUT memory."""
    with torch.device("meta"):
        model = nn.ModuleDict({"backbone": make(width=512, num_layers=4).backbone})
    report = apply_adaptation(model, AdaptationConfig(where="transformer"))  # type: ignore[arg-type]
    assert report.trainable == 147_456


@pytest.mark.parametrize(
    ("fields", "prefixes"),
    [
        ({"method": "heads"}, ("heads.",)),
        ({"method": "initial_slots"}, ("memory.cells.0.initial_slots",)),
        ({"method": "adapters"}, ("backbone.blocks.0.adapter.", "backbone.blocks.1.adapter.")),
        ({"also_heads": True, "also_initial_slots": True}, ("memory.cells.0.", "heads.")),
        ({"method": "heads", "also_initial_slots": True}, ("memory.cells.0.initial_slots", "heads.")),
    ],
)
def test_only_what_was_asked_for_changes_in_a_step(fields, prefixes):
    model = make(SLOTS, adapter=3)
    report = apply_adaptation(model, AdaptationConfig(**fields))
    assert under(report.trainable_names, *prefixes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        act(model).square().sum().backward()
        optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(report.trainable_names)


def test_initial_memory_of_rmdt_is_its_tokens():
    report = apply_adaptation(make({"kind": "tokens", "num_tokens": 3}), AdaptationConfig(method="initial_slots"))
    assert report.trainable_names == ("memory.initial_tokens",)
    assert report.trainable == 3 * D


@pytest.mark.parametrize("method", ["full", "scratch"])
def test_full_and_scratch_train_everything(method):
    model = make(SLOTS)
    model.requires_grad_(False)
    report = apply_adaptation(model, AdaptationConfig(method=method))
    assert report.trainable == report.total
    assert report.frozen_names == ()


@pytest.mark.parametrize("fields", [{"where": "both"}, {"method": "heads"}, {"method": "adapters"}])
def test_takes_the_weights_of_a_base_and_acts_as_it_at_first(fields):
    base = make(SLOTS, seed=1)
    model = make(SLOTS, seed=2, adapter=3 if fields.get("method") == "adapters" else None)
    apply_adaptation(model, AdaptationConfig(**fields))
    assert not torch.allclose(act(model), act(base))
    load_base_weights(model, {**dict(base.named_parameters()), **dict(base.named_buffers())})
    torch.testing.assert_close(act(model), act(base))


def test_an_adapted_base_brings_its_adapters():
    models = [make(SLOTS, seed=seed) for seed in (1, 2)]
    for model, seed in zip(models, (3, 4), strict=True):
        apply_adaptation(model, AdaptationConfig(), generator=torch.Generator().manual_seed(seed))
        for layer in lora_layers(model).values():
            nn.init.normal_(layer.lora_b, generator=torch.Generator().manual_seed(seed))
    load_base_weights(models[1], dict(models[0].state_dict()))
    assert torch.equal(act(models[1]), act(models[0]))


def test_a_base_that_does_not_fit_is_refused_by_name():
    model, base = make(SLOTS), make(SLOTS).state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"the base lacks heads.action.bias, heads.action.weight$"):
        load_base_weights(model, {name: tensor + 1 for name, tensor in base.items() if "heads" not in name})
    with pytest.raises(ValueError, match=r"the base holds extra, which this model has not"):
        load_base_weights(model, {**base, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"heads.action.bias has shape \(3,\) in the base: expected \(2,\)"):
        load_base_weights(model, {**base, "heads.action.bias": torch.zeros(3)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"where": "memory"}, "where=memory: this model has no slot memory"),
        ({"where": "both"}, "where=both: this model has no slot memory"),
        ({"method": "initial_slots"}, "method=initial_slots: this model has no memory"),
        ({"where": "transformer", "also_initial_slots": True}, "also_initial_slots=true: this model has no memory"),
        ({"method": "adapters"}, r"method=adapters: this model has no bottleneck adapters: set agent.adapter"),
    ],
)
def test_refuses_what_the_model_lacks(fields, message):
    with pytest.raises(ValueError, match=message):
        apply_adaptation(make(), AdaptationConfig(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "full", "rank": 8}, "rank=8 has no effect with method=full"),
        ({"method": "heads", "where": "both"}, "where=both has no effect with method=heads"),
        ({"method": "scratch", "also_heads": True}, "also_heads=true has no effect with method=scratch"),
        ({"method": "heads", "also_heads": True}, "also_heads=true has no effect with method=heads"),
        ({"method": "initial_slots", "also_initial_slots": True}, "also_initial_slots=true has no effect"),
        ({"method": "scratch", "base": "runs/a", "base_digest": "ab"}, "base_digest=ab contradicts method=scratch"),
        ({"base_digest": "ab"}, "base_digest=ab needs base"),
        ({"rank": 0}, "greater than or equal to 1"),
    ],
)
def test_config_refuses_contradictions(fields, message):
    with pytest.raises(ValidationError, match=message):
        AdaptationConfig(**fields)


def test_a_bottleneck_adapter_starts_as_nothing_and_counts_as_hyper_dt_s():
    adapter = BottleneckAdapter(512, 16, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 3, 512, generator=torch.Generator().manual_seed(1))
    assert torch.equal(adapter(hidden), hidden)
    weights = sum(parameter.numel() for parameter in adapter.parameters() if parameter.ndim > 1)
    assert 4 * weights == 65_536  # docs/dt_mem.md: four layers of width 512, before biases
    nn.init.ones_(adapter.up.bias)
    torch.testing.assert_close(adapter(hidden), hidden + 1)
    with pytest.raises(ValueError, match="bottleneck=0: must be at least 1"):
        BottleneckAdapter(512, 0)
