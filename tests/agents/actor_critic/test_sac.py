"""SAC: the same update as Tianshou's, targets, temperature, and squashed actions."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.algorithm.modelfree.sac import SAC
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainer, OffPolicyTrainerParams
from tianshou.utils.torch_utils import policy_within_training_step

from agents.actor_critic.config import SACConfig
from agents.actor_critic.sac import SACAgent
from agents.base_config import MlpConfig
from memory import ReplayConfig
from memory.replay import Replay

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
BOX = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.3], np.float32))
STORED = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def build(space: Any = SPACE, actions: Any = BOX, **changes: Any) -> SACAgent:
    config: dict[str, Any] = {"network": MlpConfig(hidden_widths=(8,)), "batch_size": 4, "metrics_period": 1, **changes}
    config.setdefault("replay", ReplayConfig(capacity=64))
    return SACConfig(**config).build(space, actions, device="cpu", seed=np.random.SeedSequence(0))


def filled(agent: SACAgent) -> Replay:
    rng = np.random.default_rng(0)
    replay = agent.config.replay.build(SPACE, STORED, 2, np.random.default_rng(1), lambda line: None)
    obs = rng.standard_normal((2, 3))
    for step in range(12):
        next_obs = rng.standard_normal((2, 3))
        terminated, truncated = np.full(2, step == 4), np.full(2, step == 8)
        replay.add_step(
            obs=obs,
            act=agent.random_action(2),
            rew=rng.standard_normal(2),
            terminated=terminated,
            truncated=truncated,
            obs_next=next_obs,
            episode_over=terminated | truncated,
        )
        obs = next_obs
    return replay


def update(agent: SACAgent, replay: Any, size: int = 4) -> Any:
    with policy_within_training_step(agent.sac.policy):
        return agent.sac.update(replay, size)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("prioritised", [False, True])
def test_an_update_is_tianshous_up_to_rounding(n_step: int, prioritised: bool) -> None:
    config = ReplayConfig(capacity=64, prioritised=prioritised)
    agent = build(n_step=n_step, replay=config)
    replay = filled(agent)
    for _ in range(3):
        update(agent, replay)
    theirs = build(n_step=n_step, replay=config)
    theirs.load_weights(agent.weights())
    theirs.load_training_state(agent.optimizer_state(), agent.counters())
    batch, indices = replay.sample(8)
    twin = copy.deepcopy(batch)

    torch.manual_seed(0)
    with policy_within_training_step(agent.sac.policy):
        ours_stats: Any = agent.sac._update_with_batch(agent.sac._preprocess_batch(batch, replay, indices))
    torch.manual_seed(0)
    algorithm: Any = theirs.sac
    algorithm._update_lagged_network_weights = lambda: algorithm._lagged_networks.polyak_parameter_update(algorithm.tau)
    with policy_within_training_step(algorithm.policy):
        twin = super(type(algorithm), algorithm)._preprocess_batch(twin, replay, indices)
        torch.testing.assert_close(twin.returns.flatten(), batch.returns)
        twin.obs, twin.act = torch.as_tensor(twin.obs), torch.as_tensor(twin.act)
        stats: Any = SAC._update_with_batch(algorithm, twin)
    assert (ours_stats.actor_loss, ours_stats.critic1_loss, ours_stats.alpha_loss) == pytest.approx(
        (stats.actor_loss, stats.critic1_loss, stats.alpha_loss), rel=1e-5
    )
    for name, tensor in agent.weights().items():
        torch.testing.assert_close(tensor, theirs.weights()[name], msg=name)
    torch.testing.assert_close(batch.weight, twin.weight.detach())


def test_critics_learn_but_get_no_gradient_from_the_actor() -> None:
    agent = build()
    replay = filled(agent)
    before = {name: tensor.detach().clone() for name, tensor in agent.weights().items()}
    update(agent, replay)
    after = agent.weights()
    assert all(not torch.equal(before[name], after[name]) for name in after), "every network and target moves"
    assert all(parameter.requires_grad for parameter in agent.sac.critic.parameters())


def test_targets_bootstrap_at_truncations_only() -> None:
    agent = build(gamma=0.5, alpha=0.0)
    for critic in (agent.sac.critic_old, agent.sac.critic2_old):
        for parameter in critic.parameters():
            torch.nn.init.zeros_(parameter)
    targets: list[Any] = [agent.sac.critic_old.module, agent.sac.critic2_old.module]
    torch.nn.init.constant_(targets[0].head.bias, 6.0)
    torch.nn.init.constant_(targets[1].head.bias, 8.0)  # the smaller counts
    replay = filled(agent)
    batch, indices = replay.sample(0)
    rewards, terminated = np.asarray(batch.rew, np.float32), np.asarray(batch.terminated)
    assert terminated.any() and np.asarray(batch.truncated).any()
    batch = agent.sac._preprocess_batch(batch, replay, indices)
    np.testing.assert_allclose(batch.returns, rewards + np.where(terminated, 0.0, 0.5 * 6.0), rtol=1e-6)


def test_the_temperature_is_tuned_and_its_optimizer_saved() -> None:
    agent = build(initial_alpha=0.5)
    alpha: Any = agent.sac.alpha
    assert alpha.value == pytest.approx(0.5) and alpha._target_entropy == -2.0
    assert len(agent.optimizer_state()["optimizers"]) == 4 and "alpha._log_alpha" in agent.weights()
    update(agent, filled(agent))
    assert agent.optimizer_state()["optimizers"][3]["state"][0]["step"] == 1
    fixed = build(alpha=0.2)
    assert fixed.sac.alpha.value == 0.2 and len(fixed.optimizer_state()["optimizers"]) == 3


def test_actions_are_squashed_and_scaled() -> None:
    agent = build()
    obs = 100 * np.random.default_rng(0).standard_normal((500, 3))
    for action in (agent.act(obs)[0], agent.act(obs, explore=True)[0], agent.random_action(500)):
        assert action.dtype == np.float32 and np.abs(action).max() <= 1.0
        sent = agent.env_action(action)
        assert np.array_equal(sent, agent.sac.policy.map_action(action)) and all(BOX.contains(row) for row in sent)
    (mean_NA, _), _ = agent.sac.policy.actor(obs)
    np.testing.assert_allclose(agent.act(obs)[0], mean_NA.detach().tanh().numpy(), rtol=1e-6)


def test_exploring_samples_the_squashed_gaussian() -> None:
    agent = build()
    obs = np.zeros((20_000, 3))
    (mean_NA, std_NA), _ = agent.sac.policy.actor(obs[:1])
    drawn = np.arctanh(agent.act(obs, explore=True)[0].astype(np.float64).clip(-1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(drawn.mean(0), mean_NA[0].detach(), atol=0.03)
    np.testing.assert_allclose(drawn.std(0), std_NA[0].detach(), rtol=0.03)


def test_nan_actions_reach_the_environment_as_nan() -> None:
    assert np.isnan(build().env_action(np.array([[np.nan, 0.0]], np.float32))[0, 0])


def test_tianshous_trainer_collector_and_buffer_drive_it() -> None:
    env = gymnasium.make("Pendulum-v1")
    agent = build(space=env.observation_space, actions=env.action_space)
    envs = DummyVectorEnv([lambda: gymnasium.make("Pendulum-v1") for _ in range(4)])
    collector: Collector[Any] = Collector(agent.algorithm, envs, VectorReplayBuffer(400, 4))
    collector.reset()
    collector.collect(n_step=40, random=True)
    params = OffPolicyTrainerParams(
        max_epochs=1,
        epoch_num_steps=40,
        training_collector=collector,
        collection_step_num_env_steps=4,
        batch_size=8,
        verbose=False,
        show_progress=False,
    )
    OffPolicyTrainer(agent.sac, params).run(reset_collectors=False)
    assert agent.sac.num_updates == 40 and agent.metrics()["alpha"] < 1.0
    assert isinstance(collector.buffer.sample(2)[0], Batch)
