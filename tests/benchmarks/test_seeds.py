"""Processes of a group work at the same time, groups take turns, and what they make together is counted right."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.seeds import main, measure, options_of, table, total_rate
from benchmarks.turns import Contestant

MEETING = """
import pathlib, sys, time
from benchmarks.turns import Turn
own, others = pathlib.Path(sys.argv[1]), [pathlib.Path(path) for path in sys.argv[2:]]
turn = Turn()
turn.begin()
own.touch()
while not all(path.exists() for path in others):
    time.sleep(0.01)
time.sleep(0.05)
turn.tick()
turn.tick()
"""


def test_a_group_works_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other to be at work: one after the other they would wait for ever."""
    paths = [str(tmp_path / name) for name in "ab"]
    group = [Contestant(path, ["-c", MEETING, path, *paths], threads=1, unit=10) for path in paths]
    with ExitStack() as stack:
        for contestant in group:
            stack.enter_context(contestant).wait_until_ready()
        rate = total_rate(group, 20)
    assert 0 < rate <= 40 / 0.05


class Fake(Contestant):
    """Works at a known speed."""

    def __init__(self, seconds: float) -> None:
        super().__init__("fake", [], threads=1)
        self.seconds, self.updates = seconds, 0

    def start_turn(self, env_steps: int) -> None:
        self.updates = env_steps

    def finish_turn(self) -> tuple[int, float, float]:
        return self.updates, self.seconds, self.seconds


def test_a_group_is_as_fast_as_its_slowest_process() -> None:
    first, second = Fake(2.0), Fake(4.0)
    assert total_rate([first, second], 10) == 5.0
    rates = measure({"1 process": [first], "2 processes": [first, second]}, 3, {"1 process": 10, "2 processes": 10})
    assert rates == {"1 process": [5.0] * 3, "2 processes": [5.0] * 3}
    rates["2 processes"] = [5.0, 10.0, 7.5]
    assert table(rates, {"1 process": 1, "2 processes": 2})[1] == ["2 processes", 2, 7.5, 3.75, 1.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "must be at least 1"),
        (["--cuda-graph"], "--cuda-graph needs --device cuda, not cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options_of(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_measurement_on_the_cpu(tmp_path: Path) -> None:
    main(["--processes", "2", "--batched", "2", "--updates", "2", "--rounds", "1", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "seeds.json").read_text())
    assert [row[:2] for row in result["rows"]] == [["1 process", 1], ["2 processes", 2], ["batched, 2 seeds", 2]]
    assert all(row[2] > 0 for row in result["rows"]) and result["rows"][0][4] == 1.0
