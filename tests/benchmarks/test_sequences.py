"""Sequence models are compared with the right reference, goals are judged, and an absent release is said to be so."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contestants.sequence_parts import (
    LARGE_TOKENS,
    OneBatch,
    large_agent,
    large_batch,
    made_up_data,
    note,
    sampler_of,
    small_agent,
)
from benchmarks.sequences import Player, Roster, goals, options_of, reference, result, row, started
from benchmarks.turns import Contestant


def player(folder: Path, key: str, what: str, rates: list[float], unit: int = 1920, name: str = "") -> Player:
    """Gives a contestant that has played; sampling took 1 % of its updates."""
    notes = folder / f"{key}-{what}.jsonl"
    note(notes, parameters=7)
    for update in (0.1, 0.2, 0.4):
        note(notes, sampling=update / 100, update=update)
    shares = [1.0] * len(rates)
    return Player(Contestant(name or key, [], 1, unit, rates=rates, cpu_shares=shares), key, what, notes)


def test_goals_by_hand(tmp_path: Path) -> None:
    one = "update, 1 segment"
    players = [
        player(tmp_path, "dt", one, [1920.0, 3840.0, 1920.0]),  # 1 s an update: 10,000 take 166.7 minutes
        player(tmp_path, "dt_mem", one, [960.0, 2880.0, 1536.0]),  # ratios 0.5, 0.75, 0.8
        player(tmp_path, "dt_mem", "act() at step 10", [100.0, 200.0], unit=10),
        player(tmp_path, "dt_mem", "act() at step 500", [80.0, 160.0], unit=10),
        player(tmp_path, "release", "forward", [10.0], unit=156),
        player(tmp_path, "dt_mem", "forward", [150.0], unit=156),
    ]
    measured = [(goal.text, round(goal.measured, 6), goal.is_met) for goal in goals(players)]
    assert measured == [
        ("dt: minutes for 10,000 updates", 166.666667, False),
        ("dt: share of sampling in an update", 0.01, True),
        ("dt_mem: minutes for 10,000 updates", 208.333333, False),
        ("dt_mem: share of sampling in an update", 0.01, True),
        ("dt_mem, update, 1 segment: tokens/s over those of DT", 0.75, True),
        ("dt_mem: change of the time of an action from step 10 to step 500", 0.25, False),
        ("dt_mem, forward: tokens/s over those of the authors' release", 15.0, True),
    ]
    assert row(players[3], players)[:7] == [
        "act() at step 500",
        "dt_mem",
        7,
        None,
        120.0,
        pytest.approx(83.333, 1e-3),
        0.8,
    ]
    assert len(result(players, {}).markdown().splitlines()) > len(players) + 4


def test_references_are_of_the_same_kind(tmp_path: Path) -> None:
    dt_1, dt_3, rmdt_3 = (
        player(tmp_path, key, f"update, {segments}", [1.0])
        for key, segments in (("dt", "1 segment"), ("dt", "3 segments"), ("rmdt", "3 segments"))
    )
    ours = player(tmp_path, "dt_mem", "update", [1.0])
    players = [dt_1, dt_3, rmdt_3, ours]
    assert reference(rmdt_3, players) is dt_3
    assert reference(ours, players) is None  # a large model is never held against a small one
    assert list(goals([ours])) == []


def test_a_release_that_does_not_run_is_left_out_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(key: str) -> Player:
        return Player(Contestant(key, ["-c", "raise SystemExit('no such layer')"], 1), key, "forward", tmp_path / "n")

    with ExitStack() as stack:
        assert started([made("release")], stack) == ([], "no such layer")
    assert "is left out, it does not run here" in capsys.readouterr().err
    with ExitStack() as stack, pytest.raises(RuntimeError, match="dt_mem ended with status 1"):
        started([made("dt_mem")], stack)


def test_the_release_takes_part_only_where_it_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(["--release", str(tmp_path)])
    assert "holds no src/model.py" in capsys.readouterr().err
    assert all(each.key != "release" for each in Roster(options_of([]), tmp_path).players("release"))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.py").touch()
    given = Roster(options_of(["--release", str(tmp_path)]), tmp_path).players("release")
    assert [each.what for each in given if each.key == "release"] == ["forward", "update"]
    assert {each.contestant.unit for each in given} == {LARGE_TOKENS}


def test_models_and_data_are_what_the_page_says(tmp_path: Path) -> None:
    layout = large_agent("dt_mem", 1).model.embedding.layout
    batch, indices = OneBatch(large_batch(2)).sample(2)
    assert layout.num_tokens * batch.valid.shape[2] == LARGE_TOKENS == 156
    assert indices.tolist() == [0, 1]
    data = made_up_data(tmp_path)
    small = small_agent("dt_mem", 3, 4, data)
    segments, _ = sampler_of(small.config, data).sample(4)
    assert segments.obs.shape == (4, 3, 20, 39)
    assert segments.action.shape == (4, 3, 20, 4)
    assert np.count_nonzero(segments.valid) > 3 * 4 * 20 / 2
    assert small.model.embedding.layout.num_tokens == 3
