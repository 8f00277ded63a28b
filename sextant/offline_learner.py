"""What an offline run learns from, and the agent that learns from it.

What was learned from is kept by its digests in ``provenance.json``, so that a run is never resumed on other data, and
for sequence models as a summary in ``data.json``, from which their agent is built again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.data_summary import DataSummary
from sextant.base_run import adapted_summary, base_record
from sextant.env_spaces import spaces_of_env
from sextant.learner import build_agent, fit_to_length
from sextant.offline_data import open_data
from sextant.provenance import read_starts
from sextant.refusal import ConfigError
from trainers.offline_config import OfflineTrainerConfig

if TYPE_CHECKING:
    from agents.interface import Agent
    from memory.trajectory_data import TrajectoryData
    from sextant.config import TrainConfig
    from trainers.distributed import World
    from trainers.offline import OfflineSession
    from trainers.seeding import Seeds

SUMMARY_FILE = "data.json"


class OfflineParts:
    """The data of an offline run, and the agent that goes with it."""

    def __init__(self, config: TrainConfig, run_dir: Path, world: World, say: Callable[[str], None]) -> None:
        """Opens the data.

        Args:
            config: the run's config.
            run_dir: of the run, from which one that is resumed tells what it was started on.
            world: the processes of the run; each takes its rows of every batch.
            say: told what was opened.
        Raises:
            ConfigError: if there is no such data, it is damaged, of a kind this agent cannot learn from, does not fit
                the env, or is not what the run was started on.
        """
        from trainers.seeding import Seeds

        assert isinstance(config.trainer, OfflineTrainerConfig)
        self.config, self.trainer, self.run_dir, self.world = config, config.trainer, run_dir, world
        self.spaces = spaces_of_env(config.env)
        started_on = started_data(run_dir)
        seeds = Seeds(config.seed)
        try:
            self.opened = open_data(config, self.spaces, seeds, started_on, world, say)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"trainer.data={list(self.trainer.data)}: {error}") from error
        if started_on is not None and started_on != self.opened.digests:
            raise ConfigError(_changed_message(started_on, self.opened.digests))
        trajectories = self.opened.trajectories
        self.summary = None if trajectories is None else adapted_summary(config, run_dir, trajectories.summary())

    def throwaway_update(self, config: TrainConfig) -> Callable[[], None]:
        """Gives a gradient step of a copy of the learner on batches of the data, whose stream then starts anew."""
        from trainers.seeding import Seeds
        from trainers.throwaway import throwaway_offline_update

        agent = build_agent(config, self.spaces, Seeds(config.seed), data=self.summary)
        return throwaway_offline_update(agent, self.opened.dataset)

    def build(self, config: TrainConfig, seeds: Seeds, say: Callable[[str], None]) -> Agent:
        """Builds the agent. Raises ValueError where it does not fit the env."""
        from trainers.seeding import seed_global_rngs

        seed_global_rngs(seeds)
        agent = build_agent(config, self.spaces, seeds, data=self.summary)
        fit_to_length(config, agent, seeds, self.trainer.total_gradient_steps)
        if num_steps := getattr(config.agent, "prompt_steps", 0):
            _show_prompts(agent, self.opened.trajectories, num_steps, seeds)
        return agent

    def restrict_actions(self, agent: Any) -> None:
        """Lets a sequence model have a game's own actions only, where the env tells which of all actions these are.

        Args:
            agent: with the weights it starts from; its table, part of them, is changed.
        """
        env: Any = self.config.env
        if self.summary is None or not hasattr(env, "action_sets"):
            return
        restricts = agent.config.acting.restrict_actions
        for task, actions in env.action_sets().items():
            if task in self.summary.tasks:
                agent.restrict_actions(task, actions if restricts else range(agent.action_space.n))

    def record(self) -> dict[str, Any]:
        """Writes the summary, where there is one; gives what ``provenance.json`` is to say: the digests of the data."""
        from trainers.run_log import write_atomically

        if self.summary is not None and not (self.run_dir / SUMMARY_FILE).exists():
            write_atomically(self.run_dir / SUMMARY_FILE, json.dumps(self.summary.to_json(), indent=1) + "\n")
        return {"data": self.opened.digests, "processes": self.world.size, **base_record(self.config)}

    def session(self, config: TrainConfig, agent: Agent, **parts: Any) -> OfflineSession:
        """Gives the session that trains; ``parts`` as it takes them."""
        from trainers.offline import OfflineSession

        parts.pop("run")  # there are no training episodes to record
        return OfflineSession(self.trainer, agent, self.opened.dataset, world=self.world, **parts)

    def close(self) -> None:
        """Does nothing: files are unmapped when nothing refers to them."""


def load_data_summary(run_dir: Path) -> DataSummary:
    """Reads what a run's agent has to know of the data it was trained on.

    Raises:
        ConfigError: if the run has no such file, or it cannot be read.
    """
    path = run_dir / SUMMARY_FILE
    try:
        return DataSummary.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: the agent of this run cannot be built without it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def started_data(run_dir: Path) -> dict[str, str] | None:
    """Gives the digests of the data that a run was started on; None for a run that has not started yet.

    Raises:
        RunError: if its provenance cannot be read.
    """
    starts = read_starts(run_dir)
    return dict(starts[0]["data"]) if starts and "data" in starts[0] else None


def _show_prompts(agent: Any, data: TrajectoryData | None, num_steps: int, seeds: Seeds) -> None:
    """Gives the agent a demonstration of every task, to keep beside its weights."""
    from memory.trajectory_samplers import WindowSampler

    assert data is not None
    sampler = WindowSampler(
        data,
        context_length=1,
        batch_size=8 * len(data.tasks),
        rng=seeds.generator("prompts"),
        balance="tasks",
        num_prompt_steps=num_steps,
    )
    missing = set(range(len(data.tasks)))
    while missing:
        batch, _ = sampler.sample(sampler.batch_size)
        agent.take_prompts(batch)
        missing -= set(batch.task[:, 0].tolist())


def _changed_message(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    return (
        f"the data is not what this run was started on: {', '.join(names[:5])} "
        f"{'differs' if len(names) == 1 else 'differ'}; resuming needs the same data"
    )
