"""Tianshou's algorithms and Collector on our replays: the same bits as on its own VectorReplayBuffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.algorithm.algorithm_base import Algorithm
from tianshou.algorithm.modelfree.c51 import C51, C51Policy
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.ppo import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.modelfree.sac import SAC, SACPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step

from memory import ReplayConfig
from memory.replay import Replay
from tests.memory.reference import FRAME, RandomEnvs

NUM_ENVS, STEPS = 3, 20
OBSERVATION = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
DISCRETE, BOX = gym.spaces.Discrete(4), gym.spaces.Box(-1, 1, (2,), np.float32)


def make_replay(action_space: Any, observation_space: Any = OBSERVATION, seed: int = 0, **settings: Any) -> Replay:
    frames = "single" if len(observation_space.shape) == 3 else "full"
    config = ReplayConfig(**{"capacity": NUM_ENVS * STEPS, "frames": frames, **settings})
    return config.build(observation_space, action_space, NUM_ENVS, np.random.default_rng(seed), lambda _: None)


def vector_stream(action_space: Any, steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Transitions of N envs whose episodes end, terminate and are truncated at random."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(NUM_ENVS, 5)).astype(np.float32)
    stream = []
    for _ in range(steps):
        terminated, truncated = rng.random((2, NUM_ENVS)) < 0.15
        obs_next = rng.normal(size=obs.shape).astype(np.float32)
        act: np.ndarray = rng.integers(4, size=NUM_ENVS)
        if action_space is BOX:
            act = rng.uniform(-1, 1, (NUM_ENVS, 2)).astype(np.float32)
        rew = rng.normal(size=NUM_ENVS).astype(np.float32)
        stream.append(
            {"obs": obs, "act": act, "rew": rew, "terminated": terminated, "truncated": truncated, "obs_next": obs_next}
        )
        obs = np.where((terminated | truncated)[:, None], rng.normal(size=obs.shape), obs_next).astype(np.float32)
    return stream


def fill(buffer: Any, stream: list[dict[str, np.ndarray]]) -> Any:
    for rows in stream:
        buffer.add(Batch({**rows, "info": Batch(), "policy": Batch()}), buffer_ids=np.arange(NUM_ENVS))
    return buffer


def adam() -> AdamOptimizerFactory:
    return AdamOptimizerFactory(lr=1e-2)


def make_dqn(n_step: int = 3, obs_shape: tuple[int, ...] = (5,)) -> DQN[Any]:
    net = Net(state_shape=obs_shape, action_shape=4, hidden_sizes=[16])
    policy = DiscreteQLearningPolicy(model=net, action_space=DISCRETE)
    return DQN(policy=policy, optim=adam(), n_step_return_horizon=n_step, target_update_freq=2)


def make_c51() -> C51:
    net = Net(state_shape=(5,), action_shape=4, hidden_sizes=[16], softmax=True, num_atoms=51)
    return C51(policy=C51Policy(net, DISCRETE), optim=adam(), target_update_freq=2)


def make_sac() -> SAC[Any]:
    actor = ContinuousActorProbabilistic(
        preprocess_net=Net(state_shape=(5,), hidden_sizes=[16]),
        action_shape=(2,),
        unbounded=True,
        conditioned_sigma=True,
    )
    critic = ContinuousCritic(preprocess_net=Net(state_shape=(5,), action_shape=(2,), hidden_sizes=[16], concat=True))
    policy = SACPolicy(actor=actor, action_space=BOX)
    return SAC(policy=policy, policy_optim=adam(), critic=critic, critic_optim=adam(), n_step_return_horizon=2)


def make_ppo() -> PPO:
    body = Net(state_shape=(5,), hidden_sizes=[16])
    policy = ProbabilisticActorPolicy(
        actor=DiscreteActor(preprocess_net=body, action_shape=4),
        dist_fn=torch.distributions.Categorical,
        action_space=DISCRETE,
        action_scaling=False,
        action_bound_method=None,
    )
    return PPO(policy=policy, critic=DiscreteCritic(preprocess_net=body), optim=adam())


def trained(make: Callable[[], Algorithm[Any, Any]], buffer: Any, updates: int = 3) -> list[np.ndarray]:
    """Gives the parameters after some updates from a fixed seed."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (Tianshou shuffles minibatches with it)
    algorithm: Any = make()
    with policy_within_training_step(algorithm.policy):
        for _ in range(updates):
            if isinstance(algorithm, PPO):
                algorithm.update(buffer=buffer, batch_size=16, repeat=2)
            else:
                algorithm.update(buffer=buffer, sample_size=32)
    return [parameter.detach().numpy().copy() for parameter in algorithm.parameters()]


@pytest.mark.parametrize("steps", [12, 20, 33])  # not yet full, just full, wrapped
@pytest.mark.parametrize(("make", "action_space"), [(make_dqn, DISCRETE), (make_c51, DISCRETE), (make_sac, BOX)])
def test_off_policy_updates_equal_those_on_tianshous_buffer(make: Any, action_space: Any, steps: int) -> None:
    stream = vector_stream(action_space, steps)
    ours = fill(make_replay(action_space), stream)
    theirs = fill(VectorReplayBuffer(NUM_ENVS * STEPS, NUM_ENVS), stream)
    draws = [ours.sample_indices(32) for _ in range(3)]
    for buffer in (ours, theirs):
        remaining = iter(draws)
        buffer.sample_indices = lambda batch_size, remaining=remaining: next(remaining)
    for mine, expected in zip(trained(make, ours), trained(make, theirs), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("steps", [12, 20])
def test_ppo_updates_equal_those_on_tianshous_buffer(steps: int) -> None:
    """Rollout after rollout, with the replay reset in between as ``OnPolicyTrainer`` does."""
    ours, theirs = make_replay(DISCRETE), VectorReplayBuffer(NUM_ENVS * STEPS, NUM_ENVS)
    stream = vector_stream(DISCRETE, 3 * steps)
    for first in range(0, 3 * steps, steps):
        for buffer in (ours, theirs):
            fill(buffer, stream[first : first + steps])
        for mine, expected in zip(trained(make_ppo, ours), trained(make_ppo, theirs), strict=True):
            np.testing.assert_array_equal(mine, expected)
        for buffer in (ours, theirs):
            buffer.reset(keep_statistics=True)
            assert len(buffer) == 0


@pytest.mark.parametrize("frames", ["full", "single"])
def test_generalised_advantages_equal_tianshous(frames: str) -> None:
    """Rollouts are read env by env in time order, also when the ring has wrapped, and end at unfinished episodes."""
    rng = np.random.default_rng(0)
    stream = vector_stream(DISCRETE, 31)
    if frames == "single":
        for rows, stacks in zip(stream, stack_stream(31), strict=True):
            rows |= stacks
    space = OBSERVATION if frames == "full" else gym.spaces.Box(0, 255, (2, *FRAME), np.uint8)
    ours = fill(make_replay(DISCRETE, space), stream)
    theirs = fill(VectorReplayBuffer(NUM_ENVS * STEPS, NUM_ENVS), stream)
    values, next_values = rng.normal(size=(2, NUM_ENVS * STEPS)).astype(np.float32)
    results = []
    for buffer in (ours, theirs):
        batch, indices = buffer.sample(0)
        results.append(
            (*Algorithm.compute_episodic_return(batch, buffer, indices, next_values, values, 0.97, 0.9), batch.rew)
        )
        assert len(buffer.unfinished_index()) > 0
    for mine, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, expected)


def stack_stream(steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    envs = RandomEnvs(NUM_ENVS, 2, np.random.default_rng(seed))
    stream = []
    for _ in range(steps):
        transitions = [envs.step(env, int(envs.rng.choice([0, 0, 0, 2, 3])))[0] for env in range(NUM_ENVS)]
        names = ("obs", "act", "rew", "terminated", "truncated", "obs_next")
        stream.append({name: np.array([getattr(transition, name) for transition in transitions]) for name in names})
        stream[-1]["act"] %= 4
    return stream


@pytest.mark.parametrize("prioritised", [False, True])
def test_single_frames_and_full_stacks_train_alike(prioritised: bool) -> None:
    """Both layouts draw the same transitions from the same generator, so DQN ends at the same weights."""
    space = gym.spaces.Box(0, 255, (2, *FRAME), np.uint8)
    stream = stack_stream(50)
    weights = []
    for frames in ("single", "full"):
        replay = fill(make_replay(DISCRETE, space, frames=frames, prioritised=prioritised), stream)
        weights.append(trained(lambda: make_dqn(2, (2, *FRAME)), replay, updates=5))
    if prioritised:  # the sum trees have other lengths, so other draws; each learns
        assert all(np.isfinite(array).all() for arrays in weights for array in arrays)
    else:
        for single, full in zip(*weights, strict=True):
            np.testing.assert_array_equal(single, full)


def test_our_n_step_equals_the_one_inside_tianshou() -> None:
    replay = fill(make_replay(DISCRETE), vector_stream(DISCRETE, 33))
    batch, indices = replay.sample(64)
    value = np.random.default_rng(0).normal(size=replay.maxsize).astype(np.float32)
    expected = Algorithm.compute_nstep_return(
        batch, replay, indices, lambda _, at: torch.from_numpy(value[at])[:, None], gamma=0.9, n_step=4
    ).returns.numpy()[:, 0]
    returns, discounts, last = replay.n_step(indices, 4, 0.9)
    np.testing.assert_allclose(returns + discounts * value[last], expected, rtol=1e-5, atol=1e-6)


def collected(buffer: Any, *, n_step: int | None = None, n_episode: int | None = None) -> Any:
    envs = DummyVectorEnv([lambda: gym.make("CartPole-v1") for _ in range(NUM_ENVS)])
    torch.manual_seed(0)
    net = Net(state_shape=(4,), action_shape=2, hidden_sizes=[8])
    policy = DiscreteQLearningPolicy(model=net, action_space=gym.spaces.Discrete(2))
    collector: Any = Collector(policy, envs, buffer)
    collector.reset(gym_reset_kwargs={"seed": 0})
    stats = collector.collect(n_step=n_step, n_episode=n_episode)
    return collector, stats


@pytest.mark.parametrize("amount", [{"n_step": 90}, {"n_episode": 7}])
def test_tianshous_collector_fills_it_like_its_own(amount: dict[str, int]) -> None:
    space: Any = gym.make("CartPole-v1").observation_space
    ours, theirs = make_replay(gym.spaces.Discrete(2), space, capacity=600), VectorReplayBuffer(600, NUM_ENVS)
    (_, mine), (_, expected) = collected(ours, **amount), collected(theirs, **amount)
    np.testing.assert_array_equal(mine.lens, expected.lens)
    np.testing.assert_array_equal(mine.returns, expected.returns)
    (batch, indices), (same, same_indices) = ours.sample(0), theirs.sample(0)
    np.testing.assert_array_equal(indices, same_indices)
    for key in ("obs", "act", "rew", "terminated", "truncated", "done", "obs_next"):
        np.testing.assert_array_equal(batch[key], same[key])


def test_episodes_longer_than_the_ring_are_reported() -> None:
    """Tianshou's own buffer gives such episodes a wrong length in silence."""
    space: Any = gym.make("CartPole-v1").observation_space
    with pytest.warns(UserWarning, match="longer than the 4 transitions"):
        collected(make_replay(gym.spaces.Discrete(2), space, capacity=12), n_episode=3)
