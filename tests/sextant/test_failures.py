"""Runs that cannot be written, and runs whose files were damaged: one clear message, and the last checkpoint intact."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sextant.checkout import CHECKOUT
from sextant.cli import FAILURE, USAGE_ERROR, main
from sextant.config import compose_train_config, save_run_config

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


@pytest.mark.parametrize(
    ("overrides", "status", "message"),
    [
        (["agent.replay.capacity=9000000000", "threads=auto"], FAILURE, "more than memory_fraction"),
        (
            ["agent.pruning.include=[nope]", "threads=auto"],
            USAGE_ERROR,
            "agent.pruning.include='nope' matches no layer",
        ),
        (["device=cuda"], USAGE_ERROR, "device=cuda: PyTorch sees no GPU here"),
    ],
)
def test_what_only_the_env_or_the_machine_can_refuse_is_refused_before_threads_are_measured(
    overrides: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("trainers.threads.choose_torch_threads", lambda update, log: pytest.fail("was measured"))
    assert main(["train", *RUN, *overrides, f"runs_dir={tmp_path}"]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused_by_evaluate_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    save_run_config(compose_train_config(["agent=dqn_classic", "env=classic"]), tmp_path)
    assert main(["evaluate", f"run={tmp_path}", "device=cuda"]) == USAGE_ERROR
    assert "device=cuda: PyTorch sees no GPU here" in capsys.readouterr().err


def test_missing_data_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from sextant.cli import main; status = main(sys.argv[1:]); print(status, 'torch' in sys.modules)"
    )
    data = ["trainer=offline", f"trainer.data=[{tmp_path / 'none'}]", f"runs_dir={tmp_path}"]
    arguments = ["train", "agent=decision_transformer", "env=memory_tasks", "env.task=t_maze", *data]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stdout.split("\n")[-2] == "2 False", done.stderr
    assert f"trainer.data: {tmp_path / 'none'} does not exist" in done.stderr


@pytest.fixture(scope="module")
def unfinished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has 2,000 env steps and lost the checkpoint at its end: there is something to resume."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *RUN, "trainer.total_env_steps=2000", f"runs_dir={folder}"]) == 0
    run_dir = next(folder.glob("*/*/config.yaml")).parent
    _first, last = sorted(run_dir.glob("checkpoints/[0-9]*"))
    shutil.rmtree(last)
    return run_dir


@pytest.mark.parametrize(
    ("command", "file", "content", "status", "expected"),
    [
        ("resume", "config.yaml", b"foo: [", USAGE_ERROR, "cannot be read: while parsing a flow node"),
        ("evaluate", "config.yaml", b"foo: [", USAGE_ERROR, "put a copy back (TensorBoard shows the config"),
        ("compare", "config.yaml", b"\xff", USAGE_ERROR, "cannot be read: 'utf-8' codec can't decode byte 0xff"),
        ("resume", "provenance.json", b'{"sta', FAILURE, "cannot be read: JSONDecodeError('Unterminated string"),
        ("resume", "provenance.json", b"{}", FAILURE, "KeyError('starts'); put a copy back, or move it away"),
        ("resume", "metrics.csv", b"env_steps,upd", FAILURE, "has 0 rows, 100 were written before the checkpoint; put"),
        ("resume", "timing.csv", b"\xff", FAILURE, "can't decode byte 0xff in position 0: invalid start byte; put"),
        ("resume", "episodes.jsonl", b"{", FAILURE, "has 1 bytes, "),
    ],
)
def test_a_damaged_text_file_is_told_by_name_with_what_can_be_done(
    unfinished_run: Path,
    tmp_path: Path,
    command: str,
    file: str,
    content: bytes,
    status: int,
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(unfinished_run, run_dir)
    (run_dir / file).write_bytes(content)
    assert main([command, f"run={run_dir}" if command == "evaluate" else str(run_dir)]) == status
    message = capsys.readouterr().err
    assert f"sextant: {run_dir / file}" in message
    assert expected in message
