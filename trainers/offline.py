"""The offline training session: boundaries, evaluations, checkpoints, clean stops, and resuming to the same bits.

The counterpart of :mod:`trainers.online` for agents that learn from data that is already there. What is counted is
gradient steps; run state and checkpoints hold them where an online run's hold env steps. All that a later step depends
on is in a checkpoint: weights, optimizers, the stream of batches, the random generators of every process.

Under ``torchrun`` every process runs a session of its own on its rows of each batch. They take the same gradient steps,
stop at the same one, and only process 0 writes and evaluates while the others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainers.distributed import ALONE, World
from trainers.online import Evaluation, TrainingResult
from trainers.progress import OfflineStatus, Progress
from trainers.run_log import START
from trainers.run_state import RunState
from trainers.seeding import Seeds, global_rng_state, seed_global_rngs, set_global_rng_state
from trainers.speed import Mark, PhaseClock
from trainers.stopping import stop_on_signals
from trainers.tianshou_runs import Hooks, OfflineRun

if TYPE_CHECKING:
    from agents.interface import Agent
    from trainers.checkpointing import CheckpointStore, Snapshot
    from trainers.offline_config import OfflineTrainerConfig
    from trainers.offline_data import OfflineDataset
    from trainers.run_log import RunLog


class OfflineSession:
    """One process's share of an offline training run."""

    def __init__(
        self,
        config: OfflineTrainerConfig,
        agent: Agent,
        dataset: OfflineDataset,
        *,
        seeds: Seeds,
        checkpoints: CheckpointStore,
        log: RunLog | None = None,
        evaluate: Callable[[int], Evaluation] | None = None,
        progress: Progress | None = None,
        world: World = ALONE,
    ) -> None:
        """Puts the parts together; nothing runs before :meth:`fit`.

        Args:
            config: length and rhythm.
            agent: learns.
            dataset: what from.
            seeds: of the run.
            checkpoints: where to save and what to resume from.
            log: the run's files; needed in process 0, None in the others.
            evaluate: called at evaluation boundaries with the gradient steps done; in process 0 only.
            progress: display of process 0 (default: standard error).
            world: the processes of the run.
        """
        self.config = config
        self.agent = agent
        self.dataset = dataset
        self.seeds = seeds
        self.checkpoints = checkpoints
        self.log = log
        self.evaluate = evaluate
        self.progress = progress or Progress()
        self.world = world
        self.state = RunState(next_point=config.next_point(0))
        self.clock = PhaseClock()
        self._stop = threading.Event()
        self._hooks = Hooks(lambda: world.any(self._stop.is_set()), self._after_update)
        self._since_start = self._since_point = self._since_boundary = self.clock.mark(0)

    def fit(self, restored: Snapshot | None = None) -> TrainingResult:
        """Trains to the configured length.

        Args:
            restored: the checkpoint to go on from; None starts at the beginning.

        Returns:
            ``finished``, or ``interrupted`` after SIGTERM or Ctrl-C (a checkpoint is then written first).
        """
        with self.progress, stop_on_signals(self._stop, self._say), _timed(self.dataset.source, self.clock):
            if restored is None:
                self._begin()
            else:
                self._restore(restored)
            trainer = OfflineRun(self.agent, self.dataset, self._hooks, self.clock, gradient_step=self.state.env_steps)
            self._since_start = self._since_point = self._since_boundary = self.clock.mark(self.state.env_steps)
            while self.state.env_steps < self.config.total_gradient_steps:
                boundary = self.config.next_boundary(self.state.env_steps)
                goal = min(boundary, self.state.next_point)
                trainer.run_to(goal)
                saved = False
                if self.state.env_steps == boundary:
                    saved = self._at_boundary()
                elif self.state.env_steps == goal:
                    self._write_point({})
                if self.state.env_steps < self.config.total_gradient_steps and self._hooks.stop():
                    if not saved:
                        self._save()
                    return TrainingResult("interrupted", self.state)
        return TrainingResult("finished", self.state)

    # Boundaries

    def _at_boundary(self) -> bool:
        """Evaluates, logs and saves what is due; says whether a checkpoint was written."""
        steps, config = self.state.env_steps, self.config
        last = steps == config.total_gradient_steps
        metrics: dict[str, float] = {}
        is_due = bool(config.evaluation_period) and steps % config.evaluation_period == 0
        if self.evaluate is not None and (is_due or (last and config.evaluate_at_end)):
            metrics = self._evaluate()
        self.world.barrier()
        self._write_point(metrics)
        for name, picture in self.agent.pictures().items():
            if self.log is not None:
                self.log.image(f"agent/{name}", picture, steps)
        self.state.last_boundary = steps
        saves = last or steps % config.checkpoint_every_gradient_steps == 0
        if saves:
            self.state.interval += 1
            self._save()
        self._since_boundary = self.clock.mark(steps)
        return saves

    def _evaluate(self) -> dict[str, float]:
        assert self.evaluate is not None
        self._show("evaluating")
        with self.clock.during("evaluation"):
            evaluation = self.evaluate(self.state.env_steps)
        if self.state.score(evaluation.score):
            with self.clock.during("saving"):
                self.checkpoints.save_best(
                    env_steps=self.state.env_steps, weights=self.agent.weights(), counters={"score": evaluation.score}
                )
        return evaluation.metrics

    # Checkpoints

    def _begin(self) -> None:
        if self.log is not None:
            self.log.go_back(START)
        self._seed_process()
        if self.config.evaluate_at_start:
            metrics = {} if self.evaluate is None else self._evaluate()
            self.world.barrier()
            self._write_point(metrics)

    def _seed_process(self) -> None:
        """Seeds the global generators: process 0 as a run of one process, the others each in their own way."""
        rank = self.world.rank
        seed_global_rngs(self.seeds if rank == 0 else Seeds(self.seeds.integer("process", rank)))

    def _save(self) -> None:
        self._show("saving")
        with self.clock.during("saving"):
            optimizer, counters = self.agent.optimizer_state(), self.agent.counters()  # may gather from all processes
            arrays, data = self.dataset.state()
            rng_arrays, rng = global_rng_state()
            others = self.world.gather(rng_arrays["torch"])[1:]
            if self.log is not None:
                named = {f"data/{name}": array for name, array in arrays.items()}
                named |= {f"rng/{name}": array for name, array in rng_arrays.items()}
                named |= {f"process/{rank}": array for rank, array in enumerate(others, start=1)}
                self.checkpoints.save(
                    index=max(self.checkpoints.indices(), default=-1) + 1,
                    env_steps=self.state.env_steps,
                    weights=self.agent.weights(),
                    optimizer=optimizer,
                    counters={
                        "run": self.state.to_json(),
                        "agent": counters,
                        "data": data,
                        "rng": rng,
                        "log": self.log.position(),
                    },
                    arrays=named,
                )
            self.world.barrier()

    def _restore(self, snapshot: Snapshot) -> None:
        counters = snapshot.counters
        self.agent.load_weights(snapshot.weights)
        self.agent.load_training_state(snapshot.optimizer, counters["agent"])
        self.dataset.load(snapshot.arrays_below("data/"), counters["data"])
        self.state = RunState.from_json(counters["run"])
        self.agent.set_env_steps(self.state.env_steps)
        self._restore_generators(snapshot)
        if self.log is not None:
            self.log.go_back(counters["log"])
        self._say(f"resumed at {self.state.env_steps:,} gradient steps")

    def _restore_generators(self, snapshot: Snapshot) -> None:
        rank, arrays = self.world.rank, snapshot.arrays_below("rng/")
        if rank == 0:
            set_global_rng_state(arrays, snapshot.counters["rng"])
            return
        self._seed_process()
        if f"process/{rank}" in snapshot.arrays:
            own, rest = global_rng_state()
            set_global_rng_state({**own, "torch": snapshot.arrays[f"process/{rank}"]}, rest)

    # Hooks and logging

    def _after_update(self, gradient_steps: int) -> None:
        self.state.updates += gradient_steps
        self.state.env_steps = self.state.updates
        self.agent.set_env_steps(self.state.env_steps)
        self._show("training")

    def _write_point(self, extra: Mapping[str, float]) -> None:
        steps = self.state.env_steps
        self.state.next_point = self.config.next_point(steps)
        if self.log is not None:
            metrics = {f"agent/{name}": value for name, value in self.agent.metrics().items()}
            self.log.point(steps, {**metrics, **extra})
            self.log.speed(steps, self._speed(self._since_point))
        self._since_point = self.clock.mark(steps)

    def _speed(self, since: Mark) -> dict[str, float]:
        reading = self.clock.read(since, self.state.env_steps)
        items = reading["gradient_steps_per_second"] * self.dataset.items_per_step
        return {**reading, f"{self.dataset.item.replace(' ', '_')}_per_second": items}

    def _say(self, message: str) -> None:
        if self.world.is_main:
            self.progress.say(message)

    def _show(self, activity: str) -> None:
        if not self.world.is_main or not self.progress.is_due(activity):
            return
        steps, state = self.state.env_steps, self.state
        speed = self.clock.read(self._since_boundary, steps)["gradient_steps_per_second"]
        shares = self.clock.read(self._since_start, steps)
        self.progress.show(
            OfflineStatus(
                gradient_steps=steps,
                total_gradient_steps=self.config.total_gradient_steps,
                steps_per_second=speed,
                items_per_second=speed * self.dataset.items_per_step,
                item=self.dataset.item,
                sampling_share=shares["sampling_share"],
                learner_share=shares["learner_share"],
                evaluation_share=shares["evaluation_share"],
                last_score=state.last_score,
                best_score=state.best_score,
                activity=activity,
            )
        )


@contextmanager
def _timed(source: Any, clock: PhaseClock) -> Iterator[None]:
    """Counts the time spent in ``source.sample``; shadows the method, for a replay must stay the object it is."""
    sample = source.sample

    def timed_sample(batch_size: int) -> Any:
        with clock.during("sampling"):
            return sample(batch_size)

    vars(source)["sample"] = timed_sample
    try:
        yield
    finally:
        del vars(source)["sample"]
