"""Figures of a comparison: learning curves over env steps, and final scores with their intervals.

Figures are drawn on matplotlib's Agg canvas, without pyplot: no display and no global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.compare import ALL_TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.compare import Row
    from analysis.curves import Curve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's colours (Color Universal Design, 2008), told apart by colour-blind readers too."""
DASHES = ("-", "--", ":", "-.")
"""One more each time the colours begin anew."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_COLUMNS = 3


def curves_figure(curves: Sequence[Curve], title: str, x_label: str = "env steps") -> Figure:
    """Draws a panel per env with a line per group: the mean over seeds.

    From 3 seeds there is a band of one standard error; below, every run is drawn as a thin line.

    Args:
        curves: at least one.
        title: of the figure.
        x_label: what training is counted in.
    """
    from matplotlib.figure import Figure

    envs = list(dict.fromkeys(curve.env_id for curve in curves))
    groups = list(dict.fromkeys(curve.group for curve in curves))
    num_columns = min(_COLUMNS, len(envs))
    num_rows = math.ceil(len(envs) / num_columns)
    size = (4.2 * num_columns + 1.2, 3.0 * num_rows + 1.0 + 0.22 * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for panel, env_id in zip(panels, envs, strict=False):
        own = [curve for curve in curves if curve.env_id == env_id]
        for curve in own:
            _draw_curve(panel, curve, groups.index(curve.group))
        _dress(panel)
        panel.set_title(env_id, fontsize=10)
        panel.set_xlabel(x_label)
        panel.set_ylabel(own[0].column)
    for panel in panels[len(envs) :]:
        panel.set_visible(False)
    handles = {line.get_label(): line for panel in panels for line in panel.get_lines() if line.get_label()[0] != "_"}
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def _draw_curve(panel: Axes, curve: Curve, position: int) -> None:
    colour, dashes = COLOURS[position % len(COLOURS)], DASHES[position // len(COLOURS) % len(DASHES)]
    seeds = f"{len(curve.values)} seed" + ("s" if len(curve.values) > 1 else "")
    label = f"{curve.group} (mean of {seeds})"
    panel.plot(curve.env_steps, curve.mean, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    if curve.band is not None:
        panel.fill_between(curve.env_steps, *curve.band, color=colour, alpha=0.2, linewidth=0)
    elif len(curve.values) > 1:
        for values in curve.values:
            panel.plot(curve.env_steps, values, color=colour, linewidth=0.7, alpha=0.5, label="_run")


def scores_figure(rows: Sequence[Row], points: Sequence[tuple[str, str, float]], title: str, label: str) -> Figure:
    """Draws a panel per task with a line per group: the interquartile mean, its interval where there is one, and runs.

    Args:
        rows: of the comparison, at least one; those over all tasks come first.
        points: (group, task, score) of every run, drawn as small dots.
        title: of the figure.
        label: of the score axis.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(row.group for row in rows))
    tasks = sorted(dict.fromkeys(row.task for row in rows), key=lambda task: (task != ALL_TASKS, task))
    num_columns = min(_COLUMNS, len(tasks))
    num_rows = math.ceil(len(tasks) / num_columns)
    width = 7.5 if num_columns == 1 else 3.0 * num_columns + 1.5
    figure = Figure(figsize=(width, 1.1 + (0.5 + 0.27 * len(groups)) * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
    for panel, task in zip(grid.flatten(), tasks, strict=False):
        for row in rows:
            if row.task == task:
                runs = [score for group, of_task, score in points if (group, of_task) == (row.group, task)]
                _draw_scores(panel, row, runs, groups.index(row.group))
        panel.set_title(task, fontsize=9)
        _dress(panel)
    for panel in grid.flatten()[len(tasks) :]:
        panel.set_visible(False)
    seeds = {group: min(row.num_seeds for row in rows if row.group == group) for group in groups}
    grid[0, 0].set_yticks(range(len(groups)), [f"{group}  (n={seeds[group]})" for group in groups], fontsize=8)
    grid[0, 0].set_ylim(len(groups) - 0.4, -0.6)
    key = "marker: interquartile mean   bar: interval over seeds, from 3 seeds   dots: runs"
    figure.supxlabel(f"{label}\n{key}", fontsize=9)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def _draw_scores(panel: Axes, row: Row, runs: Sequence[float], position: int) -> None:
    colour, marker = COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]
    panel.plot(runs, np.full(len(runs), position), ".", color=colour, alpha=0.4, markersize=6)
    if row.iqm_interval is not None:
        panel.plot([row.iqm_interval.low, row.iqm_interval.high], [position, position], color=colour, linewidth=2.5)
    panel.plot(row.iqm, position, marker, color=colour, markersize=7)


def _dress(panel: Axes) -> None:
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(labelsize=8)


def target_sweep_figure(rows: Sequence[tuple[float, float, float, float]], title: str) -> Figure:
    """Draws the returns achieved over those asked for, with intervals, and the line on which they are equal.

    Args:
        rows: return asked for, mean achieved, and the ends of its interval (nan where there is none).
        title: of the figure.
    """
    from matplotlib.figure import Figure

    asked, achieved, low, high = np.array(sorted(rows), float).T
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    panel = figure.subplots()
    ends = [min(asked.min(), np.nanmin(achieved)), max(asked.max(), np.nanmax(achieved))]
    panel.plot(ends, ends, color="#999999", linewidth=0.8, linestyle="--", label="achieved = asked for")
    bars = np.nan_to_num(np.stack([achieved - low, high - achieved]), nan=0.0)
    panel.errorbar(asked, achieved, yerr=np.maximum(bars, 0.0), color=COLOURS[0], marker=MARKERS[0], capsize=3)
    _dress(panel)
    panel.set_xlabel("return asked for")
    panel.set_ylabel("mean raw return")
    panel.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, in one step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    temporary = path.with_name(path.name + ".tmp")
    FigureCanvasAgg(figure)
    figure.savefig(temporary, format="png", dpi=140, facecolor="white")
    temporary.replace(path)
