from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainers.checkpoint_contents import (
    pack_arrays,
    pack_counters,
    pack_optimizer,
    pack_weights,
    unpack_arrays,
    unpack_counters,
    unpack_optimizer,
    unpack_weights,
)


def test_weights_of_every_kind_come_back_exactly() -> None:
    base = torch.randn(2, 3, 4, 5)
    weights = {
        "tied_a": base,
        "tied_b": base,
        "view": base[0],
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "transposed": base.permute(3, 2, 1, 0),
        "bfloat16": base.to(torch.bfloat16),
        "scalar": torch.tensor(math.nan),
        "empty": torch.zeros(0, 3),
        "mask": base > 0,
        "parameter": torch.nn.Parameter(base),
        "counter": torch.tensor(2**60),
    }
    loaded = unpack_weights(pack_weights(weights))
    assert sorted(loaded) == sorted(weights)
    for name, tensor in weights.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)


def test_a_resumed_optimizer_takes_the_same_steps() -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        return net, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def train(net: torch.nn.Linear, optimizer: Any, scheduler: Any, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.ones(3)).square().sum().backward()
            optimizer.step()
            scheduler.step()

    net, optimizer, scheduler = make()
    train(net, optimizer, scheduler, 3)
    state = {"adam": optimizer.state_dict(), "schedule": scheduler.state_dict()}
    weights, packed = unpack_weights(pack_weights(net.state_dict())), pack_optimizer(state)
    train(net, optimizer, scheduler, 3)
    other, other_optimizer, other_scheduler = make()
    loaded = unpack_optimizer(packed)
    other.load_state_dict(weights)
    other_optimizer.load_state_dict(loaded["adam"])
    other_scheduler.load_state_dict(loaded["schedule"])
    train(other, other_optimizer, other_scheduler, 3)
    assert torch.equal(net.weight, other.weight)


def test_counters_keep_big_integers_floats_and_infinities() -> None:
    state = np.random.default_rng(1).bit_generator.state
    counters = {"rng": state, "tenth": 0.1, "best": -math.inf, "none": None, "numpy": np.float32(0.1), "list": [[1]]}
    loaded = unpack_counters(pack_counters(counters))
    assert loaded == counters | {"numpy": float(np.float32(0.1))}
    assert type(loaded["rng"]["state"]["state"]) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, (1, 2)]}, r"counters\['a'\]\[1\] is of type tuple"),
        ({"a": {1: 2}}, r"counters\['a'\] has the key 1"),
        ({"a": np.zeros(2)}, r"counters\['a'\] is of type ndarray.*arrays"),
        ({"a": {3}}, "of type set"),
    ],
)
def test_counters_that_would_come_back_changed_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        pack_counters(value)


def test_an_optimizer_state_that_would_need_pickle_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Path.*only tensors"):
        pack_optimizer({"hook": Path})


def test_arrays_come_back_exactly_and_writable() -> None:
    loaded = unpack_arrays(pack_arrays({"x": np.arange(3)[::-1]}))
    loaded["x"][0] += 1
    assert loaded["x"].tolist() == [3, 1, 0]
