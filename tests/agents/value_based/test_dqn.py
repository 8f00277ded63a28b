"""DQN's update: targets, target network, forwards, weights, schedules, and Tianshou's own trainer and buffers."""

import copy
from collections.abc import Callable
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.data import Batch, Collector, PrioritizedVectorReplayBuffer, ReplayBuffer, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainer, OffPolicyTrainerParams
from tianshou.utils.torch_utils import policy_within_training_step

from agents.base_config import MlpConfig, NatureCnnConfig
from agents.value_based.agent import ValueAgent
from agents.value_based.config import DQNConfig, ValueBasedFields
from agents.value_based.dqn import DQNAgent, DQNTrainingStats, linear_decay
from memory import ReplayConfig
from memory.replay import Replay

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gymnasium.spaces.Discrete(2)
PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)


def build(
    space: gymnasium.Space[Any] = SPACE, actions: gymnasium.Space[Any] = ACTIONS, seed: int = 0, **changes: Any
) -> DQNAgent:
    config: dict[str, Any] = {"network": MlpConfig(hidden_widths=(8,)), "batch_size": 4, "metrics_period": 1, **changes}
    config.setdefault("replay", ReplayConfig(capacity=64))
    return DQNConfig(**config).build(space, actions, device="cpu", seed=np.random.SeedSequence(seed))


def filled(agent: ValueAgent, steps: int = 12, num_envs: int = 2) -> Replay:
    rng, config = np.random.default_rng(0), cast(ValueBasedFields, agent.config)
    replay = config.replay.build(SPACE, ACTIONS, num_envs, np.random.default_rng(1), lambda line: None)
    obs = rng.standard_normal((num_envs, 3), dtype=np.float32)
    for step in range(steps):
        next_obs = rng.standard_normal((num_envs, 3), dtype=np.float32)
        terminated, truncated = np.full(num_envs, step % 5 == 4), np.full(num_envs, step % 7 == 6)
        replay.add_step(
            obs=obs,
            act=rng.integers(2, size=num_envs),
            rew=rng.standard_normal(num_envs).astype(np.float32),
            terminated=terminated,
            truncated=truncated & ~terminated,
            obs_next=next_obs,
            episode_over=terminated | truncated,
        )
        obs = next_obs
    return replay


def update(agent: ValueAgent, buffer: ReplayBuffer, size: int = 4) -> DQNTrainingStats:
    with policy_within_training_step(agent.learner.policy):
        stats = agent.learner.update(buffer, size)
    assert isinstance(stats, DQNTrainingStats)
    return stats


def count_forwards(module: torch.nn.Module) -> list[int]:
    sizes: list[int] = []
    module.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("stock", [False, True])
def test_no_forward_is_wasted(double: bool, stock: bool) -> None:
    agent = build(double=double)
    online, target = count_forwards(agent.dqn.policy.model), count_forwards(agent.dqn.target)
    update(agent, stock_buffer(filled(agent)) if stock else filled(agent))
    assert online == ([4, 4] if double else [4])
    assert target == [4]


def test_acting_is_one_batched_forward_and_none_when_every_action_is_random() -> None:
    agent = build()
    online = count_forwards(agent.dqn.policy.model)
    agent.act(np.zeros((5, 3), np.float32))
    assert online == [5]
    agent.act(np.zeros((5, 3), np.float32), explore=True)
    assert agent.epsilon == 1.0 and online == [5]


@pytest.mark.parametrize(("double", "loss", "n_step"), [(False, "mse", 1), (True, "huber", 1), (False, "huber", 3)])
def test_the_loss_is_the_equation(double: bool, loss: str, n_step: int) -> None:
    agent = build(double=double, loss=loss, n_step=n_step, gamma=0.9, huber_delta=1.0)
    with torch.no_grad():  # a target network of its own, or double and single would agree
        for parameter in agent.dqn.target.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    online, target = copy.deepcopy(agent.dqn.policy.model), copy.deepcopy(agent.dqn.target)
    replay = filled(agent)
    twin = filled(agent)
    stats = update(agent, replay)

    _, indices = twin.sample(4)
    losses = []
    for index in indices:
        total, discount, last = 0.0, 1.0, int(index)
        for k in range(n_step):
            step: Any = twin[np.array([last])]
            total += discount * float(step.rew[0])
            discount *= 0.9
            following = int(twin.next(np.array([last]))[0])
            if k == n_step - 1 or following == last:
                break
            last = following
        first: Any = twin[np.array([index])]
        final: Any = twin[np.array([last])]
        next_obs: Any = final.obs_next
        best = int((online if double else target)(next_obs)[0].argmax())
        value = 0.0 if final.terminated[0] else float(target(next_obs)[0][0, best].detach())
        error = total + discount * value - float(online(first.obs)[0][0, first.act[0]].detach())
        losses.append(error**2 if loss == "mse" else 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5)
    assert stats.loss == pytest.approx(np.mean(losses), rel=1e-4)


def test_truncations_bootstrap_and_terminations_do_not() -> None:
    config = ReplayConfig(capacity=4)
    for terminated, expected in ((True, 1.0), (False, 1.0 + 0.5 * 7.0)):
        agent = build(gamma=0.5, batch_size=1, replay=config)
        for parameters in (agent.dqn.policy.model.parameters(), agent.dqn.target.parameters()):
            for parameter in parameters:
                torch.nn.init.zeros_(parameter)
        head = agent.dqn.target.head
        assert isinstance(head, torch.nn.Linear)
        torch.nn.init.constant_(head.bias, 7.0)
        replay = config.build(SPACE, ACTIONS, 1, np.random.default_rng(0), lambda line: None)
        replay.add_step(
            obs=np.zeros((1, 3), np.float32),
            act=np.zeros(1, np.int64),
            rew=np.ones(1, np.float32),
            terminated=np.array([terminated]),
            truncated=np.array([not terminated]),
            obs_next=np.ones((1, 3), np.float32),
            episode_over=np.array([True]),
        )
        assert update(agent, replay, 1).loss == pytest.approx(expected**2)


def test_the_target_is_copied_after_every_period_counted_in_updates() -> None:
    agent = build(target_update_period=3, learning_rate=0.1)
    replay = filled(agent)

    def in_sync() -> bool:
        pairs = zip(agent.dqn.policy.model.parameters(), agent.dqn.target.parameters(), strict=True)
        return all(torch.equal(online, target) for online, target in pairs)

    assert in_sync()
    synced = []
    for _ in range(9):
        update(agent, replay)
        synced.append(in_sync())
    assert synced == [False, False, True] * 3 and agent.dqn.num_updates == 9


def test_steps_between_two_copies_share_a_forward_of_the_target_and_stay_the_same_steps() -> None:
    changes: dict[str, Any] = {"target_update_period": 5, "learning_rate": 0.05, "n_step": 2}
    joint, single = build(**changes), build(**changes)
    replays = filled(joint), filled(single)
    forwards = count_forwards(joint.dqn.target)
    with policy_within_training_step(joint.dqn.policy):
        joint.update(replays[0], 4, 13)
    for _ in range(13):
        update(single, replays[1])
    assert forwards == [20, 20, 12]
    assert joint.dqn.num_updates == single.dqn.num_updates == 13
    for together, alone in zip(joint.dqn.parameters(), single.dqn.parameters(), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert joint.dqn.last_stats == pytest.approx(single.dqn.last_stats, rel=1e-4)
    np.testing.assert_array_equal(replays[0].sample_indices(3), replays[1].sample_indices(3))


@pytest.mark.parametrize("changes", [{"double": True}, {"replay": ReplayConfig(capacity=64, prioritised=True)}])
def test_steps_that_depend_on_one_another_are_taken_one_by_one(changes: dict[str, Any]) -> None:
    many, single = build(**changes), build(**changes)
    replays = filled(many), filled(single)
    with policy_within_training_step(many.dqn.policy):
        many.update(replays[0], 4, 3)
    for _ in range(3):
        update(single, replays[1])
    for together, alone in zip(many.dqn.parameters(), single.dqn.parameters(), strict=True):
        assert torch.equal(together, alone)


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_priorities_are_the_errors_of_the_sampled_transitions(loss: str) -> None:
    agent = build(loss=loss, replay=ReplayConfig(capacity=64, prioritised=True))
    replay = filled(agent)
    given: list[tuple[np.ndarray, np.ndarray]] = []
    replay.update_weight = lambda indices, errors: given.append((indices, errors))
    twin = filled(agent)
    model = copy.deepcopy(agent.dqn.policy.model)
    update(agent, replay)
    [(indices, errors)] = given
    batch: Any = twin[indices]
    q_BA = model(batch.obs)[0].detach().numpy()  # online and target network are still the same
    next_q_BA = model(batch.obs_next)[0].detach().numpy()
    target_B = batch.rew + 0.99 * ~batch.terminated * next_q_BA.max(axis=1)
    np.testing.assert_allclose(errors, target_B - q_BA[np.arange(4), batch.act], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_importance_weights_multiply_the_losses(loss: str) -> None:
    obs, action, target_B = np.eye(3, dtype=np.float32)[:2], np.array([0, 1]), torch.tensor([5.0, -5.0])

    def loss_of(*weight: float) -> float:
        step: Callable[..., Any] = build(loss=loss).dqn._gradient_step
        return step(obs, action, target_B, np.array(weight) if weight else None)[0].loss

    assert loss_of() == loss_of(1.0, 1.0) == pytest.approx((loss_of(2.0, 0.0) + loss_of(0.0, 2.0)) / 2)
    assert loss_of(2.0, 2.0) == pytest.approx(2 * loss_of()) and loss_of(2.0, 0.0) != loss_of(0.0, 2.0)


def test_reports_come_every_period_and_average_over_it() -> None:
    every, third = build(metrics_period=1), build(metrics_period=3)
    replays = filled(every), filled(third)
    each = [update(every, replays[0]) for _ in range(6)]
    sparse = [update(third, replays[1]) for _ in range(6)]
    assert [stats.loss is None for stats in sparse] == [True, True, False] * 2
    assert sparse[0].get_loss_stats_dict() == {}
    for name in ("loss", "q_mean"):
        expected = np.mean([getattr(stats, name) for stats in each[3:]])
        assert getattr(sparse[5], name) == pytest.approx(expected, rel=1e-5)
    assert sparse[5].grad_norm == pytest.approx(each[5].grad_norm)
    assert third.metrics().keys() == {"epsilon", "learning_rate", "loss", "q_mean", "grad_norm"}


def test_adam_is_dopamines() -> None:
    [optimizer] = build()._optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["eps"], group["betas"], group["weight_decay"]) == (6.25e-5, 1.5e-4, (0.9, 0.999), 0)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (20_000, 1.0), (145_000, 0.505), (270_000, 0.01), (10_000_000, 0.01)]
)
def test_epsilon_follows_dopamines_schedule(step: int, expected: float) -> None:
    assert linear_decay(step, 1.0, 0.01, 20_000, 250_000) == pytest.approx(expected)
    agent = build()
    agent.set_env_steps(step)
    assert agent.epsilon == agent.metrics()["epsilon"] == agent.dqn.policy.eps_training == pytest.approx(expected)


def test_epsilon_is_the_share_of_random_actions() -> None:
    agent = build(epsilon_initial=0.4, epsilon_final=0.4, actions=gymnasium.spaces.Discrete(4))
    obs = np.zeros((4000, 3), np.float32)
    greedy, explored = agent.act(obs)[0], agent.act(obs, explore=True)[0]
    assert np.mean(greedy != explored) == pytest.approx(0.4 * 3 / 4, abs=0.03)


def test_discrete_spaces_may_start_anywhere() -> None:
    agent = build(actions=gymnasium.spaces.Discrete(3, start=5))
    assert set(agent.random_action(200)) == {0, 1, 2}
    assert set(agent.env_action(agent.random_action(200))) == {5, 6, 7}


@pytest.mark.parametrize("layer_norm", [False, True])
def test_bfloat16_learns_nearly_what_float32_learns_and_keeps_the_targets_numbers(layer_norm: bool) -> None:
    network = NatureCnnConfig(hidden_width=32, layer_norm=layer_norm)
    agents = [
        build(space=PIXELS, network=network, precision=precision, target_update_period=2)
        for precision in ("fp32", "bf16")
    ]
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (8, 4, 84, 84), dtype=np.uint8)
    action, target_B = rng.integers(2, size=8), torch.linspace(-1, 1, 8)
    losses: list[list[Any]] = [
        [agent.dqn._gradient_step(obs, action, target_B, None)[0].loss for _ in range(8)] for agent in agents
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)
    exact, rounded = agents
    assert {p.dtype for p in rounded.dqn.policy.parameters()} == {torch.float32}
    assert {p.dtype for p in rounded.dqn.target.head.parameters()} == {torch.float32}
    obs_tensor = torch.from_numpy(obs)
    with torch.no_grad():  # just synced: the target kept in bfloat16 computes what autocast makes of float32
        assert torch.equal(rounded.dqn.target(obs_tensor)[0], rounded.dqn.policy.model(obs_tensor)[0])
        assert torch.equal(exact.dqn.target(obs_tensor)[0], exact.dqn.policy.model(obs_tensor)[0])


def stock_buffer(replay: Replay, prioritised: bool = False) -> ReplayBuffer:
    """The same transitions in one of Tianshou's own buffers."""
    options = {"alpha": 0.6, "beta": 0.4} if prioritised else {}
    buffer = (PrioritizedVectorReplayBuffer if prioritised else VectorReplayBuffer)(64, replay.buffer_num, **options)
    everything: Any = replay.sample(0)[0]
    length = len(everything) // replay.buffer_num
    for step in range(length):
        rows = everything[np.arange(replay.buffer_num) * length + step]
        names = ("obs", "act", "rew", "terminated", "truncated", "obs_next")
        buffer.add(Batch(**{name: rows[name] for name in names}, info=Batch()), buffer_ids=np.arange(replay.buffer_num))
    return buffer


@pytest.mark.parametrize("n_step", [1, 3])
def test_tianshous_generic_path_gives_the_same_update(n_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, stock = build(n_step=n_step), build(n_step=n_step)
    replay = filled(ours)
    buffer = stock_buffer(replay)
    everything, indices = replay.sample(0)
    length = len(indices) // 2
    places = np.concatenate([np.arange(length), 32 + np.arange(length)])
    monkeypatch.setattr(buffer, "sample", lambda size: (buffer[places], places))
    monkeypatch.setattr(replay, "sample", lambda size: (everything, indices))
    first, second = update(ours, replay, len(indices)), update(stock, buffer, len(indices))
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    for name, tensor in ours.weights().items():
        torch.testing.assert_close(tensor, stock.weights()[name])


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_tianshous_prioritised_buffer_gets_its_errors_back(loss: str) -> None:
    agent = build(loss=loss)
    buffer: Any = stock_buffer(filled(agent), prioritised=True)
    before = buffer.weight[np.arange(64)].copy()
    update(agent, buffer)
    assert not np.array_equal(buffer.weight[np.arange(64)], before)


def test_tianshous_trainer_collector_and_buffer_drive_it() -> None:
    agent = build(space=gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32), learning_starts=32, metrics_period=4)
    envs = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(4)])
    collector: Collector[Any] = Collector(agent.algorithm, envs, VectorReplayBuffer(1000, 4), exploration_noise=True)
    collector.reset()
    collector.collect(n_step=32, random=True)
    params = OffPolicyTrainerParams(
        max_epochs=2,
        epoch_num_steps=80,
        training_collector=collector,
        collection_step_num_env_steps=4,
        update_step_num_gradient_steps_per_sample=0.5,
        batch_size=8,
        training_fn=lambda epoch, env_step: agent.set_env_steps(env_step),
        verbose=False,
        show_progress=False,
    )
    OffPolicyTrainer(agent.dqn, params).run(reset_collectors=False)
    assert agent.dqn.num_updates == 80 and agent.metrics()["loss"] > 0 and agent.epsilon < 1
