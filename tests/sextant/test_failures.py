"""Runs that cannot be written: one clear message, and the last checkpoint intact."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sextant.cli import FAILURE, main

RUN = [
    "agent=dqn_classic",
    "env=classic",
    "agent.learning_starts=100",
    "agent.replay.capacity=40000",
    "trainer.total_env_steps=20000",
    "trainer.checkpoint_every_env_steps=1000",
    "trainer.evaluate_every_env_steps=0",
    "threads=1",
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_and_a_read_only_one_end_with_a_message(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *RUN, f"runs_dir={small_disk}"]) == FAILURE
    assert "disk full" in (message := capsys.readouterr().err)
    assert "is intact" in message
    run_dir = next(small_disk.glob("*/*/config.yaml")).parent
    intact = sorted(path.name for path in run_dir.glob("checkpoints/[0-9]*"))
    assert intact
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main(["resume", str(run_dir)]) == FAILURE
    assert "Read-only file system" in capsys.readouterr().err
    assert sorted(path.name for path in run_dir.glob("checkpoints/[0-9]*")) == intact


def test_a_replay_beyond_memory_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = [*RUN, "agent.replay.capacity=9000000000", f"runs_dir={tmp_path}"]
    assert main(["train", *huge]) == FAILURE
    assert "more than memory_fraction" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
