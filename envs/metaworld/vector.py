"""Several Meta-World environments side by side, in this process or in one spawned process each, with the same results.

An in-process vector env shares one pool of simulators. Worker processes build theirs themselves (a rendering context
cannot be pickled), from the protocol and the goals. Which of the two is faster depends on cores and load, so
``workers="auto"`` measures; no trajectory depends on the answer.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from envs.metaworld.goals import GoalSet
from envs.metaworld.protocol import MetaworldProtocol
from envs.metaworld.single import ACTION_DIM, MetaworldEnv, SimulatorPool, make_worker_env, protocol_goals
from envs.protocols import derive_seeds
from envs.tianshou_vector import GymVectorEnv, Ids, Reset

Kind = Literal["sync", "async"]
KINDS: tuple[Kind, ...] = ("sync", "async")

MEASURED_STEPS = 100
"""Vector steps timed for each kind of workers: some 0.05 s per environment and kind."""

MARGIN = 1.1
"""Worker processes must be this much faster: they cost 150 MB and a second of start-up each."""

_choices: dict[int, Kind] = {}  # environments stepped at once -> what was measured in this process


class MetaworldVector(GymVectorEnv):
    """Meta-World envs that share the tasks out round-robin.

    Episodes without a named task take the protocol's tasks in turn over all environments, in the order of their resets,
    so that every task is begun equally often. A reset with a seed sets the turn from that seed: what follows depends on
    the seed alone, and often-checkpointed runs do not favour the first tasks.
    """

    def __init__(self, venv: SyncVectorEnv | AsyncVectorEnv, protocol: MetaworldProtocol) -> None:
        super().__init__(venv, protocol=protocol, episode_info_keys=("success", "task_index", "goal_index"))
        self._tasks = protocol.tasks
        self._turn = 0

    def reset(  # type: ignore[override]
        self,
        env_id: Ids = None,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Reset:
        """Starts new episodes; options ``task`` and ``goal_index`` (lists: one value per listed env) force them."""
        ids = self._ids(env_id)
        options = dict(options or {})
        if "task" not in options:
            first = self._first_seed(ids, seed)
            if first is not None:
                self._turn = first % len(self._tasks)
            options["task"] = [self._tasks[(self._turn + place) % len(self._tasks)] for place in range(len(ids))]
            self._turn = (self._turn + len(ids)) % len(self._tasks)
        self._release(ids)
        return super().reset(ids, seed=seed, options=options, **kwargs)

    @property
    def kind(self) -> Kind:
        """Whether the environments live in this process or in their own."""
        return "sync" if isinstance(self._venv, SyncVectorEnv) else "async"

    def _first_seed(self, ids: NDArray[np.int64], seed: int | Sequence[int] | None) -> int | None:
        """Gives the seed that the first listed env is about to get, if any."""
        if seed is None:
            return self._pending_seeds[ids[0]]
        if isinstance(seed, int | np.integer):
            return derive_seeds(int(seed), self.num_envs)[ids[0]]
        return int(seed[0])

    def _release(self, ids: NDArray[np.int64]) -> None:
        """Hands the listed in-process envs' simulators back first, so that they can swap without building any."""
        if isinstance(self._venv, SyncVectorEnv):
            for each in ids:
                env = self._venv.envs[each]
                assert isinstance(env, MetaworldEnv)
                env.release()


def make_vector_env(
    protocol: MetaworldProtocol,
    num_envs: int,
    workers: Kind | Literal["auto"] = "auto",
    *,
    max_simulators: int = 64,
    log: Callable[[str], None] = print,
) -> MetaworldVector:
    """Builds a vector env under a protocol.

    Args:
        protocol: tasks, goals and rules.
        num_envs: number of environments.
        workers: ``sync`` (this process), ``async`` (one spawned process each), or ``auto`` (the faster).
        max_simulators: idle simulators kept over all processes.
        log: gets one line about the choice if ``workers`` is ``auto``.
    """
    goals = protocol_goals(protocol)
    make = functools.partial(_build, protocol, goals, max_simulators)
    if workers == "auto":
        workers = _faster(make, num_envs, log)
    return make(num_envs, workers)


def _faster(make: Callable[[int, Kind], MetaworldVector], num_envs: int, log: Callable[[str], None]) -> Kind:
    """Gives the faster kind of workers, measured with no more environments than there are cores to step them."""
    cores = _cores()
    at_once = min(num_envs, cores)
    if at_once in _choices:  # said when it was made
        return _choices[at_once]
    if at_once == 1:
        _choices[at_once] = "sync"
        log(f"Meta-World workers: sync ({num_envs} environments on {cores} cores: nothing runs side by side)")
        return "sync"
    try:
        speeds = {kind: _measure(make(at_once, kind)) for kind in KINDS}
    except (OSError, EOFError, RuntimeError, AssertionError) as error:  # no main guard, or inside a daemonic process
        log(f"Meta-World workers: sync (processes cannot be spawned here: {error!r})")
        return "sync"
    chosen: Kind = "async" if speeds["async"] > MARGIN * speeds["sync"] else "sync"
    _choices[at_once] = chosen
    log(
        f"Meta-World workers: {chosen} (measured with {at_once} environments on {cores} cores: "
        f"sync {speeds['sync']:,.0f}, async {speeds['async']:,.0f} env steps/s)"
    )
    return chosen


def _cores() -> int:
    """Gives the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measure(env: MetaworldVector) -> float:
    """Times an env and closes it."""
    try:
        return steps_per_second(env)
    finally:
        env.close()


def steps_per_second(env: MetaworldVector, num_steps: int = MEASURED_STEPS) -> float:
    """Measures env steps per second under random actions, building of simulators and resets left out."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    actions = rng.uniform(-1, 1, (num_steps, env.num_envs, ACTION_DIM)).astype(np.float32)
    started, done = time.perf_counter(), 0
    for each in actions:
        _, _, _, _, info = env.step(each)
        done += env.num_envs
        if info["episode_over"].any():
            break
    return done / (time.perf_counter() - started)


def _build(
    protocol: MetaworldProtocol, goals: GoalSet, max_simulators: int, num_envs: int, workers: Kind
) -> MetaworldVector:
    if workers == "sync":
        pool = SimulatorPool(max_simulators, protocol.reward_version)
        here = functools.partial(MetaworldEnv, protocol, goals=goals, simulators=pool)
        return MetaworldVector(SyncVectorEnv([here] * num_envs, autoreset_mode=AutoresetMode.DISABLED), protocol)
    there = functools.partial(make_worker_env, protocol, goals, max(1, max_simulators // num_envs))
    venv = AsyncVectorEnv(
        [there] * num_envs, context="spawn", shared_memory=True, autoreset_mode=AutoresetMode.DISABLED
    )
    return MetaworldVector(venv, protocol)
