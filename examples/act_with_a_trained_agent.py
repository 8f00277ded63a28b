"""Loads a run's checkpoint and acts with its agent in a Gymnasium environment made by hand.

    python examples/act_with_a_trained_agent.py RUN_DIR [best|last]

For agents that learned CartPole online, such as that of examples/train_from_python.py; for others, make another env.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from sextant.config import load_run_config
from trainers.checkpointing import CheckpointStore


def main(run_dir: Path, checkpoint: str = "best") -> float:
    """Plays one episode and prints its return.

    Args:
        run_dir: the run directory.
        checkpoint: ``best`` or ``last``.
    Returns:
        the sum of the rewards.
    """
    config: Any = load_run_config(run_dir)
    env = gymnasium.make("CartPole-v1")
    agent = config.agent.build(
        env.observation_space, env.action_space, device="cpu", seed=np.random.SeedSequence(config.seed)
    )
    store = CheckpointStore(run_dir / "checkpoints", read_only=True)
    snapshot = store.load_best() if checkpoint == "best" else store.load_latest()
    if snapshot is None:
        raise SystemExit(f"{run_dir} has no {checkpoint} checkpoint that is intact")
    agent.load_weights(snapshot.weights, acting_only=True)
    agent.algorithm.eval()

    obs, _ = env.reset(seed=7)
    state, over, episode_return = agent.initial_state(1), False, 0.0
    while not over:
        actions, state = agent.act(np.asarray(obs)[None], state)  # a batch of one; greedy, as explore=False
        obs, reward, terminated, truncated, _ = env.step(agent.env_action(actions)[0])
        episode_return += float(reward)
        over = terminated or truncated
    env.close()
    print(f"{checkpoint} checkpoint, {snapshot.env_steps} env steps: return {episode_return:g}")
    return episode_return


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), *sys.argv[2:3])
