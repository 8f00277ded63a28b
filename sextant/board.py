"""``sextant board``: TensorBoard on the runs, in a process of the same interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sextant.refusal import ConfigError

MAX_PORT = 65_535  # of TCP


def board_command(runs: Sequence[Path], port: int, host: str) -> list[str]:
    """Gives the command that shows these run directories (or folders of them) in TensorBoard.

    Raises:
        ConfigError: if one of the folders does not exist, or there can be no such port.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port {port} is not allowed: expected 0 (any that is free) to {MAX_PORT}")
    for folder in runs:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder of runs; train first, or name another folder")
    command = [sys.executable, "-m", "tensorboard.main", "--port", str(port), "--host", host]
    if len(runs) == 1:
        return [*command, "--logdir", str(runs[0])]
    named = ",".join(f"{_name(folder)}:{folder.resolve()}" for folder in runs)
    return [*command, "--logdir_spec", named]


def run_board(runs: Sequence[Path], port: int = 6006, host: str = "localhost") -> int:
    """Shows the runs until stopped with Ctrl-C; prints the address.

    Returns:
        TensorBoard's exit status.

    Raises:
        ConfigError: if one of the folders does not exist.
    """
    command = board_command(runs, port, host)
    print(f"TensorBoard on {', '.join(map(str, runs))}: http://{host}:{port}/  (Ctrl-C stops it)", flush=True)
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)


def _name(run_dir: Path) -> str:
    return "-".join(run_dir.resolve().parts[-2:])
