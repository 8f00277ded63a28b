"""Builds what learns from a config: the agent, its memory, and the machine settings that were left to measurement."""

from __future__ import annotations

import math
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
    if agent_config.pruning is not None:
        steps = total_gradient_steps(agent_config, len(venv), config.trainer.total_env_steps)
        agent_config.pruning.attach(agent, total_gradient_steps=steps, seed=seeds.sequence("pruning"))
    if agent.kind == "off_policy":
        replay_config = agent_config.replay
    else:
        replay_config = ReplayConfig(capacity=agent_config.rollout_steps * len(venv), frames="full")
    replay = replay_config.build(*spaces, num_envs=len(venv), rng=seeds.generator("replay"), log=say)
    return agent, replay


def total_gradient_steps(agent_config: Any, num_envs: int, total_env_steps: int) -> int:
    """Gives the gradient steps of a whole run, exactly as the training session will make them.

    Args:
        agent_config: of a learning agent.
        num_envs: parallel envs.
        total_env_steps: length of the run.
    Raises:
        ValueError: if the replay ratio fits no whole number of gradient steps.
    """
    from trainers.config import env_steps_per_training_step

    if agent_config.kind == "on_policy":
        transitions = agent_config.rollout_steps * num_envs
        minibatches = max(1, transitions // agent_config.minibatch_size)  # the last one takes in what is left over
        return math.ceil(total_env_steps / transitions) * agent_config.num_epochs * minibatches
    step = env_steps_per_training_step(agent_config.replay_ratio, num_envs)
    rounds = math.ceil(total_env_steps / step) - math.ceil(agent_config.learning_starts / step)
    return max(0, rounds) * round(agent_config.replay_ratio * step)


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
        from trainers.throwaway import throwaway_update

        update = throwaway_update(
            config.agent, venv.single_observation_space, venv.single_action_space, device=config.device
        )
        threads, _ = choose_torch_threads(update, log=say)
        config = config.model_copy(update={"threads": threads})
    return config
