"""One Meta-World environment whose ``reset(seed)`` decides everything that follows, and that can be told its goal.

It plays any task of its protocol, one simulator per task, built when first needed. What a reset gives depends on the
task and the goal alone, not on what was played before. Observations are float32: 39 numbers (the last 3 zero where the
goal is hidden), then a one-hot task id if the protocol has one.

Differs from the package: observations are float32, not float64, and their space is unbounded (the package clips steps,
but not resets, to bounds that vary by task); actions are clipped before the simulator *and the reward* see them.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from envs.base import nearest
from envs.metaworld.goals import GoalSet, load_goals
from envs.metaworld.protocol import MetaworldProtocol
from envs.metaworld.tasks import CORE_OBS_DIM, split_goal_seed

ACTION_DIM = 4


class SimulatorPool:
    """Idle simulators by task, to be used again: one takes 0.1 to 0.2 s to build and holds 20 to 70 MB.

    Args:
        max_idle: how many idle ones are kept; the one idle the longest is closed first.
        reward_version: ``v1`` or ``v2``.
        render_mode: None or ``rgb_array``.
    """

    def __init__(self, max_idle: int, reward_version: str = "v2", render_mode: str | None = None) -> None:
        self.max_idle = max_idle
        self.render_mode = render_mode
        self._settings = {"reward_function_version": reward_version, "render_mode": render_mode}
        self._idle: OrderedDict[int, tuple[str, Any]] = OrderedDict()

    def take(self, task: str) -> Any:
        """Gives a simulator of this task, an idle one if there is any."""
        for key, (name, simulator) in reversed(self._idle.items()):
            if name == task:
                del self._idle[key]
                return simulator
        return cast("Any", ALL_V3_ENVIRONMENTS[task])(**self._settings)

    def give(self, task: str, simulator: Any) -> None:
        """Takes a simulator back."""
        self._idle[id(simulator)] = (task, simulator)
        while len(self._idle) > self.max_idle:
            self._idle.popitem(last=False)[1][1].close()

    def close(self) -> None:
        """Closes the idle simulators; may be called twice."""
        while self._idle:
            self._idle.popitem()[1][1].close()


class MetaworldEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Any task of a protocol, as a gymnasium environment.

    Without options, ``reset`` goes through the tasks in order (from a place that a seeded reset draws), and draws a
    goal from this env's own generator. ``reset(options={"task": name, "goal_index": k})`` forces either.

    Every info, of resets too, has the same keys: ``success`` (float32, of this very step), ``raw_reward`` (float32),
    ``episode_over`` (bool), ``task_index`` (place in the protocol's list) and ``goal_index``.

    Args:
        protocol: tasks, goals, what is seen, the horizon and the stopping rule.
        goals: the protocol's goal set; loaded when left out.
        simulators: where simulators come from, possibly shared with other envs; an own pool when left out.
        render_mode: None or ``rgb_array``.

    Raises:
        ValueError: if the goals are not those of the protocol's hash.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  (gymnasium declares it so)

    def __init__(
        self,
        protocol: MetaworldProtocol,
        *,
        goals: GoalSet | None = None,
        simulators: SimulatorPool | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.protocol = protocol
        self.render_mode = render_mode
        self._goals = goals or protocol_goals(protocol)
        if self._goals.hash != protocol.goals_hash:
            raise ValueError(f"goals hash to {self._goals.hash}, the protocol says {protocol.goals_hash}")
        self._simulators = simulators or SimulatorPool(len(protocol.tasks), protocol.reward_version, render_mode)
        self.observation_space = observation_space(protocol)
        self._obs_dim = CORE_OBS_DIM + len(protocol.tasks) * protocol.one_hot
        self.action_space = Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._simulator: Any = None
        self._task_index = 0
        self._goal_index = 0
        self._next_task: int | None = None
        self._elapsed = 0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode of a task and a goal.

        Raises:
            ValueError: if an option, task or goal index is unknown.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._next_task = None
        task, goal_index = self._choose(dict(options or {}))
        self._use(task)
        self._goal_index = goal_index
        # A new copy of the goal at each reset: several tasks change the vector they were given in place.
        data = {
            "rand_vec": self._goals.vectors[task][goal_index].copy(),
            "env_cls": ALL_V3_ENVIRONMENTS[task],
            "partially_observable": not self.protocol.goal_visible,
        }
        self._simulator.set_task(Task(env_name=task, data=pickle.dumps(data)))
        obs, _ = self._simulator.reset()
        self._elapsed, self._over = 0, False
        return self._observation(obs), self._info(success=0.0, reward=0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advances one step of 12.5 ms; actions outside [-1, 1] are clipped, as the package does.

        Raises:
            RuntimeError: if the episode is over, or none was started.
            ValueError: if the action is not 4 finite numbers.
        """
        if self._over:
            raise RuntimeError(
                f"the episode is over after {self._elapsed} of at most {self.protocol.horizon} steps (or was never "
                "started): call reset()"
            )
        values = np.asarray(action, dtype=np.float32)
        if values.shape != (ACTION_DIM,) or not np.isfinite(values).all():
            raise ValueError(f"an action must be {ACTION_DIM} finite numbers, got {action!r}")
        obs, reward, _, _, package_info = self._simulator.step(np.clip(values, -1.0, 1.0))
        self._elapsed += 1
        success = float(package_info["success"])
        terminated = self.protocol.stop_at_success and success > 0
        truncated = self._elapsed >= self.protocol.horizon and not terminated
        self._over = terminated or truncated
        info = self._info(success=success, reward=float(reward))
        return self._observation(obs), float(reward), terminated, truncated, info

    def render(self) -> Any:
        """Gives the current picture, uint8 (480, 480, 3); None without a render mode or before the first reset.

        Raises:
            RuntimeError: if there is no OpenGL to draw with.
        """
        if self.render_mode is None or self._simulator is None:
            return None
        try:
            return self._simulator.render()
        except Exception as error:  # of mujoco, glfw, EGL or OSMesa, each its own kind
            raise RuntimeError(
                f"Meta-World cannot draw here ({type(error).__name__}: {error}); on a machine without a screen set "
                "MUJOCO_GL=egl, or MUJOCO_GL=osmesa, before starting"
            ) from error

    def close(self) -> None:
        """Closes this env's simulator and the idle ones of its pool; may be called twice."""
        self.release()
        self._simulators.close()

    def release(self) -> None:
        """Hands the simulator back to the pool; the next reset takes another."""
        self._over = True
        if self._simulator is not None:
            self._simulators.give(self.task, self._simulator)
            self._simulator = None

    @property
    def task(self) -> str:
        """Name of the current task."""
        return self.protocol.tasks[self._task_index]

    def _choose(self, options: dict[str, Any]) -> tuple[str, int]:
        """Gives the task and goal of the next episode: the forced ones, or the next in order and a draw."""
        task, goal_index = options.pop("task", None), options.pop("goal_index", None)
        if options:
            raise ValueError(f"unknown reset options {sorted(options)}, known are 'task' and 'goal_index'")
        if task is None:
            if self._next_task is None:
                self._next_task = int(self.np_random.integers(len(self.protocol.tasks)))
            task = self.protocol.tasks[self._next_task]
            self._next_task = (self._next_task + 1) % len(self.protocol.tasks)
        elif task not in self.protocol.tasks:
            raise ValueError(f"task {task!r} is not in {self.protocol.id}, {nearest(str(task), self.protocol.tasks)}")
        if goal_index is None:
            goal_index = self.np_random.integers(self.protocol.num_goals)
        if not 0 <= goal_index < self.protocol.num_goals:
            raise ValueError(f"goal_index must be in [0, {self.protocol.num_goals}), got {goal_index}")
        return task, int(goal_index)

    def _use(self, task: str) -> None:
        """Changes to a task's simulator."""
        if self._simulator is not None and self.task == task:
            return
        self.release()
        self._task_index = self.protocol.tasks.index(task)
        self._simulator = self._simulators.take(task)

    def _observation(self, obs: np.ndarray) -> np.ndarray:
        full = np.zeros(self._obs_dim, np.float32)
        full[:CORE_OBS_DIM] = obs
        if self.protocol.one_hot:
            full[CORE_OBS_DIM + self._task_index] = 1.0
        return full

    def _info(self, *, success: float, reward: float) -> dict[str, Any]:
        return {
            "success": np.float32(success),
            "raw_reward": np.float32(reward),
            "episode_over": self._over,
            "task_index": self._task_index,
            "goal_index": self._goal_index,
        }


def protocol_goals(protocol: MetaworldProtocol) -> GoalSet:
    """Gives the goals of a protocol's tasks, from the cache or anew."""
    return load_goals(protocol.tasks, split_goal_seed(protocol.benchmark, protocol.goal_seed, protocol.split))


def observation_space(protocol: MetaworldProtocol) -> Box:
    """Gives the float32 space: 39 unbounded numbers and, with one-hot ids, one in [0, 1] per task."""
    ids = len(protocol.tasks) * protocol.one_hot
    low = np.concatenate([np.full(CORE_OBS_DIM, -np.inf), np.zeros(ids)]).astype(np.float32)
    high = np.concatenate([np.full(CORE_OBS_DIM, np.inf), np.ones(ids)]).astype(np.float32)
    return Box(low, high, dtype=np.float32)


def make_worker_env(
    protocol: MetaworldProtocol, goals: GoalSet, max_simulators: int, render_mode: str | None = None
) -> MetaworldEnv:
    """Builds one env with its own simulators, in the process that calls it.

    It lives here, not beside the vector env, so that a worker process need not import Tianshou and torch.
    """
    pool = SimulatorPool(max_simulators, protocol.reward_version, render_mode)
    return MetaworldEnv(protocol, goals=goals, simulators=pool, render_mode=render_mode)
