"""Atari games side by side: ale-py's C++ ``AtariVectorEnv`` as a ``VectorEnv``, without a Python object per game.

What the C++ side does (ale-py 0.12.1, src/ale/vector) and what becomes of it here:

- It has no "no autoreset". With SAME_STEP it resets a finished game within the step; that first observation is kept and
  handed out by ``reset``, so nothing is emulated twice. ``final_obs`` is uninitialised memory in every row whose game
  was not really reset, also where only a life was lost: it is used in reset rows only, and these are recognised by a
  change of ``frame_number - episode_frame_number``.
- It always steps every game. Games that are not listed get NOOP; from then on they must be reset before they are
  stepped again (stepping one raises), so that no episode is ever seen to advance by itself.
- An action out of range kills a worker thread and ``step`` never returns: actions are checked before they get there.
- ``episodic_life=True`` would reset the whole game at each lost life and ``reward_clipping=True`` would lose the raw
  reward: neither is ever used.
- A seeded reset loads the ROM again (some 75 ms of CPU time per game; an unseeded one takes 5 ms) and makes the game a
  pure function of seed and actions, whatever the number of games or threads.

Legend: R = the games listed in a call, in the order listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from envs.protocols import MAX_SEED, AtariProtocol
from envs.tianshou_vector import Ids, Info, Reset, Step, VectorEnv, Work

NOOP = 0


class AtariVector(VectorEnv):
    """Games of one kind under one protocol.

    Observations are (R, 4, 84, 84) uint8, the newest frame last. A game whose ``episode_over`` is True must be reset
    before it is stepped again; one that only lost a life may be reset (which changes nothing) or stepped.

    Args:
        protocol: the rules.
        num_envs: number of games.
        num_threads: emulator threads; 0 = one per game, at most one per core.
    """

    protocol: AtariProtocol

    def __init__(self, protocol: AtariProtocol, num_envs: int, *, num_threads: int = 0) -> None:
        self._env = AtariVectorEnv(
            protocol.env_name,
            num_envs,
            num_threads=num_threads,
            max_num_frames_per_episode=protocol.max_frames,
            repeat_action_probability=protocol.sticky_prob,
            full_action_space=protocol.full_action_space,
            autoreset_mode=AutoresetMode.SAME_STEP,
            img_height=protocol.screen_size,
            img_width=protocol.screen_size,
            stack_num=protocol.stack_num,
            frameskip=protocol.frame_skip,
            noop_max=protocol.noop_max,
            use_fire_reset=protocol.fire_reset,
            episodic_life=False,
            life_loss_info=protocol.terminal_on_life_loss,
            reward_clipping=False,
        )
        super().__init__(num_envs, self._env.single_observation_space, self._env.single_action_space, protocol)
        shape = (num_envs, protocol.stack_num, protocol.screen_size, protocol.screen_size)
        self._standing = np.zeros(shape, dtype=np.uint8)  # what reset returns for the ready games
        self._latest = self._standing
        self._ready = np.zeros(num_envs, dtype=bool)  # reset has nothing to do: a new game, or one that lost a life
        self._must_reset = np.ones(num_envs, dtype=bool)  # never started, over, or moved on while idle
        self._frames_before = np.zeros(num_envs, dtype=np.int64)  # emulator frames before the present game
        self.reset_frames = np.zeros(num_envs, dtype=np.int64)  # frames each game's last reset took (FIRE and no-ops)
        self._started = False

    def reset(  # type: ignore[override]
        self,
        env_id: Ids = None,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Reset:
        """Starts new games in the listed environments; see ``VectorEnv.reset``.

        Without a seed, a game that stands at its start keeps standing there, and one that just lost a life goes on.

        Raises:
            ValueError: for a seed above 2**31 - 1, or options that ask for another game or for a goal.
        """
        if kwargs:
            raise TypeError(f"reset does not know {sorted(kwargs)}")
        ids = self._ids(env_id)
        self._check_options(options or {})
        seeds = np.array([-1 if each is None else each for each in self._seeds(ids, seed)])
        if seeds.max() > MAX_SEED:
            raise ValueError(f"the emulator takes seeds up to {MAX_SEED}, got {seeds.max()}")
        needed = ~self._ready[ids] | (seeds >= 0)
        if needed.any():
            self._reset_games(ids[needed], seeds[needed])
        self._ready[ids], self._must_reset[ids] = True, False
        return self._standing[ids], self._info(np.zeros(len(ids), np.float32), np.zeros(len(ids), dtype=bool))

    def step(self, action: Any, id: Ids = None, *, meanwhile: Work | None = None) -> Step:  # type: ignore[override]
        """Advances the listed games by one action (``frame_skip`` frames); see ``VectorEnv.step``.

        Raises:
            RuntimeError: if a listed game has to be reset first.
        """
        ids = self._ids(id)
        actions = self._actions(action, len(ids))
        if np.count_nonzero(self._must_reset) and self._must_reset[ids].any():
            raise RuntimeError(f"reset these games before stepping them: {ids[self._must_reset[ids]].tolist()}")
        if ids is not self._all_ids:
            listed, actions = actions, np.full(self.num_envs, NOOP)
            actions[ids] = listed
        self._env.send(actions)
        try:
            if meanwhile is not None:
                meanwhile()
        finally:
            obs, reward, terminated, truncated, info = self._env.recv()
        was_reset = self._update_frames(info)
        self._ready = terminated | truncated
        self._must_reset = was_reset
        if np.count_nonzero(self._ready):
            self._standing[self._ready] = obs[self._ready]
        if np.count_nonzero(was_reset):
            obs[was_reset] = info["final_obs"][was_reset]
            self.reset_frames[was_reset] = info["episode_frame_number"][was_reset]
        self._latest = obs
        raw_reward = reward.astype(np.float32)
        if ids is not self._all_ids:
            self._mark_idle(ids)
            obs, raw_reward, was_reset = obs[ids], raw_reward[ids], was_reset[ids]
            terminated, truncated = terminated[ids], truncated[ids]
        learner_reward = raw_reward.clip(-1.0, 1.0) if self.protocol.clip_reward else raw_reward.copy()
        return obs, learner_reward, terminated, truncated, self._info(raw_reward, was_reset.copy())

    @property
    def at_rest(self) -> NDArray[np.bool_]:
        """Where ``reset`` without a seed changes nothing: at the start of a game, or just after a lost life."""
        return self._ready & ~self._must_reset

    def render(self, **kwargs: Any) -> list[NDArray[np.uint8]]:
        """Gives each game's newest 84x84 frame as a grey RGB array; for the colour screen see ``AtariSingle``."""
        return [np.repeat(stack[-1][:, :, None], 3, axis=2) for stack in self._latest]

    def _close(self) -> None:
        self._env.close()
        del self._env  # joins the emulator threads

    def _reset_games(self, ids: NDArray[np.int64], seeds: NDArray[np.int64]) -> None:
        """Really resets the listed games; seed -1 goes on with the game's present random numbers."""
        if not self._started:  # the first reset has to be of all games, and its default seed is out of our control
            entropy = np.random.SeedSequence().generate_state(self.num_envs, np.uint32) >> 1
            all_seeds = entropy.astype(np.int64)
            all_seeds[ids[seeds >= 0]] = seeds[seeds >= 0]
            obs, info = self._env.reset(seed=all_seeds)
            self._started = True
        else:
            order = np.argsort(ids)  # the seeds are given in the order of the games
            mask = np.zeros(self.num_envs, dtype=bool)
            mask[ids] = True
            obs, info = self._env.reset(seed=seeds[order], options={"reset_mask": mask})
        self._update_frames(info)
        self.reset_frames[ids] = info["episode_frame_number"][ids]
        self._latest = obs
        self._standing[ids] = obs[ids]

    def _update_frames(self, info: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Notes the frames before each game; after a step, True where the game was really reset."""
        frames_before = info["frame_number"].astype(np.int64) - info["episode_frame_number"]
        was_reset: NDArray[np.bool_] = frames_before != self._frames_before
        self._frames_before = frames_before
        return was_reset

    def _mark_idle(self, ids: NDArray[np.int64]) -> None:
        """Games that were moved on without being listed have to be reset before they are used again."""
        idle = np.ones(self.num_envs, dtype=bool)
        idle[ids] = False
        self._ready &= ~idle
        self._must_reset = self._must_reset | idle

    def _check_options(self, options: dict[str, Any]) -> None:
        game = self.protocol.env_name
        for key, value in options.items():
            values = value if isinstance(value, list | tuple) else [value]
            if key == "task" and any(each != game for each in values):
                raise ValueError(f"these environments play {game!r}, not {values}")
            if key == "goal_index" and any(each is not None for each in values):
                raise ValueError(f"Atari games have no goals, got goal_index {values}")
            if key not in ("task", "goal_index"):
                raise ValueError(f"unknown reset option {key!r}")

    @staticmethod
    def _info(raw_reward: NDArray[np.float32], episode_over: NDArray[np.bool_]) -> Info:
        return Info(raw_reward=raw_reward, episode_over=episode_over)
