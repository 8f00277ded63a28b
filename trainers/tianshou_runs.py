"""Tianshou's trainers with our collector and data: counters, warm-up, clean stops, and its known defects kept out.

Only private seams of Tianshou's trainers that ``tests/trainers/test_tianshou_runs.py`` guards are overridden.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.data.collector import CollectStatsBase
from tianshou.trainer import (
    OfflineTrainer,
    OfflineTrainerParams,
    OffPolicyTrainer,
    OffPolicyTrainerParams,
    OnPolicyTrainer,
    OnPolicyTrainerParams,
)
from tianshou.utils.torch_utils import policy_within_training_step

from trainers.config import env_steps_per_training_step

if TYPE_CHECKING:
    from agents.interface import Agent
    from trainers.collector import OnlineCollector
    from trainers.offline_data import OfflineDataset
    from trainers.speed import PhaseClock

WARM_UP_VECTOR_STEPS = 32
"""Vector steps collected at once, at most, while no updates are made (fewer calls; no result depends on it)."""


@dataclass
class Hooks:
    """What the trainer tells the session.

    Attributes:
        stop: asked after every training step; True ends the run there.
        after_update: called after each update with the number of gradient steps it made.
        learner_seconds: wall time spent in updates (unit: seconds), summed by the trainer.
    """

    stop: Callable[[], bool]
    after_update: Callable[[int], None]
    learner_seconds: float = 0.0


class OffPolicyRun(OffPolicyTrainer):
    """``OffPolicyTrainer`` with a warm-up of random actions and a replay ratio that may be below one per step."""

    def __init__(self, agent: Agent, collector: OnlineCollector, hooks: Hooks, *, env_step: int = 0) -> None:
        """Wires Tianshou's trainer.

        Args:
            agent: its config gives batch size, replay ratio and warm-up.
            collector: ours; its buffer is the replay.
            hooks: called after each step and update.
            env_step: env steps done so far (when a run is resumed).
        Raises:
            ValueError: if no whole number of gradient steps fits the replay ratio within 64 vector steps.
        """
        learner: Any = agent  # a learning agent has a config
        config = learner.config
        self.hooks = hooks
        self._agent = agent
        self._learning_starts = int(config.learning_starts)
        self._warming_up = False
        self._goal = env_step
        self._step_size = env_steps_per_training_step(config.replay_ratio, len(collector.venv))
        super().__init__(
            learner.algorithm,
            OffPolicyTrainerParams(
                training_collector=collector,
                collection_step_num_env_steps=self._step_size,
                update_step_num_gradient_steps_per_sample=config.replay_ratio,
                batch_size=config.batch_size,
                training_fn=lambda epoch, env_step: agent.set_env_steps(env_step),
                show_progress=False,
                verbose=False,
            ),
        )
        self._env_step = env_step

    def run_to(self, env_steps: int) -> None:
        """Trains until this many env steps are done, or until the session asks to stop."""
        _run_epoch_to(self, env_steps)

    def _training_step(self) -> Any:
        collector: Any = self.params.training_collector
        collector.random_actions = self._warming_up = self._env_step < self._learning_starts
        self.params.collection_step_num_env_steps = self._step_size
        if self._warming_up:
            left = min(self._learning_starts, self._goal) - self._env_step
            most = WARM_UP_VECTOR_STEPS * len(collector.venv)
            whole_steps = max(1, min(most, left) // self._step_size)
            self.params.collection_step_num_env_steps = whole_steps * self._step_size
        return _finish(self, super()._training_step())

    def _update_step(self, collect_stats: CollectStatsBase) -> TrainingStats:
        """Makes the gradient steps that the replay ratio asks for; none for the steps of the warm-up."""
        stats = TrainingStats()
        if self._warming_up:
            return stats
        started = time.perf_counter()
        count = round(self.params.update_step_num_gradient_steps_per_sample * collect_stats.n_collected_steps)
        stats = self._agent.update(self.params.training_collector.buffer, self.params.batch_size, count)
        self.hooks.after_update(count)
        self.hooks.learner_seconds += time.perf_counter() - started
        return stats


class OnPolicyRun(OnPolicyTrainer):
    """``OnPolicyTrainer`` whose update counts in gradient steps."""

    def __init__(self, agent: Agent, collector: OnlineCollector, hooks: Hooks, *, env_step: int = 0) -> None:
        """Wires Tianshou's trainer; arguments as :class:`OffPolicyRun`."""
        learner: Any = agent  # a learning agent has a config
        config = learner.config
        self.hooks = hooks
        super().__init__(
            learner.algorithm,
            OnPolicyTrainerParams(
                training_collector=collector,
                collection_step_num_env_steps=config.rollout_steps * len(collector.venv),
                batch_size=config.minibatch_size,
                update_step_num_repetitions=config.num_epochs,
                training_fn=lambda epoch, env_step: agent.set_env_steps(env_step),
                show_progress=False,
                verbose=False,
            ),
        )
        self._env_step = env_step

    def run_to(self, env_steps: int) -> None:
        """Trains until at least this many env steps are done, or until the session asks to stop."""
        _run_epoch_to(self, env_steps)

    def _training_step(self) -> Any:
        return _finish(self, super()._training_step())

    def _update_step(self, collect_stats: CollectStatsBase | None = None) -> TrainingStats:
        started = time.perf_counter()
        stats = super()._update_step(collect_stats)
        self.hooks.learner_seconds += time.perf_counter() - started
        return stats

    def _update_moving_avg_stats_and_log_update_data(self, update_stat: TrainingStats) -> None:
        self.hooks.after_update(int(getattr(update_stat, "gradient_steps", 1)))


class OfflineRun(OfflineTrainer):
    """``OfflineTrainer`` that stops at any gradient step and tells the session of each.

    Where an agent may take several gradient steps in one call, calls end at multiples of ``dataset.joint_steps``: which
    steps share one does not depend on where a run was stopped.
    """

    def __init__(
        self, agent: Agent, dataset: OfflineDataset, hooks: Hooks, clock: PhaseClock, *, gradient_step: int = 0
    ) -> None:
        """Wires Tianshou's trainer.

        Args:
            agent: learns.
            dataset: what its batches come from.
            hooks: called after each call of the agent.
            clock: told the time spent in those calls.
            gradient_step: gradient steps done so far (when a run is resumed).
        """
        self.hooks = hooks
        self._agent, self._clock = agent, clock
        self._joint_steps = dataset.joint_steps
        self._goal = gradient_step
        algorithm: Any = agent.algorithm  # CQL's has what the trainer asks of an OfflineAlgorithm, but is none
        super().__init__(
            algorithm,
            OfflineTrainerParams(
                buffer=dataset.source, batch_size=dataset.batch_size, show_progress=False, verbose=False
            ),
        )
        self._current_update_step = gradient_step

    def run_to(self, gradient_steps: int) -> None:
        """Trains until this many gradient steps are done, or until the session asks to stop."""
        self._goal = gradient_steps
        self._epoch += 1
        done = False
        while self._current_update_step < gradient_steps and not done:
            self._env_step += self._training_step().get_env_step_advancement()
            done = self.hooks.stop()

    def _training_step(self) -> Any:
        before = self._current_update_step
        count = min(self._goal, (before // self._joint_steps + 1) * self._joint_steps) - before
        batch_size = self.params.batch_size
        with self._clock.during("learner"), policy_within_training_step(self.algorithm.policy):
            stats = self._agent.update(self._buffer, batch_size, count)
        self._current_update_step += count
        self.hooks.after_update(count)
        return self._TrainingStepResult(training_stats=stats, env_step_advancement=count * batch_size)


def _run_epoch_to(trainer: Any, env_steps: int) -> None:
    """Runs Tianshou's training steps up to ``env_steps``.

    As its ``execute_epoch``, which at every step also turns the statistics into dictionaries for a progress bar and a
    logger; the session has its own.
    """
    trainer._goal = env_steps
    trainer._epoch += 1
    done = False
    while trainer._env_step < env_steps and not done:
        trainer._current_update_step += 1
        result = trainer._training_step()
        trainer._env_step += result.get_env_step_advancement()
        done = result.is_training_done()


def _finish(trainer: Any, result: Any) -> Any:
    if trainer.hooks.stop():
        result._is_training_done = True
    return result
