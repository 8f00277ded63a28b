"""Collecting with a random policy: the raw emulator, Sextant's collector, Tianshou's, side by side.

    python -m benchmarks.collect --out docs/results/benchmarks

The raw emulator is driven with random actions and nothing else. Sextant's collector goes through the env adapter and
writes every transition to the single-frame replay. Tianshou's collector goes through the same adapter and writes to
Tianshou's own frame-stacking buffer. Both are full before the first round that counts: what the system takes to hand
out memory for the first time is left out. Freed memory is kept, as ``sextant train`` does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch, Collector, VectorReplayBuffer

from agents import DQNConfig
from benchmarks.tables import Cell, Goal, Result
from benchmarks.turns import median_ratio
from envs.atari.config import AtariConfig
from envs.atari.vector import AtariVector
from memory.config import ReplayConfig
from trainers.collector import OnlineCollector
from trainers.threads import keep_freed_memory

CAPACITY = 1_600
"""Transitions of each buffer; the warm-up turn fills it."""
Collect = Callable[[int], None]
"""Collects this many vector steps."""


class RandomPolicy(Policy):
    """Uniform random actions, as a Tianshou policy."""

    def __init__(self, action_space: Any) -> None:
        super().__init__(action_space=action_space, action_bound_method=None)
        self.rng, self.num_actions = np.random.default_rng(0), int(action_space.n)

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Any:
        """Gives one action per observation."""
        return Batch(act=self.rng.integers(self.num_actions, size=len(batch.obs)), state=None)


def raw_emulator(env: AtariVector) -> Collect:
    """Drives the C++ emulator under the adapter directly; it resets finished games itself."""
    emulator, rng = env._env, np.random.default_rng(0)
    emulator.reset(seed=0)
    assert isinstance(env.single_action_space, Discrete)
    num_envs, num_actions = len(env), int(env.single_action_space.n)

    def collect(vector_steps: int) -> None:
        for _ in range(vector_steps):
            emulator.step(rng.integers(num_actions, size=num_envs))

    return collect


def sextant_collector(env: AtariVector) -> Collect:
    """Sextant's collector with the single-frame replay."""
    spaces = (env.single_observation_space, env.single_action_space)
    agent = DQNConfig().build(*spaces, device="cpu", seed=np.random.SeedSequence(0))
    replay = ReplayConfig(capacity=CAPACITY).build(
        *spaces, num_envs=len(env), rng=np.random.default_rng(0), log=lambda line: None
    )
    collector = OnlineCollector(agent, env, replay)
    collector.start_episodes(range(len(env)))
    return lambda vector_steps: _discard(collector.collect(n_step=vector_steps * len(env), random=True))


def tianshou_collector(env: AtariVector) -> Collect:
    """Tianshou's collector with its own buffer, told to keep single frames."""
    buffer = VectorReplayBuffer(CAPACITY, len(env), stack_num=4, ignore_obs_next=True, save_only_last_obs=True)
    collector = Collector[Any](RandomPolicy(env.single_action_space), env, buffer)
    collector.reset()
    return lambda vector_steps: _discard(collector.collect(n_step=vector_steps * len(env)))


def _discard(statistics: object) -> None:
    """Takes what a collector returns; all contestants give nothing."""


def measure(num_envs: int, *, game: str, rounds: int, vector_steps: int) -> dict[str, list[float]]:
    """Lets the three take turns in this process.

    Returns:
        env steps per second of every turn, by contestant.
    """
    config = AtariConfig(game=game, num_envs=num_envs)
    makers = {"raw emulator": raw_emulator, "Sextant": sextant_collector, "Tianshou": tianshou_collector}
    envs = [AtariVector(config.training_protocol(), num_envs) for _ in makers]
    collects = {name: make(env) for (name, make), env in zip(makers.items(), envs, strict=True)}
    rates: dict[str, list[float]] = {name: [] for name in makers}
    for index in range(rounds + 1):
        for name in list(makers) if index % 2 else reversed(list(makers)):
            started = time.perf_counter()
            collects[name](vector_steps)
            seconds = time.perf_counter() - started
            if index:
                rates[name].append(vector_steps * num_envs / seconds)
    for env in envs:
        env.close()
    return rates


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="pong")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--vector-steps", type=int, default=200, help="length of a turn (unit: steps of all envs)")
    parser.add_argument("--out", type=Path, help="folder for collect.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[list[Cell]] = []
    goals: list[Goal] = []
    samples: dict[str, list[float]] = {}
    for num_envs in options.num_envs:
        rates = measure(num_envs, game=options.game, rounds=options.rounds, vector_steps=options.vector_steps)
        for name, values in rates.items():
            ratio = median_ratio(values, rates["raw emulator"])
            rows.append([name, num_envs, median(values), ratio])
            samples[f"{name}, {num_envs} envs"] = values
            if name == "Sextant":
                goals.append(Goal(f"env steps/s over the raw emulator's, {num_envs} envs", ratio, 0.90))
    Result(
        benchmark="collect",
        question="What does collecting cost beside the emulator itself?",
        settings={
            "game": options.game,
            "policy": "uniform random",
            "rounds": options.rounds,
            "vector steps per turn": options.vector_steps,
        },
        columns=["contestant", "envs", "env steps/s", "share of the raw emulator"],
        rows=rows,
        goals=goals,
        samples=samples,
    ).publish(options.out)


if __name__ == "__main__":
    main()
