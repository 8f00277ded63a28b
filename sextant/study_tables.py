"""Tables of a study's runs: what they measured last, averaged over seeds, and what of adapted models was trained."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

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


def cells_csv(cells: Sequence[Cell]) -> str:
    """Gives the cells as CSV, one line each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Cell.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(cell) for cell in cells)
    return text.getvalue()


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
            write_atomically(out / f"{table.file}.csv", cells_csv(cells))
            sections.append(cells_markdown(table, cells))
        else:
            (out / f"{table.file}.csv").unlink(missing_ok=True)
    return "\n".join(sections)


SIZES_FILE = "sizes.csv"


def write_sizes(runs: Mapping[str, Sequence[Path]], out: Path) -> str:
    """Writes how many parameters of adapted models were trained, and gives that as a Markdown section.

    Args:
        runs: run directories by arm; those of an arm are of one size.
        out: folder of the results.

    Returns:
        the section; nothing, and no file, where no run is adapted.
    """
    from sextant.base_run import REPORT_FILE
    from trainers.run_log import write_atomically

    reports = {arm: directories[0] / REPORT_FILE for arm, directories in runs.items() if directories}
    read = {arm: json.loads(path.read_text("utf-8")) for arm, path in reports.items() if path.exists()}
    if not read:
        (out / SIZES_FILE).unlink(missing_ok=True)
        return ""
    sizes = {arm: (report["trainable"], report["total"]) for arm, report in read.items()}
    rows = [f"{arm},{trained},{total}" for arm, (trained, total) in sizes.items()]
    write_atomically(out / SIZES_FILE, "\n".join(["arm,trained,total", *rows]) + "\n")
    lines = [
        "## What is trained",
        "",
        "Parameters that an adapted model trains, of all it has.",
        "",
        "| arm | trained | of | share |",
        "|---|--:|--:|--:|",
        *(f"| {arm} | {trained:,} | {total:,} | {trained / total:.2%} |" for arm, (trained, total) in sizes.items()),
    ]
    return "\n".join(lines) + "\n"
