"""CleanRL's own ``cleanrl/dqn_atari.py``, run unchanged from the user's copy of CleanRL; one tick is one env step."""

from __future__ import annotations

import argparse
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import gymnasium_names
from benchmarks.turns import Turn


def tick_every_step(warm_up_env_steps: int) -> None:
    """Makes the vector env that CleanRL steps report its steps, once learning is under way."""
    turn, steps = Turn(), 0
    step = gymnasium_names.SyncVectorEnv029.step

    def timed_step(self: Any, actions: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == warm_up_env_steps:
            turn.begin()
        elif steps > warm_up_env_steps:
            turn.tick()
        return step(self, actions)

    gymnasium_names.SyncVectorEnv029.step = timed_step  # type: ignore[method-assign]


def main() -> None:
    """Runs the script for ever, at the hyperparameters shared by all contestants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cleanrl", type=Path, required=True, help="folder that holds cleanrl/dqn_atari.py")
    parser.add_argument("--game", required=True, help="name as in <name>NoFrameskip-v4")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--learning-starts", type=int, required=True, help="env steps")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    gymnasium_names.install()
    tick_every_step(options.learning_starts + 100)
    arguments = {
        "env-id": f"{options.game}NoFrameskip-v4",
        "total-timesteps": 1_000_000_000,
        "learning-rate": 6.25e-5,
        "buffer-size": 10_000,
        "batch-size": 32,
        "train-frequency": 4,
        "target-network-frequency": 8_000,
        "start-e": 0.01,
        "end-e": 0.01,
        "learning-starts": options.learning_starts,
    }
    sys.path.insert(0, str(options.cleanrl))
    sys.argv = ["dqn_atari.py"] + [f"--{name}={value}" for name, value in arguments.items()]
    runpy.run_path(str(options.cleanrl / "cleanrl" / "dqn_atari.py"), run_name="__main__")


if __name__ == "__main__":
    main()
