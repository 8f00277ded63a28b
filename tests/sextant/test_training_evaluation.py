"""Evaluations during a training run: what they cannot do must not stop it."""

from __future__ import annotations

from pathlib import Path

import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.error import DependencyNotInstalled

from sextant.cli import main

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
