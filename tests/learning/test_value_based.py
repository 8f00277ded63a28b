"""Each member of the value-based family learns what it must, through the whole of ``sextant train``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learning.test_learning import random_score, train
from trainers.evaluation_files import load_evaluations

CLASSIC = [
    "env=classic",
    "agent.network.kind=mlp",
    "agent.network.hidden_widths=[128,128]",
    "agent.learning_rate=1e-3",
    "agent.adam_eps=1e-8",
    "agent.epsilon_final=0.04",
]
N_STEP = ["agent.n_step=3", "agent.target_update_period=200"]
FEW_FRACTIONS = ["agent.num_fractions=8", "agent.num_target_fractions=8", "agent.num_acting_fractions=8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "extra"),
    [
        ("c51", []),
        ("rainbow", ["agent.noisy=true", "agent.dueling=true", "agent.double=true", "agent.n_step=1"]),
        ("qr_dqn", ["agent.num_quantiles=16", "agent.n_step=1"]),
        ("iqn", [*FEW_FRACTIONS, "agent.n_step=1"]),
    ],
)
def test_the_identity_env_is_solved(tmp_path: Path, agent: str, extra: list[str]) -> None:
    env = ["env.id=identity-v0", "trainer.total_env_steps=2000", "trainer.checkpoint_every_env_steps=2000"]
    _, score = train(
        tmp_path,
        f"agent={agent}",
        *CLASSIC,
        *env,
        *extra,
        "agent.gamma=0.5",
        "agent.replay_ratio=0.5",
        "agent.learning_starts=200",
        "agent.epsilon_decay=800",
        "agent.target_update_period=50",
        "agent.replay.capacity=5000",
    )
    assert score >= 0.9 * 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "env_steps", "bar", "extra"),
    [
        (
            "rainbow",
            30_000,
            450,
            ["agent.value_min=0", "agent.value_max=50", "agent.batch_size=64", "agent.target_update_period=200"],
        ),
        (
            "c51",
            16_000,
            200,
            [*N_STEP, "agent.value_min=0", "agent.value_max=50", "agent.batch_size=64"],
        ),
        ("qr_dqn", 16_000, 200, [*N_STEP, "agent.num_quantiles=16", "agent.batch_size=64"]),
        ("iqn", 16_000, 200, [*FEW_FRACTIONS, *N_STEP, "agent.learning_rate=5e-4"]),
        (
            "munchausen_iqn",
            16_000,
            200,  # a third of the gradient steps that others need for 450: each costs several times theirs
            [*FEW_FRACTIONS, "agent.n_step=3", "agent.learning_rate=5e-4", "agent.target_update_period=100"],
        ),
    ],
)
def test_cartpole_is_learned(tmp_path: Path, agent: str, env_steps: int, bar: float, extra: list[str]) -> None:
    run_dir, _ = train(
        tmp_path,
        f"agent={agent}",
        *CLASSIC,
        *extra,
        "agent.gamma=0.98",
        "agent.replay_ratio=0.5",
        "agent.learning_starts=1000",
        "agent.epsilon_decay=5000",
        "agent.replay.capacity=30000",
        f"trainer.total_env_steps={env_steps}",
        f"trainer.checkpoint_every_env_steps={env_steps // 10}",
    )
    assert max(evaluation.summary["return_mean"] for evaluation in load_evaluations(run_dir)) >= bar
    assert random_score("agent=ppo_classic", "env=classic") <= 50


UNIT_ATOMS = ["agent.value_min=-1", "agent.value_max=1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "env_steps", "extra"),
    [
        ("c51", 4_000, UNIT_ATOMS),
        ("rainbow", 4_000, UNIT_ATOMS),
        ("der", 5_000, [*UNIT_ATOMS, "agent.noisy_sigma=0.1"]),
        ("drq", 4_500, []),
        ("qr_dqn", 3_500, ["agent.num_quantiles=16"]),
        ("iqn", 4_000, FEW_FRACTIONS),
        ("munchausen_iqn", 4_000, FEW_FRACTIONS),
    ],
)
def test_a_game_is_learned_from_pixels(tmp_path: Path, agent: str, env_steps: int, extra: list[str]) -> None:
    """Who does not look at the ball earns -0.5 on average; DQN's own test has the same game."""
    env = ["env=classic", "env.id=pixel-catch-v0"]
    _, score = train(
        tmp_path,
        f"agent={agent}",
        *env,
        *extra,
        "agent.network.padding=valid",
        "agent.network.hidden_width=128",
        "agent.batch_size=16",
        "agent.n_step=3",
        "agent.gamma=0.97",
        "agent.learning_rate=5e-4",
        "agent.replay_ratio=0.25",
        "agent.learning_starts=500",
        "agent.epsilon_decay=1500",
        "agent.target_update_period=100",
        "agent.replay.capacity=6000",
        f"trainer.total_env_steps={env_steps}",
        f"trainer.checkpoint_every_env_steps={env_steps}",
        "trainer.evaluation_episodes=50",
    )
    assert score >= 0.3
    assert random_score(f"agent={agent}", *env) <= 0.0
