"""Who acts while episodes are collected, behind one small interface over rows of a vector env.

Legend: N envs of the vector env, R rows that are stepped, A action shape (empty for discrete actions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from agents.interface import Agent
    from envs.tianshou_vector import VectorEnv
    from sextant.collect_plan import Plan


class CollectingPolicy(Protocol):
    """Chooses actions as agents store them: indices, or vectors in [-1, 1]."""

    def begin(self, rows: np.ndarray, tasks: Sequence[str]) -> None:
        """Starts episodes of these tasks in these rows."""

    def act(self, obs_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Gives the actions (R, *A) of these rows."""

    def replace(self, rows: np.ndarray, action: np.ndarray) -> None:
        """Takes in the actions (R, *A) that are executed in these rows, where they are not its own."""

    def receive(self, rows: np.ndarray, reward: np.ndarray) -> None:
        """Takes in the raw rewards (R,) of the step just made."""


class Memoryless:
    """A policy that needs to know neither where episodes start nor what they earn."""

    def begin(self, rows: np.ndarray, tasks: Sequence[str]) -> None:
        """Does nothing."""

    def replace(self, rows: np.ndarray, action: np.ndarray) -> None:
        """Does nothing."""

    def receive(self, rows: np.ndarray, reward: np.ndarray) -> None:
        """Does nothing."""


class Expert(Memoryless):
    """Meta-World's scripted policy of each row's task.

    Args:
        env: shows the goal.
    """

    def __init__(self, env: VectorEnv) -> None:
        from agents.scripted import ScriptedMetaworldAgent

        self._agent = ScriptedMetaworldAgent(
            (),
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            rng=np.random.default_rng(0),
        )
        self._task_of = [""] * env.num_envs

    def begin(self, rows: np.ndarray, tasks: Sequence[str]) -> None:
        """Takes note of the tasks."""
        for row, task in zip(rows, tasks, strict=True):
            self._task_of[row] = task

    def act(self, obs_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Gives the experts' actions, clipped to [-1, 1]."""
        self._agent.tasks = [self._task_of[row] for row in rows]
        return self._agent.act(obs_N[rows])[0]


class Optimal(Memoryless):
    """The best actions that a task with a known optimum tells itself.

    Args:
        env: knows them.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._start = int(env.single_action_space.start)

    def act(self, obs_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Gives the env's own optimal actions."""
        return np.asarray(self._env.optimal_actions(rows), np.int64) - self._start


class Uniform(Memoryless):
    """Stands in for a policy where every action is drawn by the episode itself.

    Args:
        env: gives the action space.
    """

    def __init__(self, env: VectorEnv) -> None:
        space = env.single_action_space
        self._shape, self._dtype = space.shape or (), np.float32 if space.shape else np.int64

    def act(self, obs_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Gives zeros, to be replaced."""
        return np.zeros((len(rows), *self._shape), self._dtype)


class AgentPolicy:
    """A run's agent. It sees all N rows, so that its state and batch keep their shape.

    Args:
        agent: with its weights.
        num_envs: N.
        explore: whether it explores.
    """

    def __init__(self, agent: Agent, num_envs: int, explore: bool) -> None:
        self.agent, self._explore = agent, explore
        self._state: Any = agent.initial_state(num_envs)

    def begin(self, rows: np.ndarray, tasks: Sequence[str]) -> None:
        """Starts episodes in the agent's state."""
        self._state = self.agent.begin_episodes(self._state, rows, tasks)

    def act(self, obs_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Gives the agent's actions, vectors clipped to [-1, 1]."""
        action_N, self._state = self.agent.act(obs_N, self._state, explore=self._explore)
        action = np.asarray(action_N)[rows]
        return action.astype(np.int64) if action.dtype.kind in "iu" else np.clip(action, -1, 1).astype(np.float32)

    def replace(self, rows: np.ndarray, action: np.ndarray) -> None:
        """Tells the agent what is executed."""
        self._state = self.agent.replace_actions(self._state, rows, action)

    def receive(self, rows: np.ndarray, reward: np.ndarray) -> None:
        """Hands the rewards to the agent."""
        self._state = self.agent.receive_rewards(self._state, rows, reward)


def make_policy(plan: Plan, env: VectorEnv) -> CollectingPolicy:
    """Builds the plan's policy for a vector env.

    Raises:
        ConfigError: if the run has no such intact checkpoint.
    """
    name = plan.config.policy
    if name == "run":
        explore = plan.config.explore
        explore = plan.protocol.evaluation_policy == "sampled" if explore is None else explore
        return AgentPolicy(load_agent(plan), env.num_envs, explore)
    others: dict[str, Callable[[Any], CollectingPolicy]] = {"expert": Expert, "optimal": Optimal, "random": Uniform}
    return others[name](env)


def load_agent(plan: Plan) -> Agent:
    """Builds the agent of the plan's run and loads the checkpoint that the plan was made for.

    Raises:
        ConfigError: if that checkpoint is not there any more.
    """
    from rich.console import Console

    from sextant.evaluate import build_acting_agent, intact_snapshot
    from sextant.refusal import ConfigError

    config = plan.config
    assert config.run is not None and plan.train_config is not None
    agent = build_acting_agent(plan.train_config, plan.protocol, config.device, run_dir=config.run)
    snapshot = intact_snapshot(config.run, config.checkpoint, Console(stderr=True))
    if snapshot.env_steps != plan.env_steps:
        raise ConfigError(
            f"checkpoint={config.checkpoint} of {config.run} changed from {plan.env_steps} to {snapshot.env_steps} "
            "env steps meanwhile: let its training end first"
        )
    agent.load_weights(snapshot.weights, acting_only=True)
    agent.set_env_steps(snapshot.env_steps)
    return agent
