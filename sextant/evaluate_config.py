"""The keys of ``sextant evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from envs.base import Strict
from sextant.config import validated
from sextant.key_values import split_key_values


class EvaluateConfig(Strict):
    """Which policies of a run to evaluate, and under which rules."""

    run: Path = Field(description="Run directory (path).")
    protocol: str | None = Field(None, description="Evaluation protocol, see `sextant env list`; null: the run's own.")
    checkpoint: Literal["last", "best", "both"] = Field(
        "last",
        description="Which weights; best was chosen by its score during training, so its own score is optimistic.",
    )
    num_episodes: int | None = Field(
        None, ge=1, description="Fewer than the protocol says, spread over its tasks (unit: episodes); null: all."
    )
    num_envs: int | None = Field(
        None,
        ge=1,
        description="Parallel envs, no effect on results (unit: envs); null: the run's trainer.evaluation_envs.",
    )
    seed: int = Field(
        0, ge=0, description="Seed of the list of episodes; equal seeds are equal episodes for every run."
    )
    random_baseline: bool = Field(True, description="Whether a random policy plays the same episodes, for the table.")
    videos: int = Field(
        0, ge=0, description="Episodes filmed of each checkpoint, mp4 and TensorBoard (unit: episodes)."
    )
    memory_use: Literal["carried", "reset", "zeroed_read", "shuffled"] | None = Field(
        None,
        description="What becomes of a sequence model's memory, see agent.acting.memory_use; null: as configured. It "
        "tells whether the memory is used, and is filed under a name of its own.",
    )
    target_returns: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        description="Returns that a Decision Transformer is asked for, an evaluation for each; from two on with a plot "
        "of asked for against achieved (units of return). null: as configured.",
    )
    device: Literal["cpu", "cuda"] | None = Field(None, description="Where the networks act; null: the run's device.")


def read_evaluate_config(arguments: Sequence[str]) -> EvaluateConfig:
    """Reads ``key=value`` arguments.

    Raises:
        ConfigError: for an unknown key, or a value that is not allowed.
    """
    from omegaconf import OmegaConf

    given = split_key_values(arguments, "run=runs/X or protocol=dopamine")
    run = {"run": given.pop("run")} if "run" in given else {}
    read: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}" for key, value in given.items()]))
    return validated(EvaluateConfig, {**run, **read})
