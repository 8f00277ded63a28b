"""Evaluates a policy on a fixed list of episodes: each exactly once, whatever their length and however many envs run.

Counting the first n episodes to finish favours short ones (with Meta-World's early stop at success, the successful
ones). Here the episodes are listed before anything runs, and a score is over exactly that list.

Legend: N parallel envs, A env action shape.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.episodes import EpisodeRecord, StopReason, summarise
from trainers.evaluation_files import evaluation_dir, load_episodes, load_evaluations, write_evaluation
from trainers.playing import EpisodeNoise, evaluation_mode, random_action, select_episodes

if TYPE_CHECKING:
    from agents.interface import Agent
    from envs.base import EpisodeSpec
    from envs.protocols import Protocol
    from envs.tianshou_vector import VectorEnv

__all__ = [
    "EpisodeNoise",
    "EpisodeRecord",
    "evaluate",
    "evaluate_random",
    "evaluation_dir",
    "evaluation_mode",
    "load_episodes",
    "load_evaluations",
    "random_action",
    "select_episodes",
    "summarise",
    "write_evaluation",
]

Observer = Callable[[EpisodeRecord], None]
MakeEnv = Callable[[Any, int], "VectorEnv"]
"""From the rules of some episodes (a protocol, of the class that the env knows) and a number to that many envs."""


def evaluate(
    agent: Agent,
    make_env: MakeEnv,
    protocol: Protocol,
    *,
    seed: int,
    run: str,
    run_seed: int,
    checkpoint_env_steps: int,
    num_envs: int,
    num_episodes: int | None = None,
    observer: Observer | None = None,
) -> list[EpisodeRecord]:
    """Plays the protocol's episodes in envs of its own.

    Touches neither training envs nor any random state, and puts the agent's modules back into their modes. With a
    greedy protocol the records do not depend on ``num_envs`` (up to float rounding of the network at another batch
    size). A policy that samples draws from generators that are set from ``seed`` and put back; it depends on
    ``num_envs``.

    Args:
        agent: acts with ``explore=False`` under a greedy protocol, with ``explore=True`` under a sampled one.
        make_env: makes an evaluation env of that many copies under the rules given, those of the protocol or one of
            its parts; closed here. A config's ``make_evaluation_env`` is one.
        protocol: what is played, its policy mode and its epsilon (drawn here, per episode).
        seed: of the episode list; independent of the run's seed.
        run: name written into the records.
        run_seed: training seed written into the records.
        checkpoint_env_steps: training so far, written into the records (unit: env steps).
        num_envs: copies at most; never more than episodes.
        num_episodes: play only this many of the protocol's episodes, spread over its tasks.
        observer: called with each record as its episode ends, in the order of ending.

    Returns:
        the records in the protocol's order.

    Raises:
        ValueError: if ``num_envs`` or ``num_episodes`` is out of range.
    """
    specs = select_episodes(protocol.episodes(seed), num_episodes)
    who = {"run": run, "seed": run_seed, "checkpoint_step": checkpoint_env_steps}
    return _play(agent, make_env, protocol, specs, seed, who, num_envs, observer)


def evaluate_random(
    make_env: MakeEnv,
    protocol: Protocol,
    *,
    seed: int,
    num_envs: int,
    num_episodes: int | None = None,
    observer: Observer | None = None,
) -> list[EpisodeRecord]:
    """Plays the same episodes with uniform random actions: the baseline under the same protocol.

    The actions come from each episode's own stream, so the records are the same for any ``num_envs``.
    Arguments, order and errors as in :func:`evaluate`; the records are those of run ``random`` at env step 0.
    """
    specs = select_episodes(protocol.episodes(seed), num_episodes)
    who = {"run": "random", "seed": seed, "checkpoint_step": 0}
    return _play(None, make_env, protocol, specs, seed, who, num_envs, observer)


class _Queues:
    """Hands out every episode once: neighbours (of one task) to one env, and to idle envs what others have left."""

    def __init__(self, num_episodes: int, num_envs: int) -> None:
        self._queues = [deque(part.tolist()) for part in np.array_split(np.arange(num_episodes), num_envs)]

    def next(self, env_id: int) -> int | None:
        """Gives the position of the env's next episode, or None when all are handed out."""
        if self._queues[env_id]:
            return int(self._queues[env_id].popleft())
        longest = max(self._queues, key=len)
        return int(longest.pop()) if longest else None


class _Episode:
    """Running totals of one episode."""

    def __init__(self, position: int, spec: EpisodeSpec, noise: EpisodeNoise) -> None:
        self.position, self.spec, self.noise = position, spec, noise
        self.raw_return, self.length = 0.0, 0
        self.success_last: bool | None = None
        self.first_success: int | None = None

    def add(self, raw_reward: float, success: float | None) -> None:
        self.raw_return += raw_reward
        self.length += 1
        if success is not None:
            self.success_last = bool(success > 0)
            if self.success_last and self.first_success is None:
                self.first_success = self.length

    def record(self, stop_reason: StopReason, facts: dict[str, Any]) -> EpisodeRecord:
        return EpisodeRecord(
            **facts,
            task=self.spec.task,
            goal_index=self.spec.goal_index,
            raw_return=self.raw_return,
            length=self.length,
            success=None if self.success_last is None else self.first_success is not None,
            success_last=self.success_last,
            first_success=self.first_success,
            stop_reason=stop_reason,
        )


def _play(
    agent: Agent | None,
    make_env: MakeEnv,
    protocol: Protocol,
    specs: list[EpisodeSpec],
    seed: int,
    who: dict[str, Any],
    num_envs: int,
    observer: Observer | None,
) -> list[EpisodeRecord]:
    """Plays the episodes part by part; random actions alone where there is no agent."""
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    facts = {**who, "protocol_id": protocol.id, "protocol_hash": protocol.hash, "env_id": protocol.env_name}
    records: list[EpisodeRecord] = []
    with evaluation_mode(agent, seed):
        for rules, own_specs in protocol.parts(specs):
            env = make_env(rules, min(num_envs, len(own_specs)))
            try:
                epsilon = 1.0 if agent is None else rules.evaluation_epsilon
                records += _Rollout(agent, env, rules, own_specs, epsilon).run(facts, observer)
            finally:
                env.close()
    return records


class _Rollout:
    """One pass over the episodes in one vector env."""

    def __init__(
        self, agent: Agent | None, env: VectorEnv, protocol: Protocol, specs: list[EpisodeSpec], epsilon: float
    ) -> None:
        self.agent, self.env, self.protocol, self.specs, self.epsilon = agent, env, protocol, specs, epsilon
        self.queues = _Queues(len(specs), env.num_envs)
        self.open: dict[int, _Episode] = {}  # by env, in ascending order of env
        self.obs_N: np.ndarray = np.empty(0)
        self.state: Any = agent.initial_state(env.num_envs) if agent is not None else None

    def run(self, facts: dict[str, Any], observer: Observer | None) -> list[EpisodeRecord]:
        records: list[EpisodeRecord | None] = [None] * len(self.specs)
        self.begin(list(range(self.env.num_envs)))
        while self.open:
            ended = self.step()
            for env_id, reason in ended.items():
                episode = self.open.pop(env_id)
                records[episode.position] = record = episode.record(reason, facts)
                if observer is not None:
                    observer(record)
            if ended:
                self.begin(list(ended))
        return [record for record in records if record is not None]

    def begin(self, env_ids: list[int]) -> None:
        """Starts the next episode in each of these envs, as long as there are any."""
        positions = {env_id: position for env_id in env_ids if (position := self.queues.next(env_id)) is not None}
        if not positions:
            return
        ids = np.fromiter(positions, np.int64)
        obs, _ = self.env.begin_episodes(ids, [self.specs[position] for position in positions.values()])
        if not self.obs_N.size:
            self.obs_N = np.array(obs)
        self.obs_N[ids] = obs
        if self.agent is not None:
            tasks = [self.specs[position].task for position in positions.values()]
            self.state = self.agent.begin_episodes(self.state, ids, tasks)
        for env_id, position in positions.items():
            noise = EpisodeNoise(self.specs[position], self.epsilon, self.env.single_action_space)
            self.open[env_id] = _Episode(position, self.specs[position], noise)
        self.open = dict(sorted(self.open.items()))

    def step(self) -> dict[int, StopReason]:
        """Plays one agent step in every open episode; gives the envs whose episode ended, and why."""
        ids = np.fromiter(self.open, np.int64)
        obs, _, terminated, truncated, info = self.env.step(self.actions(ids), id=ids)
        self.obs_N[ids] = obs
        if self.agent is not None:
            self.state = self.agent.receive_rewards(self.state, ids, np.asarray(info["raw_reward"], np.float32))
        over = np.asarray(info["episode_over"], bool)
        success = info.get("success")
        ended: dict[int, StopReason] = {}
        for row, (env_id, episode) in enumerate(self.open.items()):
            episode.add(float(info["raw_reward"][row]), None if success is None else float(success[row]))
            if over[row]:
                ended[env_id] = "terminated" if terminated[row] else "truncated"
            elif episode.length >= self.protocol.max_episode_steps:
                ended[env_id] = "cap"
        lost_life = ids[(np.asarray(terminated, bool) | np.asarray(truncated, bool)) & ~over]
        lost_life = lost_life[[env_id not in ended for env_id in lost_life.tolist()]]
        if lost_life.size:
            self.obs_N[lost_life], _ = self.env.reset(env_id=lost_life)  # goes on with the same game
        return ended

    def actions(self, ids: np.ndarray) -> np.ndarray:
        """Gives the env actions (len(ids), A): the policy's, or a random one where the episode's noise says so.

        The policy sees all N rows, also idle ones, so that its state keeps its shape and the batch its size.
        """
        noise = [episode.noise.draw() for episode in self.open.values()]
        if self.agent is None:
            return np.stack([np.asarray(action) for action in noise])
        policy_action, self.state = self.agent.act(
            self.obs_N, self.state, explore=self.protocol.evaluation_policy == "sampled"
        )
        action = np.array(self.agent.env_action(policy_action)[ids])
        replaced = [row for row, random in enumerate(noise) if random is not None]
        if replaced:
            from agents.interface import to_agent_action

            action[replaced] = [noise[row] for row in replaced]
            executed = to_agent_action(action[replaced], self.env.single_action_space)
            self.state = self.agent.replace_actions(self.state, ids[replaced], executed)
        return action
