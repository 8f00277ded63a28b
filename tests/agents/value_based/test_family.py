"""What every member of the family must do: bootstrap where n steps lead, waste no forward, hand over its losses."""

from typing import Any

import numpy as np
import pytest
import torch
from tianshou.data import Batch, ReplayBuffer, VectorReplayBuffer
from tianshou.utils.torch_utils import policy_within_training_step

from agents.base_config import MlpConfig
from agents.diagnostics import ValueLearner
from agents.value_based import C51Config, DQNConfig, IQNConfig, QRDQNConfig
from agents.value_based.agent import ValueAgent
from agents.value_based.records import Transitions
from memory import ReplayConfig
from memory.replay import Replay
from tests.agents.value_based.test_dqn import ACTIONS, SPACE, filled, stock_buffer, update

FEW: dict[str, Any] = {"num_fractions": 8, "num_target_fractions": 8, "num_acting_fractions": 4}
MEMBERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "dqn": (DQNConfig, {}),
    "double_dqn": (DQNConfig, {"double": True, "dueling": True}),
    "c51": (C51Config, {}),
    "double_c51": (C51Config, {"double": True, "dueling": True, "noisy": True}),
    "qr_dqn": (QRDQNConfig, {"num_quantiles": 8}),
    "double_qr_dqn": (QRDQNConfig, {"num_quantiles": 8, "double": True}),
    "iqn": (IQNConfig, FEW),
    "double_iqn": (IQNConfig, {**FEW, "double": True}),
    "munchausen_iqn": (IQNConfig, {**FEW, "munchausen": True}),
}
DISTRIBUTIONAL = [name for name in MEMBERS if "dqn" not in name or "qr" in name]


def build(name: str, seed: int = 0, **changes: Any) -> ValueAgent:
    member, options = MEMBERS[name]
    usual: dict[str, Any] = {"batch_size": 4, "metrics_period": 1, "n_step": 1, "replay": ReplayConfig(capacity=64)}
    config = member(network=MlpConfig(hidden_widths=(8, 8)), **{**usual, **options, **changes})
    agent: ValueAgent = config.build(SPACE, ACTIONS, device="cpu", seed=np.random.SeedSequence(seed))
    return agent


def seen(network: Any) -> list[np.ndarray]:
    """The observations the network encodes from now on."""
    batches: list[np.ndarray] = []
    network.body.register_forward_hook(lambda _, inputs, output: batches.append(inputs[0].numpy().copy()))
    return batches


EPISODES = {0: 5, 10: 15, 20: 24}  # first and last step of each: terminated, truncated, open


def numbered() -> tuple[Replay, ReplayBuffer]:
    """Three episodes whose observations are their numbers, in our replay and in Tianshou's buffer."""
    ours = ReplayConfig(capacity=64).build(SPACE, ACTIONS, 1, np.random.default_rng(0), lambda line: None)
    stock = VectorReplayBuffer(64, 1)
    for first, last in EPISODES.items():
        for step in range(first, last + 1):
            transition: dict[str, Any] = {
                "obs": np.full((1, 3), step, np.float32),
                "act": np.array([step % 2]),
                "rew": np.ones(1, np.float32),
                "terminated": np.array([step == 5]),
                "truncated": np.array([step == 15]),
                "obs_next": np.full((1, 3), step + 1, np.float32),
            }
            ours.add_step(**transition, episode_over=transition["terminated"] | transition["truncated"])
            stock.add(Batch(**transition, info=Batch()), buffer_ids=[0])
    return ours, stock


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("name", MEMBERS)
def test_bootstraps_from_the_observation_n_steps_on(
    name: str, stock: bool, n_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build(name, n_step=n_step, gamma=0.5)
    buffer: Any = numbered()[stock]
    everything, indices = buffer.sample(0)
    steps = everything.obs[:, 0].astype(int)
    monkeypatch.setattr(buffer, "sample", lambda size: (everything, indices))
    given: list[Any] = []
    targets = agent.learner._targets

    def spy(transitions: Transitions) -> torch.Tensor:
        given.append(transitions)
        return targets(transitions)

    monkeypatch.setattr(agent.learner, "_targets", spy)
    online, target = seen(agent.learner.policy.model), seen(agent.learner.target)
    update(agent, buffer, len(indices))

    ends = np.array([max(last for last in EPISODES.values() if last - step <= 5) for step in steps])
    last = np.minimum(steps + n_step - 1, ends)
    assert target[0][:, 0].tolist() == (last + 1).tolist()
    assert online[-1][:, 0].tolist() == steps.tolist()
    if agent.learner.is_double:
        assert online[0][:, 0].tolist() == (last + 1).tolist()
    [transitions] = given
    counts = last - steps + 1
    np.testing.assert_allclose(transitions.return_B, 2 - 0.5 ** (counts - 1.0), rtol=1e-6)
    np.testing.assert_allclose(transitions.discount_B, 0.5**counts * (last != 5), rtol=1e-6)


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("name", MEMBERS)
def test_no_forward_is_wasted(name: str, stock: bool) -> None:
    agent = build(name)
    online, target = seen(agent.learner.policy.model), seen(agent.learner.target)
    update(agent, stock_buffer(filled(agent)) if stock else filled(agent))
    assert [len(batch) for batch in online] == ([4, 4] if agent.learner.is_double else [4])
    assert [len(batch) for batch in target] == ([4, 4] if name == "munchausen_iqn" else [4])


@pytest.mark.parametrize("name", MEMBERS)
def test_tianshous_generic_path_gives_the_same_update(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, stock = build(name, n_step=3), build(name, n_step=3)
    replay = filled(ours)
    buffer = stock_buffer(replay)
    everything, indices = replay.sample(0)
    length = len(indices) // 2
    places = np.concatenate([np.arange(length), 32 + np.arange(length)])
    monkeypatch.setattr(buffer, "sample", lambda size: (buffer[places], places))
    monkeypatch.setattr(replay, "sample", lambda size: (everything, indices))
    first, second = update(ours, replay, len(indices)), update(stock, buffer, len(indices))
    assert first.loss == pytest.approx(second.loss, rel=1e-4)
    for one, other in zip(ours.learner.parameters(), stock.learner.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MEMBERS)
def test_steps_taken_together_are_the_same_steps(name: str) -> None:
    changes: dict[str, Any] = {"target_update_period": 5, "learning_rate": 1e-3, "n_step": 2}
    joint, single = build(name, **changes), build(name, **changes)
    replays = filled(joint), filled(single)
    target = seen(joint.learner.target)
    with policy_within_training_step(joint.learner.policy):
        joint.update(replays[0], 4, 13)
    for _ in range(13):
        update(single, replays[1])
    if name in ("dqn", "c51", "qr_dqn"):
        assert [len(batch) for batch in target] == [20, 20, 12]
    for together, alone in zip(joint.learner.parameters(), single.learner.parameters(), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert joint.counters()["update_rng"] == single.counters()["update_rng"]


@pytest.mark.parametrize("name", DISTRIBUTIONAL)
def test_priorities_are_roots_of_the_losses(name: str) -> None:
    agent = build(name, replay=ReplayConfig(capacity=64, prioritised=True))
    replay, twin = filled(agent), build(name)
    given: list[tuple[np.ndarray, np.ndarray]] = []
    set_priorities = replay.update_weight

    def spy(indices: np.ndarray, errors: np.ndarray) -> None:
        given.append((indices, errors))
        set_priorities(indices, errors)

    replay.update_weight = spy
    update(agent, replay)
    [(indices, errors)] = given
    _, prediction = twin.learner.compare(filled(agent), indices)
    np.testing.assert_allclose(errors, prediction.loss_B.detach(), rtol=1e-4)
    assert replay.priorities is not None
    for index in np.unique(indices):
        loss = errors[np.flatnonzero(indices == index)[-1]]
        assert replay.priorities.leaves(np.array([index]))[0] == pytest.approx((loss + 1e-10) ** 0.5, rel=1e-5)


def test_transitions_are_drawn_in_proportion_to_the_root_of_their_loss() -> None:
    """Chi-square over 20 transitions at 20,000 draws; 43.8 is its 99.9th percentile for 19 degrees of freedom."""
    agent = build("c51", replay=ReplayConfig(capacity=64, prioritised=True))
    replay = filled(agent, steps=10)
    assert replay.priorities is not None
    held = replay.ring.all_indices()
    loss = np.linspace(0.1, 4.0, len(held))
    replay.update_weight(held, loss)
    draws = replay.sample_indices(20_000)
    counts = np.array([(draws == index).sum() for index in held])
    expected = 20_000 * np.sqrt(loss) / np.sqrt(loss).sum()
    assert ((counts - expected) ** 2 / expected).sum() < 43.8
    weights = replay.priorities.weights(held)  # 1 / sqrt(p) over the largest, whatever the number of transitions
    np.testing.assert_allclose(weights, (loss[0] / loss) ** 0.25, rtol=1e-5)


@pytest.mark.parametrize("name", DISTRIBUTIONAL)
def test_importance_weights_multiply_the_losses(name: str) -> None:
    obs, action = np.eye(3, dtype=np.float32)[:2], np.array([0, 1])
    width = 51 if "c51" in name else 8
    target = torch.softmax(torch.arange(2.0 * width).reshape(2, -1), dim=1)

    def loss_of(*weight: float) -> float:
        stats = build(name).learner._gradient_step(obs, action, target, np.array(weight) if weight else None)[0]
        assert stats.loss is not None
        return stats.loss

    assert loss_of() == loss_of(1.0, 1.0) == pytest.approx((loss_of(2.0, 0.0) + loss_of(0.0, 2.0)) / 2)


@pytest.mark.parametrize("name", MEMBERS)
def test_targets_and_losses_can_be_looked_at_without_a_trace(name: str) -> None:
    agent = build(name, n_step=3, noisy=True)
    replay = filled(agent)
    before = agent.counters()
    assert isinstance(agent, ValueLearner)
    indices = np.arange(5)
    target_B = agent.sample_targets(replay, indices, np.random.default_rng(0))
    loss_B = agent.sample_losses(replay, indices, np.random.default_rng(0))
    assert target_B.shape == loss_B.shape == (5,) and loss_B.requires_grad and not target_B.requires_grad
    assert agent.counters() == before
    assert agent.sample_losses(replay, indices, np.random.default_rng(0)).equal(loss_B)


@pytest.mark.parametrize("name", ["double_c51", "iqn"])
def test_what_a_network_draws_comes_from_the_agent_when_exploring_and_from_nowhere_else(name: str) -> None:
    agent = build(name, epsilon_initial=0.0, epsilon_final=0.0)
    obs = np.random.default_rng(0).standard_normal((500, 3), dtype=np.float32)
    greedy = agent.act(obs)[0]
    explored = [agent.act(obs, explore=True)[0] for _ in range(4)]
    assert np.array_equal(agent.act(obs)[0], greedy)
    assert any(not np.array_equal(actions, greedy) for actions in explored)
    assert agent.counters()["update_rng"] == build(name).counters()["update_rng"]


FIRST_LOSSES = {
    "dqn": [0.311648, 0.47668, 1.026056],
    "double_dqn": [0.34133, 0.465881, 0.97439],
    "c51": [3.952779, 3.957858, 3.958225],
    "double_c51": [4.018071, 4.036967, 4.001291],
    "qr_dqn": [1.046753, 1.129058, 1.959036],
    "double_qr_dqn": [1.046753, 1.129058, 1.959036],
    "iqn": [0.568494, 1.168978, 2.172718],
    "double_iqn": [0.733758, 0.858993, 1.874566],
    "munchausen_iqn": [0.797587, 0.732732, 1.691123],
}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_first_losses_are_as_they_were(name: str) -> None:
    agent = build(name, learning_rate=1e-2, target_update_period=2)
    replay = filled(agent)
    losses = [update(agent, replay).loss for _ in range(3)]
    assert losses == pytest.approx(FIRST_LOSSES[name], rel=1e-3)
