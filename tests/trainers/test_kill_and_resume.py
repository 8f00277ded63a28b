"""A run killed with SIGKILL and resumed ends bit for bit like one never stopped (short form of the proof)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "kill_and_resume.py"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dqn-cartpole", "ppo-cartpole"])
def test_killed_and_resumed_runs_end_like_one_never_stopped(case: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cases", case, "--kills", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal in" in done.stdout
