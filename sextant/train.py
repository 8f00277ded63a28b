"""What ``sextant train`` and ``sextant resume`` do once a config is valid: build the parts, run the session, report.

Under ``torchrun`` every process of an offline run comes through here; only process 0 writes files and talks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.base_run import REPORT_FILE, start_from_base
from sextant.learner import OnlineParts, check_device, settled, settled_device
from sextant.refusal import ConfigError, refuse_missing
from sextant.run_dirs import RunError, RunInterrupted, find_run, new_run_dir, only_process, remove_if_empty, run_name
from sextant.summary import final_metrics, summary_lines
from sextant.training_evaluation import TrainingEvaluator

if TYPE_CHECKING:
    from sextant.config import TrainConfig
    from sextant.offline_learner import OfflineParts
    from trainers.checkpointing import CheckpointStore, Snapshot
    from trainers.distributed import World
    from trainers.online import RunIdentity
    from trainers.run_log import RunLog


def run_train(config: TrainConfig, *, run_dir: Path | None = None) -> Path:
    """Starts a training run, or goes on with it where ``resume=auto`` finds the same run unfinished.

    Args:
        config: what to train.
        run_dir: where to write (default: a new directory under ``config.runs_dir``).
    Returns:
        the run directory.
    Raises:
        ConfigError: if there is no such device, or the data of an offline run is missing, damaged, or does not fit the
            agent and env.
        RunError: if the directory holds another run, another process is at work in it, or agent and env do not fit.
        RunInterrupted: after SIGTERM or Ctrl-C, when the checkpoint is written.
    """
    refuse_missing("trainer.data", getattr(config.trainer, "data", ()))  # before anything heavy is imported
    with _world(config) as world:
        found = find_run(config) if config.resume == "auto" and run_dir is None and world.is_main else None
        if resumed := world.share(str(found or "")):
            return _resume(Path(resumed), world)
        if run_dir is None:
            run_dir = Path(world.share(str(new_run_dir(config)) if world.is_main else ""))
        if (run_dir / "config.yaml").exists():
            raise RunError(
                f"{run_dir} already holds a run; use `sextant resume {run_dir}`, or choose another directory"
            )
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            with only_process(run_dir) if world.is_main else nullcontext():
                _train(config, run_dir, world, fresh=True)
        finally:
            if world.is_main:
                remove_if_empty(run_dir)
    return run_dir


def run_resume(run_dir: Path) -> Path:
    """Goes on with a run from its last good checkpoint.

    Args:
        run_dir: the run directory.
    Returns:
        the run directory.
    Raises:
        ConfigError: if there is no such device, or the data of an offline run is not what it was started on.
        RunError: if there is no run, another process is at work in it, or one of its text files is damaged.
    """
    from sextant.config import load_run_config

    if not (run_dir / "config.yaml").exists():
        raise RunError(f"{run_dir} holds no run: config.yaml is missing")
    with _world(load_run_config(run_dir)) as world:
        return _resume(run_dir, world)


def _resume(run_dir: Path, world: World) -> Path:
    from sextant.config import load_run_config
    from trainers.run_log import DamagedLog

    with only_process(run_dir) if world.is_main else nullcontext():
        try:
            _train(load_run_config(run_dir), run_dir, world, fresh=False)
        except DamagedLog as error:
            raise RunError(str(error)) from error
    return run_dir


@contextmanager
def _world(config: TrainConfig) -> Iterator[World]:
    """Joins the processes that torchrun started; without it, the run is one process and nothing is imported."""
    from trainers.distributed import ALONE, joined_world, torchrun_size

    if torchrun_size() == 1:
        yield ALONE
        return
    if config.trainer.name != "offline":
        raise RunError(f"trainer={config.trainer.name} runs in one process, but torchrun started {torchrun_size()}")
    with joined_world(cuda=settled_device(config) == "cuda") as world:
        yield world


def _train(config: TrainConfig, run_dir: Path, world: World, *, fresh: bool) -> None:
    """Builds the parts and trains; the run directory exists and is locked."""
    from rich.console import Console

    from memory.config import ReplayTooLarge
    from trainers.checkpointing import CheckpointStore
    from trainers.progress import Progress
    from trainers.seeding import Seeds
    from trainers.threads import keep_freed_memory, set_torch_threads

    check_device(config.device)
    keep_freed_memory()
    console = Console(stderr=True, quiet=not world.is_main)

    def say(message: str) -> None:
        console.print(message, highlight=False, markup=False, soft_wrap=True)

    say(f"run directory: {run_dir}")
    store = CheckpointStore(
        run_dir / "checkpoints", keep=config.trainer.keep_checkpoints, warn=say, read_only=not world.is_main
    )
    newest = _newest(store, world)
    if newest is not None and newest.env_steps >= config.trainer.total_steps:
        say(f"nothing to do: the run has its {newest.env_steps:,} {config.trainer.axis.replace('_', ' ')}")
        return
    if newest is None and any((run_dir / "checkpoints").glob("*.corrupt*")):
        raise RunError(f"no intact checkpoint in {run_dir / 'checkpoints'}; start a new run")
    with closing(_parts(config, run_dir, world, say)) as parts:
        seeds = Seeds(config.seed)
        try:
            if fresh:
                config = settled(config, parts.throwaway_update, say, world)
            assert isinstance(config.threads, int)
            set_torch_threads(config.threads)
            agent = parts.build(config, seeds, say)
            if newest is None:
                start_from_base(config, agent, run_dir if world.is_main else None, say)
                parts.restrict_actions(agent)
                say(f"agent: {config.agent.name}, {agent.num_parameters:,} parameters")
        except (ReplayTooLarge, ConfigError):
            raise
        except ValueError as error:
            raise RunError(str(error)) from error
        if world.is_main:
            _describe_run(config, run_dir, {**parts.record(), "parameters": agent.num_parameters})
        world.barrier()
        with _run_log(config, run_dir, newest, world, fresh=fresh) as log:
            session = parts.session(
                config,
                agent,
                seeds=seeds,
                log=log,
                checkpoints=store,
                run=_identity(config, run_dir),
                evaluate=None if log is None else TrainingEvaluator(config, agent, run_dir, log, say),
                progress=Progress(console),
            )
            result = session.fit(newest)
            if result.status == "finished" and log is not None:
                metrics = final_metrics(result.state, config.trainer.axis)
                log.hyperparameters(config.model_dump(mode="json"), metrics, result.state.env_steps)
        for line in summary_lines(run_dir, result, config.trainer.axis):
            say(line)
        if result.status == "interrupted":
            raise RunInterrupted


def _parts(config: TrainConfig, run_dir: Path, world: World, say: Callable[[str], None]) -> OnlineParts | OfflineParts:
    if config.trainer.name == "online":
        return OnlineParts(config)
    from sextant.offline_learner import OfflineParts

    return OfflineParts(config, run_dir, world, say)


def _newest(store: CheckpointStore, world: World) -> Snapshot | None:
    """Loads the newest intact checkpoint: the process that may set damaged ones aside chooses for all."""
    newest = store.load_latest() if world.is_main else None
    chosen = world.share("" if newest is None else str(newest.index))
    return store.load(int(chosen)) if chosen and not world.is_main else newest


@contextmanager
def _run_log(
    config: TrainConfig, run_dir: Path, newest: Snapshot | None, world: World, *, fresh: bool
) -> Iterator[RunLog | None]:
    """Opens the run's files in the process that writes them; gives the others None."""
    from trainers.run_log import RunLog

    if not world.is_main:
        yield None
        return
    purge_step = None if fresh else newest.env_steps + 1 if newest else 0
    with closing(RunLog(run_dir, purge_step=purge_step, axis=config.trainer.axis)) as log:
        if newest is None:
            log.text("config", f"```yaml\n{(run_dir / 'config.yaml').read_text(encoding='utf-8')}```")
            if (run_dir / REPORT_FILE).exists():
                log.text("adaptation", f"```json\n{(run_dir / REPORT_FILE).read_text(encoding='utf-8')}```")
        yield log


def _identity(config: TrainConfig, run_dir: Path) -> RunIdentity:
    from trainers.online import RunIdentity

    protocol = config.env.training_protocol()
    return RunIdentity(
        name=run_name(run_dir),
        seed=config.seed,
        env_id=config.env.env_id,
        tasks=getattr(protocol, "tasks", None) or [protocol.env_name],
        protocol_id=protocol.id,
        protocol_hash=protocol.hash,
    )


def _describe_run(config: TrainConfig, run_dir: Path, facts: Mapping[str, Any]) -> None:
    """Writes config.yaml once, and one more entry in provenance.json for each start of the run."""
    from sextant.config import save_run_config
    from sextant.provenance import PROVENANCE_FILE, provenance, read_starts
    from trainers.run_log import write_atomically

    starts = [*read_starts(run_dir), {**provenance(config), **facts}]
    write_atomically(run_dir / PROVENANCE_FILE, json.dumps({"starts": starts}, indent=2) + "\n")
    if not (run_dir / "config.yaml").exists():
        save_run_config(config, run_dir)
