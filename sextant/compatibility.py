"""Settings of different parts that cannot go together, found without importing any of those parts' libraries.

What one part can check by itself, its own config class checks. An environment whose spaces are not known beforehand
(any gymnasium id) passes here and is checked when the agent is built.
"""

from __future__ import annotations

from typing import Any, Literal

from agents import AgentConfig
from envs import AtariConfig, EnvConfig, GamesConfig, MemoryTasksConfig, MetaworldConfig, MinatarConfig
from trainers.config import TrainerConfig, env_steps_per_training_step
from trainers.offline_config import OfflineTrainerConfig

Observations = Literal["images", "vectors"]
Actions = Literal["discrete", "box"]

KNOWN_SPACES: dict[str, tuple[Observations, Actions]] = {
    "CartPole-v1": ("vectors", "discrete"),
    "Acrobot-v1": ("vectors", "discrete"),
    "MountainCar-v0": ("vectors", "discrete"),
    "MountainCarContinuous-v0": ("vectors", "box"),
    "Pendulum-v1": ("vectors", "box"),
    "identity-v0": ("vectors", "discrete"),
    "identity-box-v0": ("vectors", "box"),
    "pixel-catch-v0": ("images", "discrete"),
}
"""Spaces of the classic environments that people use most (a test compares them with the environments)."""

ACTIONS_OF_AGENT: dict[str, Actions] = {
    **dict.fromkeys(("dqn", "c51", "qr_dqn", "iqn", "cql"), "discrete"),
    "sac": "box",
}
"""Agents that can only act in one kind of action space."""


def spaces_of(env: EnvConfig) -> tuple[Observations, Actions] | None:
    """Gives the kinds of an environment's observations and actions, or None where they are not known beforehand."""
    if isinstance(env, AtariConfig | MinatarConfig | GamesConfig):
        return "images", "discrete"
    if isinstance(env, MetaworldConfig):
        return "vectors", "box"
    if isinstance(env, MemoryTasksConfig):
        return "vectors", "discrete"
    return KNOWN_SPACES.get(env.id)


def contradictions(agent: AgentConfig, env: EnvConfig, trainer: TrainerConfig | OfflineTrainerConfig) -> list[str]:
    """Gives one sentence for each pair of settings that cannot both hold, naming keys and values.

    Args:
        agent: what learns.
        env: what it acts in.
        trainer: how long.
    """
    found = []
    spaces = spaces_of(env)
    if spaces is not None:
        found += _agent_against_spaces(agent, env, *spaces)
    if isinstance(trainer, OfflineTrainerConfig):
        return found + _agent_against_offline_training(agent, trainer)
    if isinstance(env, GamesConfig):
        return [
            *found,
            "env=games is for evaluation alone: use trainer=offline trainer.data=[...] with data of each game, or "
            f"env={env.suite} env.game={env.games[0]} to play one",
        ]
    if agent.kind == "offline":
        found.append(f"agent={agent.name} learns from data, not from playing: use trainer=offline trainer.data=[...]")
    if agent.kind == "off_policy":
        if agent.learning_starts >= trainer.total_env_steps:
            found.append(
                f"agent.learning_starts={agent.learning_starts} is not before the run's end, "
                f"trainer.total_env_steps={trainer.total_env_steps}: nothing would be learned"
            )
        try:
            env_steps_per_training_step(agent.replay_ratio, env.num_envs)
        except ValueError as error:
            found.append(f"agent.{error}")
        if agent.replay.capacity < env.num_envs:
            found.append(f"agent.replay.capacity={agent.replay.capacity} is less than env.num_envs={env.num_envs}")
    return found


def _agent_against_offline_training(agent: AgentConfig, trainer: OfflineTrainerConfig) -> list[str]:
    if agent.kind != "offline":
        return [f"agent={agent.name} learns from playing, which trainer=offline does not: use trainer=online"]
    if not trainer.data:
        return ["trainer.data=[] names nothing to learn from: give trajectory files or folders, or a run directory"]
    return []


def _fitting_agents(agent: Any, actions: Actions) -> str:
    """Names agents of the same kind that act in a space."""
    if agent.kind == "offline":
        return "decision_transformer" if actions == "box" else "cql or decision_transformer"
    return "sac or ppo" if actions == "box" else "dqn or ppo"


def _is_minatar(env: EnvConfig) -> bool:
    return isinstance(env, MinatarConfig) or (isinstance(env, GamesConfig) and env.suite == "minatar")


def _agent_against_spaces(agent: Any, env: EnvConfig, observations: Observations, actions: Actions) -> list[str]:
    found = []
    needed = ACTIONS_OF_AGENT.get(agent.name)
    if needed is not None and needed != actions:
        found.append(
            f"agent={agent.name} acts in {needed} action spaces, but {env.env_id} has {actions} actions: "
            f"choose {_fitting_agents(agent, actions)}"
        )
    network = getattr(getattr(agent, "network", None), "kind", None)
    if observations == "vectors" and network in ("nature_cnn", "impala_cnn", "minatar_cnn"):
        found.append(
            f"agent.network.kind={network} reads images, but {env.env_id} gives vectors: use agent.network.kind=mlp"
        )
    if observations == "images" and network == "mlp":
        found.append(
            f"agent.network.kind=mlp reads vectors, but {env.env_id} gives images: use agent.network.kind="
            + ("minatar_cnn" if _is_minatar(env) else "nature_cnn")
        )
    replay = getattr(agent, "replay", None)
    if _is_minatar(env) and replay is not None and replay.frames == "single":
        found.append(
            f"agent.replay.frames=single needs stacked images, but {env.env_id} gives a channel per kind of object: "
            "use auto or full"
        )
    if observations == "vectors" and replay is not None and replay.frames == "single":
        found.append(
            f"agent.replay.frames=single needs stacked images, but {env.env_id} gives vectors: use auto or full"
        )
    return found
