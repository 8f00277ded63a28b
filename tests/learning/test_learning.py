"""Each algorithm learns what it must, through the whole of ``sextant train``; random play does not score the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sextant.config import compose_train_config
from sextant.train import run_train
from trainers.evaluation import evaluate_random
from trainers.evaluation_files import load_evaluations

COMMON = ["threads=1", "seed=11", "trainer.evaluation_episodes=10"]


def train(folder: Path, *overrides: str) -> tuple[Path, float]:
    """Trains; gives the run directory and the mean raw return of the evaluation at the end."""
    config = compose_train_config([*COMMON, *overrides, f"runs_dir={folder}"])
    run_dir = run_train(config)
    return run_dir, float(load_evaluations(run_dir)[-1].summary["return_mean"])


def random_score(*overrides: str) -> float:
    """Gives the mean raw return of uniform random actions on the same episodes."""
    config = compose_train_config([*COMMON, *overrides])
    env: Any = config.env
    protocol = env.evaluation_protocol()
    records = evaluate_random(
        env.make_evaluation_env,
        protocol,
        seed=10_007,
        num_envs=4,
        num_episodes=10,
    )
    return sum(record.raw_return for record in records) / len(records)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "env_id", "env_steps"),
    [("dqn_classic", "identity-v0", 2_000), ("ppo_classic", "identity-v0", 6_000), ("sac", "identity-box-v0", 2_000)],
)
def test_the_identity_env_is_solved(tmp_path: Path, agent: str, env_id: str, env_steps: int) -> None:
    overrides = [f"agent={agent}", "env=classic", f"env.id={env_id}", f"trainer.total_env_steps={env_steps}"]
    if agent != "ppo_classic":
        overrides += ["agent.learning_starts=200", "agent.replay.capacity=5000"]
    _, score = train(tmp_path, *overrides, f"trainer.checkpoint_every_env_steps={env_steps}")
    assert score >= 0.9 * 16
    assert random_score("agent=ppo_classic", "env=classic", f"env.id={env_id}") <= 0.5 * 16


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "env_steps"), [("dqn_classic", 50_000), ("ppo_classic", 60_000)])
def test_cartpole_is_learned(tmp_path: Path, agent: str, env_steps: int) -> None:
    run_dir, _ = train(
        tmp_path,
        f"agent={agent}",
        "env=classic",
        f"trainer.total_env_steps={env_steps}",
        f"trainer.checkpoint_every_env_steps={env_steps // 10}",
    )
    scores = [evaluation.summary["return_mean"] for evaluation in load_evaluations(run_dir)]
    assert len(scores) == 10
    assert max(scores) >= 450  # DQN's last policy may have got worse again; see docs/agents/dqn.md
    assert random_score("agent=ppo_classic", "env=classic") <= 50


@pytest.mark.slow
def test_pendulum_is_learned(tmp_path: Path) -> None:
    _, score = train(
        tmp_path,
        "agent=sac",
        "env=classic",
        "env.id=Pendulum-v1",
        "env.num_envs=1",
        "agent.learning_starts=500",
        "agent.replay.capacity=20000",
        "trainer.total_env_steps=6000",
        "trainer.checkpoint_every_env_steps=6000",
    )
    assert score >= -250
    assert random_score("agent=sac", "env=classic", "env.id=Pendulum-v1") <= -800


DQN_ON_PIXELS = (
    "agent=dqn",
    "env=classic",
    "env.id=pixel-catch-v0",
    "agent.network.padding=valid",
    "agent.learning_rate=5e-4",
    "agent.gamma=0.97",
    "agent.learning_starts=500",
    "agent.epsilon_decay=2000",
    "agent.target_update_period=200",
    "agent.replay.capacity=6000",
    "trainer.total_env_steps=6000",
    "trainer.checkpoint_every_env_steps=6000",
)
DQN_ON_PIXELS_BAR = 0.8


@pytest.mark.slow
def test_a_convolutional_dqn_learns_a_game_from_pixels(tmp_path: Path) -> None:
    _, score = train(tmp_path, *DQN_ON_PIXELS)
    assert score >= DQN_ON_PIXELS_BAR
    assert random_score("agent=dqn", "env=classic", "env.id=pixel-catch-v0") <= 0.2


@pytest.mark.slow
def test_the_return_on_a_metaworld_task_rises(tmp_path: Path) -> None:
    shorter = ["trainer.total_env_steps=15000", "trainer.checkpoint_every_env_steps=5000"]
    run_dir, score = train(tmp_path, "experiment=metaworld", *shorter, "trainer.evaluate_every_env_steps=5000")
    returns = [evaluation.summary["return_mean"] for evaluation in load_evaluations(run_dir)]
    assert score == returns[-1] > returns[0]
    assert score >= 1.5 * random_score("experiment=metaworld")
