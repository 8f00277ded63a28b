"""MinAtar's games as gymnasium environments with uint8 images, and several of them as one vector environment.

The game classes are taken from the package's files one by one: importing the package itself would load pyplot and
seaborn, which only its own window needs. What the package's ``Environment`` adds to a game, sticky actions and the
seed, is here.

Legend: C channels of a game (4 to 10; with ``all_channels`` always 10).
"""

from __future__ import annotations

import colorsys
import functools
import importlib.util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from envs.minatar.config import MOST_CHANNELS, MinatarProtocol
from envs.tianshou_vector import GymVectorEnv

Obs = NDArray[np.uint8]

NUM_ACTIONS = 6
"""No-op, left, up, right, down, fire: the full action set of every game."""
CELL_PIXELS = 16
"""Side of a grid cell in rendered frames."""


@functools.cache
def game_class(game: str) -> Any:
    """Gives the package's class of a game.

    Args:
        game: the package's own name of it.

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    package = importlib.util.find_spec("minatar")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("MinAtar games need the package minatar: pip install -e '.[minatar]'")
    path = Path(package.origin).parent / "environments" / f"{game}.py"
    spec = importlib.util.spec_from_file_location(f"minatar.environments.{game}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Env


@functools.cache
def minimal_actions(game: str) -> tuple[int, ...]:
    """Gives the actions that do something in a game, no-op among them, as indices into the full set.

    Args:
        game: the package's own name of it.
    """
    return tuple(int(action) for action in game_class(game)(ramping=True).minimal_action_set())


class MinatarEnv(gymnasium.Env[Obs, np.int64]):
    """One game. Observations are uint8 (C, 10, 10): 255 where the channel's object is, 0 elsewhere.

    A trajectory is a function of ``reset(seed)`` and the actions alone; with equal seeds the first episode is the one
    that ``minatar.Environment`` plays.

    Args:
        protocol: the rules.
        render_mode: ``rgb_array`` for colour frames, or None.

    Source: minatar 1.0.15, ``environment.py`` and ``gym.py``. Differs: channels first, as convolutions take them; a
    cap on episodes; the action that may be repeated is forgotten at a reset (there it reaches into the next episode).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (gymnasium declares it so)

    def __init__(self, protocol: MinatarProtocol, render_mode: str | None = None) -> None:
        self.protocol = protocol
        self.render_mode = render_mode
        self._game = game_class(protocol.game)(ramping=protocol.difficulty_ramping)
        self._random: np.random.RandomState = self._game.random
        self._actions = range(NUM_ACTIONS) if protocol.full_action_space else self._game.minimal_action_set()
        height, width, self._channels = self._game.state_shape()
        self._shape = (MOST_CHANNELS if protocol.all_channels else self._channels, height, width)
        self.observation_space = Box(0, 255, self._shape, np.uint8)
        self.action_space = Discrete(len(self._actions))
        self._previous_action = self._elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Starts an episode; options are ignored.

        Args:
            seed: 0 to 2**32 - 1; None goes on with the random numbers of the episode before.
            options: none are known.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._random = self._game.random = np.random.RandomState(seed)  # MinAtar's own generator
        self._previous_action = self._elapsed = 0
        self._game.reset()
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Plays the action, or with probability ``sticky_prob`` the one played before."""
        played = self._actions[int(action)]
        if self._random.rand() < self.protocol.sticky_prob:
            played = self._previous_action
        self._previous_action = played
        reward, terminated = self._game.act(played)
        self._elapsed += 1
        truncated = not terminated and self._elapsed >= self.protocol.horizon
        return self._observe(), float(reward), bool(terminated), truncated, {}

    def render(self) -> Any:
        """Gives the grid as RGB, uint8 (160, 160, 3), a colour per channel; None without a render mode."""
        if self.render_mode is None:
            return None
        state = self._game.state()
        topmost = (state * np.arange(1, state.shape[-1] + 1)).max(axis=-1)
        frame = _palette(state.shape[-1])[topmost]
        return frame.repeat(CELL_PIXELS, axis=0).repeat(CELL_PIXELS, axis=1)

    def _observe(self) -> Obs:
        state: NDArray[np.bool_] = self._game.state()
        obs = np.zeros(self._shape, np.uint8)
        np.multiply(state.transpose(2, 0, 1), np.uint8(255), out=obs[: self._channels])
        return obs


@functools.cache
def _palette(channels: int) -> NDArray[np.uint8]:
    """Gives black and a bright colour per channel, hues evenly apart, uint8 (channels + 1, 3)."""
    colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(index / channels, 0.75, 1.0) for index in range(channels))]
    return np.round(np.array(colours) * 255).astype(np.uint8)


def make_vector_env(protocol: MinatarProtocol, num_envs: int) -> GymVectorEnv:
    """Builds ``num_envs`` games in this process; a step is cheaper than sending it to another."""
    makers = [functools.partial(MinatarEnv, protocol)] * num_envs
    venv = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    return GymVectorEnv(venv, protocol=protocol, episode_info_keys=())
