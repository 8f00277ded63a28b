"""Trains DQN on CartPole from Python, and reads what the run wrote.

    python examples/train_from_python.py [RUNS_DIR]

The arguments are those of ``sextant train``; `sextant config show agent=dqn_classic env=classic` lists all of them.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from sextant.config import compose_train_config
from sextant.train import run_train


def main(runs_dir: str) -> Path:
    """Trains for some seconds and prints the returns of the evaluations.

    Args:
        runs_dir: folder under which the run's directory is made.
    Returns:
        the run directory.
    """
    config = compose_train_config(
        [
            "agent=dqn_classic",
            "agent.learning_starts=500",
            "env=classic",
            "env.id=CartPole-v1",  # 500 steps at most; random play falls after about 22
            "trainer.total_env_steps=3000",  # some seconds; docs/agents/dqn.md tells how long learning takes
            "trainer.checkpoint_every_env_steps=1000",
            "trainer.evaluate_every_env_steps=1000",
            "threads=1",
            "seed=0",
            f"runs_dir={runs_dir}",
        ]
    )
    run_dir = run_train(config)
    with open(run_dir / "metrics.csv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row.get("eval/return_mean"):
                print(f"{row['env_steps']} env steps: mean return {float(row['eval/return_mean']):.1f}")
    print(f"run directory: {run_dir}")
    return run_dir


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs")
