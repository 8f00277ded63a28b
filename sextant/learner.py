"""Builds what learns from a config: the agent, its memory, and the machine settings that were left to measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.interface import Agent
    from envs.tianshou_vector import VectorEnv
    from memory.replay import Replay

    from sextant.config import TrainConfig
    from trainers.seeding import Seeds


def build_learner(
    config: TrainConfig, venv: VectorEnv, seeds: Seeds, say: Callable[[str], None]
) -> tuple[Agent, Replay]:
    """Builds the agent and the memory it learns from.

    Args:
        config: the run's config.
        venv: gives the spaces and the number of envs.
        seeds: of the run.
        say: told the replay's predicted size before it is allocated.
    Returns:
        the agent and its replay (a rollout buffer for an on-policy agent).
    """
    from memory.config import ReplayConfig
    from trainers.seeding import seed_global_rngs

    agent_config: Any = config.agent
    spaces = (venv.single_observation_space, venv.single_action_space)
    seed_global_rngs(seeds)
    agent = agent_config.build(*spaces, device=config.device, seed=seeds.sequence("agent"))
    if agent.kind == "off_policy":
        replay_config = agent_config.replay
    else:
        replay_config = ReplayConfig(capacity=agent_config.rollout_steps * len(venv), frames="full")
    replay = replay_config.build(*spaces, num_envs=len(venv), rng=seeds.generator("replay"), log=say)
    return agent, replay


def settled(config: TrainConfig, venv: VectorEnv, say: Callable[[str], None]) -> TrainConfig:
    """Replaces ``auto`` by what this machine offers: the device, and the number of threads by measurement.

    A resumed run keeps what was settled at its start, for other threads sum floats in another order.

    Args:
        config: as the user gave it.
        venv: gives the spaces.
        say: told the outcome.
    Returns:
        the config with a device and a number of threads.
    """
    import torch

    if config.device == "auto":
        config = config.model_copy(update={"device": "cuda" if torch.cuda.is_available() else "cpu"})
    if config.threads == "auto":
        from trainers.threads import choose_torch_threads

        threads, _ = choose_torch_threads(throwaway_update(config, venv), log=say)
        config = config.model_copy(update={"threads": threads})
    return config


def throwaway_update(config: TrainConfig, venv: VectorEnv) -> Callable[[], None]:
    """Gives a function that makes one representative update of a throw-away copy of the learner.

    Args:
        config: the run's config.
        venv: gives the spaces.
    Returns:
        the update, on random transitions.
    """
    import numpy as np
    from tianshou.utils.torch_utils import policy_within_training_step

    from memory.config import ReplayConfig

    agent_config: Any = config.agent
    spaces = (venv.single_observation_space, venv.single_action_space)
    device = "cpu" if config.device == "auto" else config.device
    agent = agent_config.build(*spaces, device=device, seed=np.random.SeedSequence(0))
    on_policy = agent.kind == "on_policy"
    batch_size = agent_config.minibatch_size if on_policy else agent_config.batch_size
    replay = ReplayConfig(capacity=max(64, batch_size), frames="full" if on_policy else "auto").build(
        *spaces, num_envs=1, rng=np.random.default_rng(0), log=lambda message: None
    )
    obs = spaces[0].sample()[None]
    for _ in range(max(64, batch_size)):
        zero = np.zeros(1, bool)
        replay.add_step(
            obs=obs,
            act=agent.random_action(1),
            rew=np.zeros(1, np.float32),
            terminated=zero,
            truncated=zero,
            obs_next=obs,
            episode_over=zero,
        )

    def update() -> None:
        with policy_within_training_step(agent.algorithm.policy):
            if on_policy:
                agent.algorithm.update(buffer=replay, batch_size=batch_size, repeat=1)
            else:
                agent.algorithm.update(buffer=replay, sample_size=batch_size)

    return update
