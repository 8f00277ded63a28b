"""One Atari game as a plain gymnasium environment: the vector environment with one game, plus the colour screen.

Built on the same C++ preprocessing rather than on gymnasium's wrappers, so that observations, rewards and random
numbers are those of training and evaluation bit for bit, and OpenCV is not needed.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from envs.atari.games import normalise_game
from envs.atari.vector import AtariVector
from envs.protocols import MAX_SEED, AtariProtocol


@functools.cache
def minimal_actions(game: str) -> tuple[int, ...]:
    """Gives the actions that do something in a game, and NOOP, as indices into the full set of 18.

    Args:
        game: short name.

    Raises:
        ValueError: if ale-py has no such game.
    """
    ALEInterface.setLoggerMode(LoggerMode.Error)
    rom = roms.get_rom_path(normalise_game(game))
    assert rom is not None  # a known game has one
    ale = ALEInterface()
    ale.loadROM(rom)
    every = ale.getLegalActionSet()
    return tuple(sorted({every.index(Action.NOOP), *(every.index(action) for action in ale.getMinimalActionSet())}))


class AtariScreen:
    """A second emulator that follows the first one frame by frame, for the colour screen (C++ shows grey 84x84 only).

    Same ROM, seeds, sticky probability and calls, therefore the same random numbers and the same frames.

    Args:
        protocol: the rules of the game to follow.
    """

    def __init__(self, protocol: AtariProtocol) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._protocol = protocol
        rom = roms.get_rom_path(protocol.env_name)
        if rom is None:
            raise ValueError(f"ale-py has no game {protocol.env_name!r}")
        self._rom = rom
        self.ale = ALEInterface()
        self.ale.setFloat("repeat_action_probability", protocol.sticky_prob)
        self._actions: list[Action] = []
        self._frames: list[NDArray[np.uint8]] = []
        self._elapsed = 0

    def reset(self, seed: int | None, num_frames: int) -> None:
        """Starts a game: with ``seed`` from the ROM, then FIRE and no-ops until ``num_frames`` have passed."""
        if seed is not None:
            self.ale.setInt("random_seed", seed)
            self.ale.loadROM(self._rom)
            full = self._protocol.full_action_space
            self._actions = self.ale.getLegalActionSet() if full else self.ale.getMinimalActionSet()
        self.ale.reset_game()
        if self._protocol.fire_reset and Action.FIRE in self._actions:
            self.ale.act(Action.FIRE)
        while self.ale.getEpisodeFrameNumber() < num_frames:
            self.ale.act(Action.NOOP)
        self._frames, self._elapsed = [self.ale.getScreenRGB()], 0

    def step(self, action: int) -> None:
        """Plays the frames of one agent step."""
        for _ in range(self._protocol.frame_skip):
            self.ale.act(self._actions[action])
            self._elapsed += 1
            self._frames = [*self._frames[-1:], self.ale.getScreenRGB()]
            if self.ale.game_over(with_truncation=False) or self._elapsed >= self._protocol.max_frames:
                break

    def image(self) -> NDArray[np.uint8]:
        """Gives the maximum of the last two frames (what is drawn in every other one shows); mostly 210x160x3."""
        pooled: NDArray[np.uint8] = np.max(self._frames, axis=0)
        return pooled


class AtariSingle(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One game under a protocol.

    Where the protocol ends the learner's episode at a lost life, ``reset()`` goes on with the game; ``reset(seed=...)``
    always starts a new one.

    Args:
        protocol: the rules.
        render_mode: ``rgb_array`` for the colour screen (a second emulator, so stepping takes longer), or None.

    Raises:
        ValueError: for another render mode.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 (gymnasium's way)

    def __init__(self, protocol: AtariProtocol, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"expected render_mode None or 'rgb_array', got {render_mode!r}")
        self.protocol = protocol
        self.render_mode = render_mode
        self.metadata = type(self).metadata | {"render_fps": 60 / protocol.frame_skip}
        self.spec = EnvSpec(
            "Sextant/Atari-v0", entry_point="envs.atari.single:AtariSingle", kwargs={"protocol": protocol}
        )
        self._vector = AtariVector(protocol, 1, num_threads=1)
        self._screen = AtariScreen(protocol) if render_mode else None
        self._seeded = False
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts a new game, or goes on after a lost life.

        Args:
            seed: of the game's random numbers (modulo 2**31); None goes on with the present ones.
            options: ``task`` and ``goal_index`` as in an episode specification.
        """
        super().reset(seed=seed)
        emulator_seed = None if seed is None else seed % (MAX_SEED + 1)
        if emulator_seed is None and not self._seeded:
            emulator_seed = int(self.np_random.integers(MAX_SEED, dtype=np.int64))
        self._seeded = True
        goes_on = emulator_seed is None and self._vector.at_rest[0]
        obs, _ = self._vector.reset(seed=None if emulator_seed is None else [emulator_seed], options=options)
        if self._screen is not None and not goes_on:
            self._screen.reset(emulator_seed, int(self._vector.reset_frames[0]))
        return obs[0], {"raw_reward": 0.0, "episode_over": False}

    def step(self, action: int | np.integer[Any]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Plays one action for ``frame_skip`` frames.

        Returns:
            observation, the learner's reward, terminated, truncated, and info with ``raw_reward`` and ``episode_over``.

        Raises:
            ValueError: if the action is not in the action space.
            RuntimeError: if the game is over and was not reset.
        """
        obs, reward, terminated, truncated, info = self._vector.step(np.array([action]))
        if self._screen is not None:
            self._screen.step(int(action))
        row_info = {"raw_reward": float(info["raw_reward"][0]), "episode_over": bool(info["episode_over"][0])}
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), row_info

    def render(self) -> NDArray[np.uint8] | None:
        """Gives the colour screen, (210, 160, 3) uint8 in most games; None without a render mode."""
        return None if self._screen is None else self._screen.image()

    def close(self) -> None:
        """Frees the emulators; a second call does nothing."""
        self._vector.close()
