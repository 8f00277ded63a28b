"""What a Meta-World score means: benchmark, split, goals and their hash, horizon, reward version and stopping rule."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from envs.base import EpisodeSpec
from envs.metaworld.tasks import GOALS_PER_TASK, HORIZON, SUCCESS_CRITERIA, BenchmarkName, Split
from envs.protocols import Protocol, derive_seeds

PRESETS: dict[str, dict[str, Any]] = {
    "mw-eval-1": {"stop_at_success": False},
    "mw-eval-1-stop": {"stop_at_success": True},
    "mw-eval-1-train": {"stop_at_success": False, "split": "train"},
}
"""Evaluation presets. All run every goal of every task once with a greedy policy.

``mw-eval-1`` plays all 500 steps: success at any step and the first success step are what stopping at the first success
gives (the dynamics are deterministic), and success at the last step and the return keep their meaning.
``mw-eval-1-stop`` ends an episode at its first success: cheaper for a good agent, but success at the last step then
says nothing new, and a faster agent has a *lower* return. ``mw-eval-1-train`` evaluates an ML benchmark's training
side.
"""

GOVERNED: dict[str, Any] = {"num_goals": GOALS_PER_TASK, "horizon": HORIZON, "reward_version": "v2"}
"""Fields a preset fixes; another value shows in the protocol's id."""


class MetaworldProtocol(Protocol):
    """The rules of a Meta-World environment and of its evaluation, frozen and hashed."""

    packages: ClassVar[tuple[str, ...]] = ("metaworld", "mujoco", "gymnasium")

    suite: Literal["metaworld"] = "metaworld"
    benchmark: BenchmarkName = Field(description="benchmark of the package; 'single' is one task with MT1's goals")
    split: Split = Field(description="side of the benchmark the tasks and goals come from")
    tasks: tuple[str, ...] = Field(min_length=1, description="task names in the package's order, one-hot index order")
    goal_seed: int = Field(ge=0, description="seed given to the benchmark (ML1's test split draws with the next one)")
    goals_hash: str = Field(description="first 12 hex digits of the sha256 over the goal vectors of all tasks")
    num_goals: int = Field(default=GOALS_PER_TASK, ge=1, le=GOALS_PER_TASK, description="goals per task: the first n")
    goal_visible: bool = Field(description="whether the last 3 of the 39 observation numbers hold the goal, or zeros")
    one_hot: bool = Field(default=False, description="whether a one-hot task id is appended to the observation")
    reward_version: Literal["v1", "v2"] = Field(default="v2", description="reward function of the package")
    horizon: int = Field(default=HORIZON, ge=1, le=HORIZON, description="env steps until an episode is truncated")
    stop_at_success: bool = Field(default=False, description="whether the first success terminates the episode")

    @model_validator(mode="before")
    @classmethod
    def _count_episodes(cls, data: Any) -> Any:
        if isinstance(data, dict) and "num_episodes" not in data and "tasks" in data:
            return data | {"num_episodes": len(data["tasks"]) * data.get("num_goals", GOALS_PER_TASK)}
        return data

    @model_validator(mode="after")
    def _every_goal_once(self) -> MetaworldProtocol:
        if self.num_episodes != len(self.tasks) * self.num_goals:
            raise ValueError(
                f"num_episodes is {self.num_episodes}, but every goal is played once: "
                f"{len(self.tasks)} tasks x {self.num_goals} goals"
            )
        return self

    @property
    def max_episode_steps(self) -> int:
        """Env steps until an episode is truncated, at most 500."""
        return self.horizon

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        """Gives one episode per (task, goal), task by task.

        A fixed number per goal, whichever finishes first: the package's own ``evaluation()`` counts the first episodes
        to finish, and early successes terminate early, so that one solved goal of five reads as success 1.0.

        Raises:
            ValueError: if ``seed`` is negative.
        """
        pairs = [(task, goal) for task in self.tasks for goal in range(self.num_goals)]
        seeds = derive_seeds(seed, len(pairs))
        return [
            EpisodeSpec(index=index, seed=each, task=task, goal_index=goal)
            for index, ((task, goal), each) in enumerate(zip(pairs, seeds, strict=True))
        ]

    def describe(self) -> dict[str, Any]:
        """Gives every field, what follows from them, and each task's success criterion."""
        return super().describe() | {"success_when": {task: SUCCESS_CRITERIA[task] for task in self.tasks}}
