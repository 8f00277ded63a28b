"""The jobs of a sweep or a study on this machine: each a fresh ``sextant`` process, some of them side by side."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

from sextant.checkout import python_path


class LocalJobs:
    """Runs training processes, a given number at a time.

    Ctrl-C and SIGTERM reach every running process, which writes a checkpoint and ends; the rest is not started.
    """

    def __init__(self, at_once: int) -> None:
        """Prepares for ``at_once`` processes at the same time."""
        self._at_once = at_once
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()
        self._terminated = threading.Event()

    def run(self, jobs: Sequence[Sequence[str]]) -> list[str]:
        """Runs every job and waits for the last one.

        Args:
            jobs: of each the command and its arguments, such as ``train`` and overrides.
        Returns:
            what went wrong with each; empty where nothing did.
        """
        with self._stopping_on_signals(), ThreadPoolExecutor(max_workers=self._at_once) as pool:
            futures = [pool.submit(self._run_one, number, job) for number, job in enumerate(jobs)]
            return [future.result() for future in futures]

    def _run_one(self, number: int, job: Sequence[str]) -> str:
        if self._stopped.is_set():
            return "not started"
        print(f"[job {number}] sextant {shlex.join(job)}", flush=True)
        side_by_side = self._at_once > 1
        with subprocess.Popen(
            [sys.executable, "-m", "sextant", *job],
            env=os.environ | {"PYTHONPATH": python_path()},
            text=True,
            stdout=subprocess.PIPE if side_by_side else None,
            stderr=subprocess.STDOUT if side_by_side else None,
        ) as process:
            self._running.add(process)
            if self._terminated.is_set():  # the signal came while this one was starting
                process.terminate()
            for line in process.stdout or ():
                print(f"[job {number}] {line}", end="", flush=True)
        self._running.discard(process)
        return "" if process.returncode == 0 else f"exit {process.returncode}"

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """Lets the first signal stop the jobs instead of this process, while the block runs."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, self._stop) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped.set()
        if number == signal.SIGTERM:  # Ctrl-C goes to the whole terminal's group: the processes got it already
            self._terminated.set()
            for process in list(self._running):
                process.terminate()
