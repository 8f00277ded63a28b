"""The ``env=metaworld`` group: which benchmark, which goals, and what of it the agent sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from envs.base import Strict, nearest
from envs.metaworld.tasks import (
    ALL_TASKS,
    BENCHMARKS,
    CORE_OBS_DIM,
    GOALS_PER_TASK,
    HORIZON,
    BenchmarkName,
    Split,
    is_meta_learning,
    split_goal_seed,
    split_overlap,
    split_tasks,
)

if TYPE_CHECKING:
    import gymnasium

    from envs.metaworld.protocol import MetaworldProtocol
    from envs.tianshou_vector import VectorEnv


class MetaworldConfig(Strict):
    """One Meta-World task, or a benchmark of several, with true splits and seeded goals."""

    name: Literal["metaworld"] = "metaworld"
    benchmark: BenchmarkName = Field(
        default="single",
        description="single: one task with MT1's goals; MT10/25/50: several tasks, goal visible; ML1/10/25/45: goal "
        "hidden, held-out split for evaluation (source: metaworld 3.1.1)",
    )
    task: str | None = Field(
        default=None, description="task of single (reach-v3 when left out), MT1 and ML1; not for the others"
    )
    goal_seed: int = Field(
        default=42, ge=0, le=2**32 - 2, description="seed of the goals, as in metaworld.MT1(task, seed=goal_seed)"
    )
    goal_visible: bool | None = Field(
        default=None, description="goal in the last 3 of the 39 numbers; when left out: yes, except in ML benchmarks"
    )
    one_hot: bool = Field(
        default=False, description="append a one-hot task id in the benchmark's order (MT10, MT25, MT50 only)"
    )
    reward_version: Literal["v1", "v2"] = Field(
        default="v2", description="v2: 0 to 10, 10 in success; v1: the original, unscaled; there is no v3 reward"
    )
    max_episode_steps: int = Field(
        default=HORIZON, ge=1, le=HORIZON, description="env steps until truncation; the package refuses more than 500"
    )
    stop_at_success: bool = Field(
        default=False, description="whether a training episode terminates at its first success (package: False)"
    )
    num_envs: int = Field(default=8, ge=1, description="parallel training environments")
    workers: Literal["auto", "sync", "async"] = Field(
        default="auto",
        description="sync: in this process; async: one spawned process per env; auto: the faster in a short "
        "measurement. The choice does not change results",
    )
    max_simulators: int = Field(
        default=64, ge=1, description="MuJoCo simulators kept for reuse over all envs (20 to 70 MB each)"
    )
    evaluation_preset: str = Field(
        default="mw-eval-1", description="mw-eval-1, mw-eval-1-stop (ends at first success) or mw-eval-1-train"
    )
    evaluation_goals: int = Field(
        default=GOALS_PER_TASK, ge=1, le=GOALS_PER_TASK, description="goals per task in evaluation, the first n of 50"
    )
    evaluation_split: Split | None = Field(
        default=None, description="split that is evaluated; when left out: test for ML benchmarks, train for the rest"
    )

    @model_validator(mode="before")
    @classmethod
    def _single_defaults_to_reach(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("benchmark", "single") == "single" and data.get("task") is None:
            return data | {"task": "reach-v3"}
        return data

    @field_validator("reward_version", mode="before")
    @classmethod
    def _explain_v3(cls, value: Any) -> Any:
        if value == "v3":
            raise ValueError("there is no reward 'v3': the -v3 of a task names its port; the rewards are 'v1' and 'v2'")
        return value

    @field_validator("benchmark", mode="before")
    @classmethod
    def _known_benchmark(cls, value: Any) -> Any:
        names = ("single", "MT1", "ML1", *BENCHMARKS)
        if isinstance(value, str) and value not in names:
            raise ValueError(f"unknown benchmark {value!r}, {nearest(value, names)}")
        return value

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str | None) -> str | None:
        if value is not None and value not in ALL_TASKS:
            raise ValueError(f"unknown task {value!r}, {nearest(value, ALL_TASKS)}")
        return value

    @field_validator("evaluation_preset")
    @classmethod
    def _known_protocol(cls, value: str) -> str:
        from envs.metaworld.protocol import PRESETS

        if value not in PRESETS:
            raise ValueError(f"unknown Meta-World protocol {value!r}, {nearest(value, PRESETS)}")
        return value

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> MetaworldConfig:
        several = self.benchmark in BENCHMARKS
        if several and self.task is not None:
            raise ValueError(f"{self.benchmark} has its own tasks: leave out task={self.task!r}")
        if not several and self.task is None:
            raise ValueError(f"{self.benchmark} needs a task, for example task=reach-v3")
        if self.one_hot and self.benchmark not in ("MT10", "MT25", "MT50"):
            raise ValueError(f"one_hot tells MT10, MT25 and MT50 tasks apart; {self.benchmark} has no use for it")
        if self.evaluation_split == "test" and not is_meta_learning(self.benchmark):
            raise ValueError(f"{self.benchmark} has no test split: it is evaluated on its training goals")
        return self

    @property
    def env_id(self) -> str:
        """Short file-system-safe name: ``reach-v3``, ``MT10``, ``ML1-push-v3``."""
        if self.benchmark == "single":
            return str(self.task)
        return self.benchmark if self.task is None else f"{self.benchmark}-{self.task}"

    def training_protocol(self) -> MetaworldProtocol:
        """Gives the training side under this config: never a goal or task of the test split."""
        return self._protocol("mw-train-1", "train", GOALS_PER_TASK, self.stop_at_success)

    def evaluation_protocol(self, name: str | None = None) -> MetaworldProtocol:
        """Gives a named evaluation protocol for this benchmark.

        Args:
            name: a preset; None for this config's ``evaluation_preset``.

        Raises:
            ValueError: if the preset is unknown.
        """
        from envs.metaworld.protocol import PRESETS

        preset = self._known_protocol(name or self.evaluation_preset)
        rules = PRESETS[preset]
        usual: Split = "test" if is_meta_learning(self.benchmark) else "train"
        split: Split = rules.get("split") or self.evaluation_split or usual
        return self._protocol(preset, split, self.evaluation_goals, rules["stop_at_success"])

    def make_training_env(self, log: Callable[[str], None] = print) -> VectorEnv:
        """Builds ``num_envs`` training envs; ``log`` gets the line that says which workers were chosen and why."""
        from envs.metaworld.vector import make_vector_env

        return make_vector_env(
            self.training_protocol(), self.num_envs, self.workers, max_simulators=self.max_simulators, log=log
        )

    def make_evaluation_env(
        self, protocol: MetaworldProtocol, num_envs: int, log: Callable[[str], None] = print
    ) -> VectorEnv:
        """Builds ``num_envs`` envs that play the protocol's tasks and goals."""
        from envs.metaworld.vector import make_vector_env

        return make_vector_env(protocol, num_envs, self.workers, max_simulators=self.max_simulators, log=log)

    def make_single_env(self, protocol: MetaworldProtocol, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Builds one gymnasium env with the protocol's dynamics, for videos and foreign clients."""
        from envs.metaworld.single import MetaworldEnv

        return MetaworldEnv(protocol, render_mode=render_mode)

    def describe(self) -> dict[str, Any]:
        """Gives the benchmark's tasks, its training and evaluation protocol, and a warning where splits overlap."""
        overlap = split_overlap(self.benchmark)
        warning = (
            f"the test split of {self.benchmark} holds {', '.join(overlap)}, which it also trains on "
            "(metaworld 3.1.1): its held-out success rate is partly a training score"
        )
        training = self.training_protocol()
        return {
            "env_id": self.env_id,
            "num_envs": self.num_envs,
            "observation": f"{CORE_OBS_DIM + len(training.tasks) * self.one_hot} float32",
            "action": "4 float32 in [-1, 1] (clipped): hand dx, dy, dz in cm, gripper",
            "split_overlap": list(overlap),
            "warnings": [warning] if overlap else [],
            "training": training.describe(),
            "evaluation": self.evaluation_protocol().describe(),
        }

    def _protocol(self, preset: str, split: Split, num_goals: int, stop_at_success: bool) -> MetaworldProtocol:
        from envs.metaworld.goals import load_goals
        from envs.metaworld.protocol import GOVERNED, MetaworldProtocol

        tasks = split_tasks(self.benchmark, self.task, split)
        if not tasks:
            raise ValueError(f"{self.benchmark} has no {split} split")
        hidden = is_meta_learning(self.benchmark)
        governed = {"num_goals": num_goals, "horizon": self.max_episode_steps, "reward_version": self.reward_version}
        visible = not hidden if self.goal_visible is None else self.goal_visible
        changed = [field for field, value in governed.items() if value != GOVERNED[field]]
        changed += ["goal_visible"] if visible == hidden else []
        return MetaworldProtocol(
            id="+".join([preset, *changed]),
            env_name=self.env_id,
            benchmark=self.benchmark,
            split=split,
            tasks=tasks,
            goal_seed=self.goal_seed,
            goals_hash=load_goals(tasks, split_goal_seed(self.benchmark, self.goal_seed, split)).hash,
            goal_visible=visible,
            one_hot=self.one_hot,
            stop_at_success=stop_at_success,
            **governed,
        )
