"""What online and offline runs are configured by alike: the rhythm of evaluations, checkpoints and log points."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RunRhythm(BaseModel):
    """The part of a trainer's config that does not depend on where its data come from.

    A subclass names the unit of its run by `axis`, and has the fields ``total_AXIS``, ``checkpoint_every_AXIS`` and
    ``evaluate_every_AXIS``. The longer of the two periods must be a multiple of the shorter one, so that a resumed run
    meets the same boundaries as one that was never stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: ClassVar[Literal["env_steps", "gradient_steps"]]
    """What the run's progress is counted in, as metrics.csv names it."""

    evaluation_envs: int = Field(
        4, ge=1, description="Parallel envs of an evaluation (unit: envs); does not change its results."
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
        evaluate, checkpoint = self.evaluation_period, self.checkpoint_period
        if evaluate and max(evaluate, checkpoint) % min(evaluate, checkpoint):
            raise ValueError(
                f"evaluate_every_{self.axis}={evaluate} and checkpoint_every_{self.axis}={checkpoint}: "
                "the longer period must be a multiple of the shorter one"
            )
        return self

    @property
    def total_steps(self) -> int:
        """Length of the run (unit: `axis`)."""
        return cast(int, getattr(self, f"total_{self.axis}"))

    @property
    def checkpoint_period(self) -> int:
        """Distance of two full checkpoints (unit: `axis`)."""
        return cast(int, getattr(self, f"checkpoint_every_{self.axis}"))

    @property
    def evaluation_period(self) -> int:
        """Distance of two evaluations (unit: `axis`); 0 for none but the last."""
        period: int | None = getattr(self, f"evaluate_every_{self.axis}")
        return self.checkpoint_period if period is None else period

    @property
    def point_period(self) -> int:
        """Distance of two log points (unit: `axis`)."""
        return max(1, self.total_steps // self.log_points)

    def next_point(self, step: int) -> int:
        """Gives the first step after this one at which the log gets a row (unit: `axis`)."""
        return (step // self.point_period + 1) * self.point_period
