"""Learning curves: read from metrics.csv, brought onto common env steps, summarised over seeds.

Legend: R runs (seeds) of a group, P points of a curve.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.statistics import MIN_SEEDS, Floats

MAX_POINTS = 400
"""Points of a curve after aligning; more cannot be seen."""


AXES = ("env_steps", "gradient_steps")
"""What a metrics.csv counts training in: the first of these columns that it has."""


@dataclass(frozen=True)
class Curve:
    """The learning curves of one group on one env.

    Attributes:
        group: label of the setting.
        env_id: game, task or benchmark.
        column: of metrics.csv.
        env_steps: (P,) common to all runs (unit: env steps; of offline runs: gradient steps).
        values: (R, P), a run per row.
    """

    group: str
    env_id: str
    column: str
    env_steps: Floats
    values: Floats

    @property
    def mean(self) -> Floats:
        """Mean over runs, shape (P,)."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def band(self) -> tuple[Floats, Floats] | None:
        """Mean minus and plus one standard error over seeds, from 3 seeds upward."""
        if len(self.values) < MIN_SEEDS:
            return None
        error = self.values.std(axis=0, ddof=1) / np.sqrt(len(self.values))
        return self.mean - error, self.mean + error


def read_columns(path: Path) -> dict[str, tuple[Floats, Floats]]:
    """Reads metrics.csv: for each column the steps where it was measured, and its values there.

    Steps are env steps, or gradient steps for an offline run. Cells that are empty or not numbers are passed over, and
    so is a file that does not exist.
    """
    if not path.exists():
        return {}
    points: dict[str, list[tuple[float, float]]] = {}
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        axis = next((name for name in AXES if name in (reader.fieldnames or ())), None)
        for row in reader:
            step = _number(row.get(axis)) if axis is not None else None
            for name, cell in row.items():
                value = _number(cell)
                if step is not None and value is not None and name != axis:
                    points.setdefault(name, []).append((step, value))
    return {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in points.items()}


def _number(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) and cell else None
    except ValueError:
        return None
    return value if value is not None and np.isfinite(value) else None


def choose_column(runs: Sequence[dict[str, tuple[Floats, Floats]]], columns: Sequence[str]) -> str | None:
    """Gives the first of ``columns`` that every run has measured at least twice, or None."""
    for column in columns:
        if runs and all(column in run and len(run[column][0]) >= 2 for run in runs):
            return column
    return None


def align(group: str, env_id: str, column: str, runs: Sequence[dict[str, tuple[Floats, Floats]]]) -> Curve | None:
    """Brings the runs of a group onto common env steps by linear interpolation within the range all of them cover.

    Returns:
        the curve, or None if there is no common range.
    """
    pairs = [run[column] for run in runs]
    start, stop = max(steps[0] for steps, _ in pairs), min(steps[-1] for steps, _ in pairs)
    if start >= stop:
        return None
    grid = np.unique(np.concatenate([steps for steps, _ in pairs]))
    grid = grid[(grid >= start) & (grid <= stop)]
    if len(grid) > MAX_POINTS:
        grid = np.linspace(start, stop, MAX_POINTS)
    return Curve(group, env_id, column, grid, np.stack([np.interp(grid, steps, values) for steps, values in pairs]))
