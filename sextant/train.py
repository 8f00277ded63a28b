"""What ``sextant train`` and ``sextant resume`` do once a config is valid: build the parts, run the session, report."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sextant.learner import build_learner, settled
from sextant.run_dirs import RunError, RunInterrupted, find_run, new_run_dir, only_process, remove_if_empty, run_name
from sextant.summary import final_metrics, summary_lines
from sextant.training_evaluation import TrainingEvaluator

if TYPE_CHECKING:
    from sextant.config import TrainConfig


def run_train(config: TrainConfig, *, run_dir: Path | None = None) -> Path:
    """Starts a training run, or goes on with it where ``resume=auto`` finds the same run unfinished.

    Args:
        config: what to train.
        run_dir: where to write (default: a new directory under ``config.runs_dir``).
    Returns:
        the run directory.
    Raises:
        RunError: if the directory holds another run, another process is at work in it, or agent and env do not fit.
        RunInterrupted: after SIGTERM or Ctrl-C, when the checkpoint is written.
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

    from memory.config import ReplayTooLarge
    from trainers.checkpointing import CheckpointStore
    from trainers.online import RunIdentity, TrainingSession
    from trainers.progress import Progress
    from trainers.run_log import RunLog
    from trainers.seeding import Seeds
    from trainers.threads import keep_freed_memory, set_torch_threads

    keep_freed_memory()
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
        try:
            agent, replay = build_learner(config, venv, seeds, say)
        except ReplayTooLarge:
            raise
        except ValueError as error:
            raise RunError(str(error)) from error
        _describe_run(config, run_dir)
        protocol = config.env.training_protocol()
        with closing(RunLog(run_dir, purge_step=None if fresh else newest.env_steps + 1 if newest else 0)) as log:
            if newest is None:
                log.text("config", f"```yaml\n{(run_dir / 'config.yaml').read_text(encoding='utf-8')}```")
            identity = RunIdentity(
                name=run_name(run_dir),
                seed=config.seed,
                env_id=config.env.env_id,
                tasks=getattr(protocol, "tasks", None) or [protocol.env_name],
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
        if result.status == "interrupted":
            raise RunInterrupted
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
