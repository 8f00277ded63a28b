"""Configuration of the online training loop: how long, how often to evaluate, checkpoint and log."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainerConfig(BaseModel):
    """Length of an online run and the rhythm of what happens in it; all periods in env steps.

    Env steps are agent steps of all envs together. The run is cut into intervals of ``min(checkpoint, evaluate)`` env
    steps; the longer period must be a multiple of the shorter one, so that a resumed run meets the same boundaries as
    one that was never stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: ClassVar[Literal["env_steps"]] = "env_steps"
    """What the run's progress is counted in, as metrics.csv names it."""

    name: Literal["online"] = "online"
    total_env_steps: int = Field(
        1_000_000,
        ge=1,
        description="Env steps of the run, warm-up included (unit: env steps; 1 Atari step = 4 frames).",
    )
    checkpoint_every_env_steps: int = Field(
        100_000,
        ge=1,
        description="Period of full checkpoints (unit: env steps). At each one all training envs start new episodes "
        "from seeds derived from (seed, checkpoint index), so that resuming is exact (docs/runs.md); much longer than "
        "an episode times the number of envs, or long episodes are always cut.",
    )
    evaluate_every_env_steps: int | None = Field(
        None,
        ge=0,
        description="Period of evaluations in separate envs (unit: env steps); null: at checkpoints; 0: at the end.",
    )
    evaluation_episodes: int | None = Field(
        10,
        ge=1,
        description="Episodes per evaluation during training (unit: episodes); null = as many as the protocol says. "
        "`sextant evaluate` always runs the protocol's own number.",
    )
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
    diagnostics_every_env_steps: int | None = Field(
        None,
        ge=0,
        description="Period of the diagnostics of value-based agents (unit: env steps), each at the next log point "
        "and at the end; null: a twentieth of the run, at least 5,000; 0: never. They do not change the training "
        "(docs/runs.md).",
    )
    videos_per_evaluation: int = Field(
        0,
        ge=0,
        description="Episodes filmed at each evaluation (unit: episodes): mp4 in videos/, image in TensorBoard.",
    )

    @model_validator(mode="after")
    def _periods_must_nest(self) -> Self:
        evaluate, checkpoint = self.evaluation_period, self.checkpoint_every_env_steps
        if evaluate and max(evaluate, checkpoint) % min(evaluate, checkpoint):
            raise ValueError(
                f"evaluate_every_env_steps={evaluate} and checkpoint_every_env_steps={checkpoint}: "
                "the longer period must be a multiple of the shorter one"
            )
        return self

    @property
    def total_steps(self) -> int:
        """Length of the run, counted along `axis`."""
        return self.total_env_steps

    @property
    def evaluation_period(self) -> int:
        """Env steps between two evaluations; 0 for none but the last."""
        period = self.evaluate_every_env_steps
        return self.checkpoint_every_env_steps if period is None else period

    @property
    def diagnostics_period(self) -> int:
        """Env steps between two diagnostics; 0 for none."""
        period = self.diagnostics_every_env_steps
        return max(5_000, self.total_env_steps // 20) if period is None else period

    @property
    def interval_env_steps(self) -> int:
        """Env steps between two boundaries (an evaluation, a checkpoint, or both)."""
        periods = [self.checkpoint_every_env_steps, self.evaluation_period, self.total_env_steps]
        return min(period for period in periods if period)


def env_steps_per_training_step(replay_ratio: float, num_envs: int) -> int:
    """Gives the env steps between two rounds of updates: the fewest that make a whole number of gradient steps.

    Args:
        replay_ratio: gradient steps per env step.
        num_envs: parallel envs; all are stepped together.
    Returns:
        env steps, a multiple of ``num_envs``.
    Raises:
        ValueError: if 64 vector steps are not enough.
    """
    for vector_steps in range(1, 65):
        gradient_steps = replay_ratio * vector_steps * num_envs
        if gradient_steps >= 1 and abs(gradient_steps - round(gradient_steps)) < 1e-9:
            return vector_steps * num_envs
    raise ValueError(
        f"replay_ratio={replay_ratio} with num_envs={num_envs}: no whole number of gradient steps within 64 steps of "
        "all envs; choose a ratio such as 0.25, 0.5, 1 or 2"
    )
