"""Any number of copies of a memory task as one vector environment, and one copy as a gymnasium environment.

Legend: N environments, R those listed in a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from envs.memory_tasks.config import MemoryTasksProtocol
from envs.memory_tasks.streams import Streams
from envs.memory_tasks.tasks import TASK_CLASSES
from envs.tianshou_vector import Ids, Info, Reset, Step, VectorEnv, Work

CELL_PIXELS = 16
"""Side of a number's cell in rendered frames."""


class MemoryTasksVector(VectorEnv):
    """N copies of one task: a step is a few operations on arrays, whatever N.

    Observations are float32 (R, size); ``info`` has ``success`` besides the usual keys, 1 at the step that achieves it.
    The option ``goal_index`` of a reset fixes the cue (0 left, 1 right) or the key's colour; everything else that is
    drawn follows from the seed. Unseeded episodes go on from the one before.

    Args:
        protocol: the rules.
        num_envs: N.
    """

    def __init__(self, protocol: MemoryTasksProtocol, num_envs: int) -> None:
        self._streams = Streams(num_envs)
        self.task = TASK_CLASSES[protocol.task](protocol, num_envs, self._streams)
        observation_space = Box(self.task.low, 1.0, (self.task.obs_size,), np.float32)
        super().__init__(num_envs, observation_space, Discrete(self.task.num_actions), protocol)
        self._env_name, self._num_goals = protocol.env_name, protocol.num_goals
        self._over_N: NDArray[np.bool_] = np.ones(num_envs, np.bool_)

    def reset(  # type: ignore[override]
        self,
        env_id: Ids = None,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Reset:
        """Starts new episodes in the listed environments; see ``VectorEnv.reset``.

        Raises:
            ValueError: for an option, task or goal that there is not, too.
        """
        if kwargs:
            raise TypeError(f"reset does not know {sorted(kwargs)}")
        ids = self._ids(env_id)
        goal_R = self._goals(options or {}, len(ids))
        self._streams.next_episode(ids, self._seeds(ids, seed))
        self.task.begin(ids, goal_R)
        self._over_N[ids] = False
        nothing = np.zeros(len(ids), np.float32)
        return self.task.observe(ids), Info(raw_reward=nothing, episode_over=nothing > 0, success=nothing.copy())

    def step(self, action: Any, id: Ids = None, *, meanwhile: Work | None = None) -> Step:  # type: ignore[override]
        """Advances the listed environments; see ``VectorEnv.step``.

        Raises:
            RuntimeError: if an episode was not begun, or is over.
        """
        ids = self._ids(id)
        if meanwhile is not None:
            meanwhile()
        actions = self._actions(action, len(ids))
        if np.count_nonzero(self._over_N[ids]):
            raise RuntimeError(f"reset environments {ids[self._over_N[ids]].tolist()} first: their episodes are over")
        reward, terminated, truncated, success = self.task.step(ids, actions)
        over = terminated | truncated
        self._over_N[ids] = over
        info = Info(raw_reward=reward.copy(), episode_over=over, success=success.astype(np.float32))
        return self.task.observe(ids), reward, terminated, truncated, info

    def optimal_actions(self, ids: Ids = None) -> NDArray[np.int64]:
        """Gives the best actions (R,) in the situations at hand, from what the agent must remember."""
        return self.task.optimal_actions(self._ids(ids))

    def optimal_returns(self, ids: Ids = None) -> NDArray[np.float64]:
        """Gives the best returns (R,) of the episodes under way, counted from their starts: 1, on average at least."""
        return self.task.optimal_returns(self._ids(ids))

    def _goals(self, options: dict[str, Any], num: int) -> NDArray[np.int64]:
        """Gives the goals (R,) that a reset asks for, -1 where none.

        Raises:
            ValueError: for an option, task or goal that there is not, or a wrong number of them.
        """
        for key, value in options.items():
            if key not in ("task", "goal_index"):
                raise ValueError(f"unknown reset option {key!r}, known are 'task' and 'goal_index'")
            if isinstance(value, list | tuple) and len(value) != num:
                raise ValueError(f"reset option {key!r} has {len(value)} values for {num} environments")
        tasks, goals = (
            value if isinstance(value := options.get(key), list | tuple) else [value] * num
            for key in ("task", "goal_index")
        )
        for task in tasks:
            if task not in (None, self._env_name):
                raise ValueError(f"these environments play {self._env_name!r}, not {task!r}")
        for goal in goals:
            if goal is not None and goal not in range(self._num_goals):
                raise ValueError(
                    f"{self._env_name} has {self._num_goals} goals, numbered from 0, got goal_index={goal}"
                )
        return np.array([-1 if goal is None else goal for goal in goals], np.int64)

    def _close(self) -> None:
        """Has nothing to free."""


class MemoryTaskEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One copy as a plain gymnasium environment; episodes equal those of the vector environment.

    Args:
        protocol: the rules.
        render_mode: ``rgb_array`` for a picture of the observation and of the time elapsed, or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium declares it so)

    def __init__(self, protocol: MemoryTasksProtocol, render_mode: str | None = None) -> None:
        self.protocol = protocol
        self.render_mode = render_mode
        self._venv = MemoryTasksVector(protocol, 1)
        self.observation_space = self._venv.single_observation_space
        self.action_space = self._venv.single_action_space
        self._obs = np.zeros(self._venv.task.obs_size, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode; the options ``task`` and ``goal_index`` are those of the vector environment."""
        super().reset(seed=seed)
        obs, _ = self._venv.reset(seed=None if seed is None else [seed], options=options)
        self._obs = obs[0]
        return self._obs.copy(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Plays an action."""
        obs, reward, terminated, truncated, info = self._venv.step(np.asarray(action)[None])
        self._obs = obs[0]
        success = {"success": float(info["success"][0])}
        return self._obs.copy(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), success

    def optimal_action(self) -> int:
        """Gives the best action in the situation at hand."""
        return int(self._venv.optimal_actions()[0])

    def render(self) -> Any:
        """Gives the observation as cells, brighter where larger, over a bar of the time elapsed; RGB uint8.

        The shape is (32, 16 * size, 3); None without a render mode.
        """
        if self.render_mode is None:
            return None
        low = self._venv.task.low
        bright = np.round(255 * (self._obs - low) / (1.0 - low)).astype(np.uint8)
        grey = np.zeros((2 * CELL_PIXELS, CELL_PIXELS * len(bright)), np.uint8)
        grey[:CELL_PIXELS] = bright.repeat(CELL_PIXELS)
        done = int(self._venv.task.elapsed_N[0]) / self.protocol.max_episode_steps
        grey[CELL_PIXELS:, : round(done * grey.shape[1])] = 128
        return np.repeat(grey[..., None], 3, axis=-1)
