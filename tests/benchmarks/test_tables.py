"""Results survive their file, numbers read well, promises are judged in the right direction."""

from pathlib import Path

import pytest

from benchmarks.report import report
from benchmarks.tables import Cell, Goal, Result, show

RESULT = Result(
    benchmark="collect",
    question="How fast?",
    settings={"game": "pong", "rounds": 3},
    columns=["contestant", "env steps/s"],
    rows=[["raw", 6400.4], ["ours", None]],
    goals=[Goal("share", 0.9312, 0.90), Goal("seconds", 2.5, 2.0, at_least=False)],
    samples={"raw": [6400.0, 6401.0]},
)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), ("pong", "pong"), (7, "7"), (6400.4, "6,400"), (0.93123, "0.931"), (2.5, "2.50")]
)
def test_show(value: Cell, text: str) -> None:
    assert show(value) == text


def test_goals_are_judged_in_their_direction() -> None:
    at_least, at_most = RESULT.goals
    assert at_least.line() == "met: share: 0.931 (goal >= 0.900)"
    assert at_most.line() == "NOT met: seconds: 2.50 (goal <= 2)"


def test_result_survives_its_file_and_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RESULT.publish(tmp_path)
    assert "| raw | 6,400 |" in capsys.readouterr().out
    again, machine = Result.read(tmp_path / "collect.json")
    assert again == RESULT
    assert machine["python"]
    page = report(tmp_path)
    assert "## `python -m benchmarks.collect`" in page
    assert RESULT.markdown() in page


def test_report_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run a benchmark with --out"):
        report(tmp_path)
