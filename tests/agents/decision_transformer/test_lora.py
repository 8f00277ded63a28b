"""Low-rank adapters: exact counts, only named tensors change, merging and unmerging, and a bank of them by task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agents.decision_transformer.lora import LoRALinear, add_lora, fold_, lora_layers, merge_, unmerge_
from agents.decision_transformer.lora_bank import LoRABank
from memory.working_memory import WorkingMemory

D = 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everything(name: str, layer: nn.Linear) -> bool:
    return True


def perturb(module: nn.Module, seed: int = 9) -> None:
    """Makes the adapters do something."""
    source = generator(seed)
    for layer in lora_layers(module).values():
        nn.init.normal_(layer.lora_b, generator=source)


def make_memory(width: int = D) -> WorkingMemory:
    memory = WorkingMemory(width, 4, generator=generator())
    nn.init.normal_(memory.output.weight, generator=generator(1))
    return memory


def run(memory: WorkingMemory) -> torch.Tensor:
    token = torch.randn(2, 6, 1, memory.width, generator=generator(2))
    return memory(memory.initial_state(2), token, None, chunk=2).token_BTGD


def test_the_sum_by_hand():
    base = nn.Linear(2, 2)
    base.weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    base.bias.data.copy_(torch.tensor([0.5, -0.5]))
    layer = LoRALinear(base, rank=2, alpha=1.0)
    layer.lora_a.data.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    layer.lora_b.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    # B A = [[2, 0], [4, 4]], times 1 / 2: W becomes [[2, 2], [5, 6]].
    assert layer.weight.tolist() == [[2.0, 2.0], [5.0, 6.0]]
    assert layer(torch.tensor([[1.0, -1.0]])).tolist() == [[0.5, -1.5]]
    assert layer.folded().weight.tolist() == [[2.0, 2.0], [5.0, 6.0]]


def test_a_fused_layer_gets_a_product_for_each_part():
    layer = LoRALinear(nn.Linear(3, 6, bias=False), rank=2, alpha=2.0, num_parts=3, generator=generator())
    nn.init.normal_(layer.lora_b, generator=generator(1))
    assert layer.lora_a.shape == (6, 3)
    assert layer.lora_b.shape == (6, 2)
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        expected = layer.base.weight[rows] + layer.lora_b[rows] @ layer.lora_a[rows]
        torch.testing.assert_close(layer.weight[rows], expected)
    inputs = torch.randn(4, 3, generator=generator(2))
    torch.testing.assert_close(layer(inputs), inputs @ layer.weight.T)


@pytest.mark.parametrize(("width", "rank", "count"), [(128, 4, 6_144), (512, 4, 24_576), (8, 1, 96)])
def test_the_memory_s_count_is_that_of_the_formula(width, rank, count):
    memory = WorkingMemory(width, 2, generator=generator())
    parameters = add_lora(memory, everything, rank, 1.0)
    assert sum(parameter.numel() for parameter in parameters) == count == 6 * 2 * rank * width
    assert set(lora_layers(memory)) == {
        "address_query", "address_key", "write_query", "write_key", "write_value", "output",
    }  # fmt: skip


def test_starts_as_the_model_it_adapts():
    memory = make_memory()
    before = run(memory)
    add_lora(memory, everything, 2, 1.0, generator=generator())
    torch.testing.assert_close(run(memory), before, rtol=0, atol=0)
    perturb(memory)
    assert (run(memory) - before).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["address_query", "address_key", "write_query", "write_key", "write_value", "output"])
def test_each_projection_of_the_memory_is_adapted(name):
    memory = make_memory()
    before = run(memory)
    parameters = add_lora(memory, lambda each, _: each == name, 2, 1.0, generator=generator())
    perturb(memory)
    after = run(memory)
    assert (after - before).abs().max() > 1e-4
    gradients = torch.autograd.grad(after.square().sum(), parameters)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_only_the_named_tensors_change_in_a_step():
    memory = make_memory()
    parameters = add_lora(memory, lambda name, _: name.startswith("write"), 2, 1.0, generator=generator())
    memory.initial_slots.requires_grad_(False)
    memory.norm.requires_grad_(False)
    trained = {name for name, parameter in memory.named_parameters() if any(parameter is each for each in parameters)}
    frozen = {name for name, parameter in memory.named_parameters() if not parameter.requires_grad}
    assert {f"write_{part}.base.weight" for part in ("query", "key", "value")} <= frozen
    assert "address_key.weight" not in frozen  # only what was selected
    assert trained == {f"write_{part}.lora_{x}" for part in ("query", "key", "value") for x in "ab"}
    before = {name: tensor.clone() for name, tensor in memory.state_dict().items()}
    optimizer = torch.optim.AdamW(parameters, 1e-2)
    for _ in range(2):  # in the first step, A has no gradient: B is zero
        optimizer.zero_grad()
        run(memory).square().sum().backward()
        optimizer.step()
    changed = {name for name, tensor in memory.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trained


def test_merging_computes_the_same_and_unmerging_gives_back_every_bit():
    memory = make_memory()
    add_lora(memory, everything, 2, 1.0, generator=generator())
    perturb(memory)
    before, state = run(memory), {name: tensor.clone() for name, tensor in memory.state_dict().items()}
    merge_(memory)
    assert all(layer.is_merged for layer in lora_layers(memory).values())
    torch.testing.assert_close(run(memory), before)
    merged = memory.state_dict()
    assert merged.keys() == state.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in state.items())
    unmerge_(memory)
    assert torch.equal(run(memory), before)


def test_nothing_stale_stays_merged():
    memory = make_memory()
    add_lora(memory, everything, 2, 1.0, generator=generator())
    perturb(memory)
    merge_(memory)
    memory.train()
    assert not any(layer.is_merged for layer in lora_layers(memory).values())
    merge_(memory)
    memory.load_state_dict({name: 2 * tensor for name, tensor in memory.state_dict().items()})
    assert not any(layer.is_merged for layer in lora_layers(memory).values())
    merge_(memory)
    memory.double()
    assert memory.address_key.weight.dtype == torch.float64


def test_folding_gives_plain_layers_under_the_old_names():
    memory = make_memory()
    names = list(memory.state_dict())
    add_lora(memory, everything, 2, 1.0, generator=generator())
    perturb(memory)
    before = run(memory)
    fold_(memory)
    assert list(memory.state_dict()) == names
    assert not lora_layers(memory)
    torch.testing.assert_close(run(memory), before)


def test_a_state_dict_holds_the_adapters_and_reloads():
    first, second = make_memory(), make_memory()
    for memory, seed in ((first, 3), (second, 4)):
        add_lora(memory, everything, 2, 1.0, generator=generator(seed))
        perturb(memory, seed)
    state = first.state_dict()
    assert sum("lora" in name for name in state) == 12
    second.load_state_dict(state)
    assert torch.equal(run(second), run(first))


def test_torch_s_fused_attention_is_adapted_through_the_weight():
    layer = nn.TransformerEncoderLayer(D, 2, 16, 0.0, batch_first=True)
    inputs = torch.randn(2, 3, D, generator=generator())
    before = layer(inputs)
    add_lora(layer, lambda name, _: name == "self_attn.out_proj", 2, 1.0, generator=generator())
    torch.testing.assert_close(layer(inputs), before)
    perturb(layer)
    assert (layer(inputs) - before).abs().max() > 1e-3


def test_zeros_of_a_pruned_layer_stay_until_it_is_folded():
    memory = make_memory()
    mask = torch.arange(D * D).view(D, D) % 2 == 0
    memory.write_value.weight.data *= mask
    add_lora(memory, everything, 2, 1.0, generator=generator())
    perturb(memory)
    assert (lora_layers(memory)["write_value"].base.weight[~mask] == 0).all()
    fold_(memory)
    assert (memory.write_value.weight[~mask] != 0).all()


def test_refuses_to_adapt_nothing_or_twice():
    memory = make_memory()
    with pytest.raises(ValueError, match=r"no linear layer is selected .*'address_key'"):
        add_lora(memory, lambda name, _: name == "module.address_key", 2, 1.0)
    with pytest.raises(ValueError, match="rank=0: must be at least 1"):
        add_lora(memory, everything, 0, 1.0)
    assert not lora_layers(memory)
    add_lora(memory, everything, 2, 1.0)
    with pytest.raises(ValueError, match=r"no linear layer is selected .* none"):
        add_lora(memory, everything, 2, 1.0)
    with pytest.raises(ValueError, match="num_parts=3: must divide the layer's 8 outputs"):
        LoRALinear(nn.Linear(D, D), 1, 1.0, num_parts=3)


def make_bank(seed: int = 0) -> tuple[WorkingMemory, LoRABank]:
    memory = make_memory()
    return memory, LoRABank(memory, everything, ["reach-v3", "push/v3"], 2, 1.0, generator=generator(seed))


def test_a_bank_switches_between_tasks():
    memory, bank = make_bank()
    plain = run(memory)
    optimizer = torch.optim.AdamW(bank.parameters("push/v3"), 1e-2)
    bank.switch("push/v3")
    for _ in range(2):
        optimizer.zero_grad()
        run(memory).square().sum().backward()
        optimizer.step()
    assert (run(memory) - plain).abs().max() > 1e-4
    bank.switch("reach-v3")
    assert bank.task == "reach-v3"
    assert torch.equal(run(memory), plain)
    assert len(bank.parameters("reach-v3")) == 12
    assert {id(each) for each in bank.parameters("reach-v3")} <= {id(each) for each in memory.parameters()}


def test_a_bank_s_state_reloads_by_task():
    memory, bank = make_bank()
    for task, seed in (("reach-v3", 5), ("push/v3", 6)):
        bank.switch(task)
        perturb(memory, seed)
    outputs = run(memory)
    state = {name: tensor.clone() for name, tensor in bank.state_dict().items()}
    assert len(state) == 24
    assert all(tensor.numel() for tensor in state.values())
    other_memory, other = make_bank(seed=7)
    merge_(other_memory)
    other.load_state_dict(state)
    other.switch("push/v3")
    assert torch.equal(run(other_memory), outputs)


def test_a_bank_names_what_is_wrong():
    _, bank = make_bank()
    with pytest.raises(ValueError, match=r"task='door': the bank has \['push/v3', 'reach-v3'\]"):
        bank.switch("door")
    state = bank.state_dict()
    with pytest.raises(ValueError, match=r"adapters \['door/output.lora_a'\] are in one of bank and state only"):
        bank.load_state_dict({**state, "door/output.lora_a": torch.zeros(1)})
    wrong = {**state, "reach-v3/output.lora_a": torch.zeros(3, D)}
    with pytest.raises(ValueError, match=r"reach-v3/output.lora_a has shape \(3, 8\): expected \(2, 8\)"):
        bank.load_state_dict(wrong)
    with pytest.raises(ValueError, match=r"tasks=\['a', 'a'\]: must be one or more different names"):
        LoRABank(make_memory(), everything, ["a", "a"], 2, 1.0)
