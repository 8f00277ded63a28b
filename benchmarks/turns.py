"""Processes that take turns: one contestant runs while the others wait, each with its own thread settings.

A contestant is a program that does its set-up and warm-up, calls :meth:`Turn.begin`, and then reports its progress
with :meth:`Turn.tick`. It stands still between turns, so any training script can be timed in slices by ticking from
inside its env's ``step``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Self

CHECKOUT = Path(__file__).resolve().parents[1]
PIPES = "SEXTANT_BENCHMARK_PIPES"


class Turn:
    """A contestant's side of the game."""

    def __init__(self) -> None:
        """Opens the pipes inherited from the referee.

        Raises:
            KeyError: if the program was not started by a :class:`Contestant`.
        """
        orders, reports = map(int, os.environ[PIPES].split(","))
        self._orders, self._reports = os.fdopen(orders), os.fdopen(reports, "w")
        self._granted = self._done = 0
        self._started = self._cpu_started = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether :meth:`begin` is still to come."""
        return self._granted == 0

    def begin(self) -> None:
        """Says that the warm-up is over and waits for the first turn; ends the process when the referee is done."""
        self._report({"ready": True})
        self._wait()

    def tick(self, count: int = 1) -> None:
        """Counts units of work; at the end of the turn reports its duration and waits for the next one."""
        self._done += count
        if self._done >= self._granted:
            self._report(
                {
                    "count": self._done,
                    "seconds": time.perf_counter() - self._started,
                    "cpu_seconds": time.process_time() - self._cpu_started,
                }
            )
            self._wait()

    def _report(self, message: Mapping[str, object]) -> None:
        print(json.dumps(message), file=self._reports, flush=True)

    def _wait(self) -> None:
        order = self._orders.readline()
        if not order:
            os._exit(0)  # threads of the emulator and half-finished training loops have nothing left to do
        self._granted, self._done = int(order), 0
        self._started, self._cpu_started = time.perf_counter(), time.process_time()


@dataclass
class Contestant:
    """The referee's handle on one contestant.

    Attributes:
        name: shown in the table.
        command: program and arguments, run by this Python interpreter (``-m module args``).
        threads: value of ``OMP_NUM_THREADS`` and its relatives.
        unit: env steps that one tick stands for.
        rates: env steps per second of each turn so far.
        cpu_shares: CPU seconds per wall second of each turn so far (unit: cores).
    """

    name: str
    command: Sequence[str]
    threads: int
    unit: int = 1
    rates: list[float] = field(default_factory=list)
    cpu_shares: list[float] = field(default_factory=list)

    def __enter__(self) -> Self:
        orders_read, self._orders_write = os.pipe()
        self._reports_read, reports_write = os.pipe()
        count = str(self.threads)
        environment = os.environ | {
            PIPES: f"{orders_read},{reports_write}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
        }
        self._directory = tempfile.TemporaryDirectory(prefix="sextant-benchmark-")
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, *self.command],
            pass_fds=(orders_read, reports_write),
            env=environment,
            cwd=self._directory.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        os.close(orders_read)
        os.close(reports_write)
        self._reports = os.fdopen(self._reports_read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._orders_write)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reports.close()
        self._errors.close()
        self._directory.cleanup()

    def wait_until_ready(self) -> None:
        """Returns when the contestant's warm-up is over."""
        self._answer()

    def take_turn(self, env_steps: int, *, counts: bool = True) -> None:
        """Lets the contestant work.

        Args:
            env_steps: how long the turn is (unit: env steps).
            counts: whether the turn enters the results.

        Raises:
            RuntimeError: with the end of its standard error, if the contestant died.
        """
        self.start_turn(env_steps)
        count, seconds, cpu_seconds = self.finish_turn()
        if counts:
            self.rates.append(count / seconds)
            self.cpu_shares.append(cpu_seconds / seconds)

    def start_turn(self, env_steps: int) -> None:
        """Lets the contestant work, and does not wait: others may work at the same time."""
        os.write(self._orders_write, f"{max(1, env_steps // self.unit)}\n".encode())

    def finish_turn(self) -> tuple[int, float, float]:
        """Waits for the end of the turn that was started last; gives env steps made, seconds, and CPU seconds.

        Raises:
            RuntimeError: as `take_turn`.
        """
        answer = self._answer()
        return round(answer["count"]) * self.unit, answer["seconds"], answer["cpu_seconds"]

    def _answer(self) -> dict[str, float]:
        line = self._reports.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            tail = self._errors.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"{self.name} ended with status {self._process.returncode}:\n{tail}")
        return json.loads(line)


def play(contestants: Sequence[Contestant], *, rounds: int, env_steps: int) -> None:
    """Lets every contestant, all of them ready, take its turn once per round; a first round does not count.

    The order is reversed in every other round, so that no contestant always follows the same neighbour.
    """
    started = time.monotonic()
    for index in range(rounds + 1):
        for contestant in contestants if index % 2 else reversed(contestants):
            contestant.take_turn(env_steps, counts=index > 0)
        print(f"round {index} of {rounds} done after {time.monotonic() - started:.0f} s", file=sys.stderr)


def median_ratio(numerators: Iterable[float], denominators: Iterable[float]) -> float:
    """Gives the median over rounds of one contestant's rate divided by another's in the same round."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))
