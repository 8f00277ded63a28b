"""One representative update of a learner that is thrown away: what the number of threads is measured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from tianshou.utils.torch_utils import policy_within_training_step

from memory.config import ReplayConfig

if TYPE_CHECKING:
    from agents.interface import Agent
    from trainers.offline_data import OfflineDataset


def throwaway_update(
    agent_config: Any,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    prepare: Callable[[Agent], None],
) -> Callable[[], None]:
    """Builds a copy of the learner with a few made-up transitions.

    Args:
        agent_config: of a learning agent.
        observation_space: of one env.
        action_space: of one env.
        device: where the networks live.
        prepare: called with the agent when it is built, to attach what its updates are to carry.
    Returns:
        a function that makes one gradient step (one pass over one minibatch for an on-policy agent).
    """
    agent = agent_config.build(observation_space, action_space, device=device, seed=np.random.SeedSequence(0))
    prepare(agent)
    on_policy = agent.kind == "on_policy"
    batch_size = agent_config.minibatch_size if on_policy else agent_config.batch_size
    replay = ReplayConfig(capacity=max(64, batch_size), frames="full").build(
        observation_space, action_space, num_envs=1, rng=np.random.default_rng(0), log=lambda message: None
    )
    obs = np.asarray(observation_space.sample())[None]
    never = np.zeros(1, bool)
    for _ in range(max(64, batch_size)):
        replay.add_step(
            obs=obs,
            act=agent.random_action(1),
            rew=np.zeros(1, np.float32),
            terminated=never,
            truncated=never,
            obs_next=obs,
            episode_over=never,
        )
    arguments = {"batch_size": batch_size, "repeat": 1} if on_policy else {"sample_size": batch_size}

    def update() -> None:
        with policy_within_training_step(agent.algorithm.policy):
            agent.algorithm.update(buffer=replay, **arguments)

    return update


def throwaway_offline_update(agent: Agent, dataset: OfflineDataset) -> Callable[[], None]:
    """Gives one gradient step of an agent that is thrown away, on batches of the run's own data.

    Args:
        agent: changes with every step.
        dataset: its stream moves on while the agent samples, and is put back after every step.
    """
    start = dataset.state()

    def update() -> None:
        with policy_within_training_step(agent.algorithm.policy):
            agent.update(dataset.source, dataset.batch_size, 1)
        dataset.load(*start)

    return update
