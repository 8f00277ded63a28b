"""Evaluations during a training run: what they cannot do must not stop it, and how their scores are read again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.error import DependencyNotInstalled

from sextant.cli import main
from sextant.training_evaluation import evaluation_scores

RUN = [
    "agent=dqn_classic",
    "env=classic",
    "env.num_envs=2",
    "agent.learning_starts=100",
    "agent.replay.capacity=500",
    "trainer.total_env_steps=400",
    "trainer.checkpoint_every_env_steps=200",
    "trainer.evaluate_every_env_steps=200",
    "trainer.evaluation_episodes=1",
    "trainer.videos_per_evaluation=1",
    "threads=1",
]


def test_a_run_that_cannot_be_filmed_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def render(self: CartPoleEnv) -> None:
        raise DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr(CartPoleEnv, "render", render)
    assert main(["train", *RUN, f"runs_dir={tmp_path}"]) == 0
    told = capsys.readouterr().err
    assert told.count("episodes are not filmed: pygame is not installed; with the tested version: pip install") == 1
    assert len(list(tmp_path.glob("*/*/evaluations/*/*/summary.json"))) == 2
    assert not list(tmp_path.glob("*/*/videos/*.mp4"))


def test_scores_are_read_from_the_rows_with_an_evaluation(tmp_path: Path) -> None:
    with open(tmp_path / "metrics.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(
            [["gradient_steps", "eval/return_mean", "eval/success_rate"], [0, 3.0, 0.5], [5, "", ""], [9, 4.0, 1.0]]
        )
    assert evaluation_scores(tmp_path) == {0: 0.5, 9: 1.0}
