"""Builds what learns from a config: the agent, what it learns from, and the settings that were left to measurement.

An online run has training envs and a replay, :class:`OnlineParts`; an offline run has data,
:class:`sextant.offline_learner.OfflineParts`. Both give :mod:`sextant.train` the same few things.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sextant.refusal import ConfigError

if TYPE_CHECKING:
    import gymnasium

    from agents.interface import Agent
    from envs.tianshou_vector import VectorEnv
    from memory.data_summary import DataSummary
    from memory.replay import Replay
    from sextant.config import TrainConfig
    from trainers.distributed import World
    from trainers.online import TrainingSession
    from trainers.seeding import Seeds

    Spaces = tuple[gymnasium.Space[Any], gymnasium.Space[Any]]


class OnlineParts:
    """Training envs, and the agent and replay that go with them."""

    def __init__(self, config: TrainConfig) -> None:
        """Makes the envs."""
        self.venv = config.env.make_training_env()
        self.replay: Replay | None = None

    def throwaway_update(self, config: TrainConfig) -> Callable[[], None]:
        """Gives a gradient step of a copy of the learner on made-up transitions.

        Raises:
            ReplayTooLarge: if the run's replay would not fit, which is better said before measuring than after.
            ConfigError: if its networks have no layers that the config names.
        """
        from trainers.seeding import Seeds
        from trainers.throwaway import throwaway_update

        spaces = (self.venv.single_observation_space, self.venv.single_action_space)
        trainer: Any = config.trainer
        if config.agent.kind == "off_policy":
            config.agent.replay.check_size(*spaces, num_envs=len(self.venv), log=lambda line: None)
        steps = total_gradient_steps(config.agent, len(self.venv), trainer.total_env_steps)
        return throwaway_update(
            config.agent,
            *spaces,
            device=config.device,
            prepare=lambda agent: fit_to_length(config, agent, Seeds(config.seed), steps),
        )

    def build(self, config: TrainConfig, seeds: Seeds, say: Callable[[str], None]) -> Agent:
        """Builds agent and replay, and gives the agent. Raises ValueError where they do not fit the envs."""
        agent, self.replay = build_learner(config, self.venv, seeds, say)
        return agent

    def restrict_actions(self, agent: Agent) -> None:
        """Does nothing: what learns by playing has learned which actions do something."""

    def record(self) -> dict[str, Any]:
        """Gives what ``provenance.json`` is to say of the parts: nothing."""
        return {}

    def session(self, config: TrainConfig, agent: Agent, **parts: Any) -> TrainingSession:
        """Gives the session that trains; ``parts`` as it takes them."""
        from trainers.config import TrainerConfig
        from trainers.online import TrainingSession

        assert isinstance(config.trainer, TrainerConfig)
        assert self.replay is not None
        return TrainingSession(config.trainer, agent, self.venv, self.replay, **parts)

    def close(self) -> None:
        """Closes the envs."""
        self.venv.close()


def build_learner(
    config: TrainConfig, venv: VectorEnv, seeds: Seeds, say: Callable[[str], None]
) -> tuple[Agent, Replay]:
    """Builds the agent of an online run and the memory it learns from.

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
    trainer: Any = config.trainer
    spaces = (venv.single_observation_space, venv.single_action_space)
    seed_global_rngs(seeds)
    agent = build_agent(config, spaces, seeds)
    fit_to_length(config, agent, seeds, total_gradient_steps(agent_config, len(venv), trainer.total_env_steps))
    if agent.kind == "off_policy":
        replay_config = agent_config.replay
    else:
        replay_config = ReplayConfig(capacity=agent_config.rollout_steps * len(venv), frames="full")
    replay = replay_config.build(*spaces, num_envs=len(venv), rng=seeds.generator("replay"), log=say)
    return agent, replay


def build_agent(
    config: TrainConfig, spaces: Spaces, seeds: Seeds, *, device: str | None = None, data: DataSummary | None = None
) -> Agent:
    """Builds a run's agent with fresh weights.

    Args:
        config: the run's config.
        spaces: of observations and actions of one env.
        seeds: of the run.
        device: where the networks live; None for the config's.
        data: what a sequence model has to know of its data; other agents take none.
    """
    agent_config: Any = config.agent
    knowledge: dict[str, Any] = {}
    if learns_from_segments(config):
        if data is None:
            raise ValueError(f"agent={agent_config.name} cannot be built without a summary of its data")
        knowledge = {"data": data, "total_gradient_steps": config.trainer.total_steps}
    agent: Agent = agent_config.build(
        *spaces, device=device or config.device, seed=seeds.sequence("agent"), **knowledge
    )
    return agent


def learns_from_segments(config: TrainConfig) -> bool:
    """Says whether the agent is a sequence model, which learns from segments of trajectories."""
    return hasattr(config.agent, "context_length")


def fit_to_length(config: TrainConfig, agent: Agent, seeds: Seeds, gradient_steps: int) -> None:
    """Attaches the pruner where the config asks for one, for a run of so many gradient steps.

    Raises:
        ConfigError: if the networks have no layers that the config wants pruned.
        ValueError: if the run is too short for what the config asks for.
    """
    plasticity = getattr(config.agent, "plasticity", None)
    if plasticity is not None:
        plasticity.check_run(gradient_steps)
    if config.agent.pruning is not None:
        try:
            config.agent.pruning.attach(agent, total_gradient_steps=gradient_steps, seed=seeds.sequence("pruning"))
        except ValueError as error:
            raise ConfigError(f"agent.{error}") from error


def total_gradient_steps(agent_config: Any, num_envs: int, total_env_steps: int) -> int:
    """Gives the gradient steps of a whole online run, exactly as the training session will make them.

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


def settled(
    config: TrainConfig,
    throwaway_update: Callable[[TrainConfig], Callable[[], None]],
    say: Callable[[str], None],
    world: World,
) -> TrainConfig:
    """Replaces ``auto`` by what this machine offers: the device, and the number of threads by measurement.

    A resumed run keeps what was settled at its start, for other threads sum floats in another order.

    Args:
        config: as the user gave it.
        throwaway_update: makes a gradient step that changes nothing, from the config with its device.
        say: told the outcome.
        world: of several processes each takes its share of the CPUs, unmeasured.
    Returns:
        the config with a device and a number of threads.
    Raises:
        ConfigError: if the agent needs a CUDA device and there is none.
    """
    from trainers.threads import available_cpus, choose_torch_threads

    config = config.model_copy(update={"device": settled_device(config)})
    if config.device == "cpu" and getattr(config.agent, "cuda_graph", False):
        raise ConfigError("agent.cuda_graph=true needs a CUDA device; this machine has none")
    if config.threads == "auto" and world.size > 1:
        config = config.model_copy(update={"threads": max(1, available_cpus() // world.local_size)})
    if config.threads == "auto":
        threads, _ = choose_torch_threads(throwaway_update(config), log=say)
        config = config.model_copy(update={"threads": threads})
    return config


def settled_device(config: TrainConfig) -> str:
    """Gives the device of the config, ``auto`` being cuda where there is one.

    Raises:
        ConfigError: if it is cuda and there is none.
    """
    import torch

    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(config.device)
    return config.device


def check_device(device: str | None) -> None:
    """Refuses a GPU where PyTorch sees none.

    Raises:
        ConfigError: then.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: PyTorch sees no GPU here; use device=cpu, or device=auto for what there is")
