"""Tables of a study's runs: what they measured last, averaged over seeds."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sextant.table_text import records_csv
from studies import MetricsTable


@dataclass(frozen=True)
class Cell:
    """One metric of one arm.

    Attributes:
        arm: name of the arm.
        metric: name of the metric, without the table's prefix.
        mean: over seeds, of the last value each run wrote; nan where one of them is.
        least: smallest of these values.
        most: largest of them.
        seeds: runs that wrote the metric.
    """

    arm: str
    metric: str
    mean: float
    least: float
    most: float
    seeds: int


def last_values(metrics_csv: Path, prefixes: Sequence[str]) -> dict[str, float]:
    """Gives the last number in each column whose name begins with one of the prefixes, named without it.

    Args:
        metrics_csv: of a run; one that does not exist gives nothing.
        prefixes: tried in order.
    """
    if not metrics_csv.exists():
        return {}
    found: dict[str, float] = {}
    with open(metrics_csv, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            for column, cell in row.items():
                prefix = next((each for each in prefixes if column and column.startswith(each)), None)
                if prefix is not None and cell:
                    found[column.removeprefix(prefix)] = float(cell)
    return found


def tabulate(table: MetricsTable, runs: Mapping[str, Sequence[Path]]) -> list[Cell]:
    """Gives one cell per arm and metric, arm by arm; nothing of an arm whose runs wrote none of the columns.

    Args:
        table: which columns.
        runs: run directories by arm.
    """
    cells = []
    for arm, directories in runs.items():
        values: dict[str, list[float]] = {}
        for directory in directories:
            for metric, value in last_values(directory / "metrics.csv", table.prefixes).items():
                values.setdefault(metric, []).append(value)
        cells += [Cell(arm, metric, fmean(each), min(each), max(each), len(each)) for metric, each in values.items()]
    return cells


def cells_markdown(table: MetricsTable, cells: Sequence[Cell]) -> str:
    """Gives the means as a Markdown section: a line per metric, a column per arm."""
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    metrics = list(dict.fromkeys(cell.metric for cell in cells))
    means = {(cell.metric, cell.arm): f"{cell.mean:.4g}" for cell in cells}
    seeds = sorted({cell.seeds for cell in cells})
    lines = [
        f"## {table.title}",
        "",
        f"What each run measured last, mean over seeds ({' or '.join(map(str, seeds))} per arm); least and most are in "
        f"`{table.file}.csv`.",
        "",
        f"| {table.rows} | " + " | ".join(arms) + " |",
        "|---|" + "--:|" * len(arms),
        *(f"| {metric} | " + " | ".join(means.get((metric, arm), "") for arm in arms) + " |" for metric in metrics),
    ]
    return "\n".join(lines) + "\n"


def write_tables(tables: Sequence[MetricsTable], runs: Mapping[str, Sequence[Path]], out: Path) -> str:
    """Writes ``FILE.csv`` of every table that any run has columns for, and gives their Markdown sections.

    Args:
        tables: of the study.
        runs: run directories by arm.
        out: folder of the results.
    """
    from trainers.run_log import write_atomically

    sections = []
    for table in tables:
        cells = tabulate(table, runs)
        if cells:
            write_atomically(out / f"{table.file}.csv", records_csv(cells))
            sections.append(cells_markdown(table, cells))
        else:
            (out / f"{table.file}.csv").unlink(missing_ok=True)
    return "\n".join(sections)
