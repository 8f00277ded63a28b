"""The terminal's table of a comparison, at the widths that terminals have."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from analysis.compare import Row
from analysis.statistics import Interval
from sextant.compare import Comparison
from sextant.compare_files import comparison_table

INTERVAL = Interval(1254.2, 2334.1, 0.95, "seeds", 5)


def row(group: str, task: str, num_seeds: int = 5) -> Row:
    return Row(
        group=group,
        task=task,
        num_seeds=num_seeds,
        episodes=(10, 10),
        env_steps=(1_000_000, 1_000_000),
        iqm=1777.4,
        iqm_interval=INTERVAL,
        mean=1800.1,
        mean_interval=INTERVAL,
        low=70.0,
        high=3690.0,
        note="95%, over seeds",
    )


def shown(rows: list[Row], width: int) -> tuple[str, str]:
    """Gives the table as printed, and the line below it."""
    comparison = Comparison(rows, [], [], "return", [], Path("out"), "gradient steps")
    console = Console(file=io.StringIO(), width=width)
    table, below = comparison_table(comparison, "mean raw return", console.width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), below


LONG = row("double_dqn agent.learning_rate=0.001", "button-press-topdown-wall-v3", 3)


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("rows", [[row("ppo", "pong"), row("dqn", "pong", 3)], [row("ppo", "pong"), LONG]])
def test_no_heading_and_no_number_is_broken_within_a_word(rows, width):
    text, _ = shown(rows, width)
    assert max(map(len, text.splitlines())) <= width
    words = {word for line in text.splitlines() for word in line.replace("┃", " ").replace("│", " ").split()}
    assert words >= {"group", "seeds", "IQM", "mean", "least", "most", "1777", "[1254,2334]", "3690"}


def test_what_all_rows_share_is_said_once_below():
    text, below = shown([row("ppo", "pong"), row("dqn", "pong", 3)], 80)
    assert text.count("pong") == text.count("1,000,000") == text.count("95%") == 0
    assert below == "task: pong; episodes: 10; gradient steps: 1,000,000; interval: 95%, over seeds"


def test_what_differs_stays_in_the_table():
    text, below = shown([row("ppo", "pong"), row("dqn", "breakout", 3)], 200)
    assert "task" in text.splitlines()[2] and "seeds" in text.splitlines()[2]
    assert "task" not in below and "seeds:" not in below
