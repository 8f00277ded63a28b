"""The keys of ``sextant export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from envs.base import Strict
from sextant.config import validated
from sextant.key_values import split_key_values


class ExportConfig(Strict):
    """Which policy of a run to write out, and where."""

    run: Path = Field(description="Run directory (path).")
    checkpoint: Literal["last", "best"] = Field("last", description="Which weights.")
    out: Path | None = Field(
        None, description="Folder of the files (path); null: exports/CHECKPOINT-ENV_STEPS in the run directory."
    )


def read_export_config(arguments: Sequence[str]) -> ExportConfig:
    """Reads ``key=value`` arguments.

    Raises:
        ConfigError: for an unknown key, or a value that is not allowed.
    """
    given = split_key_values(arguments, "run=runs/X or checkpoint=best")
    data: dict[str, Any] = {key: None if value == "null" else value for key, value in given.items()}
    return validated(ExportConfig, data)
