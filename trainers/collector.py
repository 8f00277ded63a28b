"""Collects transitions for training: vectorised, with raw returns, and restorable to the bit.

Plugs into Tianshou's trainers in place of ``tianshou.data.Collector`` (which they use through ``collect``, ``reset``,
``buffer`` and the statistics only). Ours exists because Tianshou's spends about a quarter of the emulator's time on
``Batch`` records and copies every finished episode out of the replay, and because the return it reports is that of
the stored (clipped, per-life) reward.

Legend: N parallel envs, T vector steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tianshou.data import CollectStats
from tianshou.data.collector import BaseCollector

from trainers.episodes import StopReason

if TYPE_CHECKING:
    from agents.interface import Agent
    from envs.tianshou_vector import VectorEnv
    from memory.replay import Replay


@dataclass(frozen=True)
class FinishedEpisode:
    """One training episode, in raw rewards and agent steps.

    Attributes:
        env_index: which of the N parallel envs played it.
        raw_return: sum of the rewards before any clipping.
        length: agent steps.
        success: whether any step succeeded, or None where the env knows no success.
        success_last: whether the last step succeeded, or None.
        first_success: agent step (from 1) of the first success, or None.
        stop: ``terminated``, ``truncated`` or ``cut`` (by a checkpoint boundary).
        task_index: place of the task in the protocol's list; 0 where there is one task only.
        goal_index: which of the task's goals, or None where there are none.
    """

    env_index: int
    raw_return: float
    length: int
    success: bool | None
    success_last: bool | None
    first_success: int | None
    stop: StopReason
    task_index: int = 0
    goal_index: int | None = None


class _OpenEpisodes:
    """Running totals of the N episodes under way."""

    def __init__(self, num_envs: int) -> None:
        self.raw_return_N = np.zeros(num_envs, np.float64)
        self.length_N = np.zeros(num_envs, np.int64)
        self.first_success_N = np.zeros(num_envs, np.int64)  # 0: none yet
        self.success_last_N = np.zeros(num_envs, bool)
        self.knows_success = False
        self.task_N = np.zeros(num_envs, np.int64)
        self.goal_N: np.ndarray | None = None

    def add(self, info: dict[str, np.ndarray]) -> None:
        self.raw_return_N += info["raw_reward"]
        self.length_N += 1
        if "success" in info:
            self.knows_success = True
            self.success_last_N = np.asarray(info["success"]) > 0
            first = self.success_last_N & (self.first_success_N == 0)
            self.first_success_N[first] = self.length_N[first]
        if "goal_index" in info:
            self.task_N, self.goal_N = info["task_index"].astype(np.int64), info["goal_index"].astype(np.int64)

    def close(self, env_index: int, stop: StopReason) -> FinishedEpisode:
        first = int(self.first_success_N[env_index])
        episode = FinishedEpisode(
            env_index=env_index,
            raw_return=float(self.raw_return_N[env_index]),
            length=int(self.length_N[env_index]),
            success=first > 0 if self.knows_success else None,
            success_last=bool(self.success_last_N[env_index]) if self.knows_success else None,
            first_success=first or None,
            stop=stop,
            task_index=int(self.task_N[env_index]),
            goal_index=None if self.goal_N is None else int(self.goal_N[env_index]),
        )
        self.raw_return_N[env_index] = 0.0
        self.length_N[env_index] = 0
        self.first_success_N[env_index] = 0
        self.success_last_N[env_index] = False
        return episode


class OnlineCollector(BaseCollector[CollectStats]):
    """Steps all envs together and writes every transition to the replay.

    Between two checkpoint boundaries the collector keeps the actions it sent, so that a run stopped in between is
    restored by stepping fresh envs through the same actions (the envs are deterministic given their seeds).
    """

    def __init__(
        self,
        agent: Agent,
        venv: VectorEnv,
        replay: Replay,
        *,
        on_step: Callable[[int], None] | None = None,
        on_episode: Callable[[FinishedEpisode], None] | None = None,
    ) -> None:
        """Prepares the collector; nothing runs before :meth:`begin_interval`.

        Args:
            agent: decides; its stored actions go to the replay, its ``env_action`` to the envs.
            venv: N envs.
            replay: takes one transition per env and vector step.
            on_step: called after every vector step with the env steps it took.
            on_episode: called for every finished episode, in env order within a step.
        """
        self.agent = agent
        self.venv = venv
        self.replay = replay
        self.on_step = on_step or (lambda env_steps: None)
        self.on_episode = on_episode or (lambda episode: None)
        self.random_actions = False
        self.env_seconds = 0.0
        self._state: Any = None
        self._obs_NO: np.ndarray | None = None
        self._open = _OpenEpisodes(len(venv))
        self._sent: list[np.ndarray] = []
        self._unstored: dict[str, np.ndarray] | None = None
        super().__init__(agent.algorithm.policy, venv, replay, exploration_noise=True, raise_on_nan_in_buffer=False)

    def begin_interval(self, env_seeds: Sequence[int]) -> None:
        """Cuts the open episodes and starts new ones in every env, seeded: what makes an exact resume possible.

        Args:
            env_seeds: one seed per env.
        """
        for env_index in np.flatnonzero(self._open.length_N):
            self.on_episode(self._open.close(int(env_index), "cut"))
        self.replay.cut()
        self.start_episodes(env_seeds)

    def start_episodes(self, env_seeds: Sequence[int]) -> None:
        """Starts new episodes in every env without touching the replay (used directly when restoring)."""
        self._obs_NO, _ = self.venv.reset(seed=list(env_seeds))
        self._open = _OpenEpisodes(len(self.venv))
        self._state = self.agent.initial_state(len(self.venv))
        self._sent = []

    def sent_actions(self) -> np.ndarray:
        """Gives the env actions sent since the last boundary, shape (T, N, ...)."""
        return np.stack(self._sent) if self._sent else np.zeros((0, len(self.venv)), np.int64)

    def fast_forward(self, actions_TN: np.ndarray) -> None:
        """Brings freshly started envs to where they stood after these actions; nothing is stored or reported.

        Args:
            actions_TN: what :meth:`sent_actions` gave when the checkpoint was written.
        """
        if self.agent.initial_state(1) is not None and len(actions_TN):
            raise ValueError("agents with recurrent state cannot be restored between two checkpoint boundaries")
        quiet, self.on_episode = self.on_episode, lambda episode: None
        for action_N in actions_TN:
            self._step_envs(action_N)
        self.on_episode = quiet

    def reset_env(self, gym_reset_kwargs: dict[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Refuses: only :meth:`begin_interval` starts episodes, so that no open one is left in the replay."""
        raise RuntimeError("OnlineCollector starts episodes through begin_interval(env_seeds), not reset()")

    def collect(
        self,
        n_step: int | None = None,
        n_episode: int | None = None,
        random: bool = False,
        render: float | None = None,
        reset_before_collect: bool = False,
        gym_reset_kwargs: dict[str, Any] | None = None,
    ) -> CollectStats:
        """Steps all envs until ``n_step`` env steps are done; the other arguments of Tianshou's collectors are refused.

        Tianshou's own ``collect`` walks all modules at every call to switch their mode; our networks act alike in both.

        Raises:
            ValueError: for any argument but ``n_step`` and ``random``.
        """
        if n_episode is not None or render is not None or reset_before_collect or gym_reset_kwargs:
            raise ValueError("this collector counts steps and starts episodes itself; evaluate() plays whole episodes")
        return self._collect(n_step=n_step, random=random)

    def _collect(
        self,
        n_step: int | None = None,
        n_episode: int | None = None,
        random: bool = False,
        render: float | None = None,
        gym_reset_kwargs: dict[str, Any] | None = None,
    ) -> CollectStats:
        if not n_step or n_step < 0:
            raise ValueError(f"n_step={n_step}: must be a positive number of env steps")
        if self._obs_NO is None:
            raise RuntimeError("begin_interval(env_seeds) must come before the first collect()")
        num_envs, num_steps = len(self.venv), 0
        returns: list[float] = []
        lengths: list[int] = []
        random = random or self.random_actions
        while num_steps < n_step:
            if random:
                action_N = self.agent.random_action(num_envs)
            else:
                action_N, self._state = self.agent.act(self._obs_NO, self._state, explore=True)
            for episode in self._step_envs(self.agent.env_action(action_N), action_N):
                returns.append(episode.raw_return)
                lengths.append(episode.length)
            num_steps += num_envs
            self.on_step(num_envs)
        self._store()
        self.collect_step += num_steps
        self.collect_episode += len(returns)
        return CollectStats.with_autogenerated_stats(
            returns=np.array(returns, float),
            lens=np.array(lengths, int),
            n_collected_episodes=len(returns),
            n_collected_steps=num_steps,
        )

    def _store(self) -> None:
        """Writes the newest transitions to the replay; done while the envs step on, and at the end of a collection."""
        if self._unstored is not None:
            self.replay.add_step(**self._unstored)
            self._unstored = None

    def _step_envs(self, env_action_N: np.ndarray, stored_action_N: np.ndarray | None = None) -> list[FinishedEpisode]:
        """Steps every env once; stores the transitions where a stored action is given; gives the finished episodes."""
        assert self._obs_NO is not None
        started = time.perf_counter()
        next_obs_NO, reward_N, terminated_N, truncated_N, info = self.venv.step(env_action_N, meanwhile=self._store)
        self.env_seconds += time.perf_counter() - started
        self._sent.append(np.array(env_action_N))
        episode_over_N = info["episode_over"]
        if stored_action_N is not None:
            self._unstored = {
                "obs": self._obs_NO,
                "act": stored_action_N,
                "rew": reward_N,
                "terminated": terminated_N,
                "truncated": truncated_N,
                "obs_next": next_obs_NO,
                "episode_over": episode_over_N,
            }
        self._open.add(info)
        finished: list[FinishedEpisode] = []
        ended_N = terminated_N | truncated_N
        if np.count_nonzero(ended_N):  # quicker than any()
            ended_ids = np.flatnonzero(ended_N)
            started = time.perf_counter()
            reset_obs, _ = self.venv.reset(ended_ids)
            self.env_seconds += time.perf_counter() - started
            next_obs_NO = next_obs_NO.copy()
            next_obs_NO[ended_ids] = reset_obs
            over_ids = np.flatnonzero(episode_over_N)
            self._state = self.agent.reset_state(self._state, over_ids)
            for env_index in over_ids:
                stop: StopReason = "terminated" if terminated_N[env_index] else "truncated"
                finished.append(self._open.close(int(env_index), stop))
                self.on_episode(finished[-1])
        self._obs_NO = next_obs_NO
        return finished
