"""Sextant as ``sextant train`` runs it, envs, replay and logs included; one tick is one step of all envs."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.turns import Turn
from sextant.config import compose_train_config


def overrides(game: str, threads: int, learning_starts: int, num_envs: int) -> list[str]:
    """Gives the command line: what all contestants share, and no evaluation or checkpoint within the benchmark.

    Args:
        game: short name.
        threads: of PyTorch.
        learning_starts: warm-up (unit: env steps).
        num_envs: games that step together.
    """
    return [
        "agent=dqn",
        "agent.network.padding=valid",
        "agent.network.initialization=torch",
        "agent.learning_rate=6.25e-5",
        "agent.batch_size=32",
        "agent.replay_ratio=0.25",
        "agent.target_update_period=2000",
        "agent.replay.capacity=10000",
        "agent.epsilon_initial=0.01",
        "agent.epsilon_final=0.01",
        f"agent.learning_starts={learning_starts}",
        "env=atari",
        f"env.game={game}",
        f"env.num_envs={num_envs}",
        "trainer.total_env_steps=100_000_000",
        "trainer.checkpoint_every_env_steps=100_000_000",
        "trainer.evaluate_every_env_steps=0",
        "trainer.log_points=10_000",
        "device=cpu",
        f"threads={threads}",
    ]


def tick_every_step(warm_up_env_steps: int, num_envs: int) -> None:
    """Makes the games report their steps, once learning is under way."""
    from envs.atari.vector import AtariVector

    turn, steps = Turn(), 0
    step = AtariVector.step

    def timed_step(self: AtariVector, action: Any, id: Any = None, **work: Any) -> Any:
        nonlocal steps
        steps += num_envs
        if not turn.is_waiting:
            turn.tick(num_envs)
        elif steps > warm_up_env_steps:
            turn.begin()
        return step(self, action, id, **work)

    AtariVector.step = timed_step  # type: ignore[method-assign]


def main() -> None:
    """Trains, in turns; the run directory lies in the contestant's temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--learning-starts", type=int, required=True)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("overrides", nargs="*", help="further config overrides, such as agent.precision=bf16")
    options = parser.parse_args()
    shared = overrides(options.game.lower(), options.threads, options.learning_starts, options.num_envs)
    config = compose_train_config([*shared, *options.overrides])
    tick_every_step(options.learning_starts + 200, options.num_envs)
    from sextant.train import run_train

    run_train(config)


if __name__ == "__main__":
    main()
