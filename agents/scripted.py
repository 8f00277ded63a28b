"""Agents that do not learn: uniformly random ones, and Meta-World's scripted experts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from agents.interface import Agent, State

METAWORLD_OBS_SIZE = 39  # two frames of 18 and the goal; one-hot task ids follow, where asked for
METAWORLD_GOAL = slice(36, 39)


class RandomAgent(Agent):
    """Acts uniformly at random over the action space, whether told to explore or not."""

    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Gives one random action per observation."""
        return self.random_action(len(obs)), None


class ScriptedMetaworldAgent(Agent):
    """Acts by Meta-World's hand-written policy of each row's task. Needs goals that are visible.

    Args:
        tasks: one task name for all rows, or one per row, e.g. "reach-v3".
        observation_space: of one environment, 39 numbers or more.
        action_space: Meta-World's box.
        rng: unused by the experts, only by `random_action`.

    Raises:
        ValueError: for an unknown task, or observations too short to be Meta-World's.
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        *,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        rng: np.random.Generator,
    ) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        super().__init__(observation_space=observation_space, action_space=action_space, rng=rng)
        shape = observation_space.shape
        if shape is None or len(shape) != 1 or shape[0] < METAWORLD_OBS_SIZE:
            raise ValueError(f"Meta-World observations have at least {METAWORLD_OBS_SIZE} numbers, not shape {shape}")
        for task in [tasks] if isinstance(tasks, str) else tasks:
            if task not in ENV_POLICY_MAP:
                raise ValueError(f"no scripted policy for task {task!r}; there are {', '.join(sorted(ENV_POLICY_MAP))}")
        self.tasks = tasks
        classes: dict[str, Any] = ENV_POLICY_MAP
        self._policies = {task: policy_class() for task, policy_class in classes.items()}

    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Gives the experts' actions, clipped to [-1, 1].

        Raises:
            ValueError: if a goal is hidden (all zeros), or the rows are not those of `tasks`.
        """
        tasks = [self.tasks] * len(obs) if isinstance(self.tasks, str) else self.tasks
        if len(tasks) != len(obs):
            raise ValueError(f"{len(obs)} observations for {len(tasks)} tasks: give one task per row, or one for all")
        hidden = ~np.asarray(obs)[:, METAWORLD_GOAL].any(axis=1)
        if hidden.any():
            row = int(hidden.argmax())
            raise ValueError(f"the goal of {tasks[row]!r} (row {row}) is hidden: scripted policies need visible goals")
        with warnings.catch_warnings():
            # Far from its goal an expert asks for more than the box allows; clipping is what it expects.
            warnings.filterwarnings("ignore", "Constant.s. may be too high")
            actions = [
                self._policies[task].get_action(np.asarray(row[:METAWORLD_OBS_SIZE], dtype=np.float64))
                for task, row in zip(tasks, obs, strict=True)
            ]
        return np.clip(np.stack(actions), -1.0, 1.0).astype(np.float32), None
