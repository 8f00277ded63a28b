"""Sextant's sequence models, one thing over and over: updates, actions, or the passes of a large model.

One tick is one gradient step (``train``, ``large --pass update``), one batched ``act()`` with its rewards (``act``) or
one forward (``large --pass forward``).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tianshou.utils.torch_utils import policy_within_training_step

from agents.decision_transformer.agent import DecisionTransformerAgent
from agents.decision_transformer.inputs import segment_inputs
from benchmarks.contestants import sequence_parts as parts
from benchmarks.turns import Turn
from trainers.threads import keep_freed_memory

WARM_UP = 3


class TimedSource:
    """A sampler that measures itself.

    Attributes:
        seconds: that the last batch took.
    """

    def __init__(self, source: Any) -> None:
        self.source, self.seconds = source, 0.0

    def sample(self, batch_size: int) -> tuple[Any, np.ndarray]:
        """Gives a batch."""
        started = time.perf_counter()
        drawn: tuple[Any, np.ndarray] = self.source.sample(batch_size)
        self.seconds = time.perf_counter() - started
        return drawn


def updating(agent: DecisionTransformerAgent, source: Any, notes: Path) -> Callable[[], None]:
    """Gives a gradient step that notes the seconds of sampling and of all of it."""
    timed, batch_size = TimedSource(source), agent.config.batch_size

    def update() -> None:
        started = time.perf_counter()
        with policy_within_training_step(agent.policy):
            agent.update(timed, batch_size, 1)  # type: ignore[arg-type]
        parts.note(notes, sampling=timed.seconds, update=time.perf_counter() - started)

    return update


def acting(agent: DecisionTransformerAgent, num_envs: int, step: int) -> Callable[[], None]:
    """Gives the action at one step of the episodes of so many envs, taken again and again from the same state."""
    rng, rows = np.random.default_rng(3), np.arange(num_envs)
    obs = rng.standard_normal((num_envs, parts.OBS_SIZE), dtype=np.float32)
    reward = rng.uniform(0.0, 10.0, num_envs).astype(np.float32)
    tasks = [agent.data.tasks[row % len(agent.data.tasks)] for row in rows]
    state = agent.begin_episodes(agent.initial_state(num_envs), rows, tasks)
    for _ in range(step):
        state = agent.receive_rewards(agent.act(obs, state)[1], rows, reward)

    def act() -> None:
        agent.receive_rewards(agent.act(obs, state)[1], rows, reward)

    return act


def forward(agent: DecisionTransformerAgent, batch_size: int) -> Callable[[], None]:
    """Gives a forward of a batch that stays in memory, without gradient."""
    inputs = segment_inputs(parts.large_batch(batch_size), 0, torch.device("cpu"))

    @torch.no_grad()
    def run() -> None:
        agent.model(inputs)

    return run


def chosen(options: argparse.Namespace) -> Callable[[], None]:
    """Gives what the command line asks for."""
    source: Any
    if options.task == "large":
        agent = parts.large_agent(options.memory, options.batch_size)
        source = parts.OneBatch(parts.large_batch(options.batch_size))
    else:
        data = parts.made_up_data(Path("data"))
        agent = parts.small_agent(options.memory, options.segments, options.batch_size, data)
        source = parts.sampler_of(agent.config, data)
    parts.note(options.notes, parameters=sum(weight.numel() for weight in agent.model.parameters()))
    if options.task == "act":
        return acting(agent, parts.NUM_ENVS, options.step)
    if options.task == "large" and options.phase == "forward":
        return forward(agent, options.batch_size)
    return updating(agent, source, options.notes)


def main() -> None:
    """Works in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("train", "act", "large"))
    parser.add_argument("--memory", choices=list(parts.MEMORIES), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--notes", type=Path, required=True, help="file for numbers the referee reads")
    parser.add_argument("--segments", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--step", type=int, default=10, help="env steps before the action that is timed")
    parser.add_argument("--phase", choices=("forward", "update"), default="update")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    work = chosen(options)
    for _ in range(WARM_UP):
        work()
    turn = Turn()
    turn.begin()
    while True:
        work()
        turn.tick()


if __name__ == "__main__":
    main()
