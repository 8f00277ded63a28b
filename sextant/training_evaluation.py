"""The evaluations that go on during a training run: in envs of their own, with records, films and a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from agents.interface import Agent
    from sextant.config import TrainConfig
    from trainers.online import Evaluation
    from trainers.run_log import RunLog
    from trainers.videos import Film

EVALUATION_SEED = 10_007
"""Seed of the episodes played during training: all runs play the same, and others than `sextant evaluate` (seed 0)
does, so that the best checkpoint is not chosen on the episodes it is judged by."""


class TrainingEvaluator:
    """Evaluates the agent in envs of its own at the boundaries of a run."""

    def __init__(
        self, config: TrainConfig, agent: Agent, run_dir: Path, log: RunLog, say: Callable[[str], None]
    ) -> None:
        """Prepares; envs are made at each evaluation and closed after it."""
        self.config = config
        self.env: Any = config.env
        self.agent = agent
        self.run_dir = run_dir
        self.log = log
        self.say = say
        self.filming = config.trainer.videos_per_evaluation > 0
        self.protocol = config.env.evaluation_protocol()
        wanted = config.trainer.evaluation_episodes
        available = len(self.protocol.episodes(EVALUATION_SEED))
        self.num_episodes = available if wanted is None else min(wanted, available)
        if wanted is not None and wanted > available:
            say(f"evaluations play the {available} episodes that {self.protocol.id} has, not {wanted}")

    def __call__(self, env_steps: int) -> Evaluation:
        """Plays the protocol's episodes with the agent as it is now.

        Args:
            env_steps: env steps the agent has been trained for; gradient steps of an offline run.
        Returns:
            the score and what to log.
        """
        from sextant.evaluate import full_summary
        from trainers.evaluation import evaluate
        from trainers.evaluation_files import write_evaluation
        from trainers.online import Evaluation

        config = self.config
        records = evaluate(
            self.agent,
            self.env.make_evaluation_env,
            self.protocol,
            seed=EVALUATION_SEED,
            run=run_name(self.run_dir),
            run_seed=config.seed,
            checkpoint_env_steps=env_steps,
            num_envs=config.trainer.evaluation_envs,
            num_episodes=self.num_episodes,
        )
        summary = full_summary(records, self.protocol)
        write_evaluation(
            self.run_dir,
            records,
            self.protocol,
            policy="training",
            env_steps=env_steps,
            seed=EVALUATION_SEED,
            summary=summary,
        )
        self._film(env_steps)
        shown = ("return_mean", "return_std", "length_mean", "human_normalised", "success_rate")
        metrics = {f"eval/{name}": summary[name] for name in shown if summary.get(name) is not None}
        if config.trainer.name == "offline":
            metrics |= per_task_metrics(summary)
        return Evaluation(score=score_of(summary), metrics=metrics)

    def _film(self, env_steps: int) -> None:
        """Films the first episodes where the config asks for it: mp4 under ``videos/``, and an image in TensorBoard."""
        if not self.filming:
            return
        from trainers.videos import add_films

        try:
            films = self._films(env_steps)
        except RuntimeError as error:
            self.say(f"episodes are not filmed: {error}")
            self.filming = False
            return
        add_films(self.log.tensorboard, films, env_steps)

    def _films(self, env_steps: int) -> list[Film]:
        from trainers.videos import film_episodes

        config = self.config
        return film_episodes(
            self.agent,
            lambda rules: self.env.make_single_env(rules, render_mode="rgb_array"),
            self.protocol,
            self.run_dir / "videos",
            seed=EVALUATION_SEED,
            count=min(config.trainer.videos_per_evaluation, self.num_episodes),
            env_steps=env_steps,
        )


def per_task_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Gives every task's success rate at any step, or its mean raw return where the env knows no success.

    Args:
        summary: of an evaluation; nothing comes of one of a single task.
    """
    metrics = {}
    for task, part in summary.get("tasks", {}).items():
        if "success_rate" in part:
            metrics[f"eval/success/{task}"] = part["success_rate"]
        else:
            metrics[f"eval/return/{task}"] = part["return_mean"]
    return metrics


def score_of(summary: Mapping[str, Any]) -> float:
    """Gives the number by which checkpoints of a run are ranked.

    Args:
        summary: of an evaluation.

    Returns:
        the success rate where the env knows success; of several games with references the human-normalised score, for
        points of different games do not add up; else the mean raw return.
    """
    if "success_rate" in summary:
        return float(summary["success_rate"])
    return float(summary["human_normalised" if {"tasks", "human_normalised"} <= summary.keys() else "return_mean"])


def evaluation_scores(run_dir: Path) -> dict[int, float]:
    """Gives a run's evaluation scores by its steps: success rates where the env knows success, else returns."""
    from analysis.curves import read_columns

    columns = read_columns(run_dir / "metrics.csv")
    for name in ("eval/success_rate", "eval/return_mean"):
        if name in columns:
            return {int(step): float(score) for step, score in zip(*columns[name], strict=True)}
    return {}
