"""Acting on action values, and the state of it: what DQN, C51, QR-DQN and IQN share.

Legend: N environments, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import TorchOptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor

from agents.interface import Agent, State, child_seed, seeded_initialization
from agents.networks import PRECISIONS, build_body
from agents.plasticity.renewal import Plasticity
from agents.value_based.algorithm import ValueAlgorithm
from agents.value_based.captured import CapturedStep, CudaRecorder
from agents.value_based.config import ValueFields
from agents.value_based.q_networks import QNetwork
from memory.replay import Replay

NetworkAndRule: TypeAlias = tuple[Callable[..., QNetwork], Callable[..., ValueAlgorithm]]
AgentT = TypeVar("AgentT", bound="ValueAgent")


class ValueAgent(Agent):
    """Acts epsilon-greedily on action values, or greedily when it does not explore."""

    kind: ClassVar[Literal["off_policy", "offline"]] = "off_policy"

    def __init__(
        self,
        config: ValueFields,
        *,
        algorithm: ValueAlgorithm,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.spaces.Discrete,
        rng: np.random.Generator,
        device: str,
    ) -> None:
        super().__init__(
            observation_space=observation_space,
            action_space=action_space,
            rng=rng,
            device=device,
            algorithm=algorithm,
        )
        self.config = config
        self.learner = algorithm
        self.num_actions = int(action_space.n)
        if config.cuda_graph:
            algorithm.captured = CapturedStep(
                algorithm.step_on_device,
                algorithm.optim._optim,
                masks=lambda: [] if self.pruner is None else self.pruner.optimizers,
                recorder=CudaRecorder(),
            )
        self.set_env_steps(0)

    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Chooses the most valuable actions; with `explore`, random ones with probability epsilon.

        Noise and fractions of the network are drawn from the agent's generator when exploring, and none otherwise.
        """
        if not explore:
            return self._greedy(obs, None), None
        random_N = self.rng.random(len(obs)) < self.epsilon
        action_N = self.rng.integers(self.num_actions, size=len(obs))
        if not random_N.all():  # else no forward is needed
            action_N = np.where(random_N, action_N, self._greedy(obs, self.rng))
        return action_N, None

    def _greedy(self, obs: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        with torch.inference_mode():
            q_NA = self.learner.policy.model(obs, rng=rng)[0]
            return q_NA.argmax(dim=1).cpu().numpy()

    def update(self, buffer: ReplayBuffer, batch_size: int, count: int) -> TrainingStats:
        """Takes gradient steps; those between two copies of the target network share a forward of it."""
        return self.learner.update_many(buffer, batch_size, count)

    def sample_targets(self, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Gives the regression target B of transitions, of a distribution its mean; changes nothing.

        Args:
            replay: is only read.
            indices: transitions it holds.
            rng: of noise, fractions and augmentation.
        """
        with torch.no_grad(), self.learner.using_rng(rng):
            return self.learner.compare(replay, indices)[0]

    def sample_losses(self, replay: Replay, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Gives the unweighted loss B of transitions, with the graph back to the online parameters; changes nothing.

        Args:
            replay: is only read.
            indices: transitions it holds.
            rng: of noise, fractions and augmentation.
        """
        with self.learner.using_rng(rng):
            return self.learner.compare(replay, indices)[1].loss_B

    def set_env_steps(self, env_steps: int) -> None:
        """Moves epsilon, also the one that Tianshou's own collector uses."""
        super().set_env_steps(env_steps)
        self.epsilon = self.config.epsilon(env_steps)
        self.learner.policy.set_eps_training(self.epsilon)

    def metrics(self) -> dict[str, float]:
        """Gives epsilon (if it learns from its own play), the learning rate, the last loss, Q mean and grad norm."""
        return {
            **super().metrics(),
            **({"epsilon": self.epsilon} if self.kind == "off_policy" else {}),
            "learning_rate": self.config.learning_rate,
            **self.learner.last_stats,
            **({} if self.learner.plasticity is None else self.learner.plasticity.metrics()),
        }

    def counters(self) -> dict[str, Any]:
        """Gives the base counters, the updates' generator and number, and the running sums of the next report."""
        return {
            **super().counters(),
            "update_rng": self.learner.rng.bit_generator.state,
            "num_updates": self.learner.num_updates,
            "metric_sums": [float(total) for total in self.learner.sums],
            "last_stats": dict(self.learner.last_stats),
            **({} if self.learner.plasticity is None else {"plasticity": self.learner.plasticity.counters()}),
        }

    def load_training_state(self, optimizer_state: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `optimizer_state` and `counters` gave.

        Raises:
            ValueError: as the base class, and if only one of state and agent has renewals.
        """
        if ("plasticity" in counters) != (self.learner.plasticity is not None):
            raise ValueError("the training state of an agent with plasticity fits no agent without, nor the reverse")
        super().load_training_state(optimizer_state, counters)
        if self.learner.plasticity is not None:
            self.learner.plasticity.load(counters["plasticity"])
        if self.learner.captured is not None:
            self.learner.captured.forget()
        self.learner.rng.bit_generator.state = counters["update_rng"]
        self.learner._iter = counters["num_updates"]
        self.learner.last_stats = dict(counters["last_stats"])
        for total, value in zip(self.learner.sums, counters["metric_sums"], strict=True):
            total.fill_(value)


def build_value_agent(
    config: ValueFields,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
    make_network: Callable[..., QNetwork],
    make_algorithm: Callable[..., ValueAlgorithm],
    make_agent: type[AgentT],
) -> AgentT:
    """Builds network, algorithm and agent.

    Args:
        config: of the agent.
        observation_space: of one environment.
        action_space: of one environment.
        device: where the network lives.
        seed: of the agent; its children 0 to 3 are for weights, acting, updates and renewals.
        make_network: makes the network of a body, the number of actions, and the options of `QNetwork`.
        make_algorithm: makes the update rule of the arguments of `ValueAlgorithm`.
        make_agent: class of the agent.

    Raises:
        ValueError: if the spaces do not fit the network, or actions are not discrete.
    """
    if not isinstance(action_space, gymnasium.spaces.Discrete):
        raise ValueError(f"action values need a discrete action space, not {action_space}")

    def fresh(seed: np.random.SeedSequence) -> QNetwork:
        with seeded_initialization(seed):
            body = build_body(config.network, observation_space, precision=PRECISIONS[config.precision])
            network = make_network(
                body, int(action_space.n), initialization=config.network.initialization, dueling=config.dueling
            )
            if config.noisy:
                network.make_noisy(config.noisy_sigma)
        return network

    algorithm = make_algorithm(
        policy=DiscreteQLearningPolicy(
            model=fresh(child_seed(seed, 0)).to(device), action_space=action_space, observation_space=observation_space
        ),
        optim=_optimizer(config),
        config=config,
        rng=np.random.default_rng(child_seed(seed, 2)),
    )
    if config.plasticity is not None:
        algorithm.plasticity = Plasticity(
            config.plasticity,
            algorithm.policy.model,
            algorithm.optim._optim,
            fresh=fresh,
            seed=child_seed(seed, 3),
        )
    return make_agent(
        config,
        algorithm=algorithm,
        observation_space=observation_space,
        action_space=action_space,
        rng=np.random.default_rng(child_seed(seed, 1)),
        device=device,
    )


def _optimizer(config: ValueFields) -> TorchOptimizerFactory:
    """Gives what makes Adam, or AdamW where weights decay."""
    usual: dict[str, Any] = {"lr": config.learning_rate, "eps": config.adam_eps, "fused": True}
    if not config.weight_decay:
        return TorchOptimizerFactory(torch.optim.Adam, **usual)
    return TorchOptimizerFactory(torch.optim.AdamW, weight_decay=config.weight_decay, **usual)
