"""Where a run came from: versions, commit, command line, machine and seeds, for ``provenance.json``."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.base import package_versions
from sextant.checkout import CHECKOUT
from sextant.machine import devices, this_machine
from sextant.run_dirs import RunError
from sextant.versions import RESULT_PACKAGES

if TYPE_CHECKING:
    from sextant.config import TrainConfig

PROVENANCE_FILE = "provenance.json"


def provenance(config: TrainConfig) -> dict[str, Any]:
    """Gives what one needs to tell how a run was made, as plain data.

    Args:
        config: the run's resolved config.
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": package_versions(*RESULT_PACKAGES),
        "git": git_state(),
        "machine": dataclasses.asdict(this_machine(config.runs_dir)) | {"devices": devices()},
        "seed": config.seed,
        "protocols": {
            role: {"id": protocol.id, "hash": protocol.hash}
            for role, protocol in (
                ("training", config.env.training_protocol()),
                ("evaluation", config.env.evaluation_protocol()),
            )
        },
    }


def read_starts(run_dir: Path) -> list[dict[str, Any]]:
    """Gives what ``provenance.json`` says of each start of a run; nothing for a run that has not started yet.

    Raises:
        RunError: if the file is damaged.
    """
    path = run_dir / PROVENANCE_FILE
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []
        return [dict(start) for start in starts]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read: {error!r}; put a copy back, or move it away: the run then goes on without the "
            "record of its earlier starts"
        ) from error


def git_state() -> dict[str, Any]:
    """Gives the checkout's commit and whether files differ from it; both None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
