"""Small agents, data and batches that the tests of this folder share, and the worker of the two-process test."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tianshou.utils.torch_utils import policy_within_training_step

from agents.decision_transformer import DecisionTransformerConfig
from agents.decision_transformer.agent import DecisionTransformerAgent
from memory.data_summary import DataSummary
from memory.trajectory_samplers import SegmentBatch

VECTOR = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (2, 10, 10), np.uint8)
DISCRETE = gymnasium.spaces.Discrete(3)
BOX = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.3], np.float32))
STEPS = 4
SMALL: dict[str, Any] = {
    "context_length": STEPS,
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.0,
    "batch_size": 4,
    "warmup_steps": 0,
    "learning_rate": 1e-2,
    "metrics_period": 3,
    "return_scale": 10.0,
}
SLOTS: dict[str, Any] = {"kind": "slots", "num_slots": 5, "chunk": 2}
TOKENS: dict[str, Any] = {"kind": "tokens", "num_tokens": 3}
MDT: dict[str, Any] = {
    "layout": "mdt",
    "position": "window",
    "use_reward_tokens": True,
    "reward_prediction": True,
    "return_prediction": {"low": -5.0, "high": 15.0, "bins": 21},
}


def summary(vectors: bool = True) -> DataSummary:
    """Tasks a and b, whose episodes return 0 to 10 and 0 to 20."""
    return DataSummary(
        tasks=("a", "b"),
        obs_mean=(0.5, 0.0, 0.0) if vectors else None,
        obs_std=(2.0, 1.0, 1.0) if vectors else None,
        max_length=30,
        return_quantiles={task: tuple(np.linspace(0.0, best, 101).tolist()) for task, best in (("a", 10), ("b", 20))},
        max_abs_reward=1.0,
        num_episodes=4,
        num_steps=100,
        digests={},
    )


def build(
    observation_space: gymnasium.Space[Any] = VECTOR,
    action_space: gymnasium.Space[Any] = DISCRETE,
    *,
    seed: int = 0,
    steps: int = 100,
    **changes: Any,
) -> DecisionTransformerAgent:
    """An agent whose memory, if any, is read from the start: its zero-initialised output is drawn anew."""
    config = DecisionTransformerConfig(**{**SMALL, **changes})
    agent = config.build(
        observation_space,
        action_space,
        device="cpu",
        seed=np.random.SeedSequence(seed),
        data=summary(observation_space is VECTOR),
        total_gradient_steps=steps,
    )
    generator = torch.Generator().manual_seed(7)
    for name, parameter in agent.model.named_parameters():
        if name.endswith("output.weight") and "cells" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return agent


def batch(
    num_rows: int = 4,
    num_segments: int = 1,
    *,
    rng: np.random.Generator | None = None,
    starts: Any = True,
    discrete: bool = True,
    prompt_steps: int = 0,
    first_timestep: int = 0,
) -> SegmentBatch:
    """Random rows, each of which plays one episode; the last step of row 0 is padding."""
    rng = np.random.default_rng(3) if rng is None else rng
    lead = (num_rows, num_segments, STEPS)
    timestep = first_timestep + np.broadcast_to(np.arange(num_segments * STEPS).reshape(lead[1:]), lead).copy()
    valid = np.ones(lead, bool)
    valid[0, -1, -1] = False

    def action(*shape: int) -> np.ndarray:
        if discrete:
            return rng.integers(0, 3, shape)
        return rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    prompt: dict[str, Any] = {}
    if prompt_steps:
        shape = (num_rows, prompt_steps)
        prompt = {
            "prompt_obs": numbers(*shape, 3),
            "prompt_action": action(*shape),
            "prompt_return_to_go": numbers(*shape),
            "prompt_timestep": np.broadcast_to(np.arange(prompt_steps), shape).copy(),
            "prompt_valid": np.ones(shape, bool),
        }
    return SegmentBatch(
        obs=numbers(*lead, 3),
        previous_action=action(*lead),
        previous_reward=np.sign(numbers(*lead)).astype(np.float32),
        return_to_go=numbers(*lead) * 3,
        timestep=timestep,
        action=action(*lead),
        reward=numbers(*lead),
        valid=valid,
        starts=np.broadcast_to(np.asarray(starts, bool), lead[:2]).copy(),
        task=np.broadcast_to(np.arange(num_rows)[:, None] % 2, lead[:2]).copy(),
        **prompt,
    )


class Fixed:
    """A dataset that gives the same batches in turn."""

    def __init__(self, *batches: SegmentBatch) -> None:
        self.batches = batches
        self.num_samples = 0

    def sample(self, batch_size: int) -> tuple[SegmentBatch, np.ndarray]:
        self.num_samples += 1
        return self.batches[(self.num_samples - 1) % len(self.batches)], np.arange(batch_size)


def train(agent: DecisionTransformerAgent, dataset: Any, count: int = 1) -> None:
    """Takes gradient steps as Tianshou's trainer does."""
    algorithm: Any = agent.algorithm
    with policy_within_training_step(algorithm.policy):
        for _ in range(count):
            algorithm.update(buffer=dataset, sample_size=agent.config.batch_size)


def rows_of(whole: SegmentBatch, rows: slice) -> SegmentBatch:
    """Some rows of a batch."""
    taken: dict[str, Any] = {name: None if array is None else array[rows] for name, array in vars(whole).items()}
    return SegmentBatch(**taken)


def global_batches() -> list[SegmentBatch]:
    """Two batches of a stream, with padding in one process's rows only, so that the processes' counts differ."""
    rng = np.random.default_rng(11)
    later = batch(4, 2, rng=rng, starts=[[False, True], [False, False], [True, False], [False, False]])
    return [batch(4, 2, rng=rng, starts=[[True, False]] * 4), later]


def together(rank: int, world: int, directory: str) -> None:
    """One of several processes that train the same model on their rows, and save what came out."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=world
    )
    agent = build(memory=SLOTS, num_segments=2, metrics_period=2)
    share = 4 // world
    mine = slice(rank * share, (rank + 1) * share)
    train(agent, Fixed(*(rows_of(each, mine) for each in global_batches())), 4)
    training = agent.optimizer_state()
    saved = {"weights": agent.weights(), "memory": training["stream_memory"], "metrics": agent.metrics()}
    torch.save(saved, Path(directory) / f"{world}-{rank}.pt")
    twin = build(memory=SLOTS, num_segments=2, metrics_period=2)
    twin.load_training_state(training, agent.counters())
    assert twin.learner.stream_memory is not None and agent.learner.stream_memory is not None
    assert torch.equal(twin.learner.stream_memory, agent.learner.stream_memory)
    torch.distributed.destroy_process_group()
