"""The ``env=memory_tasks`` group: which task, how long it must be remembered, and the rules as a hashed protocol.

Every task has an optimum that is known exactly: a return of 1.0. What a policy without memory can earn is known too,
so that "the memory is used" is a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from envs.base import EpisodeSpec, Strict, nearest
from envs.protocols import Protocol

if TYPE_CHECKING:
    from envs.memory_tasks.vector import MemoryTaskEnv, MemoryTasksVector

TaskName = Literal["t_maze", "key_to_door", "copy", "identity"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)

RULES_OF_TASK: dict[TaskName, tuple[str, ...]] = {
    "t_maze": ("min_corridor", "max_corridor", "max_wasted_steps"),
    "key_to_door": ("min_corridor", "max_corridor", "num_symbols", "distractor_reward"),
    "copy": ("min_corridor", "max_corridor", "num_symbols", "sequence_length"),
    "identity": ("num_symbols",),
}
"""The keys that each task has; all others must be left alone."""

RULES: tuple[str, ...] = tuple(dict.fromkeys(rule for rules in RULES_OF_TASK.values() for rule in rules))

ROOM_STEPS = 3
"""Steps in the first room of ``key_to_door``; the key lies at one of them."""

IDENTITY_STEPS = 16
"""Length of an ``identity`` episode, as in ``identity-v0`` of the classic environments."""


class MemoryTasksProtocol(Protocol):
    """The rules of one memory task and of its evaluation, frozen and hashed; None where the task has no such rule.

    The random numbers are ours (`envs.memory_tasks.streams`), so no package's version can change an episode.
    """

    suite: Literal["memory_tasks"] = "memory_tasks"
    num_episodes: int = Field(default=100, ge=1, description="evaluation episodes per evaluation seed")
    task: TaskName = Field(description="which task")
    min_corridor: int | None = Field(default=None, ge=1, description="shortest corridor or delay (unit: env steps)")
    max_corridor: int | None = Field(default=None, ge=1, description="longest corridor or delay (unit: env steps)")
    max_wasted_steps: int | None = Field(default=None, ge=0, description="steps that do not advance, until truncation")
    num_symbols: int | None = Field(default=None, ge=1, description="symbols, or key colours")
    sequence_length: int | None = Field(default=None, ge=1, description="symbols to be repeated")
    distractor_reward: float | None = Field(default=None, ge=0.0, description="size of the rewards between the rooms")

    @property
    def max_episode_steps(self) -> int:
        """Env steps of the longest episode."""
        corridor = self.max_corridor or 0
        lengths: dict[TaskName, int] = {
            "t_maze": corridor + 1 + (self.max_wasted_steps or 0),
            "key_to_door": ROOM_STEPS + corridor + 1,
            "copy": 2 * (self.sequence_length or 0) + corridor,
            "identity": IDENTITY_STEPS,
        }
        return lengths[self.task]

    @property
    def num_goals(self) -> int:
        """How many cues (``t_maze``) or key colours (``key_to_door``) an episode can be fixed to; 0 elsewhere."""
        return {"t_maze": 2, "key_to_door": self.num_symbols or 0}.get(self.task, 0)

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        """Gives the evaluation episodes, cues and colours in turn: an action fixed in advance earns exactly its share.

        Raises:
            ValueError: if ``seed`` is negative.
        """
        specs = super().episodes(seed)
        if not self.num_goals:
            return specs
        return [EpisodeSpec(spec.index, spec.seed, spec.task, spec.index % self.num_goals) for spec in specs]


class MemoryTasksConfig(Strict):
    """A task that tells at its start what is asked at its end.

    What lies between is as long as the corridor, drawn anew for every episode, uniformly from ``min_corridor`` to
    ``max_corridor``. A rule that the task does not have is refused.
    """

    name: Literal["memory_tasks"] = "memory_tasks"
    task: TaskName = Field(default="t_maze", description=f"one of {', '.join(TASKS)}")
    num_envs: int = Field(default=8, ge=1, description="environments side by side in training, in this process")
    min_corridor: int = Field(
        default=30,
        ge=1,
        description="shortest corridor (t_maze), way between the rooms (key_to_door) or delay (copy), unit: env steps; "
        "default: the positive control of docs/dt_mem.md, corridors of 30 to 90",
    )
    max_corridor: int = Field(
        default=90, ge=1, description="longest corridor, way or delay, unit: env steps; equal to min_corridor: fixed"
    )
    max_wasted_steps: int = Field(
        default=30,
        ge=0,
        description="t_maze: an episode is truncated after corridor + 1 + this many env steps; with 0 the time of "
        "arrival tells nothing, not even to a policy that dawdles on one cue",
    )
    num_symbols: int = Field(
        default=4, ge=1, description="symbols (copy, identity), or key colours with a lock each (key_to_door)"
    )
    sequence_length: int = Field(default=4, ge=1, description="copy: symbols shown, then to be repeated")
    distractor_reward: float = Field(
        default=0.02,
        ge=0.0,
        description="key_to_door: every step between the rooms pays plus or minus this, evenly and whatever is done",
    )
    evaluation_episodes: int = Field(default=100, ge=1, description="episodes per evaluation")

    @field_validator("task", mode="before")
    @classmethod
    def _known_task(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in TASKS:
            raise ValueError(f"unknown memory task {value!r}, {nearest(value, TASKS)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        own = RULES_OF_TASK[self.task]
        for rule in RULES:
            if rule not in own and (value := getattr(self, rule)) != type(self).model_fields[rule].default:
                raise ValueError(f"{rule}={value} means nothing to task={self.task}, whose rules are {', '.join(own)}")
        if self.min_corridor > self.max_corridor:
            raise ValueError(f"min_corridor={self.min_corridor} is more than max_corridor={self.max_corridor}")
        return self

    @property
    def env_id(self) -> str:
        """Short name for run directories and records: the task's."""
        return self.task

    @property
    def id(self) -> str:
        """The task with the steps to be bridged, for example ``t_maze-30-90``."""
        if "min_corridor" not in RULES_OF_TASK[self.task]:
            return self.task
        return f"{self.task}-{self.min_corridor}-{self.max_corridor}"

    def training_protocol(self) -> MemoryTasksProtocol:
        """Gives the rules of training: the same dynamics as evaluation."""
        return self._protocol("memory-train-1")

    def evaluation_protocol(self, name: str | None = None) -> MemoryTasksProtocol:
        """Gives the one evaluation protocol there is here, ``memory-eval-1``: greedy, full episodes.

        Raises:
            ValueError: if ``name`` is another one.
        """
        if name not in (None, "memory-eval-1"):
            raise ValueError(f"unknown protocol {name!r} for {self.env_id}, valid names: memory-eval-1")
        return self._protocol("memory-eval-1", self.evaluation_episodes)

    def make_training_env(self) -> MemoryTasksVector:
        """Builds ``num_envs`` environments under the training protocol, in this process."""
        return self.make_evaluation_env(self.training_protocol(), self.num_envs)

    def make_evaluation_env(self, protocol: MemoryTasksProtocol, num_envs: int) -> MemoryTasksVector:
        """Builds ``num_envs`` environments under the protocol, in this process."""
        from envs.memory_tasks.vector import MemoryTasksVector

        return MemoryTasksVector(protocol, num_envs)

    def make_single_env(self, protocol: MemoryTasksProtocol, render_mode: str | None = None) -> MemoryTaskEnv:
        """Builds one environment as a plain gymnasium one.

        Args:
            protocol: the rules.
            render_mode: ``rgb_array`` for a picture of the observation, or None.
        """
        from envs.memory_tasks.vector import MemoryTaskEnv

        return MemoryTaskEnv(protocol, render_mode)

    def describe(self) -> dict[str, Any]:
        """Gives the training and evaluation protocols in full, and the mean returns that are known."""
        from envs.memory_tasks.known import known_returns

        return {
            "env_id": self.env_id,
            "num_envs": self.num_envs,
            "training": self.training_protocol().describe(),
            "evaluation": self.evaluation_protocol().describe(),
            "known_returns": known_returns(self.training_protocol()),
        }

    def _protocol(self, preset: str, num_episodes: int = 100) -> MemoryTasksProtocol:
        """Gives a protocol with the task's rules, its id naming all that were changed."""
        rules = {rule: getattr(self, rule) for rule in RULES_OF_TASK[self.task]}
        changed = [rule for rule, value in rules.items() if value != type(self).model_fields[rule].default]
        changed += ["num_episodes"] if num_episodes != 100 else []
        identifier = "+".join([preset, *sorted(changed)])
        return MemoryTasksProtocol(
            id=identifier, env_name=self.task, task=self.task, num_episodes=num_episodes, **rules
        )
