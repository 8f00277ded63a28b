"""Plays units of a collection: in this process, or in spawned ones that end with it.

Legend: N envs of a vector env, R rows that are stepped, T steps of an episode.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sextant.collect_plan import METAWORLD_GOAL, METAWORLD_OBS, Plan, Unit
from sextant.collect_policies import AgentPolicy, make_policy
from sextant.run_dirs import RunError

if TYPE_CHECKING:
    from envs.base import EpisodeSpec
    from memory.trajectories import Episode

_NOISE_STREAM = 0xC011EC7  # keeps an episode's action noise apart from what its env draws from the same seed


@dataclass(frozen=True)
class Played:
    """What a process tells about an episode.

    Attributes:
        task: of the episode.
        number: of the episode.
        length: env steps.
        succeeded: whether any step was a success, None where the env does not tell.
        kept: whether it was stored (others were only played for those beside them).
    """

    task: str
    number: int
    length: int
    succeeded: bool | None
    kept: bool


class _Recording:
    """An episode under way: what it draws, and what is kept of it."""

    def __init__(self, plan: Plan, spec: EpisodeSpec, number: int, obs: np.ndarray) -> None:
        self._plan, self.spec, self.number = plan, spec, number
        self._rng = np.random.default_rng([spec.seed, _NOISE_STREAM])
        self._noise = plan.noise(number)
        self._facts = plan.facts[spec.task]
        chosen, rules = plan.config.epsilon, plan.protocol.evaluation_epsilon if plan.config.policy == "run" else 0.0
        self._epsilon = 1.0 if plan.config.policy == "random" else rules if chosen is None else chosen
        self._obs: list[np.ndarray] = []
        self._action: list[np.ndarray] = []
        self._reward: list[float] = []
        self._success: list[bool] = []
        self._stack = np.zeros_like(obs)
        self.see(obs)

    def choose(self, action: np.ndarray) -> np.ndarray:
        """Gives the action that is executed and stored: the policy's with this episode's noise, or a random one."""
        if self._epsilon and self._rng.random() < self._epsilon:
            if self._facts.num_actions is not None:
                action = np.asarray(self._rng.integers(self._facts.num_actions, dtype=np.int64))
            else:
                action = self._rng.uniform(-1.0, 1.0, action.shape).astype(np.float32)
        elif self._noise:
            noisy = action + self._noise * self._rng.standard_normal(action.shape)
            action = np.clip(noisy, -1.0, 1.0).astype(np.float32)
        self._action.append(np.asarray(action))
        return action

    def see(self, obs: np.ndarray) -> None:
        """Keeps an observation: its newest frame, or all of it.

        Raises:
            RunError: if a stack is not the one before moved on by a frame.
        """
        if self._facts.observation_kind == "frames":
            if not np.array_equal(obs[:-1], self._stack[1:]):
                raise RunError(f"{self.spec.task}: the env's stacks of frames cannot be rebuilt from single frames")
            self._stack, obs = obs.copy(), obs[-1]
        elif self._plan.hides_goal:
            obs = obs[:METAWORLD_OBS].copy()
            obs[METAWORLD_GOAL] = 0.0
        self._obs.append(np.array(obs))

    def add(self, obs: np.ndarray, reward: float, success: float | None) -> None:
        """Keeps what a step led to."""
        self.see(obs)
        self._reward.append(reward)
        if success is not None:
            self._success.append(success > 0)

    def is_over(self, episode_over: bool) -> bool:
        """Tells whether to stop here."""
        at_success = self._plan.config.stop_at_success and bool(self._success) and self._success[-1]
        return episode_over or at_success or len(self._reward) >= self._plan.protocol.max_episode_steps

    def episode(self, terminated: bool, truncated: bool) -> Episode:
        """Gives the finished episode."""
        from memory.trajectories import Episode

        obs = np.stack(self._obs)
        return Episode(
            obs=obs if obs.dtype == np.uint8 else obs.astype(np.float32),
            action=np.stack(self._action),
            reward=np.array(self._reward, np.float32),
            terminated=terminated,
            truncated=truncated,
            success=np.array(self._success) if self._success else None,
            task=self.spec.task,
            seed=self.spec.seed,
            goal_index=self.spec.goal_index,
            noise=self._noise,
            source=self._plan.source,
        )


class Player:
    """Envs and policy of one process.

    Args:
        plan: what is collected.
        stop: asked before every step; True ends the unit early, without the episodes under way.
    """

    def __init__(self, plan: Plan, stop: Callable[[], bool]) -> None:
        self.plan, self._stop = plan, stop
        self.env = plan.env.make_evaluation_env(plan.protocol, plan.num_envs)
        self._policy = make_policy(plan, self.env)

    def play(self, unit: Unit) -> Iterator[Played]:
        """Plays a unit and stores what is missing of it; gives every episode as it ends.

        A run's agent may draw from one generator for all its rows: the whole unit is played then, so that the missing
        episodes come out as they would have.
        """
        from memory.trajectory_store import TrajectoryWriter

        plan = self.plan
        facts, specs = plan.facts[unit.task], plan.specs(unit.task)
        numbers = unit.numbers if plan.config.policy == "run" else unit.missing
        with (
            self._seeded(specs[unit.numbers[0]].seed),
            TrajectoryWriter(plan.config.out, facts, float16=plan.config.float16) as writer,
        ):
            for recording, episode in self._episodes([(number, specs[number]) for number in numbers]):
                kept = recording.number in unit.missing
                if kept:
                    writer.next_episode = recording.number
                    writer.add(episode)
                yield Played(unit.task, recording.number, episode.length, episode.succeeded, kept)

    def _seeded(self, seed: int) -> AbstractContextManager[None]:
        from trainers.playing import evaluation_mode

        return evaluation_mode(self._policy.agent, seed) if isinstance(self._policy, AgentPolicy) else nullcontext()

    def _episodes(self, wanted: list[tuple[int, EpisodeSpec]]) -> Iterator[tuple[_Recording, Episode]]:
        """Plays episodes side by side, each once; an env that is done takes the next."""
        waiting = deque(wanted)
        open_rows: dict[int, _Recording] = {}
        idle = list(range(self.env.num_envs))
        obs_N = np.zeros((self.env.num_envs, *self.env.single_observation_space.shape), self._obs_dtype)
        while waiting or open_rows:
            self._begin(idle, waiting, open_rows, obs_N)
            if self._stop():
                return
            rows = np.array(sorted(open_rows))
            obs, terminated, truncated, over, info = self._step(rows, open_rows, obs_N)
            obs_N[rows] = obs
            success = info.get("success")
            idle = []
            for place, row in enumerate(rows.tolist()):
                recording = open_rows[row]
                told = None if success is None else float(success[place])
                recording.add(obs[place], float(info["raw_reward"][place]), told)
                if recording.is_over(bool(over[place])):
                    del open_rows[row]
                    idle.append(row)
                    yield recording, recording.episode(bool(terminated[place]), bool(truncated[place]))

    @property
    def _obs_dtype(self) -> Any:
        return self.env.single_observation_space.dtype

    def _begin(
        self,
        idle: list[int],
        waiting: deque[tuple[int, EpisodeSpec]],
        open_rows: dict[int, _Recording],
        obs_N: np.ndarray,
    ) -> None:
        """Starts the next episodes in idle envs, as long as there are any."""
        begun = [(row, *waiting.popleft()) for row in idle[: len(waiting)]]
        if not begun:
            return
        rows, specs = np.array([row for row, _, _ in begun]), [spec for _, _, spec in begun]
        obs_N[rows], _ = self.env.begin_episodes(rows, specs)
        self._policy.begin(rows, [spec.task for spec in specs])
        for row, number, spec in begun:
            open_rows[row] = _Recording(self.plan, spec, number, obs_N[row])

    def _step(
        self, rows: np.ndarray, open_rows: dict[int, _Recording], obs_N: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Any]:
        from agents.interface import to_env_action

        chosen = self._policy.act(obs_N, rows)
        action = np.stack([open_rows[row].choose(each) for row, each in zip(rows.tolist(), chosen, strict=True)])
        replaced = np.flatnonzero([not np.array_equal(*pair) for pair in zip(action, chosen, strict=True)])
        if replaced.size:
            self._policy.replace(rows[replaced], action[replaced])
        sent = to_env_action(action, self.env.single_action_space)
        obs, _, terminated, truncated, info = self.env.step(sent, id=rows)
        self._policy.receive(rows, np.asarray(info["raw_reward"], np.float32))
        return obs, terminated, truncated, info["episode_over"], info

    def close(self) -> None:
        """Closes the envs."""
        self.env.close()


def play_here(plan: Plan, units: list[Unit]) -> Iterator[Played]:
    """Plays the units in this process, one after the other."""
    player = Player(plan, lambda: False)
    try:
        for unit in units:
            yield from player.play(unit)
    finally:
        player.close()


def play_in_processes(plan: Plan, units: list[Unit]) -> Iterator[Played]:
    """Plays the units in ``plan.config.workers`` spawned processes; gives the episodes of a unit when it is done.

    Left early (Ctrl-C, an error), it lets every process finish its step and drops the episodes under way.

    Raises:
        RunError: if a process was killed from outside, for example for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(plan.config.workers, len(units)), mp_context=context, initializer=_start, initargs=(plan, stop)
    )
    try:
        waiting: set[Future[list[Played]]] = {pool.submit(_play, unit) for unit in units}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    except BrokenProcessPool as error:
        raise RunError(
            f"one of {plan.config.workers} collecting processes was killed (out of memory?); what is stored is whole: "
            "run the same command again, with fewer workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_process: dict[str, Any] = {}  # of a spawned process: its plan and stop event, and its player once there is one


def _start(plan: Plan, stop: Any) -> None:
    """Prepares a spawned process: Ctrl-C is its parent's business, and it does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _process.update(plan=plan, stop=stop)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _play(unit: Unit) -> list[Played]:
    plan: Plan = _process["plan"]
    if "player" not in _process:
        _process["player"] = Player(plan, _process["stop"].is_set)
        if plan.train_config is not None:
            from trainers.threads import set_torch_threads

            set_torch_threads(1)  # the processes share the cores
    return list(_process["player"].play(unit))
