"""Configuration of offline training: on which data, how long, how often to evaluate, checkpoint and log."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OfflineTrainerConfig(BaseModel):
    """Data and length of an offline run and the rhythm of what happens in it; all periods in gradient steps.

    The longer of the two periods must be a multiple of the shorter one, so that a resumed run meets the same boundaries
    as one that was never stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: ClassVar[Literal["gradient_steps"]] = "gradient_steps"
    """What the run's progress is counted in, as metrics.csv names it."""

    name: Literal["offline"] = "offline"
    data: tuple[str, ...] = Field(
        (),
        description="What is learned from: trajectory files or folders of them (docs/data.md), or one run directory "
        "whose newest checkpoint holds a replay (paths; relative to where you are).",
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
    evaluation_envs: int = Field(
        4, ge=1, description="Parallel envs of an evaluation (unit: envs); does not change its results."
    )
    evaluate_at_start: bool = Field(
        False,
        description="Whether an evaluation comes before the first gradient step, as in sextant adapt (flag).",
    )
    evaluate_at_end: bool = Field(
        True, description="Whether the run ends with an evaluation, whatever the period (flag)."
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="Full checkpoints kept, newest first (unit: checkpoints); the best one is kept besides."
    )
    log_points: int = Field(
        200,
        ge=50,
        description="Points written per curve over the run (unit: points; at least 50, so short runs show a curve).",
    )
    videos_per_evaluation: int = Field(
        0,
        ge=0,
        description="Episodes filmed at each evaluation (unit: episodes): mp4 in videos/, image in TensorBoard.",
    )

    @model_validator(mode="after")
    def _periods_must_nest(self) -> Self:
        evaluate, checkpoint = self.evaluation_period, self.checkpoint_every_gradient_steps
        if evaluate and max(evaluate, checkpoint) % min(evaluate, checkpoint):
            raise ValueError(
                f"evaluate_every_gradient_steps={evaluate} and checkpoint_every_gradient_steps={checkpoint}: "
                "the longer period must be a multiple of the shorter one"
            )
        return self

    @property
    def total_steps(self) -> int:
        """Length of the run, counted along `axis`."""
        return self.total_gradient_steps

    @property
    def evaluation_period(self) -> int:
        """Gradient steps between two evaluations; 0 for none but the last."""
        period = self.evaluate_every_gradient_steps
        return self.checkpoint_every_gradient_steps if period is None else period

    @property
    def point_period(self) -> int:
        """Gradient steps between two log points."""
        return max(1, self.total_gradient_steps // self.log_points)

    def next_boundary(self, gradient_steps: int) -> int:
        """Gives the first step after this one at which something is due: evaluation, checkpoint or the end."""
        periods = [period for period in (self.checkpoint_every_gradient_steps, self.evaluation_period) if period]
        return min([(gradient_steps // period + 1) * period for period in periods] + [self.total_gradient_steps])

    def next_point(self, gradient_steps: int) -> int:
        """Gives the first step after this one at which the log gets a row."""
        return (gradient_steps // self.point_period + 1) * self.point_period
