"""``sextant data``: what a dataset is said to hold, and the way to Minari and back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from memory.trajectories import Episode
from memory.trajectory_store import DatasetError, TrajectoryFacts, TrajectoryWriter, consolidate, read_directory
from sextant.cli import main
from sextant.config import ConfigError
from sextant.data import describe, histogram, run_export, run_import


def make_dataset(directory: Path) -> Path:
    """Gives a folder of two tasks: one that knows success, at two noise levels, and one that does not."""
    for task, told in (("reach-v3", True), ("copy", False)):
        facts = TrajectoryFacts(
            env_id="toy",
            suite="toy",
            task=task,
            observation_kind="vector",
            obs_shape=(2,),
            obs_dtype="float32",
            action_kind="discrete",
            num_actions=3,
            extra={"policy": "expert"},
        )
        with TrajectoryWriter(directory, facts) as writer:
            for number, length in enumerate((2, 4, 6)):
                writer.add(
                    Episode(
                        obs=np.full((length + 1, 2), number, np.float32),
                        action=np.arange(length) % 3,
                        reward=np.full(length, 0.5, np.float32),
                        terminated=True,
                        truncated=False,
                        success=np.arange(length) == 3 if told else None,
                        task=task,
                        seed=number,
                        noise=0.2 if number == 2 else 0.0,
                    )
                )
        consolidate(directory, task)
    return directory


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_a_dataset_holds(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    files = describe(make_dataset(tmp_path / "toy"), verify=True, console=console)
    text = printed(console)
    assert "2 tasks, 6 episodes, 24 env steps" in text
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()[2:4]}
    assert lines["reach-v3"] == "3 12 2.0 1.0 3.0 4.0 66.7% 0: 2 (50.0%), 0.2: 1 (100.0%) expert"
    assert lines["copy"] == "3 12 2.0 1.0 3.0 4.0 - 0: 2, 0.2: 1 expert"
    assert 'extra: {"policy": "expert"}' in text and "num_actions: 3" in text
    assert "digests (verified):" in text
    for file in files:
        assert f"{file.digest}  {file.path.name}" in text
    brief = Console(file=io.StringIO(), width=40)
    describe(tmp_path / "toy", brief=True, console=brief)
    unverified = Console(file=io.StringIO(), width=40)
    describe(tmp_path / "toy", console=unverified)
    assert "digests (as stored, not verified: --verify reads" in printed(unverified)
    assert "digests" not in printed(brief) and "66.7%" in printed(brief)


def test_a_histogram_by_hand() -> None:
    assert histogram(np.array([0, 0, 0, 0, 1, 1, 3.0]), bins=4) == "█▄ ▂"
    assert histogram(np.array([5.0, 5.0]), bins=3) == "█  "


def test_to_minari_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    source, console = make_dataset(tmp_path / "toy"), Console(file=io.StringIO(), width=200)
    run_export(source, "toy/expert-v0", console=console)
    assert "is the Minari dataset toy/expert-v0" in printed(console)
    run_import("toy/expert-v0", [f"out={tmp_path / 'back'}"], console=console)
    there = [file.digest for file in read_directory(source)]
    assert [file.digest for file in read_directory(tmp_path / "back")] == there
    with pytest.raises(ConfigError, match="--minari toy/expert-v0"):
        run_export(source, "toy/expert-v0", console=console)
    with pytest.raises(ConfigError, match="already holds episodes"):
        run_import("toy/expert-v0", [f"out={tmp_path / 'back'}"], console=console)
    with pytest.raises(DatasetError, match="toy/none-v0"):
        run_import("toy/none-v0", [f"out={tmp_path / 'new'}"], console=console)


def test_refusals_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status, message in (
        (["data", "describe", str(tmp_path)], 1, f"{tmp_path}: holds no .h5 files"),
        (["data", "import", "--minari", "x-v0"], 2, "missing key out: expected path"),
        (["data", "import", "--minari", "x-v0", "out=y", "tusk=z"], 2, "unknown key tusk=z: did you mean task?"),
        (["collect", "env=metaworld", "out=x", "wrkers=2"], 2, "unknown key wrkers=2: did you mean workers?"),
    ):
        assert main(arguments) == status
        assert message in capsys.readouterr().err


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_dataset(tmp_path / "toy") / "copy.h5"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert main(["data", "describe", str(tmp_path / "toy"), "--verify"]) == 1
    assert str(path) in capsys.readouterr().err


def test_keys_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--help", "env=metaworld"]) == 0
    text = capsys.readouterr().out
    assert "store_goal=null" in text and "env.benchmark=single" in text and "policy=expert" in text
