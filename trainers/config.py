"""Configuration of the online training loop: how long, how often to evaluate, checkpoint and log."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainers.rhythm import RunRhythm


class TrainerConfig(RunRhythm):
    """Length of an online run and the rhythm of what happens in it; all periods in env steps.

    Env steps are agent steps of all envs together. The run is cut into intervals of ``min(checkpoint, evaluate)`` env
    steps.
    """

    axis: ClassVar[Literal["env_steps", "gradient_steps"]] = "env_steps"

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
    diagnostics_every_env_steps: int | None = Field(
        None,
        ge=0,
        description="Period of the diagnostics of value-based agents (unit: env steps), each at the next log point "
        "and at the end; null: a twentieth of the run, at least 5,000; 0: never. They do not change the training "
        "(docs/runs.md).",
    )

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
