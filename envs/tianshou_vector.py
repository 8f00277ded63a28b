"""Vector environments as Tianshou wants them: no autoreset, partial stepping and resets, no per-env Python objects.

``VectorEnv`` is the contract that every environment of ours meets and that Tianshou's Collector accepts as it is;
``GymVectorEnv`` meets it for any gymnasium ``SyncVectorEnv`` or ``AsyncVectorEnv``.

Legend: R = the environments listed in a call, in the order listed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray
from tianshou.env import BaseVectorEnv
from tianshou.env.venvs import GYM_RESERVED_KEYS

from envs.base import EpisodeSpec
from envs.protocols import Protocol, derive_seeds

Ids = int | Sequence[int] | NDArray[np.integer] | None
Reset = tuple[NDArray[Any], "Info"]
Work = Callable[[], None]
Step = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], "Info"]

ROUNDING = 1e-5  # an action this far outside its bounds, relative to the range, is float32 rounding and is clipped


class Info(dict[str, NDArray[Any]]):
    """Arrays with one row per listed environment.

    Where numpy wants an array it gives one dict per row: Tianshou's Collector converts a step's info itself, but
    assigns that of a reset to rows of an object array as it is (collector.py, step 12).
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.object_]:
        num_rows = len(next(iter(self.values()), ()))
        rows = np.empty(num_rows, dtype=object)
        for row in range(num_rows):
            rows[row] = {key: value[row] for key, value in self.items()}
        return rows


class VectorEnv(BaseVectorEnv, ABC):
    """Several copies of one environment, stepped and reset as the caller lists them.

    Nothing resets by itself: after ``terminated`` or ``truncated`` the caller resets. ``info`` is always a dict of
    arrays with a row per listed environment, with the same keys after ``reset`` (zeros) and ``step``:
    ``raw_reward`` (float32, before any clipping) and ``episode_over`` (bool: the real episode ended; where an
    environment is terminated but its episode is not over, a life was lost and ``reset`` goes on with the game).

    Args:
        num_envs: number of environments.
        observation_space: space of one environment.
        action_space: space of one environment.
        protocol: the rules it was made under, if any.
    """

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        protocol: Protocol | None = None,
    ) -> None:
        # There are no Tianshou workers, so BaseVectorEnv.__init__ is not called (as in its VectorEnvWrapper).
        self.num_envs = self.env_num = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.protocol = protocol
        self.is_async = False
        self.is_closed = False
        self._action_shape = tuple(action_space.shape or ())
        self._all_ids = np.arange(num_envs)
        self._pending_seeds: list[int | None] = [None] * num_envs

    __getattribute__ = object.__getattribute__
    """The plain look-up: Tianshou's, in Python, costs every attribute of every step."""

    def __getattr__(self, key: str) -> Any:
        """Gives what Tianshou and gymnasium look for in the environments, once per environment."""
        if key in GYM_RESERVED_KEYS:
            return self.get_env_attr(key)
        raise AttributeError(f"{type(self).__name__} has no attribute {key!r}")

    @abstractmethod
    def reset(  # type: ignore[override]
        self,
        env_id: Ids = None,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Reset:
        """Starts new episodes in the listed environments (all by default).

        Args:
            env_id: which; their order is that of the rows returned.
            seed: an int gives every environment its own seed, derived from it and the environment's index; a sequence
                gives one per listed environment. With a seed, or inside an episode, the reset is always a real one.
            options: reset options by name; a list or tuple holds one value per listed environment, anything else is
                shared by all.
            kwargs: nothing else is accepted.

        Returns:
            observations (R, ...), freshly allocated, and info.

        Raises:
            ValueError: for an environment that does not exist or is listed twice, or a wrong number of seeds.
        """

    @abstractmethod
    def step(self, action: Any, id: Ids = None, *, meanwhile: Work | None = None) -> Step:  # type: ignore[override]
        """Advances the listed environments (all by default) by one action each; the others stand still.

        Args:
            action: (R, ...) actions of the action space's kind.
            id: which environments, in the order of ``action``.
            meanwhile: called once; where the environments run on threads of their own, while they do.

        Returns:
            next observations (R, ...), rewards, terminated, truncated, info; all freshly allocated.

        Raises:
            ValueError: for an action outside the action space (out of range, NaN, wrong shape or dtype).
        """

    def begin_episodes(self, ids: Ids, specs: Sequence[EpisodeSpec]) -> Reset:
        """Starts exactly the specified episodes, also in the middle of others.

        Args:
            ids: which environments.
            specs: one episode per listed environment.

        Raises:
            ValueError: if there are not as many specifications as environments.
        """
        if len(specs) != len(self._ids(ids)):
            raise ValueError(f"{len(self._ids(ids))} environments, but {len(specs)} episode specifications")
        options = {"task": [spec.task for spec in specs], "goal_index": [spec.goal_index for spec in specs]}
        return self.reset(env_id=ids, seed=[spec.seed for spec in specs], options=options)

    def seed(self, seed: int | Sequence[int] | None = None) -> list[list[int] | None]:
        """Fixes the seeds of each environment's next reset, which then is a real one.

        Args:
            seed: as in ``reset``; None forgets seeds that were not used yet.

        Returns:
            the seed of each environment, one list each, as Tianshou has it.
        """
        self._pending_seeds = [None] * self.num_envs
        self._pending_seeds = self._seeds(self._all_ids, seed)
        return [None if each is None else [each] for each in self._pending_seeds]

    def get_env_attr(self, key: str, id: Any = None) -> list[Any]:
        """Gives an attribute once per environment; Tianshou reads ``action_space`` through here."""
        shared = {"action_space": self.single_action_space, "observation_space": self.single_observation_space}
        return [shared.get(key)] * len(self._ids(id))

    def set_env_attr(self, key: str, value: Any, id: Any = None) -> None:
        """Refuses: the rules are the protocol's, fixed when the environment is built."""
        raise NotImplementedError(f"{type(self).__name__} cannot set {key!r}: build another environment")

    def close(self) -> None:
        """Frees the environments; a second call does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self._close()

    @abstractmethod
    def _close(self) -> None:
        """Frees the environments; called once."""

    def _ids(self, ids: Ids) -> NDArray[np.int64]:
        """Gives the listed environments as an array, checked."""
        if self.is_closed:
            raise RuntimeError(f"this {type(self).__name__} was closed")
        if ids is None:
            return self._all_ids
        listed = np.atleast_1d(np.asarray(ids, dtype=np.int64))
        if np.array_equal(listed, self._all_ids):
            return self._all_ids
        if len(listed) == 0 or listed.min() < 0 or listed.max() >= self.num_envs or len(set(listed)) < len(listed):
            raise ValueError(f"expected distinct environments out of 0..{self.num_envs - 1}, got {listed.tolist()}")
        return listed

    def _seeds(self, ids: NDArray[np.int64], seed: int | Sequence[int] | None) -> list[int | None]:
        """Gives one seed per listed environment; without ``seed``, what ``seed()`` left for them (used up thereby)."""
        if seed is None:
            seeds = [self._pending_seeds[each] for each in ids]
        elif isinstance(seed, int | np.integer):
            derived = derive_seeds(int(seed), self.num_envs)
            seeds = [derived[each] for each in ids]
        else:
            seeds = [int(each) for each in seed]
            if len(seeds) != len(ids) or min(seeds) < 0:
                raise ValueError(f"expected {len(ids)} seeds, none negative, got {seeds}")
        for each in ids:
            self._pending_seeds[each] = None
        return seeds

    def _actions(self, action: Any, num: int) -> NDArray[Any]:
        """Gives the actions as an array of the space's dtype.

        Raises:
            ValueError: if one does not belong to the action space.
        """
        space, actions = self.single_action_space, np.asarray(action)
        if actions.shape != (num, *self._action_shape):
            raise ValueError(f"expected actions of shape {(num, *self._action_shape)}, got {actions.shape}")
        if isinstance(space, spaces.Discrete):
            low, high = int(space.start), int(space.start + space.n) - 1
            if actions.dtype.kind not in "iu":
                raise ValueError(f"expected whole-number actions {low}..{high}, got {actions.dtype} {actions.tolist()}")
            if actions.min() < low or actions.max() > high:
                raise ValueError(f"expected actions in {low}..{high}, got {actions.tolist()}")
            return actions.astype(np.int64)
        if isinstance(space, spaces.Box):
            if actions.dtype.kind != "f":
                raise ValueError(f"expected floating-point actions, got {actions.dtype} {actions.tolist()}")
            slack = ROUNDING * np.where(np.isfinite(space.high - space.low), space.high - space.low, 0.0)
            inside = (actions >= space.low - slack) & (actions <= space.high + slack)  # False for NaN
            if not inside.all():
                raise ValueError(f"expected actions in {space.low}..{space.high}, got {actions[~inside].tolist()}")
            clipped: NDArray[Any] = np.clip(actions, space.low, space.high).astype(space.dtype)
            return clipped
        bad = [each for each in actions if not space.contains(each)]
        if bad:
            raise ValueError(f"expected actions in {space}, got {bad}")
        return actions


def _row_options(options: dict[str, Any] | None, num: int) -> list[dict[str, Any] | None]:
    """Splits options into one dict per environment: lists and tuples by row, anything else shared."""
    if options is None:
        return [None] * num
    for key, value in options.items():
        if isinstance(value, list | tuple) and len(value) != num:
            raise ValueError(f"reset option {key!r} has {len(value)} values for {num} environments")
    return [
        {key: value[row] if isinstance(value, list | tuple) else value for key, value in options.items()}
        for row in range(num)
    ]


class GymVectorEnv(VectorEnv):
    """A gymnasium ``SyncVectorEnv`` or ``AsyncVectorEnv`` as a ``VectorEnv``.

    Only the listed sub-environments are touched: in-process ones are called directly, those in worker processes through
    their own pipes, with gymnasium's worker commands. So an idle environment stands still, each one gets its own seed
    and options, and Tianshou's Collector gathers the same bits as over its ``DummyVectorEnv``.

    Args:
        venv: built with ``AutoresetMode.DISABLED``; owned from now on.
        protocol: the rules it was made under, if any.
        episode_info_keys: keys of the environments' info to hand on, as float32; 0 where one is missing.

    Raises:
        ValueError: if the vector environment resets by itself.
        TypeError: if it is neither a SyncVectorEnv nor an AsyncVectorEnv.
    """

    def __init__(
        self,
        venv: gymnasium.vector.VectorEnv[Any, Any, Any],
        *,
        protocol: Protocol | None = None,
        episode_info_keys: Sequence[str] = ("success",),
    ) -> None:
        if not isinstance(venv, SyncVectorEnv | AsyncVectorEnv):
            raise TypeError(f"expected a SyncVectorEnv or AsyncVectorEnv, got {type(venv).__name__}")
        if venv.autoreset_mode is not AutoresetMode.DISABLED:
            raise ValueError(f"build the vector env with AutoresetMode.DISABLED, not {venv.autoreset_mode}")
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space, protocol)
        self._venv = venv
        self._info_keys = tuple(episode_info_keys)

    def reset(  # type: ignore[override]
        self,
        env_id: Ids = None,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Reset:
        """Starts new episodes in the listed environments; see ``VectorEnv.reset``."""
        if kwargs:
            raise TypeError(f"reset does not know {sorted(kwargs)}")
        ids = self._ids(env_id)
        row_options = _row_options(options, len(ids))
        calls = [
            {"seed": each_seed, "options": each_options}
            for each_seed, each_options in zip(self._seeds(ids, seed), row_options, strict=True)
        ]
        results = self._call("reset", ids, calls)
        obs = self._stack([result[0] for result in results], ids)
        return obs, self._info(np.zeros(len(ids)), np.zeros(len(ids), dtype=bool), [{}] * len(ids))

    def step(self, action: Any, id: Ids = None, *, meanwhile: Work | None = None) -> Step:  # type: ignore[override]
        """Advances the listed environments; see ``VectorEnv.step``."""
        ids = self._ids(id)
        if meanwhile is not None:
            meanwhile()
        results = self._call("step", ids, list(self._actions(action, len(ids))))
        _, rewards, terminations, truncations, infos = zip(*results, strict=True)
        obs = self._stack([result[0] for result in results], ids)
        reward = np.array(rewards, dtype=np.float32)
        terminated, truncated = np.array(terminations, dtype=bool), np.array(truncations, dtype=bool)
        return obs, reward, terminated, truncated, self._info(reward, terminated | truncated, infos)

    def render(self, **kwargs: Any) -> list[Any]:
        """Gives what each environment renders (RGB arrays with ``render_mode="rgb_array"``)."""
        return list(self._venv.render() or ())

    def _close(self) -> None:
        self._venv.close()

    def _call(self, command: str, ids: NDArray[np.int64], arguments: Sequence[Any]) -> list[Any]:
        """Calls ``reset`` or ``step`` on the listed sub-environments only."""
        if isinstance(self._venv, SyncVectorEnv):
            envs = [self._venv.envs[each] for each in ids]
            if command == "reset":
                return [env.reset(**argument) for env, argument in zip(envs, arguments, strict=True)]
            return [env.step(argument) for env, argument in zip(envs, arguments, strict=True)]
        pipes = [self._venv.parent_pipes[each] for each in ids]
        for pipe, argument in zip(pipes, arguments, strict=True):
            pipe.send((command, argument))
        results, successes = zip(*[pipe.recv() for pipe in pipes], strict=True)
        idle = self.num_envs - len(ids)
        self._venv._raise_if_errors([*successes, *[True] * idle])
        return list(results)

    def _stack(self, observations: list[Any], ids: NDArray[np.int64]) -> NDArray[Any]:
        """Puts observations into a new array (R, ...); workers leave theirs in shared memory and send None."""
        if isinstance(self._venv, AsyncVectorEnv) and self._venv.shared_memory:
            shared: NDArray[Any] = self._venv.observations
            return shared[ids]
        space = self.single_observation_space
        empty: Any = create_empty_array(space, n=len(ids))
        stacked: Any = concatenate(space, observations, empty)
        return np.asarray(stacked)

    def _info(self, raw_reward: NDArray[Any], episode_over: NDArray[np.bool_], infos: Sequence[dict[str, Any]]) -> Info:
        info = Info(raw_reward=raw_reward.astype(np.float32), episode_over=episode_over)
        for key in self._info_keys:
            info[key] = np.array([each.get(key, 0.0) for each in infos], dtype=np.float32)
        return info
