"""Contestants work only in their turn, for as long as they were told, with their own number of threads."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.turns import Contestant, median_ratio, play

WORKER = """
import os, sys
from benchmarks.turns import Turn
turn = Turn()
turn.begin()
while True:
    with open(sys.argv[1], "a") as log:
        log.write(sys.argv[2] + os.environ["OMP_NUM_THREADS"])
    turn.tick()
"""


def test_turns_do_not_overlap(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = Contestant("first", ["-c", WORKER, str(log), "a"], threads=1)
    second = Contestant("second", ["-c", WORKER, str(log), "b"], threads=2, unit=4)
    with ExitStack() as stack:
        for contestant in (first, second):
            stack.enter_context(contestant).wait_until_ready()
        play([first, second], rounds=2, env_steps=8)
    a, b = "a1" * 8, "b2" * 2
    assert log.read_text() == b + a + a + b + b + a
    assert len(first.rates) == len(second.rates) == 2
    assert all(rate > 0 for rate in first.rates + second.rates)


def test_a_contestant_that_dies_is_named_with_its_error() -> None:
    broken = Contestant("broken", ["-c", "raise SystemExit('no such game')"], threads=1)
    with broken, pytest.raises(RuntimeError, match=r"broken ended with status 1:\nno such game"):
        broken.wait_until_ready()


def test_contestants_leave_no_open_pipes() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with Contestant("idle", ["-c", "from benchmarks.turns import Turn; Turn().begin()"], threads=1) as contestant:
        contestant.wait_until_ready()
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def test_median_ratio_pairs_neighbouring_turns() -> None:
    assert median_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0
