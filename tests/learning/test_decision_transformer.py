"""Decision Transformers learn what they must: a toy of returns, and a T-maze that only a memory can solve."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.utils.torch_utils import policy_within_training_step

from agents.decision_transformer import DecisionTransformerConfig
from agents.decision_transformer.agent import DecisionTransformerAgent
from agents.decision_transformer.part_configs import RawTargetConfig
from envs.memory_tasks import MemoryTasksConfig
from memory.trajectories import Episode
from memory.trajectory_data import TrajectoryData
from memory.trajectory_samplers import StreamSampler, WindowSampler
from memory.trajectory_store import TrajectoryFacts, TrajectoryWriter, consolidate, read_directory

CORRIDORS = {"min_corridor": 15, "max_corridor": 19, "max_wasted_steps": 0}  # 4 segments of 5 steps


def stored(directory: Path, episodes: list[Episode], num_actions: int) -> TrajectoryData:
    task, size = episodes[0].task, episodes[0].obs.shape[1]
    facts = TrajectoryFacts(
        env_id=task,
        suite="toy",
        task=task,
        observation_kind="vector",
        obs_shape=(size,),
        obs_dtype="float32",
        action_kind="discrete",
        num_actions=num_actions,
    )
    with TrajectoryWriter(directory, facts) as writer:
        for episode in episodes:
            writer.add(episode)
    consolidate(directory, task)
    return TrajectoryData(read_directory(directory))


def optimal_t_mazes(num_episodes: int) -> list[Episode]:
    config = MemoryTasksConfig(task="t_maze", **CORRIDORS)
    env = config.make_evaluation_env(config.training_protocol(), 1)
    episodes = []
    for seed in range(num_episodes):
        obs, _ = env.reset(seed=[seed], options={"goal_index": seed % 2})
        seen, done, rewards, over = [obs[0]], [], [], False
        while not over:
            action = env.optimal_actions()
            obs, reward, _, _, info = env.step(action)
            over = bool(info["episode_over"][0])
            seen.append(obs[0])
            done.append(action[0])
            rewards.append(reward[0])
        episodes.append(
            Episode(
                obs=np.stack(seen).astype(np.float32),
                action=np.array(done, np.int64),
                reward=np.array(rewards, np.float32),
                terminated=True,
                truncated=False,
                success=None,
                task="t_maze",
                seed=seed,
            )
        )
    return episodes


def trained(
    config: DecisionTransformerConfig, data: TrajectoryData, num_actions: int, steps: int
) -> DecisionTransformerAgent:
    torch.manual_seed(0)
    agent = config.build(
        gymnasium.spaces.Box(-np.inf, np.inf, data.facts.obs_shape, np.float32),
        gymnasium.spaces.Discrete(num_actions),
        device="cpu",
        seed=np.random.SeedSequence(1),
        data=data.summary(),
        total_gradient_steps=steps,
    )
    common: dict[str, Any] = {"context_length": config.context_length, "batch_size": config.batch_size}
    common["rng"] = np.random.default_rng(2)
    sampler: Any = (
        StreamSampler(data, num_segments=config.num_segments, **common)
        if config.streams
        else WindowSampler(data, **common)
    )
    algorithm: Any = agent.algorithm
    with policy_within_training_step(algorithm.policy):
        for _ in range(steps):
            algorithm.update(buffer=sampler, sample_size=config.batch_size)
    return agent


def t_maze_success(agent: DecisionTransformerAgent, num_envs: int = 100) -> float:
    """Share of mazes, with cues drawn at random, in which the agent turns as the cue said."""
    config = MemoryTasksConfig(task="t_maze", **CORRIDORS)
    env = config.make_evaluation_env(config.evaluation_protocol(), num_envs)
    cues = np.random.default_rng(3).permutation(np.arange(num_envs) % 2).tolist()
    obs, _ = env.reset(seed=[10_000 + row for row in range(num_envs)], options={"goal_index": cues})
    obs, rows, success = np.array(obs), np.arange(num_envs), np.zeros(num_envs)
    state = agent.begin_episodes(agent.initial_state(num_envs), rows, ["t_maze"] * num_envs)
    while len(rows):
        action, state = agent.act(obs, state)
        obs[rows], reward, _, _, info = env.step(agent.env_action(action)[rows], id=rows)
        state = agent.receive_rewards(state, rows, np.asarray(reward, np.float32))
        success[rows] = info["success"]
        rows = rows[~np.asarray(info["episode_over"], bool)]
    return float(success.mean())


T_MAZE: dict[str, Any] = {
    "context_length": 5,
    "width": 32,
    "num_layers": 1,
    "dropout": 0.0,
    "return_scale": 1.0,
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "max_grad_norm": 1.0,
    "batch_size": 32,
    "num_segments": 4,
}


@pytest.mark.slow
def test_a_t_maze_is_solved_with_a_memory_and_only_while_it_is_used(tmp_path: Path) -> None:
    memory = {"kind": "slots", "num_slots": 32, "chunk": 5}
    data = stored(tmp_path, optimal_t_mazes(200), 4)
    agent = trained(DecisionTransformerConfig(**{**T_MAZE, "memory": memory}), data, 4, 700)
    assert t_maze_success(agent) >= 0.98
    uses: tuple[Literal["reset", "zeroed_read", "shuffled"], ...] = ("reset", "zeroed_read", "shuffled")
    for use in uses:
        agent.memory_use = use
        assert 0.3 <= t_maze_success(agent) <= 0.7, use


@pytest.mark.slow
def test_a_t_maze_is_a_coin_toss_without_a_memory(tmp_path: Path) -> None:
    data = stored(tmp_path, optimal_t_mazes(200), 4)
    agent = trained(DecisionTransformerConfig(**{**T_MAZE, "num_segments": 1}), data, 4, 500)
    assert 0.3 <= t_maze_success(agent) <= 0.7


@pytest.mark.slow
def test_it_earns_what_it_is_asked_for(tmp_path: Path) -> None:
    """Ten free choices of 0 or 1, each paid as chosen: nothing but the return asked for tells what to do."""
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(300):
        action = (rng.random(10) < rng.random()).astype(np.int64)
        nothing = np.zeros((11, 1), np.float32)
        reward = action.astype(np.float32)
        episodes.append(Episode(nothing, action, reward, False, True, None, "choices", seed))
    data = stored(tmp_path, episodes, 2)
    config = DecisionTransformerConfig(**{**T_MAZE, "num_segments": 1, "return_scale": 10.0})
    agent = trained(config, data, 2, 1000)
    earned = {}
    for asked in (0.0, 3.0, 7.0, 10.0):
        agent.target = RawTargetConfig(value=asked)
        state, total = agent.begin_episodes(agent.initial_state(64), range(64), ["choices"] * 64), np.zeros(64)
        for _ in range(10):
            action, state = agent.act(np.zeros((64, 1), np.float32), state, explore=True)
            state = agent.receive_rewards(state, range(64), action.astype(np.float32))
            total += action
        earned[asked] = total.mean()
    assert all(abs(got - asked) < 0.7 for asked, got in earned.items()), earned
