"""How fast the memory tasks step: random actions in many copies, resets included, beside nothing else.

    python -m benchmarks.memory_tasks --out docs/results/benchmarks

Speed is absolute, in env steps per second of one core: a study in a memory task must not wait for its environment.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
from gymnasium.spaces import Discrete

from benchmarks.tables import Cell, Goal, Result
from envs.memory_tasks.config import TASKS, MemoryTasksConfig

GOAL = 100_000.0
"""Env steps per second that every task must reach."""


def rates(task: str, num_envs: int, rounds: int, vector_steps: int) -> list[float]:
    """Gives the env steps per second of every turn; the first, which warms up, is left out.

    Args:
        task: which.
        num_envs: copies.
        rounds: turns that count.
        vector_steps: length of a turn (unit: steps of all copies).
    """
    env = MemoryTasksConfig.model_validate({"task": task, "num_envs": num_envs}).make_training_env()
    assert isinstance(env.single_action_space, Discrete)
    rng, num_actions = np.random.default_rng(0), int(env.single_action_space.n)
    env.reset(seed=0)
    found = []
    for _ in range(rounds + 1):
        action_TN = rng.integers(num_actions, size=(vector_steps, num_envs))
        started = time.perf_counter()
        for action_N in action_TN:
            _, _, terminated_N, truncated_N, _ = env.step(action_N)
            over = np.flatnonzero(terminated_N | truncated_N)
            if len(over):
                env.reset(over)
        found.append(vector_steps * num_envs / (time.perf_counter() - started))
    env.close()
    return found[1:]


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--vector-steps", type=int, default=2000, help="length of a turn (unit: steps of all envs)")
    parser.add_argument("--out", type=Path, help="folder for memory_tasks.json")
    options = parser.parse_args()
    samples: dict[str, list[float]] = {
        task: rates(task, options.num_envs, options.rounds, options.vector_steps) for task in TASKS
    }
    rows: list[list[Cell]] = [[task, options.num_envs, median(values)] for task, values in samples.items()]
    slowest = min(samples, key=lambda task: median(samples[task]))
    Result(
        benchmark="memory_tasks",
        question="How fast do the memory tasks step?",
        settings={"policy": "uniform random", "rounds": options.rounds, "vector steps per turn": options.vector_steps},
        columns=["task", "envs", "env steps/s"],
        rows=rows,
        goals=[Goal(f"env steps/s of the slowest task, {slowest}", median(samples[slowest]), GOAL)],
        samples=samples,
    ).publish(options.out)


if __name__ == "__main__":
    main()
