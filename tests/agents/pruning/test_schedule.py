"""The cubic against the table of the paper's numbers, the cosine, and which gradient steps update masks."""

import pytest

from agents.pruning.schedule import MaskSchedule, cosine_drop_fraction, cubic_sparsity

START, END, FINAL = 500_000, 2_000_000, 0.95
# step, the paper's equation 1, JaxPruner's PolynomialSchedule (None: the same to 1e-5)
TABLE = [
    (500_000, 0.0, 1.9e-6),
    (501_000, 0.00189873, 0.00190063),
    (750_000, 0.40023148, None),
    (1_000_000, 0.66851852, None),
    (1_250_000, 0.83125, None),
    (1_500_000, 0.91481481, None),
    (1_750_000, 0.94560185, None),
    (2_000_000, 0.95, None),
]


@pytest.mark.parametrize(("step", "paper", "jaxpruner"), TABLE)
def test_the_cubic_is_the_papers_and_jaxpruner_is_one_step_ahead(
    step: int, paper: float, jaxpruner: float | None
) -> None:
    assert cubic_sparsity(step, START, END, FINAL) == pytest.approx(paper, abs=5e-9)
    ahead = cubic_sparsity(step + 1, START, END, FINAL)
    if jaxpruner is None:
        assert ahead == pytest.approx(paper, abs=1e-5)
    else:
        assert ahead == pytest.approx(jaxpruner, abs=1e-8)


def test_the_cubic_is_flat_outside_of_the_window() -> None:
    assert cubic_sparsity(0, START, END, FINAL) == cubic_sparsity(START - 1, START, END, FINAL) == 0.0
    assert cubic_sparsity(END + 1, START, END, FINAL) == cubic_sparsity(10**9, START, END, FINAL) == FINAL
    assert cubic_sparsity(3, 3, 3, FINAL) == FINAL


def test_the_cosine_falls_from_its_start_to_zero() -> None:
    fractions = [cosine_drop_fraction(step, 100, 0.3) for step in (0, 50, 100, 200)]
    assert fractions == pytest.approx([0.3, 0.15, 0.0, 0.0])
    assert cosine_drop_fraction(0, 0, 0.3) == 0.0


def test_the_papers_run_updates_masks_1501_times_at_multiples_of_1000() -> None:
    schedule = MaskSchedule.of_run(2_500_000, 0.2, 0.8, 1000)
    assert schedule == MaskSchedule(500_000, 2_000_000, 1000)
    assert sum(schedule.is_due(step) for step in range(0, 2_500_000, 500)) == 1501
    assert not schedule.is_due(499_000) and not schedule.is_due(500_500) and not schedule.is_due(2_001_000)


@pytest.mark.parametrize("total", [200, 777, 12_345, 100_000])
def test_a_short_run_has_a_hundred_updates_and_one_at_the_end(total: int) -> None:
    schedule = MaskSchedule.of_run(total, 0.2, 0.8, 1000)
    due = [step for step in range(total) if schedule.is_due(step)]
    assert len(due) >= 100
    assert due[0] == round(0.2 * total) and due[-1] == round(0.8 * total)


def test_the_last_update_lies_inside_of_the_run() -> None:
    for total in (1, 2, 50):
        schedule = MaskSchedule.of_run(total, 0.5, 1.0, 1000)
        assert schedule.is_due(total - 1) and schedule.period == 1
    with pytest.raises(ValueError, match="total_gradient_steps=0"):
        MaskSchedule.of_run(0, 0.2, 0.8, 1000)
