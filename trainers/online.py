"""The online training session: boundaries, evaluations, checkpoints, clean stops, and resuming to the same bits.

A run is a sequence of intervals of env steps. At a checkpoint boundary every training env starts a new episode from
a seed that depends on (run seed, boundary index) only, so that what follows does not depend on whether the process
was restarted there. A run stopped *between* boundaries (SIGTERM, Ctrl-C) also stores the actions sent since the last
one; resuming steps fresh envs through them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agents.diagnostics import filter_image, first_filters, measure
from trainers.collector import FinishedEpisode, OnlineCollector
from trainers.episodes import EpisodeRecord
from trainers.progress import Progress, Status
from trainers.run_log import START
from trainers.run_state import RunState
from trainers.seeding import Seeds, global_rng_state, isolated_rngs, seed_global_rngs, set_global_rng_state
from trainers.speed import Counts, Stopwatch
from trainers.stopping import stop_on_signals
from trainers.tianshou_runs import Hooks, OffPolicyRun, OnPolicyRun

if TYPE_CHECKING:
    from agents.interface import Agent
    from envs.tianshou_vector import VectorEnv
    from memory.replay import Replay
    from trainers.checkpointing import CheckpointStore, Snapshot
    from trainers.config import TrainerConfig
    from trainers.run_log import RunLog


@dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation during training.

    Attributes:
        score: what "best" is judged by (mean raw return, or success rate where the env knows success).
        metrics: values to log, named ``eval/...``.
    """

    score: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """How a session ended."""

    status: Literal["finished", "interrupted"]
    state: RunState


class TrainingSession:
    """One process's share of a training run."""

    def __init__(
        self,
        config: TrainerConfig,
        agent: Agent,
        venv: VectorEnv,
        replay: Replay,
        *,
        seeds: Seeds,
        log: RunLog,
        checkpoints: CheckpointStore,
        run: RunIdentity,
        evaluate: Callable[[int], Evaluation] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Puts the parts together; nothing runs before :meth:`fit`.

        Args:
            config: length and rhythm.
            agent: learns.
            venv: training envs.
            replay: where transitions go (the rollout buffer of an on-policy agent).
            seeds: of the run.
            log: the run's files.
            checkpoints: where to save and what to resume from.
            run: identity written into episode records.
            evaluate: called at evaluation boundaries with the env steps done; runs in envs of its own.
            progress: display (default: standard error).
        """
        self.config = config
        self.agent = agent
        self.venv = venv
        self.replay = replay
        self.seeds = seeds
        self.log = log
        self.checkpoints = checkpoints
        self.run = run
        self.evaluate = evaluate
        self.progress = progress or Progress()
        self.state = RunState(next_point=config.point_period)
        self.collector = OnlineCollector(agent, venv, replay, on_step=self._on_step, on_episode=self._on_episode)
        self._stop = threading.Event()
        self._hooks = Hooks(self._stop.is_set, self._after_update)
        self._stopwatch = Stopwatch(self._counts())  # since the last log point
        self._interval_stopwatch = Stopwatch(self._counts())  # since the last boundary
        self._goal = 0

    def fit(self, restored: Snapshot | None = None) -> TrainingResult:
        """Trains to the configured length.

        Args:
            restored: the checkpoint to go on from; None starts at the beginning.

        Returns:
            ``finished``, or ``interrupted`` after SIGTERM or Ctrl-C (a checkpoint is then written first).
        """
        with self.progress, stop_on_signals(self._stop, self.progress.say):
            if restored is None:
                self.log.go_back(START)
                seed_global_rngs(self.seeds)
                self.collector.start_episodes(self._env_seeds())
            else:
                self._restore(restored)
            trainer = self._make_trainer()
            self._mark_time()
            while self.state.env_steps < self.config.total_env_steps:
                self._goal = self._next_boundary()
                trainer.run_to(self._goal)
                at_boundary = self.state.env_steps >= self._goal
                saved = at_boundary and self._at_boundary()
                if self._stop.is_set() and self.state.env_steps < self.config.total_env_steps:
                    if not saved:
                        self._save()
                    return TrainingResult("interrupted", self.state)
        return TrainingResult("finished", self.state)

    def _make_trainer(self) -> OffPolicyRun | OnPolicyRun:
        kind = OffPolicyRun if self.agent.kind == "off_policy" else OnPolicyRun
        return kind(self.agent, self.collector, self._hooks, env_step=self.state.env_steps)

    # Boundaries

    def _next_boundary(self) -> int:
        interval = self.config.interval_env_steps
        return min((self.state.env_steps // interval + 1) * interval, self.config.total_env_steps)

    def _is_due(self, period: int) -> bool:
        """Whether a multiple of this period was passed since the last boundary (a rollout may overshoot one)."""
        return bool(period) and self.state.env_steps // period > self.state.last_boundary // period

    def _at_boundary(self) -> bool:
        """Evaluates, logs and saves what is due; says whether a checkpoint was written."""
        speed = self._stopwatch.read(self._counts())
        last = self.state.env_steps >= self.config.total_env_steps
        metrics: dict[str, float] = {}
        wanted = self._is_due(self.config.evaluation_period) or (last and self.config.evaluate_at_end)
        if self.evaluate is not None and wanted:
            self._show("evaluating")
            evaluation = self.evaluate(self.state.env_steps)
            metrics = evaluation.metrics
            if self.state.score(evaluation.score):
                self.checkpoints.save_best(
                    env_steps=self.state.env_steps, weights=self.agent.weights(), counters={"score": evaluation.score}
                )
        self._write_point(metrics, speed)
        saves = last or self._is_due(self.config.checkpoint_every_env_steps)
        self.state.last_boundary = self.state.env_steps
        if saves:
            self.state.interval += 1
            self.collector.begin_interval(self._env_seeds())
            self._save()
        self._mark_time()
        return saves

    def _env_seeds(self) -> list[int]:
        return [self.seeds.integer("train_env", self.state.interval, index) for index in range(len(self.venv))]

    # Checkpoints

    def _save(self) -> None:
        self._show("saving")
        off_policy = self.agent.kind == "off_policy"
        replay_arrays, replay_counters = self.replay.state() if off_policy else ({}, {})
        rng_arrays, rng_counters = global_rng_state()
        arrays = {"sent_actions": self.collector.sent_actions()}
        arrays |= {f"replay/{name}": array for name, array in replay_arrays.items()}
        arrays |= {f"rng/{name}": array for name, array in rng_arrays.items()}
        self.checkpoints.save(
            index=max(self.checkpoints.indices(), default=-1) + 1,
            env_steps=self.state.env_steps,
            weights=self.agent.weights(),
            optimizer=self.agent.optimizer_state(),
            counters={
                "run": self.state.to_json(),
                "agent": self.agent.counters(),
                "replay": replay_counters,
                "rng": rng_counters,
                "log": self.log.position(),
            },
            arrays=arrays,
            replay_chunk=self.replay.new_data(self.checkpoints.replay_counts) if off_policy else None,
            replay_counts=self.replay.num_added if off_policy else None,
            replay_slots=self.replay.ring.slots if off_policy else None,
        )

    def _restore(self, snapshot: Snapshot) -> None:
        counters = snapshot.counters
        self.agent.load_weights(snapshot.weights)
        self.agent.load_training_state(snapshot.optimizer, counters["agent"])
        if self.agent.kind == "off_policy":
            state = (snapshot.arrays_below("replay/"), counters["replay"])
            self.replay.load(snapshot.replay_chunks, state)
        self.state = RunState.from_json(counters["run"])
        self.collector.start_episodes(self._env_seeds())
        self.collector.fast_forward(snapshot.arrays["sent_actions"])
        self.agent.set_env_steps(self.state.env_steps)
        self.log.go_back(counters["log"])
        set_global_rng_state(snapshot.arrays_below("rng/"), counters["rng"])
        self.progress.say(f"resumed at {self.state.env_steps:,} env steps, {self.state.updates:,} updates")

    # Hooks and logging

    def _on_step(self, env_steps: int) -> None:
        self.state.env_steps += env_steps
        if self.state.next_point <= self.state.env_steps < self._goal:
            self._write_point({}, self._stopwatch.read(self._counts()))
        self._show("training" if self.state.updates else "warm-up")

    def _after_update(self, gradient_steps: int) -> None:
        self.state.updates += gradient_steps

    def _on_episode(self, episode: FinishedEpisode) -> None:
        record = EpisodeRecord(
            run=self.run.name,
            seed=self.run.seed,
            checkpoint_step=None,
            protocol_id=self.run.protocol_id,
            protocol_hash=self.run.protocol_hash,
            env_id=self.run.env_id,
            task=self.run.tasks[episode.task_index],
            goal_index=episode.goal_index,
            raw_return=episode.raw_return,
            length=episode.length,
            success=episode.success,
            success_last=episode.success_last,
            first_success=episode.first_success,
            stop_reason=episode.stop,
        )
        self.log.episode(record.to_json())
        if episode.stop != "cut":
            self.state.count_episode(episode.raw_return, episode.length, episode.success)

    def _write_point(self, extra: Mapping[str, float], speed: Mapping[str, float]) -> None:
        state = self.state
        values: dict[str, float | int] = {"updates": state.updates, "episodes": state.episodes}
        values |= state.training_metrics()
        values |= {f"agent/{name}": value for name, value in self.agent.metrics().items()}
        if self._diagnostics_due():
            values |= self._diagnose()
        self.log.point(state.env_steps, {**values, **extra})
        state.next_point = self.config.next_point(state.env_steps)
        self.log.speed(state.env_steps, speed)
        self._stopwatch.mark(self._counts())

    def _diagnostics_due(self) -> bool:
        """Whether this is the last point, or the first at or after a multiple of the period.

        Told from the multiples of the log period alone, which a resumed run passes at the same env steps.
        """
        period, log_period = self.config.diagnostics_period, self.config.point_period
        if self.state.env_steps >= self.config.total_env_steps:
            return bool(period)
        before = self.state.next_point - log_period
        now = self.state.env_steps // log_period * log_period
        return bool(period) and now // period > before // period

    def _diagnose(self) -> dict[str, float]:
        """Measures a value-based agent, and draws its first filters; training goes on as if it had not been done."""
        env_steps = self.state.env_steps
        self._show("diagnostics")
        with isolated_rngs(self.seeds.integer("diagnostics", env_steps)):
            values = measure(self.agent, self.replay, self.seeds.generator("diagnostics", env_steps))
        if (filters := first_filters(self.agent)) is not None:
            self.log.image("diagnostics/first_filters", filter_image(filters), env_steps)
        return {f"diagnostics/{name}": value for name, value in values.items()}

    def _mark_time(self) -> None:
        self._stopwatch.mark(self._counts())
        self._interval_stopwatch.mark(self._counts())

    def _counts(self) -> Counts:
        return Counts(self.state.env_steps, self.state.updates, self.collector.env_seconds, self._hooks.learner_seconds)

    def _show(self, activity: str) -> None:
        if not self.progress.is_due(activity):
            return
        reading = self._interval_stopwatch.read(self._counts())
        returns = self.state.training_metrics().get("train/return_mean")
        self.progress.show(
            Status(
                env_steps=self.state.env_steps,
                total_env_steps=self.config.total_env_steps,
                updates=self.state.updates,
                steps_per_second=reading["env_steps_per_second"],
                env_share=reading["env_share"],
                learner_share=reading["learner_share"],
                last_score=self.state.last_score,
                best_score=self.state.best_score,
                train_return=returns,
                activity=activity,
            )
        )


@dataclass(frozen=True)
class RunIdentity:
    """What training episode records say about their run."""

    name: str
    seed: int
    env_id: str
    tasks: Sequence[str]
    protocol_id: str
    protocol_hash: str
