"""Writes a comparison: CSV and Markdown tables, a CSV line per run, and the plots; and its table for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.compare import ALL_TASKS
from sextant.compare import improvement_text, interval_text
from sextant.table_text import records_csv, rows_csv

if TYPE_CHECKING:
    from analysis.compare import Improvement, Metric, Row
    from analysis.curves import Curve
    from analysis.statistics import Interval
    from sextant.compare import Comparison

MOST_SENTENCES = 6
"""Probabilities of improvement that a page gives as sentences, at most."""

OWN = ("group", "IQM", "mean", "least / most")
"""Columns that stay in the terminal's table even where all rows say the same."""


def _headings(unit: str) -> tuple[str, ...]:
    return ("group", "task", "seeds", "episodes", unit, "IQM", "mean", "least / most", "interval")


def write_comparison(comparison: Comparison, metric: Metric, curves: Sequence[Curve], checkpoint: str) -> None:
    """Writes ``table.csv``, ``table.md``, ``runs.csv``, ``scores.png`` and, where there are curves, ``curves.png``.

    Args:
        comparison: what to write, and where.
        metric: it was made with.
        curves: learning curves of the groups.
        checkpoint: ``last`` or ``best``.
    """
    from analysis.figures import curves_figure, save_png, scores_figure
    from trainers.run_log import write_atomically

    directory = comparison.directory
    directory.mkdir(parents=True, exist_ok=True)
    title = f"{metric.title}, {checkpoint} checkpoint"
    write_atomically(directory / "table.csv", rows_csv([_csv_row(row) for row in comparison.rows]))
    write_atomically(directory / "runs.csv", records_csv(comparison.scores))
    write_atomically(directory / "table.md", markdown(comparison, title))
    points = [(score.group, score.task, score.score) for score in comparison.scores]
    save_png(scores_figure(comparison.rows, points, title, metric.title), directory / "scores.png")
    if curves:
        save_png(curves_figure(curves, "learning curves, mean over seeds", comparison.unit), directory / "curves.png")
    else:
        (directory / "curves.png").unlink(missing_ok=True)


def markdown(comparison: Comparison, title: str) -> str:
    """Gives the comparison as a Markdown page.

    Where there are rows over all tasks, the table holds these, and a second one the mean of each task (the CSV has all
    the rows). More than `MOST_SENTENCES` probabilities of improvement become a table too.
    """
    summary = [row for row in comparison.rows if row.task == ALL_TASKS] or comparison.rows
    lines = [f"# {title}", "", "| " + " | ".join(_headings(comparison.unit)) + " |", "|---|---|" + "--:|" * 6 + "---|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in summary]
    lines.append("")
    if len(summary) < len(comparison.rows):
        lines += [*_means_by_task([row for row in comparison.rows if row.task != ALL_TASKS]), ""]
    lines += [f"- {text}" for text in comparison.warnings]
    if len(comparison.improvements) > MOST_SENTENCES:
        lines += [*([""] if comparison.warnings else []), *_improvements_table(comparison.improvements)]
    else:
        lines += [f"- {improvement_text(each)}" for each in comparison.improvements]
    return "\n".join(lines) + "\n"


def _means_by_task(rows: Sequence[Row]) -> list[str]:
    """Gives a line for each task, a column for each group, and the mean over runs in the cells."""
    groups, tasks = list(dict.fromkeys(row.group for row in rows)), list(dict.fromkeys(row.task for row in rows))
    means = {(row.task, row.group): f"{row.mean:.4g}" for row in rows}
    lines = ["| task (mean over seeds) | " + " | ".join(groups) + " |", "|---|" + "--:|" * len(groups)]
    return lines + [
        f"| {task} | " + " | ".join(means.get((task, group), "") for group in groups) + " |" for task in tasks
    ]


def _improvements_table(improvements: Sequence[Improvement]) -> list[str]:
    """Gives a line for each group, with its probability of improvement over each of those before it."""
    others = list(dict.fromkeys(each.other for each in improvements))
    cells: dict[str, dict[str, str]] = {}
    for each in improvements:
        cells.setdefault(each.group, {})[each.other] = f"{each.probability:.2f}{interval_text(each.interval)}"
    lines = ["| P(line > column) | " + " | ".join(others) + " |", "|---|" + "--:|" * len(others)]
    return lines + [
        f"| {group} | " + " | ".join(row.get(other, "") for other in others) + " |" for group, row in cells.items()
    ]


def comparison_table(comparison: Comparison, title: str, width: int) -> tuple[Any, str]:
    """Gives the rich table for the terminal, and the line below it.

    Columns that say the same of all rows become that line. Where there is not room for the others, numbers break
    between words only, and names take what is left.

    Args:
        comparison: what to show.
        title: of the table.
        width: of the terminal (unit: characters).
    """
    from rich.table import Table

    lines = [_headings(comparison.unit), *(_unbroken(_cells(row)) for row in comparison.rows)]
    columns = [(heading, cells) for heading, *cells in zip(*lines, strict=True)]
    shared = [(heading, cells[0]) for heading, cells in columns if heading not in OWN and len(set(cells)) == 1]
    columns = [(heading, cells) for heading, cells in columns if (heading, cells[0]) not in shared]
    is_narrow = sum(max(map(len, [heading, *cells])) + 3 for heading, cells in columns) + 1 > width
    table = Table(title=title, title_justify="left")
    for heading, cells in columns:
        longest_word = max(len(word) for word in " ".join([heading, *cells]).split())
        table.add_column(
            heading,
            justify="left" if heading in ("group", "task", "interval") else "right",
            overflow="fold",
            width=longest_word if is_narrow and heading not in ("group", "task") else None,
        )
    for line in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*line)
    return table, "; ".join(f"{heading}: {cell}" for heading, cell in shared if cell)


def _unbroken(cells: Sequence[str]) -> list[str]:
    """Gives the cells with their intervals as one word each."""
    return [re.sub(r"\[(\S+), (\S+)\]", r"[\1,\2]", cell) for cell in cells]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.group,
        row.task,
        str(row.num_seeds),
        _range(row.episodes),
        _range(row.env_steps),
        f"{row.iqm:.4g}{interval_text(row.iqm_interval)}",
        f"{row.mean:.4g}{interval_text(row.mean_interval)}",
        f"{row.low:.4g} / {row.high:.4g}",
        row.note,
    )


def _range(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _csv_row(row: Row) -> dict[str, Any]:
    def bounds(name: str, interval: Interval | None) -> dict[str, Any]:
        low, high = ("", "") if interval is None else (interval.low, interval.high)
        return {f"{name}_low": low, f"{name}_high": high}

    return {
        "group": row.group,
        "task": row.task,
        "seeds": row.num_seeds,
        "episodes_least": row.episodes[0],
        "episodes_most": row.episodes[1],
        "env_steps_least": row.env_steps[0],
        "env_steps_most": row.env_steps[1],
        "iqm": row.iqm,
        **bounds("iqm", row.iqm_interval),
        "mean": row.mean,
        **bounds("mean", row.mean_interval),
        "least": row.low,
        "most": row.high,
        "interval": row.note,
    }
