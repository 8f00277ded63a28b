import sys

import pytest

from sextant.board import board_command, run_board
from sextant.refusal import ConfigError


def test_one_folder(tmp_path):
    command = board_command([tmp_path], 6006, "localhost")
    assert command[:3] == [sys.executable, "-m", "tensorboard.main"]
    assert command[-2:] == ["--logdir", str(tmp_path)]


def test_several_runs_are_told_apart_by_name(tmp_path):
    runs = [tmp_path / "dqn-pong" / "0-a", tmp_path / "ppo-pong" / "1-b"]
    for run in runs:
        run.mkdir(parents=True)
    assert board_command(runs, 1, "localhost")[-1] == f"dqn-pong-0-a:{runs[0]},ppo-pong-1-b:{runs[1]}"


def test_missing_folder(tmp_path):
    with pytest.raises(ConfigError, match="none is not a folder of runs"):
        board_command([tmp_path / "none"], 6006, "localhost")


def test_address_is_printed_and_status_handed_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sextant.board.board_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    assert run_board([tmp_path], port=1234) == 3
    assert "http://localhost:1234/" in capsys.readouterr().out


@pytest.mark.parametrize("port", [-1, 65_536, 99_999_999])
def test_a_port_that_cannot_be_is_refused(tmp_path, port):
    with pytest.raises(ConfigError, match=rf"--port {port} is not allowed: expected 0 \(any that is free\) to 65535"):
        board_command([tmp_path], port, "localhost")
