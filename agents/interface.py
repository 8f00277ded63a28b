"""What every agent offers: acting on batches of observations, schedules, and its whole state for a checkpoint.

Training code is a Tianshou `Algorithm`; the agent wraps it. The same object is used by trainer, evaluator and tools.

Legend: N environments.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import gymnasium
import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tianshou.algorithm.algorithm_base import Algorithm, TrainingStats
    from tianshou.data import ReplayBuffer

    from agents.pruning.pruner import Pruner

State: TypeAlias = Any  # recurrent state of N rows, explicit and owned by the caller; None for feed-forward agents


class Agent(ABC):
    """An acting, and usually learning, agent.

    Args:
        observation_space: of one environment.
        action_space: of one environment, Discrete or bounded Box.
        rng: source of all randomness of acting; its state is part of `counters`.
        device: where the networks live.
        algorithm: Tianshou's algorithm; None for agents that do not learn.
    """

    kind: ClassVar[Literal["off_policy", "on_policy", "offline", "scripted"]] = "scripted"

    def __init__(
        self,
        *,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        rng: np.random.Generator,
        device: str = "cpu",
        algorithm: Algorithm[Any, Any] | None = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.rng = rng
        self.device = torch.device(device)
        self.env_steps = 0
        self._algorithm = algorithm
        self.pruner: Pruner | None = None  # see agents.pruning.PruningConfig.attach

    @property
    def algorithm(self) -> Algorithm[Any, Any]:
        """Tianshou's algorithm.

        Raises:
            TypeError: if this agent does not learn.
        """
        if self._algorithm is None:
            raise TypeError(f"{type(self).__name__} does not learn: it has no algorithm")
        return self._algorithm

    @property
    def num_parameters(self) -> int:
        """Numbers in what acts, trained or frozen; critics and target networks are not counted. 0 for scripts."""
        return 0 if self._algorithm is None else sum(each.numel() for each in self._algorithm.policy.parameters())

    # Acting

    def initial_state(self, num_envs: int) -> State:
        """Gives the recurrent state at the start of N episodes; None for a feed-forward agent."""
        return None

    def reset_state(self, state: State, rows: Sequence[int] | np.ndarray) -> State:
        """Gives the state with the listed rows back at the start of an episode, all others unchanged."""
        return state

    def begin_episodes(self, state: State, rows: Sequence[int] | np.ndarray, tasks: Sequence[str]) -> State:
        """Starts episodes in the listed rows; called once per episode, before its first `act`, never at a lost life.

        The default is `reset_state`. Agents that need to know the task (a prompt, a target return) override it.

        Args:
            state: of N rows.
            rows: where episodes start, distinct.
            tasks: the task of each listed row, in the same order.

        Returns:
            the state, all other rows unchanged.
        """
        return self.reset_state(state, rows)

    def receive_rewards(self, state: State, rows: Sequence[int] | np.ndarray, reward: np.ndarray) -> State:
        """Takes in what the last action of each listed row earned; called after every env step.

        The default ignores it. Agents that act on past rewards or on the return still to come override it.

        Args:
            state: of N rows, as the last `act` gave it.
            rows: that were stepped, distinct; those whose episode just ended are among them.
            reward: (len(rows),) float32, raw: before any clipping.

        Returns:
            the state, all other rows unchanged.
        """
        return state

    def replace_actions(self, state: State, rows: Sequence[int] | np.ndarray, action: np.ndarray) -> State:
        """Takes in that other actions than its own are executed; called after `act`, before the env step.

        That happens where a protocol or a collection plays some actions at random. The default ignores it. Agents that
        act on past actions override it.

        Args:
            state: of N rows, as the last `act` gave it.
            rows: whose actions were replaced, distinct.
            action: (len(rows), *A), as `act` gives them: indices from 0, or vectors in [-1, 1].

        Returns:
            the state, all other rows unchanged.
        """
        return state

    @abstractmethod
    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Chooses actions for N observations.

        Args:
            obs: (N, ...).
            state: of the same N rows.
            explore: whether to explore (epsilon-greedy, or sampled); False is greedy, or the policy's mode.

        Returns:
            actions as the replay stores them (see `env_action`), and the new state.
        """

    def random_action(self, num_envs: int) -> np.ndarray:
        """Gives N uniform actions as the replay stores them: indices, or vectors in [-1, 1]."""
        if isinstance(self.action_space, gymnasium.spaces.Discrete):
            return self.rng.integers(int(self.action_space.n), size=num_envs)
        assert self.action_space.shape is not None
        return self.rng.uniform(-1.0, 1.0, size=(num_envs, *self.action_space.shape)).astype(np.float32)

    def env_action(self, action: np.ndarray) -> np.ndarray:
        """Gives what the environments receive for stored actions: Box actions clipped to [-1, 1], then scaled."""
        return to_env_action(action, self.action_space)

    @contextmanager
    def using_rng(self, rng: np.random.Generator) -> Iterator[None]:
        """Lends the agent another generator, so that an evaluation leaves its own untouched."""
        own, self.rng = self.rng, rng
        try:
            yield
        finally:
            self.rng = own

    # Learning

    def update(self, buffer: ReplayBuffer, batch_size: int, count: int) -> TrainingStats:
        """Takes gradient steps on batches sampled from a buffer (off-policy agents), one after the other.

        Args:
            buffer: transitions.
            batch_size: of each step.
            count: of steps, at least 1.

        Returns:
            what the last one reports.
        """
        learner: Any = self.algorithm
        for _ in range(count):
            stats: TrainingStats = learner.update(buffer=buffer, sample_size=batch_size)
        return stats

    # Schedules and numbers to show

    def set_env_steps(self, env_steps: int) -> None:
        """Moves every schedule (epsilon, learning rate) to this number of env steps."""
        self.env_steps = env_steps

    def metrics(self) -> dict[str, float]:
        """Gives the current value of each schedule, the last reported learning metrics, and sparsities if pruned."""
        return {} if self.pruner is None else self.pruner.metrics()

    def pictures(self) -> dict[str, np.ndarray]:
        """Gives pictures of what happened since the last call: uint8 RGB, height x width x 3, by name; none here."""
        return {}

    # State

    def weights(self) -> dict[str, Tensor]:
        """Gives every parameter and buffer by name, targets included: live memory, detached, each listed once."""
        if self._algorithm is None:
            return {}
        named = chain(self._algorithm.named_parameters(), self._algorithm.named_buffers())
        return {name: tensor.detach() for name, tensor in named}

    def load_weights(self, weights: Mapping[str, Tensor], *, acting_only: bool = False) -> None:
        """Copies weights in place; the caller's mapping is not changed.

        Args:
            weights: as `weights` gives them, from an agent of the same config.
            acting_only: whether to take only what acting needs (the policy), ignoring all else.

        Raises:
            ValueError: if a tensor is missing, unknown or of another shape; nothing is loaded then.
        """
        own = self.weights()
        if acting_only:
            own = {name: tensor for name, tensor in own.items() if name.startswith("policy.")}
        elif unknown := sorted(weights.keys() - own.keys()):
            raise ValueError(f"weights hold {unknown[0]!r}, which this agent lacks ({len(unknown)} such)")
        for name, tensor in own.items():
            if name not in weights:
                raise ValueError(f"weights lack {name!r}")
            if weights[name].shape != tensor.shape:
                raise ValueError(f"{name!r} has shape {tuple(weights[name].shape)}, here it is {tuple(tensor.shape)}")
        for name, tensor in own.items():
            tensor.copy_(weights[name].detach())

    def optimizer_state(self) -> dict[str, Any]:
        """Gives the state of all optimizers and schedulers, readable by `torch.load(weights_only=True)`."""
        if self._algorithm is None:
            return {}
        return {
            "optimizers": [plain(optimizer.state_dict()) for optimizer in self._optimizers()],
            "lr_schedulers": [plain(scheduler.state_dict()) for scheduler in self._algorithm.lr_schedulers],
            **({} if self.pruner is None else {"pruner": self.pruner.tensors()}),
        }

    def counters(self) -> dict[str, Any]:
        """Gives everything else a resumed agent needs, as JSON: generator state, env steps, update counts."""
        return {
            "rng": self.rng.bit_generator.state,
            "env_steps": self.env_steps,
            **({} if self.pruner is None else {"pruner": self.pruner.counters()}),
        }

    def load_training_state(self, optimizer_state: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `optimizer_state` and `counters` gave. Call `load_weights` too; neither argument is changed.

        Raises:
            ValueError: if the numbers of optimizers or schedulers differ, or only one of state and agent is pruned.
        """
        if ("pruner" in counters) != (self.pruner is not None):
            raise ValueError("a pruned agent's training state needs a pruner, and an unpruned one's needs none")
        if self._algorithm is not None:
            pairs: tuple[tuple[str, Sequence[Any]], ...] = (
                ("optimizers", self._optimizers()),
                ("lr_schedulers", self._algorithm.lr_schedulers),
            )
            for name, targets in pairs:
                saved = optimizer_state[name]
                if len(saved) != len(targets):
                    raise ValueError(f"the checkpoint holds {len(saved)} {name}, this agent has {len(targets)}")
                for target, state in zip(targets, saved, strict=True):
                    target.load_state_dict(copy.deepcopy(state))  # torch would keep the caller's tensors as its own
        if self.pruner is not None:
            self.pruner.load(optimizer_state["pruner"], counters["pruner"])
        self.rng.bit_generator.state = counters["rng"]
        self.set_env_steps(counters["env_steps"])

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Gives the torch optimizers, in a fixed order. Those that Tianshou does not list are added by subclasses."""
        return [wrapper._optim for wrapper in self.algorithm._optimizers]


def to_env_action(action: np.ndarray, action_space: gymnasium.Space[Any]) -> np.ndarray:
    """Maps stored actions to an action space: indices shifted to its start, vectors clipped to [-1, 1] and scaled.

    Never leaves the bounds, not even by rounding. NaN stays NaN, for the environment to refuse.
    """
    if isinstance(action_space, gymnasium.spaces.Discrete):
        return action + int(action_space.start) if action_space.start else action
    assert isinstance(action_space, gymnasium.spaces.Box)
    low, high = action_space.low, action_space.high
    scaled = low + (high - low) * (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
    return np.clip(scaled, low, high).astype(action_space.dtype)


def to_agent_action(action: np.ndarray, action_space: gymnasium.Space[Any]) -> np.ndarray:
    """Maps env actions to those that agents store: indices from 0, or vectors in [-1, 1]; undoes `to_env_action`."""
    if isinstance(action_space, gymnasium.spaces.Discrete):
        return action - int(action_space.start)
    assert isinstance(action_space, gymnasium.spaces.Box)
    low, high = action_space.low, action_space.high
    return np.asarray(2.0 * (action - low) / (high - low) - 1.0, np.float32)


def require_bounded(action_space: gymnasium.Space[Any]) -> gymnasium.spaces.Box:
    """Gives the space as a Box with finite bounds, to which [-1, 1] can be scaled.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(action_space, gymnasium.spaces.Box) or len(action_space.shape) != 1:
        raise ValueError(f"a continuous agent needs a Box of one dimension as action space, not {action_space}")
    if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
        raise ValueError(f"a continuous agent needs finite action bounds, not {action_space}")
    return action_space


def plain(value: Any) -> Any:
    """Gives nested state with numpy scalars turned into Python numbers, which weights-only loading demands."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def child_seed(seed: np.random.SeedSequence, index: int) -> np.random.SeedSequence:
    """Gives the index-th child without moving the parent's own spawn counter."""
    return np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, index))


@contextmanager
def seeded_initialization(seed: np.random.SeedSequence) -> Iterator[None]:
    """Draws network weights on the CPU from a seed, and leaves torch's global generator as it was."""
    before = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        yield
    finally:
        torch.default_generator.set_state(before)
