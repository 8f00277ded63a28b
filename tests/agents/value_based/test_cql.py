"""CQL: the term by hand, DQN and C51 without it, what it does to values, and Tianshou's offline trainer."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tianshou.data import ReplayBuffer
from tianshou.trainer import OfflineTrainer, OfflineTrainerParams

from agents.base_config import MlpConfig
from agents.value_based import C51Config, CQLConfig, DQNConfig
from agents.value_based.agent import ValueAgent
from agents.value_based.cql import conservative_gap
from memory import ReplayConfig
from memory.replay import Replay
from sextant.config import compose_train_config
from tests.agents.value_based.test_dqn import ACTIONS, SPACE, filled, stock_buffer, update

MLP = MlpConfig(hidden_widths=(8,))
COMMON: dict[str, Any] = {"network": MLP, "batch_size": 4, "metrics_period": 1, "learning_rate": 1e-2}
BASES: dict[str, tuple[DQNConfig | C51Config, dict[str, Any]]] = {
    "scalar": (DQNConfig(loss="huber", adam_eps=1e-4, **COMMON), {}),
    "c51": (C51Config(double=True, n_step=3, adam_eps=1e-4, **COMMON), {"distributional": True, "double": True}),
}


def build(config: Any, seed: int = 0) -> ValueAgent:
    agent: ValueAgent = config.build(SPACE, ACTIONS, device="cpu", seed=np.random.SeedSequence(seed))
    return agent


def cql(base: str = "scalar", **changes: Any) -> ValueAgent:
    options = {**COMMON, "adam_eps": 1e-4, "n_step": 3 if base == "c51" else 1, **BASES[base][1], **changes}
    return build(CQLConfig(**options))


def replay() -> Replay:
    return filled(build(DQNConfig(replay=ReplayConfig(capacity=64), **COMMON)))


def action_values(agent: ValueAgent, obs: Any) -> torch.Tensor:
    values: torch.Tensor = agent.learner.policy.model(obs)[0]
    return values.detach()


def test_the_term_is_the_equation() -> None:
    q_BA = torch.tensor([[0.0, 0.0], [1.0, 3.0], [1.0, 3.0]], requires_grad=True)
    gap_B = conservative_gap(q_BA, torch.tensor([[0], [1], [0]]))
    assert gap_B.tolist() == pytest.approx([math.log(2), 0.126928, 2.126928], rel=1e-5)  # log(1 + e^-2), and 2 more
    gap_B.sum().backward()
    assert q_BA.grad is not None
    e = 1 / (1 + math.exp(2))  # softmax of (1, 3) is (e, 1 - e)
    expected = [[-0.5, 0.5], [e, -e], [e - 1, 1 - e]]
    torch.testing.assert_close(q_BA.grad, torch.tensor(expected))


@pytest.mark.parametrize("base", BASES)
def test_the_loss_is_the_base_loss_plus_the_term(base: str) -> None:
    config = BASES[base][0]
    plain, conservative, data = build(config), cql(base, conservatism=0.7), replay()
    indices = np.arange(6)
    _, before = plain.learner.compare(data, indices)
    _, after = conservative.learner.compare(data, indices)
    action_B1 = torch.as_tensor(data[indices].act).reshape(-1, 1)
    torch.testing.assert_close(after.loss_B, before.loss_B + 0.7 * conservative_gap(before.q_BA, action_B1))
    assert torch.equal(after.error_B, before.error_B), "priorities are made of the base's errors"


@pytest.mark.parametrize("base", BASES)
def test_without_the_term_it_is_the_base_bit_for_bit(base: str) -> None:
    plain, conservative = build(BASES[base][0]), cql(base, conservatism=0.0)
    buffers = replay(), replay()
    for _ in range(20):
        assert update(plain, buffers[0]).loss == update(conservative, buffers[1]).loss
    for one, other in zip(plain.learner.parameters(), conservative.learner.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(
        plain.weights()["policy.model.head.weight"], cql(base).weights()["policy.model.head.weight"]
    ), "nothing was learned"


@pytest.mark.parametrize("base", BASES)
def test_the_term_alone_raises_the_replayed_actions_above_the_others(base: str) -> None:
    wide = MlpConfig(hidden_widths=(64,))
    agent = cql(base, conservatism=1000.0, network=wide, learning_rate=3e-3)
    obs, action_B1 = torch.eye(3), torch.tensor([[0], [1], [1]])
    target = torch.zeros(3, 51) if base == "c51" else torch.zeros(3)
    margins = []
    for _ in range(60):
        q_BA = action_values(agent, obs)
        margins.append((q_BA.gather(1, action_B1) - q_BA.gather(1, 1 - action_B1)).squeeze(1))
        agent.learner._gradient_step(obs, action_B1, target, None)
    assert bool((margins[0] < 0).any()), "nothing had to be raised"
    assert bool((margins[-1] > margins[0]).all()) and bool((margins[-1] > 0.5).all())


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_tianshous_offline_trainer_drives_it_on_a_replay(base: str, stock: bool) -> None:
    agent, data = cql(base, target_update_period=7), replay()
    buffer: ReplayBuffer = stock_buffer(data) if stock else data
    before = {name: tensor.clone() for name, tensor in agent.weights().items()}
    params = OfflineTrainerParams(buffer=buffer, batch_size=4, max_epochs=2, epoch_num_steps=10, show_progress=False)
    trainer: Any = agent.learner.create_trainer(params)
    assert isinstance(trainer, OfflineTrainer)
    trainer.run()
    assert agent.learner.num_updates == 20 and set(agent.metrics()) == {"loss", "q_mean", "grad_norm", "learning_rate"}
    assert any(not torch.equal(before[name], tensor) for name, tensor in agent.weights().items())


def test_stored_transitions_hold_values_down_where_the_data_is_not() -> None:
    plain, conservative = build(DQNConfig(loss="huber", **COMMON)), cql(conservatism=5.0)
    for agent in (plain, conservative):
        data = replay()
        for _ in range(200):
            update(agent, data, 16)
    data = replay()
    everything, _ = data.sample(0)
    action_B1 = torch.as_tensor(everything.act).reshape(-1, 1)
    gaps = [float(conservative_gap(action_values(a, everything.obs), action_B1).mean()) for a in (plain, conservative)]
    assert gaps[1] < 0.8 * gaps[0]


def test_it_explores_nothing() -> None:
    agent = cql()
    agent.set_env_steps(10)
    obs = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)
    assert agent.kind == "offline" and np.array_equal(agent.act(obs)[0], agent.act(obs, explore=True)[0])


PAPER = {"batch_size": 32, "gamma": 0.99, "conservatism": 0.1, "target_update_period": 2000, "noisy": False}
PRESETS: dict[str, dict[str, Any]] = {
    "cql": {"learning_rate": 5e-5, "adam_eps": 3.125e-4, "n_step": 1, "double": False, "dueling": False},
    "cql_c51": {"learning_rate": 6.25e-5, "adam_eps": 1.5e-4, "n_step": 3, "double": True, "dueling": True},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_the_papers_settings(preset: str) -> None:
    agent: Any = compose_train_config([f"agent={preset}"], lenient=True).agent
    expected = {**PAPER, **PRESETS[preset]}
    assert {name: getattr(agent, name) for name in expected} == expected
    assert agent.label == preset and not hasattr(agent, "replay") and not hasattr(agent, "replay_ratio")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conservatism": -0.1}, "conservatism"),
        ({"num_atoms": 11}, "num_atoms=11 has no effect with distributional=false"),
        ({"distributional": True, "loss": "mse"}, "loss=mse has no effect with distributional=true"),
        ({"distributional": True, "value_min": 20.0}, "value_min=20.0 is not below value_max=10.0"),
        ({"loss": "mse", "huber_delta": 2.0}, "huber_delta=2.0 has no effect with loss=mse"),
        ({"replay_ratio": 0.25}, "replay_ratio"),
        ({"epsilon_final": 0.1}, "epsilon_final"),
    ],
)
def test_senseless_configs_are_refused_by_name_and_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CQLConfig(**changes)
