"""What ``sextant evaluate`` does once its arguments are valid: plays the episodes, writes records, prints the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sextant.acting_variants import Variant, variants, write_target_sweep
from sextant.evaluate_table import RANDOM, Result, notes, results_table
from sextant.refusal import ConfigError
from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from rich.console import Console

    from agents.interface import Agent
    from envs.protocols import Protocol
    from sextant.config import TrainConfig
    from trainers.checkpointing import Snapshot
    from trainers.episodes import EpisodeRecord

CheckpointName = Literal["last", "best"]


def run_evaluate(
    run_dir: Path,
    *,
    protocol: str | None = None,
    checkpoint: Literal["last", "best", "both"] = "last",
    num_episodes: int | None = None,
    num_envs: int | None = None,
    seed: int = 0,
    random_baseline: bool = True,
    videos: int = 0,
    memory_use: str | None = None,
    target_returns: Sequence[float] | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> list[Result]:
    """Evaluates checkpoints of a run, and the random policy under the same protocol.

    Args:
        run_dir: run directory.
        protocol: name of an evaluation protocol; None for the run's own.
        checkpoint: which ones. The best one was chosen by its evaluation score: its number is optimistic.
        num_episodes: fewer than the protocol says, spread over its tasks; None for all.
        num_envs: parallel envs; None for the run's ``trainer.evaluation_envs``.
        seed: of the episode list; the same episodes for every run.
        random_baseline: whether to play the same episodes with random actions (read from disk if done before).
        videos: episodes to film of each checkpoint, into ``videos/`` and TensorBoard.
        memory_use: what becomes of a sequence model's memory; None for what its config says.
        target_returns: what a Decision Transformer is asked for, an evaluation each; None for what its config says.
        device: where the networks act; None for the run's.
        console: for the table (default: standard output).

    Returns:
        a result per policy, the checkpoints first.

    Raises:
        ConfigError: if there is no run, no such checkpoint, protocol or device, or a number is out of range; and, after
            the table, if the env cannot be filmed.
    """
    from rich.console import Console

    from sextant.config import load_run_config
    from sextant.learner import check_device

    console = console or Console()
    config = load_run_config(run_dir)
    if device is not None:
        check_device(device)
    names: tuple[CheckpointName, ...] = ("last", "best") if checkpoint == "both" else (checkpoint,)
    rules = _protocol(config, protocol)
    _check_numbers(rules, num_episodes, num_envs, videos, seed)
    snapshots = {name: intact_snapshot(run_dir, name, console) for name in names}
    job = _Job(config, rules, run_dir, seed, num_episodes, num_envs or config.trainer.evaluation_envs, console)
    results = []
    agent = build_acting_agent(config, rules, device or config.device, run_dir=run_dir)
    for name, snapshot in snapshots.items():
        agent.load_weights(snapshot.weights, acting_only=True)
        agent.set_env_steps(snapshot.env_steps)
        results += job.variants(agent, name, snapshot.env_steps, list(variants(memory_use, target_returns)))
    if random_baseline:
        results.append(job.random())
    console.print(results_table(results, rules, run_name(run_dir)))
    for note in notes(results):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    for name, snapshot in snapshots.items() if videos else ():
        agent.load_weights(snapshot.weights, acting_only=True)
        job.film(agent, name, snapshot.env_steps, videos)
    return results


def full_summary(records: Sequence[EpisodeRecord], protocol: Protocol, *, seed: int = 0) -> dict[str, Any]:
    """Gives :func:`trainers.evaluation.summarise` with the human-normalised score and intervals.

    Args:
        records: episodes of one policy.
        protocol: they were played under.
        seed: of the bootstrap.

    Returns:
        the summary with ``human_normalised`` where every task has a reference; ``return_interval`` of the mean, a
        stratified bootstrap over episodes (None below 3 per task); and where the env knows success, Wilson's
        ``success_interval`` and ``success_last_interval``, also per task.
    """
    import numpy as np

    from analysis.reference_scores import reference_score
    from analysis.statistics import TooFewSamples, episode_interval
    from trainers.episodes import summarise

    summary = summarise(records, protocol, normalise=reference_score)
    by_task: dict[str, list[float]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record.raw_return)
    try:
        interval = episode_interval(list(by_task.values()), rng=np.random.default_rng(seed))
        summary["return_interval"] = [interval.low, interval.high]
        summary["return_interval_note"] = f"{interval.confidence:.0%}, over {len(records)} episodes of one policy"
    except TooFewSamples as error:
        summary["return_interval"] = None
        summary["return_interval_note"] = str(error)
    for part in (summary, *summary.get("tasks", {}).values()):
        _add_success_intervals(part)
    return summary


def _add_success_intervals(summary: dict[str, Any]) -> None:
    from analysis.statistics import wilson_interval

    if "successes" in summary:
        summary["success_interval"] = list(wilson_interval(summary["successes"], summary["episodes"]))
        summary["success_last_interval"] = list(wilson_interval(summary["successes_last"], summary["episodes"]))


def build_acting_agent(config: TrainConfig, protocol: Protocol, device: str, *, run_dir: Path | None = None) -> Agent:
    """Builds a run's agent with fresh weights, for the spaces of an evaluation env.

    Args:
        config: the run's config.
        protocol: gives the env.
        device: ``cpu``, ``cuda`` or ``auto``.
        run_dir: the run's directory; a sequence model needs the summary of its data that lies there.
    Raises:
        ConfigError: if that summary is missing.
    """
    import torch

    from sextant.env_spaces import spaces_of_env
    from sextant.learner import build_agent, learns_from_segments
    from sextant.offline_learner import load_data_summary
    from trainers.seeding import Seeds
    from trainers.threads import set_torch_threads

    if isinstance(config.threads, int):
        set_torch_threads(config.threads)
    if device == "auto" or (device == "cuda" and not torch.cuda.is_available()):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    spaces = spaces_of_env(config.env, protocol)
    data = load_data_summary(run_dir) if run_dir is not None and learns_from_segments(config) else None
    return build_agent(config, spaces, Seeds(config.seed), device=device, data=data)


def _untyped(config: Any) -> Any:
    """Gives a member of a config union as Any: its methods take the protocol of its own suite."""
    return config


def _protocol(config: TrainConfig, name: str | None) -> Protocol:
    try:
        protocol: Protocol = _untyped(config.env).evaluation_protocol(name)
    except ValueError as error:
        raise ConfigError(f"protocol={name}: {error}") from error
    return protocol


def _check_numbers(protocol: Protocol, num_episodes: int | None, num_envs: int | None, videos: int, seed: int) -> None:
    limit = protocol.num_episodes
    if num_episodes is not None and not 1 <= num_episodes <= limit:
        raise ConfigError(
            f"num_episodes={num_episodes} is not allowed: expected 1..{limit}, the number of {protocol.id}"
        )
    if num_envs is not None and num_envs < 1:
        raise ConfigError(f"num_envs={num_envs} is not allowed: expected int >= 1")
    if not 0 <= videos <= limit:
        raise ConfigError(f"videos={videos} is not allowed: expected 0..{limit}")
    if seed < 0:
        raise ConfigError(f"seed={seed} is not allowed: expected int >= 0")


def intact_snapshot(run_dir: Path, name: CheckpointName, console: Console) -> Snapshot:
    """Gives a run's last or best checkpoint that verifies; tells of damaged ones it passes over.

    Raises:
        ConfigError: if there is none.
    """
    from trainers.checkpointing import CheckpointStore

    def say(message: str) -> None:
        console.print(message, markup=False, highlight=False, soft_wrap=True)

    store = CheckpointStore(run_dir / "checkpoints", warn=say, read_only=True)
    snapshot = store.load_latest() if name == "last" else store.load_best()
    if snapshot is None:
        reason = (
            "training has not reached its first one" if name == "last" else "no evaluation during training made one"
        )
        raise ConfigError(f"checkpoint={name}: {run_dir} has no such intact checkpoint; {reason}")
    return snapshot


@dataclass(frozen=True)
class _Job:
    """What all evaluations of one command share."""

    config: TrainConfig
    protocol: Protocol
    run_dir: Path
    seed: int
    num_episodes: int | None
    num_envs: int
    console: Console

    def make_env(self, rules: Protocol, num_envs: int) -> Any:
        return _untyped(self.config.env).make_evaluation_env(rules, num_envs)

    def variants(self, agent: Agent, name: str, env_steps: int, ways: Sequence[Variant]) -> list[Result]:
        """Plays the episodes once for each way to act; with several returns asked for, also draws the sweep."""
        results = []
        for way in ways:
            way.apply(agent)
            results.append(self.checkpoint(agent, f"{name}{way.suffix}", env_steps))
        for path in write_target_sweep(list(zip(ways, results, strict=True)), self.protocol.id):
            self.console.print(f"sweep: {path}", markup=False, highlight=False, soft_wrap=True)
        return results

    def checkpoint(self, agent: Agent, name: str, env_steps: int) -> Result:
        from trainers.evaluation import evaluate

        with self._progress(f"{name} checkpoint") as observer:
            records = evaluate(
                agent,
                self.make_env,
                self.protocol,
                seed=self.seed,
                run=run_name(self.run_dir),
                run_seed=self.config.seed,
                checkpoint_env_steps=env_steps,
                num_envs=self.num_envs,
                num_episodes=self.num_episodes,
                observer=observer,
            )
        return self._written(records, name, env_steps)

    def random(self) -> Result:
        from trainers.evaluation import evaluate_random

        found = self._stored_random()
        if found is not None:
            return found
        with self._progress("random policy") as observer:
            records = evaluate_random(
                self.make_env,
                self.protocol,
                seed=self.seed,
                num_envs=self.num_envs,
                num_episodes=self.num_episodes,
                observer=observer,
            )
        return self._written(records, RANDOM, 0)

    def _stored_random(self) -> Result | None:
        from trainers.evaluation_files import load_evaluations

        wanted = (RANDOM, self.protocol.hash, self.seed, self.num_episodes or self.protocol.num_episodes)
        for each in load_evaluations(self.run_dir):
            if (each.policy, each.protocol_hash, each.seed, len(each.records)) == wanted:
                return Result(RANDOM, 0, full_summary(each.records, self.protocol), each.path)
        return None

    def _written(self, records: list[EpisodeRecord], policy: str, env_steps: int) -> Result:
        from trainers.evaluation_files import write_evaluation

        summary = full_summary(records, self.protocol)
        directory = write_evaluation(
            self.run_dir, records, self.protocol, policy=policy, env_steps=env_steps, seed=self.seed, summary=summary
        )
        return Result(policy, env_steps, summary, directory, unit=self.config.trainer.axis.replace("_", " "))

    def film(self, agent: Agent, name: str, env_steps: int, count: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        from trainers.videos import add_films, film_episodes

        try:
            films = film_episodes(
                agent,
                lambda rules: _untyped(self.config.env).make_single_env(rules, render_mode="rgb_array"),
                self.protocol,
                self.run_dir / "videos",
                seed=self.seed,
                count=count,
                env_steps=env_steps,
                name=name,
            )
        except RuntimeError as error:
            raise ConfigError(f"videos={count}: {self.protocol.env_name} cannot be filmed here: {error}") from error
        writer = SummaryWriter(str(self.run_dir), filename_suffix=".films")
        add_films(writer, films, env_steps, tag=name)
        writer.close()
        for film in films:
            self.console.print(f"film: {film.path}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _progress(self, what: str) -> Iterator[Callable[[EpisodeRecord], None]]:
        from rich.progress import Progress

        with Progress(console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=self.num_episodes or self.protocol.num_episodes)
            yield lambda record: bar.advance(task)
