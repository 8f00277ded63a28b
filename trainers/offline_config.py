"""Configuration of offline training: on which data, how long, how often to evaluate, checkpoint and log."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from trainers.rhythm import RunRhythm


class OfflineTrainerConfig(RunRhythm):
    """Data and length of an offline run and the rhythm of what happens in it; all periods in gradient steps."""

    axis: ClassVar[Literal["env_steps", "gradient_steps"]] = "gradient_steps"

    name: Literal["offline"] = "offline"
    data: tuple[str, ...] = Field(
        (),
        description="What is learned from: trajectory files or folders of them (docs/data.md), or one run directory "
        "whose newest checkpoint holds a replay (one path or a list; relative to where you are).",
    )
    tasks: tuple[str, ...] | None = Field(
        None, description="Tasks of the trajectories to learn from, in the order of their indices (names); null: all."
    )
    episodes_per_task: int | None = Field(
        None, ge=1, description="Only the first so many trajectories of each task (unit: episodes); null: all."
    )
    top_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of each task's trajectories, those of the highest return, to learn from. Source: Chen et "
        "al. 2021, section 5.1: behaviour cloning on the best 10 %.",
    )
    verify_data: bool = Field(
        True, description="Whether trajectory files are read through once to compare their digests (flag; 1 s per GB)."
    )
    total_gradient_steps: int = Field(
        100_000, ge=1, description="Length of the run (unit: gradient steps). Source: Chen et al. 2021, 10 x 10,000."
    )
    checkpoint_every_gradient_steps: int = Field(
        10_000, ge=1, description="Period of full checkpoints (unit: gradient steps)."
    )
    evaluate_every_gradient_steps: int | None = Field(
        None,
        ge=0,
        description="Period of evaluations in the env (unit: gradient steps); null: at checkpoints; 0: at the end.",
    )
    evaluation_episodes: int | None = Field(
        10,
        ge=1,
        description="Episodes per evaluation during training, spread over the tasks (unit: episodes); null = as many "
        "as the protocol says. `sextant evaluate` always runs the protocol's own number.",
    )
    evaluate_at_start: bool = Field(
        False,
        description="Whether an evaluation comes before the first gradient step, as in sextant adapt (flag).",
    )

    @field_validator("data", mode="before")
    @classmethod
    def _one_path_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    def next_boundary(self, gradient_steps: int) -> int:
        """Gives the first step after this one at which something is due: evaluation, checkpoint or the end."""
        periods = [period for period in (self.checkpoint_period, self.evaluation_period) if period]
        return min([(gradient_steps // period + 1) * period for period in periods] + [self.total_steps])
