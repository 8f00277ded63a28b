"""Comparisons by hand: rows, pooling, no interval below three seeds, duplicates refused, curves, figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.compare import ALL_TASKS, METRICS, EpisodeScores, RunScore, compare_scores, improvements
from analysis.curves import Curve, align, choose_column, read_columns
from analysis.figures import curves_figure, save_png, scores_figure
from analysis.statistics import iqm


def score(group: str, seed: int, value: float, task: str = "pong", **changes: int) -> RunScore:
    counts = {"num_episodes": 10, "env_steps": 1000} | changes
    return RunScore(group=group, run=f"{group}-{task}/{seed}", seed=seed, task=task, score=value, **counts)


def rows_of(scores: list[RunScore], pool_tasks: bool = True):
    return compare_scores(scores, rng=np.random.default_rng(0), pool_tasks=pool_tasks, num_resamples=500)


def test_a_row_by_hand() -> None:
    scores = [score("dqn", seed, value) for seed, value in enumerate([1.0, 2.0, 3.0, 10.0])]
    scores[0] = score("dqn", 0, 1.0, num_episodes=3, env_steps=500)
    (row,) = rows_of(scores)
    assert (row.group, row.task, row.num_seeds) == ("dqn", "pong", 4)
    assert (row.iqm, row.mean, row.low, row.high) == (2.5, 4.0, 1.0, 10.0)
    assert (row.episodes, row.env_steps) == ((3, 10), (500, 1000))
    assert row.note == "95% over 4 seeds, few"
    assert row.iqm_interval is not None and row.mean_interval is not None
    assert 1.0 <= row.iqm_interval.low <= 2.5 <= row.iqm_interval.high <= 10.0


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_below_three_seeds_there_is_a_reason_instead_of_an_interval(num_seeds: int) -> None:
    (row,) = rows_of([score("dqn", seed, 1.0 + seed) for seed in range(num_seeds)])
    assert row.iqm_interval is None and row.mean_interval is None
    assert row.note == f"no interval below 3 seeds, got {num_seeds}"


def test_tasks_are_pooled_only_where_they_may_be() -> None:
    scores = [score("dqn", seed, seed + 10.0 * (task == "b"), task) for task in "ab" for seed in range(3)]
    assert [row.task for row in rows_of(scores, pool_tasks=False)] == ["a", "b"]
    pooled = rows_of(scores)[-1]
    assert pooled.task == ALL_TASKS
    assert pooled.num_seeds == 3
    assert pooled.mean == 6.0
    assert pooled.iqm == iqm([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]])
    assert [row.task for row in rows_of([score("dqn", 0, 1.0)])] == ["pong"]


def test_the_same_seed_twice_is_one_sample() -> None:
    with pytest.raises(ValueError, match=r"dqn-pong/0 and dqn-pong/0 are the same setting .* seed 0"):
        rows_of([score("dqn", 0, 1.0), score("dqn", 0, 1.0)])


def test_improvement_of_later_groups_over_earlier_ones() -> None:
    scores = [score("dqn", seed, seed, task) for seed in range(3) for task in "ab"]
    scores += [score("double", seed, seed + 1.0, "a") for seed in range(3)]
    scores += [score("other", 0, 5.0, "z")]
    (found,) = improvements(scores, rng=np.random.default_rng(0), num_resamples=200)
    assert (found.group, found.other, found.tasks) == ("double", "dqn", ("a",))
    assert found.probability == pytest.approx((3 + 2 + 1 + 0.5 * 2) / 9)  # 1,2,3 against 0,1,2
    assert found.interval is not None and 0.0 <= found.interval.low < found.probability < found.interval.high <= 1.0
    few = improvements([score("a", 0, 1.0), score("b", 0, 2.0)], rng=np.random.default_rng(0))[0]
    assert (few.probability, few.interval, few.note) == (1.0, None, "no interval below 3 seeds, got 1")


def test_metrics_by_hand() -> None:
    episodes = EpisodeScores("pong", np.array([14.6, -20.7]), np.array([10.0, 30.0]))
    assert METRICS["return"].score(episodes) == pytest.approx(-3.05)
    assert METRICS["human_normalised"].score(episodes) == pytest.approx(0.5)
    assert METRICS["length"].score(episodes) == 20.0
    with pytest.raises(ValueError, match="'success': these episodes know no success"):
        METRICS["success"].score(episodes)
    solved = EpisodeScores("reach-v3", np.zeros(2), np.ones(2), np.array([1.0, 1.0]), np.array([1.0, 0.0]))
    assert (METRICS["success"].score(solved), METRICS["success_last"].score(solved)) == (1.0, 0.5)


def test_columns_with_gaps_are_read_where_they_were_measured(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "env_steps,train/return_mean,eval/return_mean,name\n10,1.5,,x\n20,,3.0,x\n30,2.5,nan,\n40,3.5,4.0,\n"
    )
    columns = read_columns(path)
    np.testing.assert_array_equal(columns["train/return_mean"], [[10, 30, 40], [1.5, 2.5, 3.5]])
    np.testing.assert_array_equal(columns["eval/return_mean"], [[20, 40], [3.0, 4.0]])
    assert set(columns) == {"train/return_mean", "eval/return_mean"}
    assert read_columns(tmp_path / "missing.csv") == {}
    path.write_text("gradient_steps,loss\n5,0.5\n10,0.25\n")
    steps, losses = read_columns(path)["loss"]
    assert steps.tolist() == [5.0, 10.0] and losses.tolist() == [0.5, 0.25]


def test_the_preferred_column_that_every_run_has_is_chosen() -> None:
    long, short = (np.arange(3.0), np.arange(3.0)), (np.arange(1.0), np.arange(1.0))
    both = [{"a": short, "b": long}, {"a": long, "b": long}]
    assert choose_column(both, ("a", "b")) == "b"
    assert choose_column(both[1:], ("a", "b")) == "a"
    assert choose_column(both, ("c",)) is None
    assert choose_column([], ("a",)) is None


def test_runs_are_aligned_where_all_of_them_have_values() -> None:
    first = {"r": (np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0]))}
    second = {"r": (np.array([5.0, 15.0]), np.array([50.0, 150.0]))}
    curve = align("dqn", "pong", "r", [first, second])
    assert curve is not None
    np.testing.assert_array_equal(curve.env_steps, [5, 10, 15])
    np.testing.assert_allclose(curve.values, [[5, 10, 15], [50, 100, 150]])
    np.testing.assert_allclose(curve.mean, [27.5, 55, 82.5])
    assert curve.band is None
    three = align("dqn", "pong", "r", [first, first, second])
    assert three is not None and three.band is not None
    np.testing.assert_allclose(
        three.band[1] - three.mean, np.std([[5, 5, 50], [10, 10, 100], [15, 15, 150]], 1, ddof=1) / 3**0.5
    )
    late = {"r": (np.array([30.0, 40.0]), np.array([1.0, 1.0]))}
    assert align("dqn", "pong", "r", [first, late]) is None


def test_figures_are_png_files(tmp_path: Path) -> None:
    steps = np.linspace(0, 100, 20)
    curves = []
    for env_id in ("pong", "breakout", "qbert", "boxing"):
        for group, num_seeds in (("dqn", 3), ("double", 2)):
            curve = align(
                group, env_id, "eval/return_mean", [{"eval/return_mean": (steps, steps + s)} for s in range(num_seeds)]
            )
            assert curve is not None
            curves.append(curve)
    scores = [score(group, seed, seed, task) for group in ("dqn", "double") for seed in range(3) for task in "ab"]
    points = [(each.group, each.task, each.score) for each in scores]
    save_png(curves_figure(curves, "curves"), tmp_path / "curves.png")
    save_png(scores_figure(rows_of(scores), points, "scores", "raw return"), tmp_path / "scores.png")
    for name in ("curves.png", "scores.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "scores.png"]


def test_no_two_groups_are_drawn_alike() -> None:
    steps = np.arange(3.0)
    curves = [Curve(f"group {number}", "pong", "return", steps, steps[None]) for number in range(20)]
    lines = [
        line
        for line in curves_figure(curves, "curves").axes[0].get_lines()
        if not str(line.get_label()).startswith("_")
    ]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
