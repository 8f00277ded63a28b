"""Stable-Baselines3's DQN with its own Atari wrappers and CNN policy; one tick is one env step."""

from __future__ import annotations

import argparse
import importlib
import warnings
from typing import Any

import gymnasium
import torch

from benchmarks.turns import Turn


def make_model(game: str, num_envs: int, learning_starts: int) -> Any:
    """Builds the model as its documentation shows, at the hyperparameters shared by all contestants.

    Args:
        game: name as in ``<name>NoFrameskip-v4``.
        num_envs: parallel envs; with more than one the updates of four env steps are made together.
        learning_starts: warm-up (unit: env steps).
    """
    sb3 = importlib.import_module("stable_baselines3")
    env_util = importlib.import_module("stable_baselines3.common.env_util")
    vec_env = importlib.import_module("stable_baselines3.common.vec_env")
    env = vec_env.VecFrameStack(env_util.make_atari_env(f"{game}NoFrameskip-v4", n_envs=num_envs, seed=1), n_stack=4)
    return sb3.DQN(
        "CnnPolicy",
        env,
        learning_rate=6.25e-5,
        buffer_size=10_000,
        learning_starts=learning_starts,
        batch_size=32,
        train_freq=max(1, 4 // num_envs),
        gradient_steps=max(1, num_envs // 4),
        target_update_interval=8_000,
        exploration_initial_eps=0.01,
        exploration_final_eps=0.01,
        seed=1,
        device="cpu",
    )


def main() -> None:
    """Trains for ever, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--learning-starts", type=int, required=True)
    parser.add_argument("--num-envs", type=int, choices=(1, 4, 8, 16), default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    gymnasium.register_envs(importlib.import_module("ale_py"))
    model = make_model(options.game, options.num_envs, options.learning_starts)
    turn = Turn()

    def on_step(local_names: dict[str, Any], global_names: dict[str, Any]) -> bool:
        if not turn.is_waiting:
            turn.tick(options.num_envs)
        elif model.num_timesteps > options.learning_starts + 100:
            turn.begin()
        return True

    model.learn(total_timesteps=1_000_000_000, callback=on_step)


if __name__ == "__main__":
    main()
