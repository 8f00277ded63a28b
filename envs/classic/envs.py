"""Our small environments, whose best return is known exactly, and the builders for these and gymnasium's own.

``identity-v0`` and ``identity-box-v0`` ask the agent to repeat what it sees; ``pixel-catch-v0`` is a game in Atari's
observation format that a convolutional DQN learns in minutes on one core. All are deterministic given ``reset(seed)``.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from envs.classic.config import OURS, ClassicProtocol
from envs.tianshou_vector import GymVectorEnv

Obs = NDArray[Any]
Outcome = tuple[Obs, float, bool, bool, dict[str, Any]]


class IdentityEnv(gymnasium.Env[Obs, np.int64]):
    """Shows one of k symbols, one-hot; choosing its number is worth 1.

    The symbols are independent of the actions, so that a correct learner needs no credit over time. The best return is
    the episode's length, a random policy's length / k. Episodes are truncated, as nothing ends in the task itself.

    Source: the identity environments of Stable-Baselines3's tests.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium declares it so)

    def __init__(self, num_symbols: int = 4) -> None:
        self.num_symbols = num_symbols
        self.observation_space = Box(0.0, 1.0, (num_symbols,), np.float32)
        self.action_space = Discrete(num_symbols)
        self._symbol = self._elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Starts an episode of 16 symbols; options are ignored."""
        super().reset(seed=seed)
        self._elapsed = 0
        return self._show(), {}

    def step(self, action: np.int64) -> Outcome:
        """Judges the action against the symbol shown, and shows the next one."""
        reward = float(action == self._symbol)
        self._elapsed += 1
        return self._show(), reward, False, self._elapsed >= OURS["identity-v0"], {}

    def _show(self) -> Obs:
        self._symbol = int(self.np_random.integers(self.num_symbols))
        return np.eye(self.num_symbols, dtype=np.float32)[self._symbol]


class IdentityBoxEnv(gymnasium.Env[Obs, Obs]):
    """Shows a number x in [-1, 1]; action a is worth 1 - (a - x)^2.

    The best return is the episode's length, 16. A uniformly random action earns 1 - 2/3 per step on average.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium declares it so)

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self._shown = np.zeros(1, np.float32)
        self._elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Starts an episode of 16 numbers; options are ignored."""
        super().reset(seed=seed)
        self._elapsed = 0
        return self._show(), {}

    def step(self, action: Obs) -> Outcome:
        """Judges the action against the number shown, and shows the next one."""
        reward = 1.0 - float(np.square(action - self._shown).sum())
        self._elapsed += 1
        return self._show(), reward, False, self._elapsed >= OURS["identity-box-v0"], {}

    def _show(self) -> Obs:
        self._shown = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self._shown.copy()


class PixelCatchEnv(gymnasium.Env[Obs, np.int64]):
    """Catch: a ball falls down a coarse grid onto a paddle that moves left, stays, or moves right.

    The grid has 12 rows and 12 columns of 7x7 pixels. The ball starts in the top row in a random column and falls one
    row per step; the paddle, 3 columns wide, starts in the middle of the bottom row. After 11 steps the ball is in the
    bottom row, and the episode terminates with +1 if it touches the paddle and -1 if not; all other rewards are 0.
    The best return is 1.0: at most 5 of the 11 moves are needed. A policy that does not look earns 2 * 3/12 - 1 = -0.5
    on average, wherever it moves, for the paddle always covers 3 of the 12 equally likely columns.

    Observations have Atari's format: uint8 (4, 84, 84), the last four frames, oldest first, black before the start.

    Source: the game of Mnih et al., "Recurrent models of visual attention" (2014), as in bsuite's ``catch``. Differs:
    drawn large and stacked, and the paddle is 3 wide.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium declares it so)
    GRID, CELL, STACK = 12, 7, 4
    BALL, PADDLE = 255, 128
    """Brightness."""

    def __init__(self, render_mode: str | None = None) -> None:
        side = self.GRID * self.CELL
        self.render_mode = render_mode
        self.observation_space = Box(0, 255, (self.STACK, side, side), np.uint8)
        self.action_space = Discrete(3)
        self._frames = np.zeros((self.STACK, side, side), np.uint8)
        self.ball_row = self.ball_column = self.paddle_column = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Drops a new ball; options are ignored."""
        super().reset(seed=seed)
        self.ball_row, self.ball_column = 0, int(self.np_random.integers(self.GRID))
        self.paddle_column = self.GRID // 2
        self._frames[:] = 0
        return self._draw(), {}

    def step(self, action: np.int64) -> Outcome:
        """Moves the paddle by action - 1 columns, its middle staying off the walls, and the ball down one row."""
        self.paddle_column = int(np.clip(self.paddle_column + int(action) - 1, 1, self.GRID - 2))
        self.ball_row += 1
        landed = self.ball_row == self.GRID - 1
        caught = abs(self.ball_column - self.paddle_column) <= 1
        reward = (1.0 if caught else -1.0) if landed else 0.0
        return self._draw(), reward, landed, False, {}

    def render(self) -> Any:
        """Gives the newest frame as RGB, uint8 (84, 84, 3); None without a render mode."""
        return None if self.render_mode is None else np.repeat(self._frames[-1][..., None], 3, axis=-1)

    def _draw(self) -> Obs:
        grid = np.zeros((self.GRID, self.GRID), np.uint8)
        grid[-1, self.paddle_column - 1 : self.paddle_column + 2] = self.PADDLE
        grid[self.ball_row, self.ball_column] = self.BALL
        self._frames[:-1] = self._frames[1:]
        self._frames[-1] = np.kron(grid, np.ones((self.CELL, self.CELL), np.uint8))
        return self._frames.copy()


def make_env(protocol: ClassicProtocol, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Builds one environment under a protocol.

    Raises:
        ValueError: if its actions are neither Discrete nor Box, or its observations no Box.
    """
    name = protocol.env_name
    if name == "pixel-catch-v0":
        return PixelCatchEnv(render_mode)
    if name in OURS:
        return IdentityEnv() if name == "identity-v0" else IdentityBoxEnv()
    env = gymnasium.make(name, render_mode=render_mode, max_episode_steps=protocol.horizon, disable_env_checker=True)
    if not isinstance(env.action_space, Discrete | Box) or not isinstance(env.observation_space, Box):
        env.close()
        raise ValueError(
            f"{name} has {env.observation_space} observations and {env.action_space} actions; "
            "Box observations and Discrete or Box actions are needed"
        )
    return env


def make_vector_env(protocol: ClassicProtocol, num_envs: int) -> GymVectorEnv:
    """Builds ``num_envs`` environments in this process; these are cheaper to step than to send to another."""
    makers = [functools.partial(make_env, protocol)] * num_envs
    venv = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    return GymVectorEnv(venv, protocol=protocol, episode_info_keys=())
