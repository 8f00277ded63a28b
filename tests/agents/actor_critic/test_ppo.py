"""PPO: advantages at time limits, shared bodies, schedules, normalisation, and sampling."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainer, OnPolicyTrainerParams
from tianshou.utils.torch_utils import policy_within_training_step

from agents.actor_critic.config import PPOConfig
from agents.actor_critic.ppo import PPOAgent, sample_categorical
from agents.base_config import MlpConfig, NatureCnnConfig
from agents.normalization import RunningNormalizer
from memory import ReplayConfig
from memory.replay import Replay

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (2, 40, 40), np.uint8)
ACTIONS = gymnasium.spaces.Discrete(2)
BOX = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.3], np.float32))


def build(space: Any = SPACE, actions: Any = ACTIONS, **changes: Any) -> PPOAgent:
    config: dict[str, Any] = {"network": MlpConfig(hidden_widths=(8,)), "minibatch_size": 8, **changes}
    return PPOConfig(**config).build(space, actions, device="cpu", seed=np.random.SeedSequence(0))


def rollout(space: Any = SPACE, actions: Any = ACTIONS, ends: tuple[bool, bool] = (False, False)) -> Replay:
    """Three steps of one env with reward 1; the second ends the episode as (terminated, truncated) says."""
    replay = ReplayConfig(capacity=3, frames="full").build(
        space, actions, 1, np.random.default_rng(0), lambda line: None
    )
    over = any(ends)
    for step in range(3):
        flags = ends if step == 1 else (False, False)
        replay.add_step(
            obs=np.full((1, *space.shape), 10 + step if over and step == 2 else step, space.dtype),
            act=np.zeros((1, *actions.shape), actions.dtype),
            rew=np.ones(1, np.float32),
            terminated=np.array([flags[0]]),
            truncated=np.array([flags[1]]),
            obs_next=np.full((1, *space.shape), 13 if over and step == 2 else step + 1, space.dtype),
            episode_over=np.array([any(flags)]),
        )
    return replay


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # V(obs) = obs, gamma = lambda = 0.5, reward 1: delta_t = 1 + 0.5 * V(next) - V(obs)
        ((False, False), [1.5 + 0.25 * (1.0 + 0.25 * 0.5), 1.0 + 0.25 * 0.5, 0.5]),
        ((True, False), [1.5 + 0.25 * 0.0, 1.0 - 1.0, 1.0 + 0.5 * 13 - 12]),
        ((False, True), [1.5 + 0.25 * 1.0, 1.0 + 0.5 * 2 - 1.0, 1.0 + 0.5 * 13 - 12]),
    ],
    ids=["open", "terminated", "truncated"],
)
def test_advantages_bootstrap_where_an_episode_was_cut_and_not_where_it_ended(
    ends: tuple[bool, bool], expected: list[float]
) -> None:
    agent = build(gamma=0.5, gae_lambda=0.5)

    class Identity(torch.nn.Module):
        head = agent.ppo.critic.head

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            return obs[:, :1].float()

    agent.ppo.critic = Identity()  # type: ignore[assignment]
    replay = rollout(ends=ends)
    batch, indices = replay.sample(0)
    batch = agent.ppo._preprocess_batch(batch, replay, indices)
    np.testing.assert_allclose(batch.adv, expected, rtol=1e-6)
    np.testing.assert_allclose(batch.returns, np.array(expected) + batch.v_s.numpy(), rtol=1e-6)


def test_the_first_ratio_is_one() -> None:
    for actions in (ACTIONS, BOX):
        agent = build(actions=actions, normalize_observations=True)
        replay = rollout(actions=gymnasium.spaces.Box(-1, 1, (2,), np.float32) if actions is BOX else actions)
        batch, indices = replay.sample(0)
        batch = agent.ppo._preprocess_batch(batch, replay, indices)
        log_prob_B = agent.ppo.policy(batch).dist.log_prob(batch.act)
        torch.testing.assert_close(log_prob_B.detach(), batch.logp_old)


def test_a_shared_body_runs_once_per_minibatch() -> None:
    agent = build(space=PIXELS, network=NatureCnnConfig(hidden_width=8), num_epochs=2, minibatch_size=3)
    replay = rollout(space=PIXELS)
    body: Any = agent.ppo.critic.body
    calls: list[bool] = []
    body.body.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    with policy_within_training_step(agent.ppo.policy):
        agent.ppo.update(replay, 3, 2)
    assert sum(calls) == 2, "one training forward per minibatch"
    names = [name for name in agent.weights() if "layers" in name]
    assert len(names) == 8 and all(name.startswith("policy.") for name in names), "the shared body is listed once"


def test_separate_bodies_share_nothing() -> None:
    agent = build(shared_body=False)
    policy = {id(parameter) for parameter in agent.ppo.policy.parameters()}
    assert not policy & {id(parameter) for parameter in agent.ppo.critic.parameters()}


def test_initialisation_is_cleanrls() -> None:
    agent = build(network=MlpConfig(hidden_widths=(16, 16), initialization="orthogonal"))
    weights = agent.weights()
    head = weights["policy.actor.head.weight"]
    torch.testing.assert_close(head @ head.T, 0.01**2 * torch.eye(2), atol=1e-8, rtol=1e-4)
    assert float(weights["critic.head.weight"].detach().norm()) == pytest.approx(1.0)


def test_the_learning_rate_falls_linearly_with_env_steps_as_a_plain_float() -> None:
    agent = build(learning_rate=0.1, learning_rate_decay=1000)
    [optimizer] = agent._optimizers()
    for env_steps, expected in ((0, 0.1), (250, 0.075), (1000, 0.0), (5000, 0.0)):
        agent.set_env_steps(env_steps)
        rate = optimizer.param_groups[0]["lr"]
        assert type(rate) is float and rate == agent.metrics()["learning_rate"] == pytest.approx(expected)
    assert build(learning_rate=0.1)._optimizers()[0].param_groups[0]["lr"] == 0.1


def test_the_gradient_norm_is_measured_before_it_is_clipped() -> None:
    agent = build(max_grad_norm=1e-6)
    with policy_within_training_step(agent.ppo.policy):
        agent.ppo.update(rollout(), 3, 1)
    assert agent.metrics()["grad_norm"] > 1e-3


def test_categorical_samples_follow_the_probabilities() -> None:
    probs_A = np.array([0.5, 0.0, 0.3, 0.2])
    drawn = sample_categorical(np.tile(probs_A, (20_000, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20_000, probs_A, atol=0.01)
    short = sample_categorical(np.array([[0.3, 0.3]] * 100), np.random.default_rng(0))
    assert set(short) == {0, 1}, "probabilities that do not sum to one give no index past the end"


def test_box_actions_are_clipped_then_scaled_to_the_bounds() -> None:
    agent = build(actions=BOX)
    sent = agent.env_action(np.array([[-1.0, -1.0], [0.0, 0.5], [7.0, 1.0]], np.float32))
    np.testing.assert_allclose(sent, [[-2.0, 0.0], [0.0, 0.225], [2.0, 0.3]], rtol=1e-6)
    assert sent.dtype == BOX.dtype and all(BOX.contains(row) for row in sent)
    assert np.array_equal(agent.ppo.policy.map_action(np.array([[7.0, 1.0]], np.float32)), sent[2:])


def test_gaussian_samples_have_the_policys_deviation() -> None:
    agent = build(actions=BOX, log_std=-1.0)
    obs = np.zeros((20_000, 3), np.float32)
    mean_A, drawn = agent.act(obs)[0][0], agent.act(obs, explore=True)[0]
    np.testing.assert_allclose(drawn.mean(0), mean_A, atol=0.01)
    np.testing.assert_allclose(drawn.std(0), np.exp(-1.0), rtol=0.02)


def test_the_normaliser_equals_numpy_over_all_batches() -> None:
    normalizer = RunningNormalizer(3)
    batches = np.random.default_rng(0).normal([1.0, -20.0, 0.0], [1.0, 3.0, 0.0], (4, 50, 3))
    for batch in batches:
        normalizer.observe(torch.from_numpy(batch))
    flat = batches.reshape(-1, 3)
    np.testing.assert_allclose(normalizer.mean, flat.mean(0))
    np.testing.assert_allclose(normalizer.variance, flat.var(0), atol=1e-12)
    scaled = normalizer(torch.from_numpy(flat)).numpy()
    np.testing.assert_allclose(scaled[:, 0], (flat[:, 0] - flat[:, 0].mean()) / flat[:, 0].std(), atol=1e-5)
    assert scaled.dtype == np.float32 and np.abs(normalizer(torch.full((1, 3), 1e9)).numpy()).max() == 10.0


def test_observation_statistics_move_in_updates_only_and_travel_with_the_weights() -> None:
    agent = build(normalize_observations=True, shared_body=False)
    names = [name for name in agent.weights() if "normalizer" in name]
    assert sorted(name.rsplit(".", 1)[-1] for name in names) == ["count", "mean", "variance"]
    agent.act(np.full((5, 3), 100.0, np.float32), explore=True)
    assert agent.ppo.normalizer is not None and float(agent.ppo.normalizer.count) == 0
    with policy_within_training_step(agent.ppo.policy):
        agent.ppo.update(rollout(), 3, 1)
    assert float(agent.ppo.normalizer.count) == 3 and agent.ppo.normalizer.mean.tolist() == [1.0, 1.0, 1.0]
    other = build(normalize_observations=True, shared_body=False)
    other.load_weights(agent.weights(), acting_only=True)
    obs = np.random.default_rng(0).standard_normal((4, 3), dtype=np.float32)
    assert np.array_equal(other.ppo.policy.actor(obs)[0].detach(), agent.ppo.policy.actor(obs)[0].detach())


@pytest.mark.parametrize(("env_id", "continuous"), [("CartPole-v1", False), ("Pendulum-v1", True)])
def test_tianshous_trainer_collector_and_buffer_drive_it(env_id: str, continuous: bool) -> None:
    envs = DummyVectorEnv([lambda: gymnasium.make(env_id) for _ in range(4)])
    env = gymnasium.make(env_id)
    agent = build(space=env.observation_space, actions=env.action_space, normalize_observations=continuous)
    collector: Collector[Any] = Collector(agent.algorithm, envs, VectorReplayBuffer(64, 4))
    params = OnPolicyTrainerParams(
        max_epochs=2,
        epoch_num_steps=64,
        training_collector=collector,
        collection_step_num_env_steps=64,
        update_step_num_repetitions=2,
        batch_size=16,
        verbose=False,
        show_progress=False,
    )
    OnPolicyTrainer(agent.ppo, params).run()
    assert agent.ppo.num_updates == 2 * 2 * 4 and np.isfinite(agent.metrics()["loss"])


def test_the_change_of_the_policy_is_measured() -> None:
    still, moving = build(learning_rate=1e-30), build(learning_rate=0.5)
    for agent in (still, moving):
        with policy_within_training_step(agent.ppo.policy):
            agent.ppo.update(rollout(), 8, 2)
    assert still.metrics()["approx_kl"] == pytest.approx(0.0, abs=1e-6) and still.metrics()["clip_fraction"] == 0.0
    assert moving.metrics()["approx_kl"] > 0.01 and moving.metrics()["clip_fraction"] > 0.1
    replay = rollout()
    batch, indices = replay.sample(0)
    batch = moving.ppo._preprocess_batch(batch, replay, indices)
    before = torch.get_rng_state()
    moving.ppo._policy_change(batch, 8)
    assert torch.equal(before, torch.get_rng_state())
