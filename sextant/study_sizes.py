"""How large the models of a study are, how much of them was trained, and how they scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from sextant.table_text import records_csv

if TYPE_CHECKING:
    from analysis.compare import RunScore

SIZES_FILE = "sizes.csv"


@dataclass(frozen=True)
class Size:
    """The parameters of an arm's models beside their score.

    Attributes:
        arm: name of the arm.
        total: numbers in what acts.
        trained: of these; fewer where a model was adapted in part.
        score: mean over seeds, of each seed's mean over tasks.
        least: smallest of the seeds' scores.
        most: largest of them.
    """

    arm: str
    total: int
    trained: int
    score: float
    least: float
    most: float


def size_of_run(run: Path) -> tuple[int, int] | None:
    """Gives the parameters of a run's model and how many were trained; None where the run did not record it.

    Raises:
        RunError: if its provenance is damaged.
    """
    from sextant.base_run import REPORT_FILE
    from sextant.provenance import read_starts

    if (run / REPORT_FILE).exists():
        report = json.loads((run / REPORT_FILE).read_text("utf-8"))
        return report["total"], report["trainable"]
    starts = read_starts(run)
    return (starts[0]["parameters"],) * 2 if starts and "parameters" in starts[0] else None


def write_sizes(runs: Mapping[str, Sequence[Path]], scores: Sequence[RunScore], out: Path) -> str:
    """Writes ``sizes.csv`` and gives its Markdown section.

    Args:
        runs: run directories by arm; those of an arm are of one size.
        scores: of the runs, grouped by arm.
        out: folder of the results.

    Returns:
        the section; nothing, and no file, where all models are of one size and wholly trained.
    """
    from trainers.run_log import write_atomically

    found = {arm: size_of_run(directories[0]) for arm, directories in runs.items() if directories}
    sizes = [_size(arm, *counts, scores) for arm, counts in found.items() if counts is not None]
    if len({count for size in sizes for count in (size.total, size.trained)}) < 2:
        (out / SIZES_FILE).unlink(missing_ok=True)
        return ""
    write_atomically(out / SIZES_FILE, records_csv(sizes))
    return sizes_markdown(sizes)


def sizes_markdown(sizes: Sequence[Size]) -> str:
    """Gives a line per arm."""
    rows = [
        f"| {each.arm} | {each.total:,} | {each.trained:,} | {each.trained / each.total:.2%} | "
        f"{each.score:.3g} [{each.least:.3g}, {each.most:.3g}] |"
        for each in sizes
    ]
    lines = [
        "## Parameters",
        "",
        "Numbers in the networks that act, those of them that the arm trained, and its score: mean over seeds "
        "[least, most].",
        "",
        "| arm | parameters | trained | share | score |",
        "|---|--:|--:|--:|--:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _size(arm: str, total: int, trained: int, scores: Sequence[RunScore]) -> Size:
    by_run: dict[str, list[float]] = {}
    for score in scores:
        if score.group == arm:
            by_run.setdefault(score.run, []).append(score.score)
    means = [fmean(tasks) for tasks in by_run.values()]
    return Size(arm, total, trained, fmean(means), min(means), max(means))
