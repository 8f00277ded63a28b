"""The keys of ``sextant collect``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from envs import EnvConfig
from envs.base import Strict
from sextant.config import validated
from sextant.key_values import split_key_values
from sextant.overrides import compose_data

DEFAULT_EPISODES = 100
PolicyName = Literal["expert", "run", "optimal", "random", "replay"]

_POLICY_ENVS = {"expert": "metaworld", "optimal": "memory_tasks"}
_TAKES_RUN = ("run", "replay")
_NOT_WITH: dict[str, tuple[str, ...]] = {
    "expert": ("run", "checkpoint", "explore", "device"),
    "optimal": ("run", "checkpoint", "explore", "device"),
    "random": ("run", "checkpoint", "explore", "device", "noise", "epsilon"),
    "run": (),
    "replay": (
        "checkpoint",
        "explore",
        "epsilon",
        "device",
        "noise",
        "episodes",
        "split",
        "first_goal",
        "store_goal",
        "stop_at_success",
        "workers",
        "num_envs",
    ),
}


class CollectConfig(Strict):
    """Who acts in which env, what of it is stored, and where."""

    env: EnvConfig | None = Field(
        None, description="What is acted in, as for training; not for policy=run and policy=replay: the run's own."
    )
    policy: PolicyName = Field(
        "expert",
        description="Who acts: expert: Meta-World's scripted policies; run: a run's checkpoint; optimal: the known "
        "best actions of memory tasks; random: uniform actions; replay: nobody, a run's replay is taken as it is.",
    )
    run: Path | None = Field(None, description="Run directory of policy=run or policy=replay (path).")
    checkpoint: Literal["last", "best"] = Field("last", description="Which weights of the run act.")
    explore: bool | None = Field(
        None,
        description="Whether the run's agent explores (samples, or its epsilon); null: as its protocol says.",
    )
    epsilon: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Probability per step of a uniform random action; null: the run's evaluation protocol's, else 0.",
    )
    episodes: int | None = Field(
        None, ge=1, description=f"Per task (unit: episodes); null: {DEFAULT_EPISODES}. More of them may be added later."
    )
    noise: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        description="Standard deviations of Gaussian noise on actions in [-1, 1], clipped to it; episode i of a task "
        "has entry i modulo their number. The noisy action is executed and stored.",
    )
    split: Literal["train", "test"] = Field(
        "train", description="Side of a Meta-World benchmark whose tasks and goals are played."
    )
    first_goal: int = Field(
        0,
        ge=0,
        description="Goal of each task's first episode, of 0 to 49; the others follow in order, and after the last one "
        "the first. Evaluations begin at 0, so shorter ones then play goals that were not demonstrated.",
    )
    store_goal: Literal["visible", "hidden"] | None = Field(
        None,
        description="Whether stored Meta-World observations show the goal (the expert always sees it); null: as the "
        "env shows it.",
    )
    stop_at_success: bool = Field(
        False, description="End an episode at its first success; it is then neither terminated nor truncated."
    )
    float16: bool = Field(False, description="Store vector observations in half the bytes, rounded to 11 bits.")
    out: Path = Field(description="Folder of the dataset, one file per task (path). The same command goes on there.")
    seed: int = Field(0, ge=0, lt=2**63, description="Decides every episode, whatever the number of workers (no unit).")
    workers: int = Field(1, ge=1, description="Processes that play, no effect on the data (unit: processes).")
    num_envs: int | None = Field(
        None, ge=1, description="Envs stepped at once in each process (unit: envs); null: 1 for experts, else 8."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where a run's networks act.")

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if not all(math.isfinite(each) and each >= 0 for each in self.noise):
            raise ValueError(f"noise={list(self.noise)}: standard deviations are finite numbers >= 0")
        for name in _NOT_WITH[self.policy]:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} means nothing with policy={self.policy}: leave it out")
        self._check_source()
        if self.store_goal is not None and self.env is not None and self.env.name != "metaworld":
            raise ValueError(f"store_goal={self.store_goal}: only Meta-World shows goals, not env={self.env.name}")
        if self.split != "train" and self.env is not None and self.env.name != "metaworld":
            raise ValueError(f"split={self.split}: only Meta-World benchmarks have splits, not env={self.env.name}")
        if self.first_goal and self.env is not None and self.env.name != "metaworld":
            raise ValueError(f"first_goal={self.first_goal}: only Meta-World has goals, not env={self.env.name}")
        if self.store_goal == "hidden" and getattr(self.env, "one_hot", False):
            raise ValueError("store_goal=hidden stores the 39 plain numbers: leave out env.one_hot")
        return self

    def _check_source(self) -> None:
        """Refuses a policy without its env or run.

        Raises:
            ValueError: naming what is missing or too much.
        """
        if self.policy in _TAKES_RUN:
            if self.run is None:
                raise ValueError(f"policy={self.policy} needs run=runs/X, a run directory")
            if self.env is not None:
                raise ValueError(f"policy={self.policy} acts in the run's own env: leave out env={self.env.name}")
            return
        if self.env is None:
            wanted = _POLICY_ENVS.get(self.policy, "metaworld (or another env)")
            raise ValueError(f"policy={self.policy} needs env={wanted}")
        if self.env.name != _POLICY_ENVS.get(self.policy, self.env.name):
            raise ValueError(f"policy={self.policy} needs env={_POLICY_ENVS[self.policy]}, got env={self.env.name}")

    @property
    def episodes_per_task(self) -> int:
        """Episodes that are played per task."""
        return DEFAULT_EPISODES if self.episodes is None else self.episodes


def read_collect_config(arguments: Sequence[str]) -> CollectConfig:
    """Reads ``key=value`` arguments; those of ``env`` and its keys as ``sextant train`` does, presets included.

    Raises:
        ConfigError: for an unknown key, or a value that is not allowed.
    """
    return validated(CollectConfig, collect_data(arguments))


def collect_data(arguments: Sequence[str]) -> dict[str, Any]:
    """Gives plain data for :class:`CollectConfig`, not validated.

    Raises:
        ConfigError: if an argument cannot be read, or a preset is unknown.
    """
    from omegaconf import OmegaConf

    env = [argument for argument in arguments if argument.partition("=")[0].partition(".")[0] == "env"]
    own = split_key_values([each for each in arguments if each not in env], "policy=expert or out=data/mt10")
    data: dict[str, Any] = {}
    for key, value in own.items():
        read: Any = OmegaConf.to_object(OmegaConf.from_dotlist([f"value={value}"]))
        data[key] = value if key in ("run", "out") else read["value"]
    return data | ({"env": compose_data(env)["env"]} if env else {})
