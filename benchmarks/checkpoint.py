"""A checkpoint of a run whose replay holds 100,000 single frames: seconds and bytes, first and incremental.

    python -m benchmarks.checkpoint --out docs/results/benchmarks

The frames are those of a random policy, so that compression meets real pictures. The agent is the default DQN after
one update, so that the optimizer has its moments.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tianshou.utils.torch_utils import policy_within_training_step

from agents import DQNConfig
from benchmarks.tables import Cell, Goal, Result
from envs.atari.config import AtariConfig
from memory.config import ReplayConfig
from trainers.checkpointing import CheckpointStore
from trainers.collector import OnlineCollector

NUM_ENVS = 8
BYTES_PER_FRAME = 84 * 84


class Run:
    """A training run reduced to what a checkpoint holds."""

    def __init__(self, game: str, capacity: int, directory: Path) -> None:
        """Makes agent, replay, collector and store.

        Args:
            game: short name.
            capacity: of the replay (unit: transitions).
            directory: where checkpoints go.
        """
        self.env = AtariConfig(game=game, num_envs=NUM_ENVS).make_training_env()
        spaces = (self.env.single_observation_space, self.env.single_action_space)
        self.agent = DQNConfig().build(*spaces, device="cpu", seed=np.random.SeedSequence(0))
        self.replay = ReplayConfig(capacity=capacity).build(
            *spaces, num_envs=NUM_ENVS, rng=np.random.default_rng(0), log=lambda line: None
        )
        self.collector = OnlineCollector(self.agent, self.env, self.replay)
        self.collector.start_episodes(range(NUM_ENVS))
        self.store = CheckpointStore(directory, keep=2)
        self.env_steps = 0

    def collect(self, env_steps: int) -> None:
        """Adds this many transitions of a random policy, and one update."""
        self.collector.collect(n_step=env_steps, random=True)
        self.env_steps += env_steps
        with policy_within_training_step(self.agent.dqn.policy):
            self.agent.dqn.update(buffer=self.replay, sample_size=32)

    def save(self) -> float:
        """Writes a checkpoint and gives the wall time of it (unit: seconds)."""
        started = time.perf_counter()
        replay_arrays, replay_counters = self.replay.state()
        arguments: dict[str, Any] = {
            "index": max(self.store.indices(), default=-1) + 1,
            "env_steps": self.env_steps,
            "weights": self.agent.weights(),
            "optimizer": self.agent.optimizer_state(),
            "counters": {"agent": self.agent.counters(), "replay": replay_counters},
            "arrays": replay_arrays,
            "replay_chunk": self.replay.new_data(self.store.replay_counts),
            "replay_counts": self.replay.num_added.copy(),
            "replay_slots": self.replay.ring.slots,
        }
        self.store.save(**arguments)
        return time.perf_counter() - started

    def load(self) -> float:
        """Reads the newest checkpoint back into the replay and gives the wall time of it (unit: seconds)."""
        started = time.perf_counter()
        snapshot = self.store.load_latest()
        assert snapshot is not None
        self.replay.load(snapshot.replay_chunks, (snapshot.arrays, snapshot.counters["replay"]))
        return time.perf_counter() - started


def bytes_in(*directories: Path) -> int:
    """Gives the bytes of all files below the directories."""
    return sum(path.stat().st_size for folder in directories for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="pong")
    parser.add_argument("--frames", type=int, default=100_000, help="transitions in the replay at the first checkpoint")
    parser.add_argument("--new", type=int, default=10_000, help="transitions between two checkpoints after it")
    parser.add_argument("--rounds", type=int, default=5, help="later checkpoints")
    parser.add_argument("--directory", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--out", type=Path, help="folder for checkpoint.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        run = Run(options.game, options.frames + options.rounds * options.new, directory)
        run.collect(options.frames)
        first = run.save()
        state_bytes = bytes_in(directory / "000000")
        first_bytes = bytes_in(directory / "replay")
        later: list[float] = []
        for _ in range(options.rounds):
            run.collect(options.new)
            later.append(run.save())
        later_bytes = (bytes_in(directory / "replay") - first_bytes) / options.rounds
        loading = run.load()
        run.env.close()
    rows: list[list[Cell]] = [
        [f"first checkpoint, {options.frames:,} frames are new", first, state_bytes / 1e6, first_bytes / 1e6],
        [f"later checkpoints, {options.new:,} frames are new", median(later), state_bytes / 1e6, later_bytes / 1e6],
        ["load the newest, with the whole replay", loading, None, None],
    ]
    Result(
        benchmark="checkpoint",
        question=f"What does a checkpoint cost in a run of {options.frames:,} frames?",
        settings={
            "game": options.game,
            "network": "Nature CNN, SAME padding",
            "later checkpoints": options.rounds,
            "MB of frames before compression": options.frames * BYTES_PER_FRAME / 1e6,
        },
        columns=["what", "seconds", "MB of weights and optimizer", "MB of new replay"],
        rows=rows,
        goals=[
            Goal("first checkpoint, seconds", first, 2.0, at_least=False),
            Goal("later checkpoints, seconds (median)", median(later), 2.0, at_least=False),
        ],
        samples={"first": [first], "later": later, "load": [loading]},
    ).publish(options.out)


if __name__ == "__main__":
    main()
