"""The keys of ``sextant export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from envs.base import Strict
from sextant.config import validated
from sextant.refusal import ConfigError


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
    data: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"cannot read {argument!r}: expected key=value, such as run=runs/X or checkpoint=best")
        data[key] = None if value == "null" else value
    return validated(ExportConfig, data)
