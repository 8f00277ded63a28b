"""Replay speed and size: ours beside Tianshou's ``VectorReplayBuffer`` on the same stream, in one run.

Run ``python -m benchmarks.replay``. Times are medians over pairs taken in turn, so that a busy machine slows both;
the ratios are what to read. Targets on one core: sample of 32 stacks <= 0.3 ms, insert of 8 <= 0.1 ms, at most 1.02
frames of bytes per transition.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tianshou.data import Batch, PrioritizedVectorReplayBuffer, VectorReplayBuffer

from benchmarks.tables import Cell, Goal, Result
from memory import ReplayConfig

STACK, SIDE = 4, 84
FRAME_BYTES = SIDE * SIDE
Row = tuple[str, float, float]


class Stream:
    """Zero-padded stacks of random frames; each step ends an episode with a probability of 1 in 500."""

    def __init__(self, num_envs: int) -> None:
        self.rng = np.random.default_rng(0)
        self.frames = self.rng.integers(1, 256, (64, SIDE, SIDE), np.uint8)
        self.obs = np.zeros((num_envs, STACK, SIDE, SIDE), np.uint8)
        self.obs[:, -1] = self.frames[:num_envs]
        self.off = np.zeros(num_envs, bool)

    def step(self) -> dict[str, np.ndarray]:
        """Gives one transition per env."""
        num = len(self.obs)
        newest = self.frames[self.rng.integers(len(self.frames), size=num)]
        obs, obs_next = self.obs, np.concatenate([self.obs[:, 1:], newest[:, None]], axis=1)
        over = self.rng.random(num) < 1 / 500
        self.obs = obs_next.copy()
        self.obs[over, :-1] = 0
        rew = self.rng.normal(size=num).astype(np.float32)
        act = self.rng.integers(6, size=num)
        flags = {"terminated": over, "truncated": self.off}
        return {"obs": obs, "act": act, "rew": rew, "obs_next": obs_next, **flags}


def milliseconds(*calls: Callable[[], Any], repeats: int) -> list[float]:
    """Times each call in turn, ``repeats`` times, and gives their medians."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return [1000 * statistics.median(seconds) for seconds in times]


def buffer_bytes(batch: Any) -> int:
    """Gives the bytes of all arrays in one of Tianshou's batches."""
    return sum(buffer_bytes(value) if isinstance(value, Batch) else value.nbytes for value in batch.values())


def compare(prioritised: bool, capacity: int, num_envs: int, batch_size: int, repeats: int) -> list[Row]:
    """Gives a row per quantity: its name, ours, Tianshou's."""
    space = gym.spaces.Box(0, 255, (STACK, SIDE, SIDE), np.uint8)
    config = ReplayConfig(capacity=capacity, prioritised=prioritised)
    ours = config.build(space, gym.spaces.Discrete(6), num_envs, np.random.default_rng(0), print)
    options: dict[str, Any] = {"stack_num": STACK, "ignore_obs_next": True, "save_only_last_obs": True}
    if prioritised:
        theirs: Any = PrioritizedVectorReplayBuffer(capacity, num_envs, alpha=0.5, beta=0.5, **options)
    else:
        theirs = VectorReplayBuffer(capacity, num_envs, **options)
    stream, our_inserts, their_inserts = Stream(num_envs), list[float](), list[float]()
    for _ in range(capacity // num_envs + 1):
        rows = stream.step()
        started = time.perf_counter()
        ours.add_step(**rows, episode_over=rows["terminated"])
        between = time.perf_counter()
        theirs.add(Batch({**rows, "info": Batch(), "policy": Batch()}), buffer_ids=np.arange(num_envs))
        our_inserts.append(between - started)
        their_inserts.append(time.perf_counter() - between)
    name = "prioritised: " if prioritised else ""
    inserts = [1000 * statistics.median(times) for times in (our_inserts, their_inserts)]
    sample = milliseconds(lambda: ours.sample(batch_size), lambda: theirs.sample(batch_size), repeats=repeats)
    table: list[Row] = [
        (f"{name}insert {num_envs} transitions, ms", inserts[0], inserts[1]),
        (f"{name}sample {batch_size} stacks, ms", sample[0], sample[1]),
    ]
    if prioritised:
        errors, at = np.random.default_rng(0).random(batch_size), ours.sample_indices(batch_size)
        held = theirs.sample_indices(batch_size)
        calls = (lambda: ours.update_weight(at, errors), lambda: theirs.update_weight(held, errors))
        update = milliseconds(*calls, repeats=repeats)
        table.append((f"{name}update {batch_size} priorities, ms", update[0], update[1]))
        their_bytes = buffer_bytes(theirs._meta) + theirs.weight._value.nbytes
    else:
        their_bytes = buffer_bytes(theirs._meta)
    table.append((f"{name}bytes per transition", ours.nbytes / capacity, their_bytes / theirs.maxsize))
    table.append((f"{name}bytes per transition / frame", table[-1][1] / FRAME_BYTES, table[-1][2] / FRAME_BYTES))
    return table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capacity", type=int, default=40_000, help="transitions")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=500, help="timed samples of each")
    parser.add_argument("--out", type=Path, help="folder for replay.json")
    settings = vars(parser.parse_args())
    out = settings.pop("out")
    table = [row for prioritised in (False, True) for row in compare(prioritised, **settings)]
    rows: list[list[Cell]] = [[name, ours, theirs, ours / theirs] for name, ours, theirs in table]
    sampling = next(ours for name, ours, _ in table if name.startswith("sample"))
    frames = max(ours for name, ours, _ in table if name.endswith("/ frame"))
    Result(
        benchmark="replay",
        question="What do storing and sampling single frames cost, beside Tianshou's buffer?",
        settings=settings,
        columns=["what", "ours", "Tianshou", "ratio"],
        rows=rows,
        goals=[
            Goal("sampling 32 stacks, ms", sampling, 0.3, at_least=False),
            Goal("bytes per transition over those of a frame", frames, 1.02, at_least=False),
        ],
    ).publish(out)


if __name__ == "__main__":
    main()
