"""Names that CleanRL expects of gymnasium 0.29, given to today's gymnasium for the process that runs it.

Only names and calling conventions; the wrappers that run are gymnasium's own. ``SyncVectorEnv`` gets the autoreset
mode that was the only one in 0.29 (same step).
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import gymnasium
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class SyncVectorEnv029(SyncVectorEnv):
    """``SyncVectorEnv`` that resets a finished env in the same step and reports it the way 0.29 did."""

    def __init__(self, env_fns: Any, **kwargs: Any) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)

    def step(self, actions: Any) -> Any:
        """Steps; gives ``final_info`` as one dict or None per env, and ``final_observation`` beside ``final_obs``."""
        obs, reward, terminated, truncated, info = super().step(actions)
        if "final_info" in info:
            info["final_observation"] = info["final_obs"]
            ended = terminated | truncated
            info["final_info"] = [
                {key: _pick(value, index) for key, value in info["final_info"].items() if not key.startswith("_")}
                if ended[index]
                else {}
                for index in range(self.num_envs)
            ]
        return obs, reward, terminated, truncated, info


def _pick(value: Any, index: int) -> Any:
    return {key: _pick(item, index) for key, item in value.items()} if isinstance(value, dict) else value[index]


def install() -> None:
    """Adds the names, and ``distutils.util.strtobool`` where Python no longer has it."""
    names: Any = wrappers
    names.GrayScaleObservation = wrappers.GrayscaleObservation
    names.FrameStack = wrappers.FrameStackObservation
    vector: Any = gymnasium.vector
    vector.SyncVectorEnv = SyncVectorEnv029
    gymnasium.register_envs(importlib.import_module("ale_py"))
    try:
        importlib.import_module("distutils.util")
    except ImportError:
        util: Any = types.ModuleType("distutils.util")
        util.strtobool = lambda text: int(text.lower() in {"y", "yes", "t", "true", "on", "1"})
        sys.modules["distutils"], sys.modules["distutils.util"] = types.ModuleType("distutils"), util
