"""The replay of an online run's newest checkpoint, as data for another agent to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.refusal import ConfigError
from sextant.run_dirs import run_name

if TYPE_CHECKING:
    import numpy as np

    from memory.config import ReplayConfig
    from memory.replay import Replay
    from sextant.learner import Spaces
    from trainers.checkpointing import CheckpointStore, Snapshot


def load_replay_of(
    run: Path,
    env_config: Any,
    spaces: Spaces,
    rng: np.random.Generator,
    started_on: Mapping[str, str] | None,
    say: Callable[[str], None],
) -> tuple[Replay, dict[str, str]]:
    """Loads the replay that a run's newest checkpoint holds, without priorities.

    Args:
        run: directory of an off-policy run.
        env_config: of the env that the learning agent will act in.
        spaces: of that env.
        rng: draws the samples; loading sets it to where the run's own generator was.
        started_on: what an earlier call gave, to load that same checkpoint again; None for the newest.
        say: told the size, and of damaged checkpoints.
    Returns:
        the replay, and the sha256 of the checkpoint's manifest under its name, which seals every byte of the replay.
    Raises:
        ConfigError: if the run keeps no replay, has no intact checkpoint, or its env has other spaces.
    """
    from sextant.config import load_run_config
    from sextant.env_spaces import spaces_of_env
    from trainers.checkpointing import CheckpointStore

    source = load_run_config(run)
    replay_config = getattr(source.agent, "replay", None)
    if replay_config is None:
        raise ConfigError(f"trainer.data: {run} is a run of agent={source.agent.name}, which keeps no replay")
    if source.env != env_config and spaces_of_env(source.env) != spaces:
        theirs = spaces_of_env(source.env)
        raise ConfigError(
            f"trainer.data: {run} was played in {source.env.env_id} with observations {theirs[0]} and actions "
            f"{theirs[1]}, but {env_config.env_id} has observations {spaces[0]} and actions {spaces[1]}"
        )
    store = CheckpointStore(run / "checkpoints", warn=say, read_only=True)
    snapshot = _snapshot(run, store, started_on)
    uniform = replay_config.model_copy(update={"prioritised": False})
    replay = restore_replay(snapshot, uniform, spaces, rng=rng, say=say)
    say(f"data: {len(replay):,} transitions of {run_name(run)} at {snapshot.env_steps:,} env steps")
    return replay, {_name(run, snapshot): _seal(snapshot)}


def restore_replay(
    snapshot: Snapshot, config: ReplayConfig, spaces: Spaces, *, rng: np.random.Generator, say: Callable[[str], None]
) -> Replay:
    """Builds a replay and fills it with what a checkpoint holds.

    Args:
        snapshot: of an off-policy run.
        config: of the run's replay; it may ask for no priorities where the checkpoint holds some.
        spaces: of the run's env.
        rng: draws the samples; loading sets it to where the run's own generator was.
        say: told the size.
    """
    counters = snapshot.counters["replay"]
    layout = {**counters["layout"], "prioritised": config.prioritised}
    replay: Replay = config.build(*spaces, num_envs=layout["num_envs"], rng=rng, log=say)
    replay.load(snapshot.replay_chunks, (snapshot.arrays_below("replay/"), {**counters, "layout": layout}))
    return replay


def _snapshot(run: Path, store: CheckpointStore, started_on: Mapping[str, str] | None) -> Snapshot:
    if started_on is not None:
        index = int(next(iter(started_on)).rpartition("/")[2])
        if index in store.indices():
            return store.load(index)
        raise ConfigError(
            f"trainer.data: {run} no longer has checkpoint {index:06d}, which this run was started on; "
            "keep a copy of a run that others learn from, or do not train it further"
        )
    newest = store.load_latest()
    if newest is None:
        raise ConfigError(f"trainer.data: {run} has no intact checkpoint to take a replay from")
    return newest


def _name(run: Path, snapshot: Snapshot) -> str:
    return f"{run_name(run)}/checkpoints/{snapshot.index:06d}"


def _seal(snapshot: Snapshot) -> str:
    return (snapshot.path / "manifest.sha256").read_text(encoding="utf-8").split()[0]
