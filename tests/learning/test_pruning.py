"""A network that lost nine tenths of its weights while it learned scores what the dense one must score."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.learning.test_learning import DQN_ON_PIXELS, DQN_ON_PIXELS_BAR, random_score, train
from trainers.evaluation_files import load_evaluations


def final_sparsity(run_dir: Path) -> float:
    """Gives the last share of masked weights that the run wrote down."""
    with (run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        written = [row["agent/sparsity/total"] for row in csv.DictReader(file)]
    return float([value for value in written if value][-1])


@pytest.mark.slow
def test_a_pruned_dqn_learns_cartpole(tmp_path: Path) -> None:
    run_dir, _ = train(
        tmp_path,
        "agent=dqn_classic",
        "agent.pruning.sparsity=0.9",
        "env=classic",
        "trainer.total_env_steps=50000",
        "trainer.checkpoint_every_env_steps=2500",
    )
    assert final_sparsity(run_dir) == pytest.approx(0.9, abs=0.001)
    scores = [evaluation.summary["return_mean"] for evaluation in load_evaluations(run_dir)]
    assert len(scores) == 20
    assert max(scores[16:]) >= 450  # the dense bar, of policies after the last mask update at 80 % of the run
    assert random_score("agent=ppo_classic", "env=classic") <= 50


@pytest.mark.slow
def test_a_pruned_dqn_learns_a_game_from_pixels(tmp_path: Path) -> None:
    """The bar is that of the dense one; random play stays below 0.2, as its own test shows."""
    run_dir, score = train(tmp_path, *DQN_ON_PIXELS, "agent.pruning.sparsity=0.9")
    assert final_sparsity(run_dir) == pytest.approx(0.9, abs=0.001)
    assert score >= DQN_ON_PIXELS_BAR
