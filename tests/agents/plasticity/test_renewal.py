"""ReDo and resets of the last layer: by hand, on every network, through checkpoints; and weight decay beside them."""

import io
import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agents import C51Config, DQNConfig, IQNConfig
from agents.base_config import ImpalaCnnConfig, MinatarCnnConfig, MlpConfig, NatureCnnConfig
from agents.plasticity import PlasticityConfig
from agents.plasticity.renewal import is_dormant
from agents.plasticity.units import activity, unit_layers
from agents.pruning import PruningConfig
from agents.value_based.agent import ValueAgent
from memory import ReplayConfig
from tests.agents.value_based.test_dqn import ACTIONS, SPACE, filled, stock_buffer, update

PIXELS = gymnasium.spaces.Box(0, 255, (2, 40, 40), np.uint8)
COMMON: dict[str, Any] = {"batch_size": 4, "metrics_period": 1, "replay": ReplayConfig(capacity=64)}


def build(member: type[Any] = DQNConfig, space: Any = SPACE, seed: int = 0, **changes: Any) -> ValueAgent:
    options = {"network": MlpConfig(hidden_widths=(3, 4)), **COMMON, **changes}
    agent: ValueAgent = member(**options).build(space, ACTIONS, device="cpu", seed=np.random.SeedSequence(seed))
    return agent


def redo(**changes: Any) -> PlasticityConfig:
    return PlasticityConfig(**{"method": "redo", "period": 5, "num_states": 8, **changes})


def adam(agent: ValueAgent, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = agent.learner.optim._optim.state[parameter]
    return state


def snapshot(agent: ValueAgent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.learner.policy.model.named_parameters()}


def test_dormant_is_a_share_of_the_layers_mean() -> None:
    activity_U = torch.tensor([0.0, 0.1, 1.0, 2.9])  # mean 1
    assert is_dormant(activity_U, 0.0).tolist() == [True, False, False, False]
    assert is_dormant(activity_U, 0.1).tolist() == [True, True, False, False]
    assert is_dormant(activity_U, 1.0).tolist() == [True, True, True, False]
    assert is_dormant(torch.zeros(2), 0.0).all(), "a layer without any activity is dormant"


def test_activity_is_the_mean_absolute_activation_by_hand() -> None:
    agent = build(network=MlpConfig(hidden_widths=(2,)))
    network = agent.learner.policy.model
    with torch.no_grad():
        network.body.layers[0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))  # type: ignore[index]
        network.body.layers[0].bias.copy_(torch.tensor([0.0, -1.0]))  # type: ignore[index]
    obs = np.array([[3.0, 0.0, 9.0], [-1.0, 2.0, 9.0]], np.float32)
    [activity_U] = activity(network, unit_layers(network), obs)
    assert activity_U.tolist() == [1.5, 1.5]  # means of (3, 0) and (0, 3)
    many = np.concatenate([obs] * 40)  # more than one forward
    assert activity(network, unit_layers(network), many)[0].tolist() == pytest.approx([1.5, 1.5])


def test_redo_renews_what_enters_a_dormant_unit_silences_what_leaves_it_and_forgets_both_moments() -> None:
    agent = build(plasticity=redo(threshold=0.0))
    network, data = agent.learner.policy.model, filled(build())
    first, second, head = (dict(network.named_modules())[name] for name in ("body.layers.0", "body.layers.2", "head"))
    for _ in range(4):
        update(agent, data)
    with torch.no_grad():
        first.weight[1] = 0.0
        first.bias[1] = -7.0
        second.bias[:] = torch.tensor([50.0, -50.0, 50.0, 50.0])
    captured: dict[str, torch.Tensor] = {}
    plasticity = agent.learner.plasticity
    assert plasticity is not None
    hook = plasticity.optimizer.register_step_post_hook(lambda *_: captured.update(snapshot(agent)))
    update(agent, data)
    hook.remove()
    now = snapshot(agent)
    for name, rows in (("body.layers.0", [1]), ("body.layers.2", [1])):
        for part in ("weight", "bias"):
            changed = (now[f"{name}.{part}"] != captured[f"{name}.{part}"]).flatten(1 if part == "weight" else 0)
            moved = changed.any(dim=1) if part == "weight" else changed
            others = torch.tensor([row not in rows for row in range(len(moved))])
            fresh = now[f"{name}.{part}"][rows].abs()
            assert bool(moved[rows].all()) and bool((fresh < 1).all()), "no fresh weights"
            if part == "bias" or name == "body.layers.0":
                assert not bool(moved[others].any()), "units that are not dormant were touched"
            moments = adam(agent, dict(network.named_parameters())[f"{name}.{part}"])
            assert all(bool((moments[moment][rows] == 0).all()) for moment in ("exp_avg", "exp_avg_sq"))
    assert bool((now["body.layers.2.weight"][:, 1] == 0).all()), "the fresh unit reads a silenced one"
    assert torch.equal(
        now["body.layers.2.weight"][[0, 2, 3]][:, [0, 2]], captured["body.layers.2.weight"][[0, 2, 3]][:, [0, 2]]
    )
    assert bool((now["head.weight"][:, 1] == 0).all()) and bool((now["head.weight"][:, [0, 2, 3]] != 0).all())
    assert torch.equal(now["head.weight"][:, [0, 2, 3]], captured["head.weight"][:, [0, 2, 3]])
    assert torch.equal(now["head.bias"], captured["head.bias"])
    moments = adam(agent, head.weight)
    assert bool((moments["exp_avg"][:, 1] == 0).all()) and bool((moments["exp_avg"][:, 0] != 0).all())
    assert float(moments["step"]) == 5
    metrics = agent.metrics()
    assert metrics["plasticity/renewals"] == 1 and metrics["plasticity/recycled/total"] == pytest.approx(2 / 7)
    assert metrics["plasticity/recycled/layers.0"] == pytest.approx(1 / 3)
    assert metrics["plasticity/recycled/layers.2"] == 0.25


def test_a_recycled_unit_changes_no_value_where_it_was_silent() -> None:
    agent = build(plasticity=redo(threshold=0.0))
    network = agent.learner.policy.model
    obs = np.random.default_rng(0).standard_normal((16, 3), dtype=np.float32)
    with torch.no_grad():
        network.body.layers[2].bias[:] = torch.tensor([1.0, -50.0, 1.0, 1.0])  # type: ignore[index]
    before = network(obs)[0].detach()
    assert agent.learner.plasticity is not None
    assert agent.learner.plasticity.after_step(5, lambda num, rng: obs)
    assert not agent.learner.plasticity.after_step(6, lambda num, rng: obs)
    torch.testing.assert_close(network(obs)[0].detach(), before)
    assert float(network.body.layers[2].bias[1].detach()) > -1  # type: ignore[index]


@pytest.mark.parametrize("dueling", [False, True])
def test_a_reset_renews_the_head_and_nothing_else(dueling: bool) -> None:
    reset = PlasticityConfig(method="last_layer", period=5)
    agent, twin = build(plasticity=reset, dueling=dueling), build(dueling=dueling)
    data, twin_data = filled(agent), filled(twin)
    for _ in range(5):
        update(agent, data)
        update(twin, twin_data)
    network, usual = agent.learner.policy.model, dict(twin.learner.policy.model.named_parameters())
    for name, parameter in network.named_parameters():
        moments = adam(agent, parameter)
        if name.startswith("head"):
            assert not torch.equal(parameter, usual[name])
            assert bool((moments["exp_avg"] == 0).all()) and bool((moments["exp_avg_sq"] == 0).all())
        else:
            assert torch.equal(parameter, usual[name]) and bool((moments["exp_avg"] != 0).any())
    assert agent.metrics()["plasticity/renewals"] == 1


CASES: dict[str, tuple[type[Any], Any, dict[str, Any], list[str]]] = {
    "nature": (DQNConfig, PIXELS, {"network": NatureCnnConfig(hidden_width=8)}, ["conv1", "conv2", "conv3", "hidden"]),
    "nature_gap": (
        C51Config,
        PIXELS,
        {"network": NatureCnnConfig(hidden_width=8, global_average_pooling=True, layer_norm=True), "noisy": True},
        ["conv1", "conv2", "conv3", "hidden"],
    ),
    "minatar": (DQNConfig, PIXELS, {"network": MinatarCnnConfig(), "dueling": True}, ["conv", "hidden"]),
    "impala": (
        DQNConfig,
        PIXELS,
        {"network": ImpalaCnnConfig(hidden_width=8, layer_norm=True)},
        [f"stack{stack}.block{block}.conv1" for stack in (1, 2, 3) for block in (1, 2)] + ["hidden"],
    ),
    "mlp": (DQNConfig, SPACE, {"network": MlpConfig(hidden_widths=(8, 8), activation="tanh")}, ["0", "2"]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_network_has_its_units(name: str) -> None:
    member, space, options, expected = CASES[name]
    agent = build(member, space, **options, plasticity=redo(threshold=1.0))
    network, plasticity = agent.learner.policy.model, agent.learner.plasticity
    assert plasticity is not None
    assert [layer.name for layer in plasticity.layers] == [f"layers.{layer}" for layer in expected]
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (40, *space.shape)).astype(space.dtype)
    activities = activity(network, plasticity.layers, obs)
    before = snapshot(agent)
    plasticity.after_step(5, lambda num, rng: obs)
    now = snapshot(agent)
    for layer, activity_U in zip(plasticity.layers, activities, strict=True):
        dormant_U = is_dormant(activity_U, 1.0)
        assert 0 < int(dormant_U.sum()) < len(dormant_U)
        for outgoing in layer.outgoing:
            weight = now[f"{outgoing}.weight"]
            silent_U = (weight.unflatten(1, (len(dormant_U), -1)) == 0).transpose(0, 1).flatten(1).all(dim=1)
            assert silent_U.tolist() == dormant_U.tolist()
        kept = now[f"{layer.incoming[0]}.bias"][~dormant_U]
        assert torch.equal(kept, before[f"{layer.incoming[0]}.bias"][~dormant_U])


def test_implicit_networks_recycle_on_both_sides_of_the_product() -> None:
    few: dict[str, Any] = {"num_fractions": 8, "num_target_fractions": 8, "num_acting_fractions": 4}
    agent = build(IQNConfig, network=MlpConfig(hidden_widths=(8, 8)), **few, plasticity=redo(threshold=1.0))
    data = filled(build())
    for _ in range(5):
        update(agent, data)
    plasticity = agent.learner.plasticity
    assert plasticity is not None
    assert [(layer.incoming, layer.outgoing) for layer in plasticity.layers] == [
        (("body.layers.0",), ("hidden.2",)),
        (("hidden.2",), ("head",)),
    ]
    assert 0 < agent.metrics()["plasticity/recycled/total"] < 1


@pytest.mark.parametrize("stock", [False, True])
def test_renewals_disturb_no_draw_of_the_run_and_need_no_buffer_of_ours(stock: bool) -> None:
    agent, twin = build(plasticity=redo(threshold=0.0, period=1)), build()
    data, twin_data = filled(agent), filled(twin)
    buffers: list[Any] = [stock_buffer(data), stock_buffer(twin_data)] if stock else [data, twin_data]
    for one, buffer in zip((agent, twin), buffers, strict=True):
        np.random.seed(0)  # noqa: NPY002 (Tianshou's buffers draw from it)
        before = torch.get_rng_state()
        update(one, buffer)
        assert torch.equal(torch.get_rng_state(), before)
    assert agent.counters()["update_rng"] == twin.counters()["update_rng"]
    assert agent.metrics()["plasticity/renewals"] == 1
    if not stock:
        assert data.sample(8)[1].tolist() == twin_data.sample(8)[1].tolist()


def test_the_renewal_comes_before_the_copy_to_the_target() -> None:
    agent = build(plasticity=PlasticityConfig(method="last_layer", period=2), target_update_period=2)
    data = filled(agent)
    update(agent, data)
    update(agent, data)
    for online, target in zip(agent.learner.policy.model.parameters(), agent.learner.target.parameters(), strict=True):
        assert torch.equal(online, target)


@pytest.mark.parametrize("method", ["redo", "last_layer"])
def test_a_resumed_run_renews_to_the_same_bits(method: Any) -> None:
    config = PlasticityConfig(method=method, period=4, **({"threshold": 0.5} if method == "redo" else {}))
    agent, twin = build(plasticity=config, weight_decay=0.1), build(plasticity=config, weight_decay=0.1)
    data, twin_data = filled(agent), filled(agent)
    for _ in range(6):
        update(agent, data)
    file = io.BytesIO()
    torch.save(agent.optimizer_state(), file)
    file.seek(0)
    twin.load_weights({name: tensor.clone() for name, tensor in agent.weights().items()})
    twin.load_training_state(torch.load(file, weights_only=True), json.loads(json.dumps(agent.counters())))
    twin_data.load([data.new_data(None)], data.state())
    assert twin.metrics() == agent.metrics()
    for _ in range(7):
        update(agent, data)
        update(twin, twin_data)
    for name, tensor in agent.weights().items():
        assert torch.equal(tensor, twin.weights()[name])
    assert agent.metrics() == twin.metrics() and agent.metrics()["plasticity/renewals"] == 3
    with pytest.raises(ValueError, match="with plasticity fits no agent without"):
        build().load_training_state(agent.optimizer_state(), agent.counters())


def test_weights_decay_apart_from_adam() -> None:
    agent, plain = build(weight_decay=0.5, learning_rate=0.1), build(learning_rate=0.1)
    data, plain_data = filled(agent), filled(plain)
    before = snapshot(agent)
    update(agent, data)
    update(plain, plain_data)
    usual = snapshot(plain)
    for name, tensor in snapshot(agent).items():  # one AdamW step is Adam's and a shrinking by rate times decay
        torch.testing.assert_close(tensor, usual[name] - 0.1 * 0.5 * before[name])
    assert type(plain.learner.optim._optim) is torch.optim.Adam


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "l2"}, "redo"),
        ({"period": 0}, "greater than or equal to 1"),
        ({"method": "last_layer", "threshold": 0.1}, "threshold=0.1 has no effect with method=last_layer"),
        ({"method": "last_layer", "num_states": 9}, "num_states=9 has no effect with method=last_layer"),
        ({"tau": 0.1}, "Extra inputs"),
    ],
)
def test_senseless_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PlasticityConfig(**changes)


def test_null_stands_for_the_methods_default_and_pruned_networks_are_not_refilled() -> None:
    resolved = PlasticityConfig()
    assert (resolved.period, resolved.threshold, resolved.num_states) == (1000, 0.1, 256)
    assert PlasticityConfig(method="last_layer").period == 100_000
    assert PlasticityConfig.model_validate_json(resolved.model_dump_json()) == resolved
    with pytest.raises(ValidationError, match=r"plasticity\.method=redo would fill what pruning\.method=magnitude"):
        DQNConfig(plasticity=PlasticityConfig(), pruning=PruningConfig())


def test_a_run_that_ends_before_the_first_renewal_is_refused() -> None:
    reset = PlasticityConfig(method="last_layer")
    reset.check_run(100_000)
    with pytest.raises(ValueError, match=r"period=100000 renews nothing in a run of 99999 gradient steps"):
        reset.check_run(99_999)
