"""The cubic against the table of the paper's numbers, the cosine, and which gradient steps update masks."""

import pytest

from agents.pruning.distribution import erk
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


# Layer shapes, sparsity, (start, end), ERK, and the sparsities before gradient steps. Source: JaxPruner f133ee5
# with JAX 0.10.2 in float32: get_sparsities_erdos_renyi, and PolynomialSchedule.get_sparsity_at_step(ERK, step).
JAXPRUNER: dict[str, tuple[list[tuple[int, ...]], float, tuple[int, int], list[float], dict[int, list[float]]]] = {
    "mlp": (
        [(256, 3), (256, 256), (2, 256)],
        0.8,
        (2000, 8000),
        [0.0, 0.8155975341796875, 0.0],
        {
            2000: [0.0, 0.0004077206, 0.0],
            2600: [0.0, 0.22135718, 0.0],
            5000: [0.0, 0.7137497, 0.0],
            7999: [0.0, 0.81559753, 0.0],
            8000: [0.0, 0.81559753, 0.0],
        },
    ),
    "sac": (
        [(1024, 39), (1024, 1024), (1024, 1024), (4, 1024)],
        0.95,
        (200000, 800000),
        [0.46876267777620395, 0.9610192745687148, 0.9610192745687148, 0.0],
        {
            200000: [2.3469963e-06, 4.8116217e-06, 4.8116217e-06, 0.0],
            260000: [0.1270366, 0.26044014, 0.26044014, 0.0],
            500000: [0.41016793, 0.8408931, 0.8408931, 0.0],
            799999: [0.46876267, 0.9610193, 0.9610193, 0.0],
            800000: [0.46876267, 0.9610193, 0.9610193, 0.0],
        },
    ),
    "nature_valid": (
        [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (18, 512)],
        0.95,
        (500000, 2000000),
        [0.8784306159535297, 0.9392153079767649, 0.930383344178517, 0.9564869394621739, 0.0],
        {
            500000: [1.727832e-06, 1.8473926e-06, 1.8300206e-06, 1.8813652e-06, 0.0],
            650000: [0.23805618, 0.25452894, 0.25213546, 0.25920957, 0.0],
            1250000: [0.7686272, 0.8218138, 0.81408584, 0.8369265, 0.0],
            1999999: [0.8784306, 0.9392153, 0.9303833, 0.95648694, 0.0],
            2000000: [0.8784306, 0.9392153, 0.9303833, 0.95648694, 0.0],
        },
    ),
    "minatar": (
        [(16, 4, 3, 3), (128, 1024), (6, 128)],
        0.9,
        (10000, 40000),
        [0.5219799330315036, 0.9069239773450763, 0.0],
        {
            10000: [5.2175543e-05, 9.065339e-05, 0.0],
            13000: [0.14149886, 0.24584988, 0.0],
            25000: [0.45674548, 0.7935811, 0.0],
            39999: [0.5219799, 0.90692395, 0.0],
            40000: [0.5219799, 0.90692395, 0.0],
        },
    ),
    "odd": (
        [(64, 3, 5), (64, 64, 5), (10, 640)],
        0.8,
        (3, 20),
        [0.5115789473684211, 0.9577083333333334, 0.33859649122807023],
        {
            3: [0.08507226, 0.15926068, 0.056306396],
            4: [0.16014826, 0.29980773, 0.105996616],
            11: [0.45826563, 0.8579024, 0.30331025],
            19: [0.511579, 0.95770836, 0.3385965],
            20: [0.511579, 0.95770836, 0.3385965],
        },
    ),
    "impala_block": (
        [(16, 4, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (512, 3872), (6, 512)],
        0.99,
        (500000, 2000000),
        [0.8207662405931828, 0.9345107417552014, 0.9534681586155378, 0.9912191979756594, 0.3304585045235724],
        {
            500000: [1.6144089e-06, 1.838139e-06, 1.8754273e-06, 1.949682e-06, 6.499964e-07],
            650000: [0.22242905, 0.253254, 0.2583915, 0.2686221, 0.08955481],
            1250000: [0.7181709, 0.81769735, 0.8342851, 0.8673173, 0.28915134],
            1999999: [0.82076627, 0.93451077, 0.95346814, 0.9912192, 0.3304585],
            2000000: [0.82076627, 0.93451077, 0.95346814, 0.9912192, 0.3304585],
        },
    ),
}


@pytest.mark.parametrize("name", JAXPRUNER)
def test_sparsities_of_every_layer_are_jaxpruners_one_step_ahead(name: str) -> None:
    shapes, sparsity, (start, end), expected, over_time = JAXPRUNER[name]
    finals = erk({str(index): shape for index, shape in enumerate(shapes)}, sparsity).values()
    assert list(finals) == pytest.approx(expected, abs=1e-12)
    for step, values in over_time.items():
        ours = [cubic_sparsity(step + 1, start, end, final) for final in finals]
        assert ours == pytest.approx(values, abs=1.2e-7), f"step {step}"  # the spacing of float32 at 1
