"""What a run writes while it goes on: metrics.csv, timing.csv, episodes.jsonl and TensorBoard events.

``metrics.csv`` and ``episodes.jsonl`` hold nothing that depends on the clock: a resumed run writes the same bytes as
one that was never stopped. Speeds and seconds go to ``timing.csv`` and TensorBoard.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

START: dict[str, Any] = {
    "metrics": {"columns": [], "num_rows": 0},
    "timing": {"columns": [], "num_rows": 0},
    "episodes_bytes": 0,
}
"""Position of a run that has written nothing."""


class DamagedLog(ValueError):
    """A file of a run that does not hold what was written to it; the message names it and says what can be done."""


def write_atomically(path: Path, text: str) -> None:
    """Replaces a text file in one step: its old or its new content is there, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


class CsvTable:
    """A CSV file whose columns may grow; rows are appended as they come."""

    def __init__(self, path: Path) -> None:
        """Opens the table, empty or with the rows it has.

        Args:
            path: the CSV file; created at the first row.
        Raises:
            DamagedLog: if the file is not a text of rows.
        """
        self.path = path
        self.columns: list[str] = []
        self.num_rows = 0
        if rows := self._lines():
            self.columns, self.num_rows = rows[0], len(rows) - 1

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Adds a row; columns not seen before are added at the right, empty in the rows above."""
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns = self.columns + new
            self._rewrite(self._rows())
        with open(self.path, "a", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow([_cell(row.get(name)) for name in self.columns])
        self.num_rows += 1

    def truncate(self, columns: list[str], num_rows: int) -> None:
        """Goes back to an earlier state of the table.

        Args:
            columns: the columns it had.
            num_rows: the rows it had, header not counted.
        Raises:
            DamagedLog: if the file has fewer rows than that.
        """
        rows = self._rows()
        if len(rows) < num_rows:
            raise DamagedLog(_shorter(self.path, f"{len(rows)} rows", str(num_rows)))
        self.columns, self.num_rows = list(columns), num_rows
        if columns:
            self._rewrite([row[: len(columns)] for row in rows[:num_rows]])
        elif self.path.exists():
            self.path.unlink()

    def sync(self) -> None:
        """Forces the rows to the disk."""
        if self.path.exists():
            with open(self.path, "rb") as stream:
                os.fsync(stream.fileno())

    def _rows(self) -> list[list[str]]:
        return self._lines()[1:]

    def _lines(self) -> list[list[str]]:
        """Gives header and rows; nothing where there is no file."""
        if not self.path.exists():
            return []
        try:
            with open(self.path, encoding="utf-8", newline="") as stream:
                return list(csv.reader(stream))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DamagedLog(f"{self.path} cannot be read: {error}; {_REMEDY}") from error

    def _rewrite(self, rows: list[list[str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(row + [""] * (len(self.columns) - len(row)) for row in rows)
        write_atomically(self.path, text.getvalue())


class RunLog:
    """The files of one run directory that grow with every log point."""

    def __init__(self, run_dir: Path, *, purge_step: int | None = None, axis: str = "env_steps") -> None:
        """Opens the files of a run.

        Args:
            run_dir: the run directory; must exist.
            purge_step: on resume, the first step whose TensorBoard events are to be forgotten.
            axis: what the run's steps are, ``env_steps`` or ``gradient_steps``: the first column of both tables.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.run_dir, self.axis = run_dir, axis
        self.metrics = CsvTable(run_dir / "metrics.csv")
        self.timing = CsvTable(run_dir / "timing.csv")
        self._episodes = open(run_dir / "episodes.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (closed by close())
        self.tensorboard = SummaryWriter(str(run_dir), purge_step=purge_step, flush_secs=20)

    def episode(self, record_json: str) -> None:
        """Appends one training episode (a line of JSON)."""
        self._episodes.write(record_json + "\n")

    def point(self, steps: int, values: Mapping[str, float | int]) -> None:
        """Writes one row of clock-free values, also as TensorBoard scalars over the steps."""
        self.metrics.append({self.axis: steps, **values})
        for name, value in values.items():
            self.tensorboard.add_scalar(name if "/" in name else f"progress/{name}", value, steps)
        self._episodes.flush()

    def speed(self, steps: int, values: Mapping[str, float]) -> None:
        """Writes one row of times and speeds, also to TensorBoard under ``speed/``."""
        self.timing.append({self.axis: steps, **values})
        for name, value in values.items():
            self.tensorboard.add_scalar(f"speed/{name}", value, steps)

    def image(self, name: str, image: np.ndarray, steps: int) -> None:
        """Puts an image on TensorBoard's Images page.

        Args:
            name: its tag.
            image: uint8 RGB, height x width x 3.
            steps: of its slider.
        """
        self.tensorboard.add_image(name, image, steps, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Puts a text (the resolved config) on TensorBoard's Text page."""
        self.tensorboard.add_text(name, text, 0)

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float], steps: int) -> None:
        """Enters the run in TensorBoard's HParams page, so that runs can be compared by setting and result."""
        from torch.utils.tensorboard.summary import hparams

        flat = flatten(config)
        writer: Any = self.tensorboard
        for summary in hparams(flat, dict(metrics)):  # type: ignore[no-untyped-call]
            writer._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self.tensorboard.add_scalar(name, value, steps)

    def position(self) -> dict[str, Any]:
        """Gives where the files end now (after flushing them to disk), for a checkpoint's counters."""
        self._episodes.flush()
        os.fsync(self._episodes.fileno())
        self.metrics.sync()
        self.timing.sync()
        self.tensorboard.flush()
        return {
            "metrics": {"columns": list(self.metrics.columns), "num_rows": self.metrics.num_rows},
            "timing": {"columns": list(self.timing.columns), "num_rows": self.timing.num_rows},
            "episodes_bytes": self._episodes.tell(),
        }

    def go_back(self, position: Mapping[str, Any]) -> None:
        """Drops everything written after a checkpoint's position.

        Raises:
            DamagedLog: if a file ends before that position.
        """
        self.metrics.truncate(**position["metrics"])
        self.timing.truncate(**position["timing"])
        self._episodes.flush()
        size = os.path.getsize(self._episodes.name)
        if size < position["episodes_bytes"]:
            raise DamagedLog(_shorter(self._episodes.name, f"{size} bytes", str(position["episodes_bytes"])))
        os.truncate(self._episodes.name, position["episodes_bytes"])
        self._episodes.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Flushes and closes everything; may be called twice."""
        self._episodes.close()
        self.tensorboard.close()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flattens a nested config to dotted keys with values TensorBoard's HParams accepts."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        elif value is not None:
            flat[name] = json.dumps(value)
    return flat


_REMEDY = "put a whole copy back, or start a new run"


def _shorter(path: Path | str, found: str, written: str) -> str:
    return f"{path} has {found}, {written} were written before the checkpoint; {_REMEDY}"


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return str(value)
