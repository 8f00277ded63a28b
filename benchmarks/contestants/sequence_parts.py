"""Agents, data and batches of the sequence benchmarks: small ones on Meta-World's vectors, large ones on pixels.

Legend: B rows, K steps of a segment, G tokens of a step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from agents.decision_transformer import DecisionTransformerConfig
from agents.decision_transformer.agent import DecisionTransformerAgent
from memory.data_summary import DataSummary
from memory.segment_batch import SegmentBatch
from memory.trajectories import Episode
from memory.trajectory_data import TrajectoryData
from memory.trajectory_facts import TrajectoryFacts
from memory.trajectory_samplers import SegmentSampler, StreamSampler, WindowSampler
from memory.trajectory_store import TrajectoryFile, TrajectoryWriter, consolidate

OBS_SIZE, ACTION_SIZE = 39, 4
NUM_TASKS, EPISODES_PER_TASK = 10, 40
SHORTEST, LONGEST = 40, 120
"""Env steps of an episode; scripted experts of Meta-World that stop at success take about 80."""
CONTEXT, TOKENS_PER_STEP, NUM_ENVS = 20, 3, 10
LARGE_CONTEXT, LARGE_TOKENS = 4, 156
"""Four steps of 36 patches, return, action and reward."""

VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (OBS_SIZE,), np.float32)
ARM = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
BUTTONS = gymnasium.spaces.Discrete(18)

MEMORIES: dict[str, dict[str, Any]] = {
    "dt": {"kind": "none"},
    "dt_mem": {"kind": "slots", "num_slots": 64, "chunk": 5},
    "dt_mem_chunk_1": {"kind": "slots", "num_slots": 64, "chunk": 1},
    "rmdt": {"kind": "tokens"},
}
LARGE_MEMORIES: dict[str, dict[str, Any]] = {
    "dt_mem": {"kind": "slots", "num_slots": LARGE_TOKENS, "chunk": LARGE_CONTEXT},
    "dt_mem_chunk_1": {"kind": "slots", "num_slots": LARGE_TOKENS, "chunk": 1},
}
"""As many slots as the authors' release has at this length: one per token."""
LARGE: dict[str, Any] = {
    "context_length": LARGE_CONTEXT,
    "width": 512,
    "num_layers": 4,
    "num_heads": 8,
    "activation": "gelu",
    "layout": "mdt",
    "position": "window",
    "use_reward_tokens": True,
    "single_return_token": True,
    "return_prediction": {},
    "reward_prediction": True,
    "max_grad_norm": 1.0,
}


class OneBatch:
    """Gives the same batch over and over."""

    def __init__(self, batch: SegmentBatch) -> None:
        self.batch = batch

    def sample(self, batch_size: int) -> tuple[SegmentBatch, np.ndarray]:
        """Gives it, as a sampler does."""
        return self.batch, np.arange(batch_size)


def made_up_data(directory: Path) -> TrajectoryData:
    """Writes random episodes of ten tasks, of Meta-World's shape, and opens them."""
    rng, files = np.random.default_rng(0), []
    for task in (f"task-{index}" for index in range(NUM_TASKS)):
        facts = TrajectoryFacts(
            env_id="made-up",
            suite="made-up",
            task=task,
            observation_kind="vector",
            obs_shape=(OBS_SIZE,),
            obs_dtype="float32",
            action_kind="continuous",
            action_size=ACTION_SIZE,
        )
        with TrajectoryWriter(directory, facts) as writer:
            writer.add(*(_episode(task, seed, rng) for seed in range(EPISODES_PER_TASK)))
        files.append(TrajectoryFile.open(consolidate(directory, task)))
    return TrajectoryData(files)


def _episode(task: str, seed: int, rng: np.random.Generator) -> Episode:
    length = int(rng.integers(SHORTEST, LONGEST + 1))
    return Episode(
        obs=rng.standard_normal((length + 1, OBS_SIZE), dtype=np.float32),
        action=rng.uniform(-1.0, 1.0, (length, ACTION_SIZE)).astype(np.float32),
        reward=rng.uniform(0.0, 10.0, length).astype(np.float32),
        terminated=False,
        truncated=True,
        success=None,
        task=task,
        seed=seed,
    )


def small_agent(memory: str, num_segments: int, batch_size: int, data: TrajectoryData) -> DecisionTransformerAgent:
    """Gives a d128/L3 agent with the defaults of its family.

    Args:
        memory: one of MEMORIES.
        num_segments: of a training row.
        batch_size: rows of a gradient step.
        data: made up.
    """
    config = DecisionTransformerConfig.model_validate(
        {"memory": MEMORIES[memory], "num_segments": num_segments, "batch_size": batch_size, "context_length": CONTEXT}
    )
    return _built(config, VECTOR, ARM, data.summary())


def sampler_of(config: DecisionTransformerConfig, data: TrajectoryData) -> SegmentSampler:
    """Gives the sampler that training with this config draws from."""
    shared: dict[str, Any] = {
        "context_length": config.context_length,
        "batch_size": config.batch_size,
        "rng": np.random.default_rng(1),
        "balance": config.balance,
    }
    return (
        StreamSampler(data, num_segments=config.num_segments, **shared)
        if config.streams
        else WindowSampler(data, **shared)
    )


def large_agent(memory: str, batch_size: int) -> DecisionTransformerAgent:
    """Gives a d512/L4 agent on pixels, with the tokens of the authors' release.

    Args:
        memory: one of LARGE_MEMORIES.
        batch_size: rows of a gradient step.
    """
    config = DecisionTransformerConfig.model_validate(
        {**LARGE, "memory": LARGE_MEMORIES[memory], "batch_size": batch_size}
    )
    summary = DataSummary(
        tasks=("made-up",),
        obs_mean=None,
        obs_std=None,
        max_length=1_000,
        return_quantiles={"made-up": tuple(np.linspace(0.0, 100.0, 101).tolist())},
        max_abs_reward=1.0,
        num_episodes=1,
        num_steps=1_000,
        digests={},
    )
    return _built(config, PIXELS, BUTTONS, summary)


def large_batch(batch_size: int) -> SegmentBatch:
    """Gives a batch of one segment of random pixels, every step real and at an episode's start."""
    rng, shape = np.random.default_rng(2), (batch_size, 1, LARGE_CONTEXT)
    return SegmentBatch(
        obs=rng.integers(0, 256, (*shape, 4, 84, 84), dtype=np.uint8),
        previous_action=rng.integers(0, 18, shape),
        previous_reward=rng.integers(-1, 2, shape).astype(np.float32),
        return_to_go=rng.integers(0, 50, shape).astype(np.float32),
        timestep=np.broadcast_to(np.arange(LARGE_CONTEXT), shape).copy(),
        action=rng.integers(0, 18, shape),
        reward=rng.integers(-1, 2, shape).astype(np.float32),
        valid=np.ones(shape, bool),
        starts=np.ones(shape[:2], bool),
        task=np.zeros(shape[:2], np.int64),
    )


def note(path: Path, **facts: float) -> None:
    """Adds a line of numbers to a contestant's notes, which the referee reads."""
    with path.open("a", encoding="utf-8") as file:
        print(json.dumps(facts), file=file)


def _built(
    config: DecisionTransformerConfig, obs: gymnasium.Space[Any], action: gymnasium.Space[Any], data: DataSummary
) -> DecisionTransformerAgent:
    seed = np.random.SeedSequence(0)
    return config.build(obs, action, device="cpu", seed=seed, data=data, total_gradient_steps=100_000)
