"""The keys of ``sextant adapt``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from agents.decision_transformer.adaptation_config import AdaptationConfig, Method
from envs.base import Strict
from sextant.config import validated
from sextant.key_values import split_key_values

_AS_TYPED = ("run", "runs_dir", "bank")
_CHOICES = ("method", "where", "rank", "alpha", "also_initial_slots", "also_heads")


class AdaptConfig(Strict):
    """Which run is adapted, what of it, and to which data; ``agent.*``, ``env.*`` and ``trainer.*`` change the rest."""

    run: Path = Field(description="The base: run directory of a sequence model (path).")
    checkpoint: Literal["last", "best"] = Field("last", description="Which weights of the base are taken.")
    method: Method = Field(
        "lora",
        description="What is trained: low-rank additions, everything, the output layers, the memory's initial content, "
        "bottleneck adapters, or everything from new weights (the control).",
    )
    where: Literal["memory", "transformer", "both"] = Field(
        "memory", description="Whose projections method=lora adapts. Source: docs/dt_mem.md."
    )
    rank: int = Field(4, ge=1, description="Of each addition of method=lora. Source: docs/dt_mem.md.")
    alpha: float = Field(1.0, gt=0, description="Additions of method=lora count alpha / rank times.")
    also_initial_slots: bool = Field(False, description="Whether the memory's initial content is trained besides.")
    also_heads: bool = Field(False, description="Whether the output layers are trained besides.")
    data: tuple[str, ...] = Field(
        min_length=1, description="Trajectory files or folders of them to adapt to (paths; docs/data.md)."
    )
    tasks: tuple[str, ...] | None = Field(None, description="Tasks of the data to adapt to (names); null: all.")
    episodes_per_task: int | None = Field(
        None, ge=1, description="Demonstrations: the first so many episodes of each task (unit: episodes); null: all."
    )
    per_task: bool = Field(
        False, description="Whether every task gets a run of its own, evaluated in that task, one after the other."
    )
    total_gradient_steps: int = Field(2000, ge=1, description="Length of each run (unit: gradient steps).")
    evaluate_every_gradient_steps: int | None = Field(
        None,
        ge=1,
        description="Period of evaluations and checkpoints (unit: gradient steps); null: a fifth of the run. The first "
        "evaluation is before the first step.",
    )
    evaluation_episodes: int | None = Field(
        10, ge=1, description="Per evaluation, spread over the tasks (unit: episodes); null: the protocol's number."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="AdamW's step size after the warm-up; null: the base's."
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="Warm-up of the learning rate (unit: gradient steps); null: a tenth of the run."
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of the run (no unit); null: the base's.")
    device: Literal["auto", "cpu", "cuda"] | None = Field(
        None, description="Where the networks live; null: as for the base."
    )
    threads: int | Literal["auto"] | None = Field(
        None, description="CPU threads of PyTorch (unit: threads); null: as for the base."
    )
    resume: Literal["never", "auto"] = Field(
        "never", description="auto goes on with runs of the same settings that were started before."
    )
    runs_dir: Path | None = Field(
        None, description="Folder under which run directories are made (path); null: the base's."
    )
    bank: Path | None = Field(
        None,
        description="File to gather the adapters of all tasks in, with per_task=true and method=lora (path of a "
        ".safetensors file).",
    )
    agent: dict[str, Any] = Field({}, description="Keys of the agent in which the run differs from its base.")
    env: dict[str, Any] = Field({}, description="Keys of the env in which the run differs from its base.")
    trainer: dict[str, Any] = Field({}, description="Keys of the trainer, see trainer=offline.")

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        self.adaptation(None)
        if self.bank is not None and not (self.per_task and self.method == "lora"):
            raise ValueError(f"bank={self.bank} needs per_task=true and method=lora")
        if self.bank is not None and (self.also_initial_slots or self.also_heads):
            raise ValueError(f"bank={self.bank} holds low-rank additions alone, not also_initial_slots or also_heads")
        own = {"agent.adaptation": "method=, where=, rank=", "trainer.data": "data=", "trainer.tasks": "tasks="}
        for key, instead in own.items():
            group, name = key.split(".")
            if name in getattr(self, group):
                raise ValueError(f"{key} is set by this command: use {instead}")
        return self

    @property
    def period(self) -> int:
        """Gradient steps between two evaluations."""
        return self.evaluate_every_gradient_steps or max(1, self.total_gradient_steps // 5)

    def adaptation(self, base_digest: str | None) -> AdaptationConfig:
        """Gives what the run's agent config says of its adaptation.

        Args:
            base_digest: sha256 of the weights taken, in hexadecimal; None for method=scratch, and to check the keys.
        Raises:
            ValueError: if the keys contradict each other.
        """
        chosen = {name: getattr(self, name) for name in _CHOICES}
        return AdaptationConfig(**chosen, base=str(self.run), base_digest=base_digest)


def read_adapt_config(arguments: Sequence[str]) -> AdaptConfig:
    """Reads ``key=value`` arguments; dotted keys below ``agent``, ``env`` and ``trainer`` are those of the run.

    Raises:
        ConfigError: for an unknown key, or a value that is not allowed.
    """
    return validated(AdaptConfig, adapt_data(arguments))


def adapt_data(arguments: Sequence[str]) -> dict[str, Any]:
    """Gives plain data for :class:`AdaptConfig`, not validated.

    Raises:
        ConfigError: if an argument cannot be read.
    """
    from omegaconf import OmegaConf

    given = split_key_values(arguments, "run=runs/X or method=lora")
    typed = {key: given.pop(key) for key in _AS_TYPED if key in given}
    read: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}" for key, value in given.items()]))
    for key in ("data", "tasks"):
        if isinstance(read.get(key), str):
            read[key] = [read[key]]
    return {str(key): value for key, value in read.items()} | typed
