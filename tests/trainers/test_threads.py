from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from trainers import threads
from trainers.threads import (
    choose_torch_threads,
    keep_freed_memory,
    pick_threads,
    set_torch_threads,
    thread_candidates,
)


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Clock:
    """A clock that only the step moves, by a given number of seconds per number of threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.now, self.seconds, self.calls = 0.0, seconds, list[int]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def step(self) -> None:
        self.calls.append(torch.get_num_threads())
        self.now += self.seconds[torch.get_num_threads()]


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ({1: 1.0, 2: 1.0}, 1),  # a tie
        ({1: 1.0, 2: 0.92}, 1),  # faster, but not clearly
        ({1: 1.0, 2: 0.90}, 2),
        ({1: 1.0, 2: 0.95, 4: 0.88}, 4),  # clearly faster than the best so far, which is 1
        ({4: 0.48, 2: 0.5, 1: 1.0}, 2),
        ({1: 1.0, 2: 2.0, 4: 0.95}, 1),
    ],
)
def test_more_threads_must_be_clearly_faster(measured: dict[int, float], chosen: int) -> None:
    assert pick_threads(measured) == chosen


def test_the_choice_is_measured_set_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = Clock(monkeypatch, {1: 0.010, 2: 0.006}), list[str]()
    chosen, measured = choose_torch_threads(clock.step, [2, 1, 2], budget_seconds=0.2, log=lines.append)
    assert chosen == torch.get_num_threads() == 2
    assert measured == pytest.approx({1: 0.010, 2: 0.006})
    assert clock.calls[:6] == [1, 2, 1, 2, 1, 2]  # in turns, one untimed step each first
    assert clock.now == pytest.approx(0.2, abs=0.016)
    assert lines == [
        "torch threads: 2 chosen by measurement (per step: 1: 10.00 ms, 2: 6.00 ms); set threads=N to override"
    ]


def test_every_candidate_is_timed_even_without_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {1: 5.0, 2: 4.9})
    chosen, measured = choose_torch_threads(clock.step, [1, 2], budget_seconds=0)
    assert (chosen, sorted(measured)) == (1, [1, 2])
    assert len(clock.calls) == 4


def test_a_single_candidate_is_not_measured() -> None:
    def never() -> None:
        raise AssertionError("called")

    assert choose_torch_threads(never, [1]) == (1, {})


def test_measuring_moves_no_global_generator() -> None:
    def step() -> None:
        random.random()
        torch.rand(3)
        np.random.random()  # noqa: NPY002

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    choose_torch_threads(step, [1, 2], budget_seconds=0.001)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_failing_step_leaves_the_number_of_threads() -> None:
    def fail() -> None:
        raise RuntimeError("step")

    torch.set_num_threads(1)
    with pytest.raises(RuntimeError, match="step"):
        choose_torch_threads(fail, [2, 3])
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("number", [0, -2, 1.0, True, "two"])
def test_bad_numbers_are_named(number: object) -> None:
    for call in _calls(number):
        with pytest.raises(ValueError, match=f"threads={number!r}: must be >= 1 or 'auto'"):
            call()


def _calls(number: object) -> list[Callable[[], object]]:
    return [
        lambda: set_torch_threads(number),  # type: ignore[arg-type]
        lambda: choose_torch_threads(lambda: None, [1, number]),  # type: ignore[list-item]
    ]


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match=r"candidates=\[\]"):
        choose_torch_threads(lambda: None, [])
    with pytest.raises(ValueError, match="budget_seconds=-1"):
        choose_torch_threads(lambda: None, [1, 2], budget_seconds=-1)
    with pytest.raises(ValueError, match="nothing to choose"):
        pick_threads({})


def test_set_torch_threads() -> None:
    set_torch_threads(2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("cpus", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_candidates(monkeypatch: pytest.MonkeyPatch, cpus: int, expected: list[int]) -> None:
    monkeypatch.setattr(threads, "available_cpus", lambda: cpus)
    assert thread_candidates() == expected


def test_keeping_freed_memory_is_asked_of_glibc_only() -> None:
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
