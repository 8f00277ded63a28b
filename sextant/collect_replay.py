"""``sextant collect policy=replay``: the replay of a run's newest checkpoint as episodes of mixed quality."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sextant.collect_plan import make_facts
from sextant.refusal import ConfigError
from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from rich.console import Console

    from memory.replay import Replay
    from sextant.collect_config import CollectConfig
    from sextant.config import TrainConfig
    from trainers.checkpointing import Snapshot


def collect_replay(config: CollectConfig, console: Console) -> None:
    """Stores every episode of the replay whose start it still holds.

    The rewards are the learner's: clipped where it learned from clipped ones, which the facts then say.

    Args:
        config: with ``policy=replay`` and a run.
        console: for what is said.

    Raises:
        ConfigError: if the run keeps no replay, has no intact checkpoint, or played several tasks (a replay does not
            tell which); or if the folder holds other data.
    """
    from memory.replay_episodes import replay_episodes
    from memory.trajectories import Episode
    from memory.trajectory_store import TrajectoryWriter, consolidate, episode_numbers
    from sextant.collect import check_facts
    from sextant.config import load_run_config
    from sextant.data import say
    from sextant.evaluate import intact_snapshot
    from sextant.provenance import git_state

    assert config.run is not None  # the config refuses it
    train_config = load_run_config(config.run)
    env: Any = train_config.env
    protocol = env.training_protocol()
    task = _only_task(train_config, protocol)
    snapshot = intact_snapshot(config.run, "last", console)
    loaded, action_space = _load(train_config, snapshot, lambda line: say(console, line))
    facts = make_facts(env, protocol, loaded.obs_shape, loaded.obs_dtype, action_space)
    name = run_name(config.run)
    extra = {"policy": "replay", "run": name, "env_steps": snapshot.env_steps}
    facts = replace(
        facts, task=task, seed=train_config.seed, extra=extra, code_version=str(git_state()["commit"] or "")
    )
    check_facts(config.out, facts, float16=config.float16)
    present, num_steps = set(episode_numbers(config.out, task)), 0
    with TrajectoryWriter(config.out, facts, float16=config.float16) as writer:
        for number, found in enumerate(replay_episodes(loaded, protocol.max_episode_steps)):
            num_steps += len(found.reward)
            if number not in present:
                writer.next_episode = number
                writer.add(
                    Episode(
                        **{**found.__dict__, "obs": _storable(found.obs)},
                        success=None,
                        task=task,
                        seed=train_config.seed,
                        source=f"replay:{name}",
                    )
                )
    if not num_steps:
        raise ConfigError(f"the replay of {config.run} holds no episode from its start on")
    consolidate(config.out, task)
    if left_out := len(loaded) - num_steps:
        say(
            console, f"{left_out:,} of {len(loaded):,} transitions are left out: their episodes' starts are overwritten"
        )


def _only_task(config: TrainConfig, protocol: Any) -> str:
    """Gives the one task of a run.

    Raises:
        ConfigError: if it has several.
    """
    tasks = list(dict.fromkeys(spec.task for spec in protocol.episodes(0)))
    if len(tasks) > 1:
        raise ConfigError(
            f"policy=replay: {config.env.env_id} has {len(tasks)} tasks, and a replay does not tell which"
        )
    return str(tasks[0])


def _load(config: TrainConfig, snapshot: Snapshot, say: Any) -> tuple[Replay, Any]:
    """Gives the replay that a checkpoint holds, and the action space.

    Raises:
        ConfigError: if it holds none.
    """
    import numpy as np

    from sextant.env_spaces import spaces_of_env
    from sextant.replay_source import restore_replay

    replay_config = getattr(config.agent, "replay", None)
    if replay_config is None or "layout" not in snapshot.counters.get("replay", {}):
        raise ConfigError(f"policy=replay: agent={config.agent.name} keeps no replay in its checkpoints")
    env: Any = config.env
    spaces = spaces_of_env(env, env.training_protocol())
    replay = restore_replay(snapshot, replay_config, spaces, rng=np.random.default_rng(0), say=say)
    return replay, spaces[1]


def _storable(obs: Any) -> Any:
    """Gives pixels as they are, anything else as float32."""
    import numpy as np

    return obs if obs.dtype == np.uint8 else obs.astype(np.float32)
