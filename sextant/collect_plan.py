"""What a collection will play, decided before anything runs: episodes, units of work, and the facts of every file.

Every episode follows from the seed, its task and its number alone; how many processes play, and in which order, decides
nothing. Adding episodes later continues the same list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from envs.base import EpisodeSpec
from envs.protocols import Protocol, derive_seeds
from sextant.collect_config import CollectConfig
from sextant.provenance import git_state
from sextant.refusal import ConfigError

if TYPE_CHECKING:
    import gymnasium

    from memory.trajectory_facts import TrajectoryFacts
    from sextant.config import TrainConfig

EPISODES_PER_UNIT = 10
ENVS_PER_PROCESS = 8  # of policies that act in batches
FEW_SIMULATORS = 2  # of Meta-World, per process: units of one task follow each other
METAWORLD_OBS, METAWORLD_GOAL = 39, slice(36, 39)


@dataclass(frozen=True)
class Unit:
    """Some episodes of one task, played by one process.

    Attributes:
        task: its name.
        numbers: of the episodes, one after the other.
        missing: those that are not stored yet.
    """

    task: str
    numbers: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Everything a process needs to play any unit; it can be sent to one.

    Attributes:
        config: the command's.
        env: of the episodes, as the acting policy needs it.
        protocol: under which they are played.
        stored_protocol: under which what is stored would be seen: the same, or with a hidden goal.
        num_goals: per task how many goals it has; 0 where there are none.
        source: written into every episode.
        train_config: of the run whose agent acts, or None.
        facts: of each task's file; filled in once the spaces are known.
    """

    config: CollectConfig
    env: Any
    protocol: Protocol
    stored_protocol: Protocol
    num_goals: dict[str, int]
    source: str
    train_config: TrainConfig | None = None
    env_steps: int | None = None
    facts: dict[str, TrajectoryFacts] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are played."""
        return tuple(self.num_goals)

    @property
    def hides_goal(self) -> bool:
        """Whether the goal is blotted out of what is stored."""
        return getattr(self.protocol, "goal_visible", True) and not getattr(self.stored_protocol, "goal_visible", True)

    @property
    def num_envs(self) -> int:
        """Envs stepped at once by one process."""
        return self.config.num_envs or (1 if self.config.policy == "expert" else ENVS_PER_PROCESS)

    def noise(self, number: int) -> float:
        """Gives the standard deviation of the action noise in an episode."""
        return self.config.noise[number % len(self.config.noise)]

    def specs(self, task: str) -> list[EpisodeSpec]:
        """Gives a task's episodes. A goal is played at every noise level before the next one's turn."""
        from trainers.seeding import Seeds

        seeds = derive_seeds(Seeds(self.config.seed).integer(f"collect {task}"), self.config.episodes_per_task)
        goals, levels, first = self.num_goals[task], len(self.config.noise), self.config.first_goal
        turns = [(first + number // levels) % goals if goals else None for number in range(len(seeds))]
        return [
            EpisodeSpec(index=number, seed=seed, task=task, goal_index=goal)
            for number, (seed, goal) in enumerate(zip(seeds, turns, strict=True))
        ]

    def units(self, present: Mapping[str, Iterable[int]]) -> list[Unit]:
        """Gives the units in which an episode is missing, task by task.

        Args:
            present: per task the numbers of the episodes that are stored.
        """
        size = EPISODES_PER_UNIT if self.num_envs == 1 else max(EPISODES_PER_UNIT, 2 * self.num_envs)
        found = []
        for task in self.tasks:
            held = set(present.get(task, ()))
            for start in range(0, self.config.episodes_per_task, size):
                numbers = tuple(range(start, min(start + size, self.config.episodes_per_task)))
                missing = tuple(number for number in numbers if number not in held)
                if missing:
                    found.append(Unit(task, numbers, missing))
        return found


def make_plan(
    config: CollectConfig,
    train_config: TrainConfig | None = None,
    source: str | None = None,
    env_steps: int | None = None,
) -> Plan:
    """Decides what is played.

    Args:
        config: the command's.
        train_config: of the run whose agent acts (policy=run).
        source: who acts, for the episodes; None for the policy's name.
        env_steps: training of that agent (unit: env steps).
    Raises:
        ConfigError: if the env has no such split, no goals to hide or show, or is several games.
    """
    env: Any = config.env if train_config is None else train_config.env
    if env.name == "games":
        raise ConfigError(
            f"env=games is for evaluation alone: collect each game by itself, with env={env.suite} env.game=NAME "
            + " ".join(f"env.{name}={str(value).lower()}" for name, value in env.shared_spaces.items())
        )
    if env.name != "metaworld" and (config.store_goal is not None or config.split != "train" or config.first_goal):
        raise ConfigError(f"store_goal, split and first_goal are for Meta-World, the run's env is {env.env_id}")
    if env.name == "metaworld":
        env, protocol, stored = _metaworld(config, env)
    else:
        protocol = stored = env.evaluation_protocol()
    goals: dict[str, int] = {}
    for spec in protocol.episodes(0):
        goals[spec.task] = max(goals.get(spec.task, 0), 0 if spec.goal_index is None else spec.goal_index + 1)
    fewest = min(goals.values())
    if config.first_goal >= max(fewest, 1):
        raise ConfigError(f"first_goal={config.first_goal}: {env.env_id} has goals 0 to {fewest - 1}")
    return Plan(config, env, protocol, stored, goals, source or config.policy, train_config, env_steps)


def with_facts(plan: Plan, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> Plan:
    """Fills in what the spaces decide.

    Raises:
        ConfigError: if such observations or actions cannot be stored, or noise was asked for on discrete actions.
    """
    from gymnasium.spaces import Discrete

    if isinstance(action_space, Discrete) and any(plan.config.noise):
        raise ConfigError(f"noise={list(plan.config.noise)}: {plan.env.env_id} has discrete actions, use epsilon")
    shape, dtype = tuple(observation_space.shape or ()), observation_space.dtype
    if plan.hides_goal:
        shape = (METAWORLD_OBS,)
    facts = make_facts(plan.env, plan.stored_protocol, shape, dtype, action_space)
    facts = replace(facts, seed=plan.config.seed, extra=_extra(plan), code_version=str(git_state()["commit"] or ""))
    return replace(plan, facts={task: replace(facts, task=task) for task in plan.tasks})


def make_facts(
    env: Any, protocol: Protocol, obs_shape: tuple[int, ...], obs_dtype: Any, action_space: gymnasium.Space[Any]
) -> TrajectoryFacts:
    """Gives the facts that follow from an env, of its first task.

    Args:
        env: its config.
        protocol: under which the stored observations are seen.
        obs_shape: of one of them.
        obs_dtype: of the env's.
        action_space: of the env.
    Raises:
        ConfigError: if such observations or actions cannot be stored.
    """
    import numpy as np
    from gymnasium.spaces import Discrete

    from memory.config import ReplayConfig
    from memory.trajectory_facts import TrajectoryFacts

    if len(obs_shape) not in (1, 3):
        raise ConfigError(f"observations of shape {obs_shape} cannot be stored: expected vectors, stacks or images")
    pixels = len(obs_shape) == 3 and np.dtype(obs_dtype) == np.uint8
    frames = pixels and ReplayConfig(capacity=1).keeps_single_frames(obs_shape, 1)
    actions: dict[str, Any]
    if isinstance(action_space, Discrete):
        actions = {"action_kind": "discrete", "num_actions": int(action_space.n)}
    elif action_space.shape is not None and len(action_space.shape) == 1:
        actions = {"action_kind": "continuous", "action_size": action_space.shape[0]}
    else:
        raise ConfigError(f"actions of {action_space} cannot be stored: expected Discrete or a Box of one dimension")
    return TrajectoryFacts(
        env_id=env.env_id,
        suite=env.name,
        task=protocol.episodes(0)[0].task,
        protocol_id=protocol.id,
        protocol_hash=protocol.hash,
        observation_kind="frames" if frames else "image" if len(obs_shape) == 3 else "vector",
        obs_shape=tuple(int(size) for size in obs_shape),
        obs_dtype="uint8" if pixels else "float32",
        goal_visible=getattr(protocol, "goal_visible", True),
        reward_clip=bool(getattr(env.training_protocol(), "clip_reward", False)),
        versions=dict(protocol.versions),
        **actions,
    )


def _metaworld(config: CollectConfig, env: Any) -> tuple[Any, Protocol, Protocol]:
    """Gives the env to act in, its protocol, and that of what is stored."""
    shown = _split_protocol(env, config.split)
    visible = shown.goal_visible if config.store_goal is None else config.store_goal == "visible"
    if config.policy == "run":
        if visible and not shown.goal_visible:
            raise ConfigError("store_goal=visible: the run's env hides the goal, so there is nothing to store")
        acts_visible = shown.goal_visible
    else:
        acts_visible = True if config.policy == "expert" else visible
    env = env.model_copy(update={"workers": "sync", "max_simulators": FEW_SIMULATORS})
    acting = _split_protocol(env.model_copy(update={"goal_visible": acts_visible}), config.split)
    plain = {"one_hot": False} if acts_visible and not visible else {}
    stored = _split_protocol(env.model_copy(update={"goal_visible": visible, **plain}), config.split)
    return env, acting, stored


def _split_protocol(env: Any, split: str) -> Any:
    """Gives the protocol of one side of a benchmark: training's, or the held-out evaluation's."""
    try:
        if split == "train":
            return env.training_protocol()
        return type(env).model_validate(env.model_dump() | {"evaluation_split": split}).evaluation_protocol("mw-eval-1")
    except ValueError as error:
        raise ConfigError(f"split={split}: {env.env_id} has no such side ({error})") from error


def _extra(plan: Plan) -> dict[str, Any]:
    """Gives the choices that decide the data and stand in no other fact, as JSON."""
    config = plan.config
    names = ["policy", "noise", "stop_at_success", "epsilon"]
    names += ["split"] if plan.env.name == "metaworld" else []
    names += ["checkpoint", "explore"] if config.policy == "run" else []
    names += ["first_goal"] if config.first_goal else []
    chosen = config.model_dump(mode="json", include=set(names)) | {"source": plan.source}
    return chosen | ({"num_envs": plan.num_envs} if config.policy == "run" else {})
