"""What ``sextant train`` and ``sextant resume`` do once a config is valid: build the parts, run the session, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sextant.learner import build_learner, settled
from sextant.run_dirs import RunError, find_run, new_run_dir, only_process, remove_if_empty, run_name
from sextant.summary import final_metrics, summary_lines

if TYPE_CHECKING:
    from agents.interface import Agent
    from sextant.config import TrainConfig
    from trainers.online import Evaluation
    from trainers.run_log import RunLog
    from trainers.videos import Film


def run_train(config: TrainConfig, *, run_dir: Path | None = None) -> Path:
    """Starts a training run, or goes on with it where ``resume=auto`` finds the same run unfinished.

    Args:
        config: what to train.
        run_dir: where to write (default: a new directory under ``config.runs_dir``).
    Returns:
        the run directory.
    Raises:
        RunError: if the directory holds another run, or another process is at work in it.
    """
    if config.resume == "auto" and run_dir is None:
        found = find_run(config)
        if found is not None:
            return run_resume(found)
    run_dir = run_dir or new_run_dir(config)
    if (run_dir / "config.yaml").exists():
        raise RunError(f"{run_dir} already holds a run; use `sextant resume {run_dir}`, or choose another directory")
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with only_process(run_dir):
            _train(config, run_dir, fresh=True)
    finally:
        remove_if_empty(run_dir)
    return run_dir


def run_resume(run_dir: Path) -> Path:
    """Goes on with a run from its last good checkpoint.

    Args:
        run_dir: the run directory.
    Returns:
        the run directory.
    Raises:
        RunError: if there is no run, or another process is at work in it.
    """
    from sextant.config import load_run_config

    if not (run_dir / "config.yaml").exists():
        raise RunError(f"{run_dir} holds no run: config.yaml is missing")
    with only_process(run_dir):
        _train(load_run_config(run_dir), run_dir, fresh=False)
    return run_dir


def _train(config: TrainConfig, run_dir: Path, *, fresh: bool) -> None:
    """Builds the parts and trains; the run directory exists and is locked."""
    from rich.console import Console

    from trainers.checkpointing import CheckpointStore
    from trainers.online import RunIdentity, TrainingSession
    from trainers.progress import Progress
    from trainers.run_log import RunLog
    from trainers.seeding import Seeds
    from trainers.threads import set_torch_threads

    console = Console(stderr=True)

    def say(message: str) -> None:
        console.print(message, highlight=False, markup=False, soft_wrap=True)

    say(f"run directory: {run_dir}")
    checkpoints = CheckpointStore(run_dir / "checkpoints", keep=config.trainer.keep_checkpoints, warn=say)
    newest = checkpoints.load_latest()
    if newest is not None and newest.env_steps >= config.trainer.total_env_steps:
        say(f"nothing to do: the run has its {newest.env_steps:,} env steps")
        return
    if newest is None and any((run_dir / "checkpoints").glob("*.corrupt*")):
        raise RunError(f"no intact checkpoint in {run_dir / 'checkpoints'}; start a new run")
    venv = config.env.make_training_env()
    try:
        if fresh:
            config = settled(config, venv, say)
        assert isinstance(config.threads, int)
        set_torch_threads(config.threads)
        seeds = Seeds(config.seed)
        agent, replay = build_learner(config, venv, seeds, say)
        _describe_run(config, run_dir)
        protocol = config.env.training_protocol()
        with closing(RunLog(run_dir, purge_step=None if fresh else newest.env_steps + 1 if newest else 0)) as log:
            if newest is None:
                log.text("config", f"```yaml\n{(run_dir / 'config.yaml').read_text(encoding='utf-8')}```")
            identity = RunIdentity(
                name=run_name(run_dir),
                seed=config.seed,
                env_id=config.env.env_id,
                task=protocol.env_name,
                protocol_id=protocol.id,
                protocol_hash=protocol.hash,
            )
            session = TrainingSession(
                config.trainer,
                agent,
                venv,
                replay,
                seeds=seeds,
                log=log,
                checkpoints=checkpoints,
                run=identity,
                evaluate=TrainingEvaluator(config, agent, run_dir, log, say),
                progress=Progress(console),
            )
            result = session.fit(newest)
            if result.status == "finished":
                log.hyperparameters(config.model_dump(mode="json"), final_metrics(result.state), result.state.env_steps)
        for line in summary_lines(run_dir, result):
            say(line)
    finally:
        venv.close()


def _describe_run(config: TrainConfig, run_dir: Path) -> None:
    """Writes config.yaml once, and one more entry in provenance.json for each start of the run."""
    from sextant.config import save_run_config
    from sextant.provenance import provenance
    from trainers.run_log import write_atomically

    path = run_dir / "provenance.json"
    starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []
    write_atomically(path, json.dumps({"starts": [*starts, provenance(config)]}, indent=2) + "\n")
    if not (run_dir / "config.yaml").exists():
        save_run_config(config, run_dir)


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
        self.agent = agent
        self.run_dir = run_dir
        self.log = log
        self.say = say
        self.filming = config.trainer.videos_per_evaluation > 0
        self.protocol = config.env.evaluation_protocol()
        wanted = config.trainer.evaluation_episodes
        available = len(self.protocol.episodes(EVALUATION_SEED))
        self.num_episodes = available if wanted is None else min(wanted, available)

    def __call__(self, env_steps: int) -> Evaluation:
        """Plays the protocol's episodes with the agent as it is now.

        Args:
            env_steps: env steps the agent has been trained for.
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
            lambda num_envs: config.env.make_evaluation_env(self.protocol, num_envs),
            self.protocol,
            seed=EVALUATION_SEED,
            run=run_name(self.run_dir),
            run_seed=config.seed,
            checkpoint_env_steps=env_steps,
            num_envs=config.trainer.evaluation_envs,
            num_episodes=self.num_episodes,
        )
        summary = full_summary(records, self.protocol)
        where = {"policy": "training", "env_steps": env_steps, "seed": EVALUATION_SEED}
        write_evaluation(self.run_dir, records, self.protocol, summary=summary, **where)
        self._film(env_steps)
        shown = ("return_mean", "return_std", "length_mean", "human_normalised", "success_rate")
        metrics = {f"eval/{name}": summary[name] for name in shown if summary.get(name) is not None}
        return Evaluation(score=metrics.get("eval/success_rate", metrics["eval/return_mean"]), metrics=metrics)

    def _film(self, env_steps: int) -> None:
        """Films the first episodes where the config asks for it: mp4 under ``videos/``, and an image in TensorBoard."""
        if not self.filming:
            return
        from trainers.videos import add_films

        try:
            films = self._films(env_steps)
        except (RuntimeError, ImportError) as error:
            self.say(f"episodes are not filmed: {error}")
            self.filming = False
            return
        add_films(self.log.tensorboard, films, env_steps)

    def _films(self, env_steps: int) -> list[Film]:
        from trainers.videos import film_episodes

        config = self.config
        return film_episodes(
            self.agent,
            lambda: config.env.make_single_env(self.protocol, render_mode="rgb_array"),
            self.protocol,
            self.run_dir / "videos",
            seed=EVALUATION_SEED,
            count=min(config.trainer.videos_per_evaluation, self.num_episodes),
            env_steps=env_steps,
        )
