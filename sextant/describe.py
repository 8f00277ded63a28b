"""``sextant env list`` and ``sextant env describe``: what there is to act in, and the exact rules of one env."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from envs import GamesConfig
from envs.atari.games import game_names
from envs.atari.presets import ATARI_PRESETS
from envs.classic.config import OURS, USUAL
from envs.memory_tasks.config import TASKS as MEMORY_TASKS
from envs.metaworld.tasks import ALL_TASKS, BENCHMARKS
from envs.minatar.config import GAMES as MINATAR_GAMES
from sextant.compatibility import contradictions

if TYPE_CHECKING:
    from sextant.config import TrainConfig

WIDTH = 100


def env_list_text() -> str:
    """Gives all games, tasks, benchmarks and protocols by name, and the keys that choose them."""
    games, tasks = game_names(), ALL_TASKS
    return "\n\n".join(
        [
            _section(f"Atari, {len(games)} games: env=atari env.game=NAME", games),
            _section("Atari protocols: env.protocol=NAME", ATARI_PRESETS),
            _section(f"Meta-World, {len(tasks)} tasks: env=metaworld env.task=NAME", tasks),
            _section("Meta-World benchmarks: env.benchmark=NAME", ["single", "MT1", "ML1", *BENCHMARKS]),
            _section(f"MinAtar, {len(MINATAR_GAMES)} games: env=minatar env.game=NAME", MINATAR_GAMES),
            _section(
                "Several games at once, to evaluate what was learned offline: env=games env.games=[A,B,...]",
                ["env.suite=atari", "env.suite=minatar"],
            ),
            _section(f"Memory tasks, {len(MEMORY_TASKS)}: env=memory_tasks env.task=NAME", MEMORY_TASKS),
            _section("Classic: env=classic env.id=NAME (or any registered gymnasium id)", [*USUAL, *OURS]),
        ]
    )


def env_text(config: TrainConfig) -> str:
    """Gives the resolved protocols, spaces and replay size of a config's env, as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(env_description(config))).rstrip()


def env_description(config: TrainConfig) -> dict[str, Any]:
    """Gives everything that is fixed about an env once it is built: rules, spaces, bytes of a fitting agent's replay.

    Args:
        config: a training config; one env of it is built and closed. Its agent need not be able to play in it: then
            there is no replay.
    """
    env_config: Any = config.env  # a union whose members each take their own protocol class
    env = env_config.make_single_env(env_config.training_protocol())
    observation_space, action_space = env.observation_space, env.action_space
    env.close()
    description = config.env.describe()
    description["spaces"] = {"observation": str(observation_space), "action": str(action_space)}
    if (
        config.agent.kind == "off_policy"
        and not isinstance(config.env, GamesConfig)
        and not contradictions(config.agent, config.env, config.trainer)
        and observation_space.shape is not None
        and observation_space.dtype is not None
    ):
        predicted = config.agent.replay.predicted_bytes(
            observation_space.shape,
            observation_space.dtype.itemsize,
            math.prod(action_space.shape or (1,)) * (action_space.dtype.itemsize if action_space.dtype else 8),
            config.env.num_envs,
        )
        capacity = config.agent.replay.capacity
        description["replay"] = {
            "agent": config.agent.name,
            "capacity_transitions": capacity,
            "predicted_bytes": predicted,
            "predicted": f"{predicted / 2**30:.2f} GiB, {predicted / capacity:.0f} bytes per transition",
        }
    return description


def _section(title: str, names: Any) -> str:
    lines = textwrap.wrap(", ".join(names), WIDTH, break_on_hyphens=False)
    return "\n".join([title, *("  " + line for line in lines)])
