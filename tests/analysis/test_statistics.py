"""Statistics against numbers typed by hand, against rliable, and against scipy where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics import (
    Interval,
    TooFewSamples,
    bootstrap_interval,
    episode_interval,
    improvement_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    wilson_interval,
)

SCORES = np.random.default_rng(7).gamma(1.0, 1.0, size=(5, 11))  # 5 runs, 11 tasks
OTHER = np.random.default_rng(8).gamma(1.3, 1.0, size=(4, 11))


def test_point_estimates_by_hand() -> None:
    scores = np.array([[0.0, 2.0], [1.0, 3.0], [2.0, 100.0], [9.0, 4.0]])  # 4 runs, 2 tasks
    assert iqm(scores) == (2.0 + 2.0 + 3.0 + 4.0) / 4  # of 0 1 2 2 3 4 9 100, two go at either end
    assert mean(scores) == (3.0 + 27.25) / 2
    assert median(np.c_[scores, [7.0] * 4]) == 7.0
    assert optimality_gap(scores / 4) == pytest.approx(1 - (0 + 0.25 + 0.5 + 1 + 0.5 + 0.75 + 1 + 1) / 8)
    np.testing.assert_array_equal(performance_profile(scores, [-1.0, 2.0, 100.0]), [1.0, 0.5, 0.0])


def test_tasks_may_have_different_numbers_of_runs() -> None:
    scores = [[1.0, 2.0, 3.0], [10.0]]
    assert iqm(scores) == 2.5  # 2 and 3 of 1, 2, 3, 10
    assert mean(scores) == 6.0


def test_point_estimates_equal_rliable() -> None:
    metrics = pytest.importorskip("rliable.metrics")
    for scores in (SCORES, OTHER, SCORES[:3, :5], SCORES[:, :1]):
        assert iqm(scores) == pytest.approx(metrics.aggregate_iqm(scores), rel=1e-12)
        assert mean(scores) == pytest.approx(metrics.aggregate_mean(scores), rel=1e-12)
        assert median(scores) == pytest.approx(metrics.aggregate_median(scores), rel=1e-12)
        assert optimality_gap(scores) == pytest.approx(metrics.aggregate_optimality_gap(scores), rel=1e-12)
    ours = probability_of_improvement(SCORES.round(), OTHER.round())  # rounded: with ties
    assert ours == pytest.approx(metrics.probability_of_improvement(SCORES.round(), OTHER.round()), rel=1e-12)


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
def test_the_bootstrap_agrees_with_rliable() -> None:
    library, metrics = pytest.importorskip("rliable.library"), pytest.importorskip("rliable.metrics")
    reps = 5000
    _, theirs = library.get_interval_estimates(
        {"iqm": SCORES},
        lambda x: np.array([metrics.aggregate_iqm(x)]),
        reps=reps,
        random_state=np.random.RandomState(0),
    )
    ours = bootstrap_interval(SCORES, iqm, rng=np.random.default_rng(0), num_resamples=reps)
    width = ours.high - ours.low
    assert [ours.low, ours.high] == pytest.approx(theirs["iqm"][:, 0].tolist(), abs=0.05 * width)

    _, theirs = library.get_interval_estimates(
        {"pair": (SCORES, OTHER)}, metrics.probability_of_improvement, reps=500, random_state=np.random.RandomState(0)
    )
    ours = improvement_interval(SCORES, OTHER, rng=np.random.default_rng(0), num_resamples=reps)
    assert [ours.low, ours.high] == pytest.approx(np.ravel(theirs["pair"]).tolist(), abs=0.02)


def test_the_profile_equals_rliable() -> None:
    library = pytest.importorskip("rliable.library")
    thresholds = np.linspace(0, 3, 7)
    np.testing.assert_allclose(
        performance_profile(SCORES, thresholds), [library.run_score_deviation(SCORES, tau) for tau in thresholds]
    )


def test_resampling_all_at_once_equals_one_at_a_time() -> None:
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    interval = bootstrap_interval(SCORES, median, rng=rng, num_resamples=200)
    picks = [again.integers(5, size=(200, 5)) for _ in range(11)]
    values = [float(median([SCORES[picks[t][s], t] for t in range(11)])) for s in range(200)]
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_equal_generators_give_equal_intervals() -> None:
    one, two, three = (bootstrap_interval(SCORES, iqm, rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two != three
    assert one.low < iqm(SCORES) < one.high
    narrow = bootstrap_interval(SCORES, iqm, rng=np.random.default_rng(1), confidence=0.5)
    assert one.low < narrow.low < narrow.high < one.high


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = episode_interval(rng.normal(size=40), rng=rng, num_resamples=300, confidence=0.9)
        hits += interval.low <= 0.0 <= interval.high
    assert 0.83 <= hits / 300 <= 0.95


@pytest.mark.parametrize("num_runs", [1, 2])
def test_no_interval_below_three_seeds(num_runs: int) -> None:
    with pytest.raises(TooFewSamples, match=f"no interval below 3 seeds, got {num_runs}"):
        bootstrap_interval(SCORES[:num_runs], iqm, rng=np.random.default_rng(0))
    with pytest.raises(TooFewSamples, match=f"got {num_runs}"):
        improvement_interval(SCORES, OTHER[:num_runs], rng=np.random.default_rng(0))
    with pytest.raises(TooFewSamples, match=f"no interval below 3 episodes, got {num_runs}"):
        episode_interval(np.arange(float(num_runs)), rng=np.random.default_rng(0))


def test_an_interval_says_what_it_is_over() -> None:
    rng = np.random.default_rng(0)
    assert bootstrap_interval(SCORES, iqm, rng=rng).note == "95% over 5 seeds"
    assert bootstrap_interval(SCORES[:4], iqm, rng=rng).note == "95% over 4 seeds, few"
    assert episode_interval(np.arange(4.0), rng=rng, confidence=0.9).note == "90% over 4 episodes"
    assert str(Interval(0.123456, 2.0, 0.95, "seeds", 3)) == "[0.1235, 2] (95% over 3 seeds, few)"


def test_improvement_by_hand() -> None:
    assert probability_of_improvement([[1.0, 2.0]], [[1.0, 3.0]]) == (0.5 + 0 + 1 + 0) / 4
    assert probability_of_improvement([[1.0], [5.0]], [[0.0], [6.0]]) == 0.5
    assert probability_of_improvement(SCORES, SCORES + 100) == 0.0
    with pytest.raises(ValueError, match="same tasks, got 2 and 1"):
        probability_of_improvement([[1.0], [2.0]], [[1.0]])


def test_wilson_by_hand() -> None:
    # 1 of 10 at z = 1.959964: Brown, Cai, DasGupta 2001 form; centre 0.2111..., checked to 4 digits
    assert wilson_interval(1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    low, high = wilson_interval(50, 100)
    assert low + high == pytest.approx(1.0)


def test_wilson_equals_scipy() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for successes, total, confidence in ((1, 10, 0.95), (37, 50, 0.9), (0, 3, 0.95), (50, 50, 0.99)):
        theirs = binomtest(successes, total).proportion_ci(confidence, method="wilson")
        assert wilson_interval(successes, total, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="got 4 of 3"):
        wilson_interval(4, 3)
    with pytest.raises(ValueError, match="0 of 0"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="NaN"):
        iqm([[1.0, np.nan]])
    with pytest.raises(ValueError, match="at least one run"):
        iqm([])
    with pytest.raises(ValueError, match=r"got shape \(1, 1, 1\)"):
        iqm(np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        bootstrap_interval(SCORES, iqm, rng=rng, confidence=95)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bootstrap_interval(SCORES, iqm, rng=rng, num_resamples=0)
