"""The first losses of each trainer, as they were when this test was written: a refactoring must not move them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sextant.config import compose_train_config
from sextant.train import run_train

COMMON = ["env=classic", "env.num_envs=4", "threads=1", "seed=3", "trainer.evaluate_at_end=false"]
DQN = ["agent=dqn_classic", "agent.learning_starts=100", "agent.metrics_period=1", "agent.replay.capacity=500"]
SAC = ["agent=sac", "env.id=Pendulum-v1", "agent.learning_starts=100", "agent.metrics_period=1"]
PPO = ["agent=ppo_classic"]
STEPS = {"dqn": 116, "sac": 116, "ppo": 512}

EXPECTED: dict[str, list[float]] = {
    "dqn": [0.485181, 0.361738, 0.181139],
    "sac": [33.87187, 30.5016, 21.987575],
    "ppo": [5.429163, 5.752442, 4.562358, 4.059815],
}


def first_losses(folder: Path, name: str, overrides: list[str]) -> list[float]:
    steps = STEPS[name]
    periods = [f"trainer.total_env_steps={steps}", f"trainer.checkpoint_every_env_steps={steps}"]
    config = compose_train_config(
        [*COMMON, *overrides, *periods, "trainer.evaluate_every_env_steps=0", f"runs_dir={folder}"]
    )
    with open(run_train(config) / "metrics.csv", newline="") as stream:
        losses = [float(row["agent/loss"]) for row in csv.DictReader(stream) if row["agent/loss"]]
    return list(dict.fromkeys(losses))[:4]


@pytest.mark.parametrize(
    ("name", "overrides"), [("dqn", DQN), ("sac", [*SAC, "agent.replay.capacity=500"]), ("ppo", PPO)]
)
def test_the_first_losses_are_as_they_were(tmp_path: Path, name: str, overrides: list[str]) -> None:
    losses = first_losses(tmp_path, name, overrides)
    assert losses == pytest.approx(EXPECTED[name], rel=1e-3)
