"""The data of an offline run: opened, and refused where agent or env cannot use it.

Sequence models learn from trajectory files. Agents on action values learn from single transitions: from the replay in a
run's newest checkpoint, or from trajectory files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.learner import learns_from_segments
from sextant.refusal import ConfigError, refuse_missing

if TYPE_CHECKING:
    import gymnasium

    from memory.trajectory_data import TrajectoryData
    from memory.trajectory_reading import TrajectoryFile
    from sextant.config import TrainConfig
    from sextant.learner import Spaces
    from trainers.distributed import World
    from trainers.offline_data import OfflineDataset
    from trainers.seeding import Seeds


@dataclass(frozen=True)
class OpenedData:
    """Data that was opened and found to fit.

    Attributes:
        dataset: the stream of batches.
        digests: sha256 of each file or checkpoint, by name.
        trajectories: behind the segments of a sequence model, else None.
    """

    dataset: OfflineDataset
    digests: dict[str, str]
    trajectories: TrajectoryData | None = None


def open_data(
    config: TrainConfig,
    spaces: Spaces,
    seeds: Seeds,
    started_on: Mapping[str, str] | None,
    world: World,
    say: Callable[[str], None],
) -> OpenedData:
    """Opens what ``trainer.data`` names.

    Args:
        config: of an offline run.
        spaces: of the env its agent will act in.
        seeds: of the run.
        started_on: digests of the data that the run was started on, if it is resumed.
        world: the processes of the run; each takes its rows of every batch.
        say: told what was opened.
    Raises:
        ConfigError: if something does not exist, is of a kind this agent cannot learn from, or does not fit the env.
        ValueError: if it is damaged, or not as the sampler needs it.
    """
    trainer: Any = config.trainer
    agent = config.agent
    paths = [Path(path) for path in trainer.data]
    refuse_missing("trainer.data", paths)
    runs = [path for path in paths if (path / "config.yaml").exists()]
    if learns_from_segments(config):
        if runs:
            raise ConfigError(
                f"trainer.data: {runs[0]} is a run directory, but agent={agent.name} learns from trajectories; "
                f"make them with `sextant collect policy=replay run={runs[0]} out=FOLDER`"
            )
        return _open_segments(config, paths, spaces, seeds, world, say)
    if world.size > 1:
        raise ConfigError(f"agent={agent.name} is trained in one process, but torchrun started {world.size}")
    if not runs:
        return _open_transitions(config, paths, spaces, seeds, say)
    if len(paths) > 1:
        raise ConfigError(
            f"trainer.data={list(trainer.data)}: a replay is read from one run directory alone; to put several "
            "together, make trajectories of each with `sextant collect policy=replay run=RUN out=FOLDER`"
        )
    return _open_replay(config, runs[0], spaces, seeds, started_on, say)


def _open_segments(
    config: TrainConfig, paths: list[Path], spaces: Spaces, seeds: Seeds, world: World, say: Callable[[str], None]
) -> OpenedData:
    from memory.trajectory_samplers import StreamSampler, WindowSampler
    from trainers.offline_data import segments_of

    agent: Any = config.agent
    data = _trajectories(config, paths, spaces, say)
    shared: dict[str, Any] = {
        "context_length": agent.context_length,
        "batch_size": agent.batch_size,
        "rng": seeds.generator("data"),
        "balance": agent.balance,
    }
    sampler: WindowSampler | StreamSampler
    if agent.streams:
        sampler = StreamSampler(data, num_segments=agent.num_segments, random_offset=agent.random_offset, **shared)
    else:
        sampler = WindowSampler(data, num_prompt_steps=agent.prompt_steps, **shared)
    return OpenedData(segments_of(sampler.rows(world.rank, world.size)), dict(data.summary().digests), data)


def _open_transitions(
    config: TrainConfig, paths: list[Path], spaces: Spaces, seeds: Seeds, say: Callable[[str], None]
) -> OpenedData:
    from trainers.offline_data import replay_of_trajectories, transitions_of

    agent: Any = config.agent
    data = _trajectories(config, paths, spaces, say)
    rng = seeds.generator("data")
    replay = replay_of_trajectories(data, spaces, rng, say)
    return OpenedData(transitions_of(replay, rng, agent.batch_size), dict(data.summary().digests))


def _trajectories(config: TrainConfig, paths: list[Path], spaces: Spaces, say: Callable[[str], None]) -> TrajectoryData:
    """Opens trajectory files and checks that they fit the env."""
    from memory.trajectory_data import TrajectoryData
    from memory.trajectory_reading import read_directory

    trainer: Any = config.trainer
    files = [file for path in paths for file in read_directory(path, verify=trainer.verify_data)]
    for file in files:
        _check_file(file, spaces, config.env)
    data = TrajectoryData(
        files,
        clip_reward=getattr(config.agent, "reward_clip", False),
        tasks=trainer.tasks,
        episodes_per_task=trainer.episodes_per_task,
        top_fraction=trainer.top_fraction,
    )
    say(f"data: {data.num_episodes:,} episodes, {data.num_steps:,} env steps of {len(data.tasks)} tasks")
    unseen = set(getattr(config.env.evaluation_protocol(), "tasks", None) or []) - set(data.tasks)
    if unseen:
        say(f"no data of {', '.join(sorted(unseen))}: evaluated all the same")
    return data


def _open_replay(
    config: TrainConfig,
    run: Path,
    spaces: Spaces,
    seeds: Seeds,
    started_on: Mapping[str, str] | None,
    say: Callable[[str], None],
) -> OpenedData:
    from sextant.replay_source import load_replay_of
    from trainers.offline_data import transitions_of

    trainer: Any = config.trainer
    agent: Any = config.agent
    if trainer.tasks is not None or trainer.episodes_per_task is not None or trainer.top_fraction < 1:
        raise ConfigError(
            "trainer.tasks, trainer.episodes_per_task and trainer.top_fraction choose trajectories; "
            f"trainer.data={run} is a run directory, whose replay is taken as it is"
        )
    rng = seeds.generator("data")
    replay, digests = load_replay_of(run, config.env, spaces, rng, started_on, say)
    rng.bit_generator.state = seeds.generator("data").bit_generator.state  # loading set the collecting run's
    return OpenedData(transitions_of(replay, rng, agent.batch_size), digests)


def _check_file(file: TrajectoryFile, spaces: Spaces, env: Any) -> None:
    """Raises ConfigError where what an agent sees or does in a trajectory file is not what it does in the env."""
    facts = file.facts
    seen = f"observations {'x'.join(map(str, facts.obs_shape))}"
    done = f"{facts.num_actions} actions" if facts.action_size is None else f"actions of {facts.action_size} numbers"
    wanted = tuple(spaces[0].shape or ())
    fits = tuple(facts.obs_shape) == wanted and (facts.num_actions, facts.action_size) == _action_sizes(spaces[1])
    if not fits:
        discrete, size = _action_sizes(spaces[1])
        own = f"{discrete} actions" if size is None else f"actions of {size} numbers"
        raise ConfigError(
            f"trainer.data: {file.path} ({facts.env_id}) has {seen} and {done}, but {env.env_id} has observations "
            f"{'x'.join(map(str, wanted))} and {own}"
        )

    shows_goal = getattr(env.evaluation_protocol(), "goal_visible", True)
    if facts.goal_visible != shows_goal:
        raise ConfigError(
            f"trainer.data: {file.path} {'shows' if facts.goal_visible else 'hides'} the goal in its observations, but "
            f"{env.env_id} {'shows' if shows_goal else 'hides'} it: "
            f"set env.goal_visible={str(facts.goal_visible).lower()}"
        )


def _action_sizes(space: gymnasium.Space[Any]) -> tuple[int | None, int | None]:
    from gymnasium.spaces import Discrete

    if isinstance(space, Discrete):
        return int(space.n), None
    assert space.shape is not None
    return None, int(space.shape[0])
