"""DQN and Double DQN as Dopamine trains them, on Tianshou's DQN.

Regress the value of each replayed action on the reward plus the discounted value of the best next action under a target
network that is copied from the online one every few thousand gradient steps.

Sources: Mnih et al. 2015; van Hasselt et al. 2016; Dopamine, jax/agents/dqn/dqn_agent.py.
Differs from Tianshou's DQN: no forward of the online network on the next observations unless double; importance weights
count under the Huber loss too; the target is copied after every `target_update_period`-th gradient step (Tianshou:
before the next one, and once at step 0); with our replay an update walks no module tree and copies no flags.

Legend: B batch, A actions, N environments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.optim import OptimizerFactory, TorchOptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor

from agents.heads import HeadedNetwork, to_tensor
from agents.interface import Agent, State, child_seed, seeded_initialization
from agents.losses import double_value, greedy_value, huber_error, squared_error, td_target, weighted_mean
from agents.networks import build_body
from agents.value_based.config import DQNConfig
from memory.replay import Replay

MAX_JOINT_STEPS = 8
"""Gradient steps that share one forward of the target network, at most; bounds the memory it takes."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(kw_only=True)
class DQNTrainingStats(TrainingStats):
    """What one update reports. All None except on every `metrics_period`-th gradient step.

    Attributes:
        loss: mean over the gradient steps since the last report.
        q_mean: mean value of the replayed actions over the same gradient steps (units of return).
        grad_norm: L2 norm of the gradient of the reporting step alone.
    """

    loss: float | None = None
    q_mean: float | None = None
    grad_norm: float | None = None


class DQNAlgorithm(DQN[DiscreteQLearningPolicy[HeadedNetwork]]):
    """The update rule.

    Args:
        policy: holds the online network.
        optim: makes the optimizer.
        config: everything else.
    """

    def __init__(
        self, *, policy: DiscreteQLearningPolicy[HeadedNetwork], optim: OptimizerFactory, config: DQNConfig
    ) -> None:
        super().__init__(
            policy=policy,
            optim=optim,
            gamma=config.gamma,
            n_step_return_horizon=config.n_step,
            target_update_freq=config.target_update_period,
            is_double=config.double,
            huber_loss_delta=config.huber_delta if config.loss == "huber" else None,
        )
        assert self.model_old is not None
        self.target = cast(HeadedNetwork, self.model_old.module)
        self.target.requires_grad_(False)
        # Only ever read as bfloat16, so kept as that: the same numbers without a conversion per forward.
        self.target.body.layers.to(self.target.body.precision)
        self.error_loss: Callable[[Tensor], Tensor] = (
            partial(huber_error, delta=config.huber_delta) if config.loss == "huber" else squared_error
        )
        self.metrics_period = config.metrics_period
        device = policy.model.head.weight.device
        self.sums: tuple[Tensor, Tensor] = (torch.zeros((), device=device), torch.zeros((), device=device))
        self.last_stats: dict[str, float] = {}

    @property
    def num_updates(self) -> int:
        """Gradient steps taken."""
        return self._iter

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """Takes one gradient step on a batch sampled from the buffer.

        Args:
            buffer: ours, or any of Tianshou's, which takes Tianshou's own slower path.
            sample_size: transitions.

        Raises:
            RuntimeError: outside of a training step (see Tianshou's `policy_within_training_step`).
        """
        if not isinstance(buffer, Replay) or not sample_size or not self.policy.is_within_training_step:
            return super().update(buffer, sample_size)
        return self._steps_on_one_sample(buffer, sample_size, 1)

    def update_many(self, buffer: ReplayBuffer, sample_size: int, count: int) -> TrainingStats:
        """Takes gradient steps as `update` does, but those that share a target network share one forward of it.

        The same steps up to rounding: what is sampled, and what it is worth under the target network, depends on none
        of the steps between two copies, unless the online network selects (double) or errors become priorities.
        """
        stats = TrainingStats()
        while count > 0:
            joint = self._num_joint(buffer, count)
            if joint == 1:
                stats = self.update(buffer, sample_size)
            else:
                stats = self._steps_on_one_sample(cast(Replay, buffer), sample_size, joint)
            count -= joint
        return stats

    def _num_joint(self, buffer: ReplayBuffer, count: int) -> int:
        """Gives how many of the next steps may share one forward of the target network."""
        if not isinstance(buffer, Replay) or buffer.priorities is not None or self.is_double:
            return 1
        return min(count, MAX_JOINT_STEPS, self.target_update_freq - self._iter % self.target_update_freq)

    def _steps_on_one_sample(self, buffer: Replay, batch_size: int, num_steps: int) -> DQNTrainingStats:
        """Samples the batches of some gradient steps at once, values them under the target network, and takes them."""
        started = time.perf_counter()
        device = self.policy.model.head.weight.device
        sampled, indices = buffer.sample(batch_size * num_steps)
        batch = cast(Any, sampled)
        returns, discounts, last = buffer.n_step(indices, self.n_step, self.gamma)
        next_obs = batch.obs_next if self.n_step == 1 else buffer.next_obs(last)
        with torch.no_grad():
            next_values = self._next_value(to_tensor(next_obs, device))
            targets = td_target(to_tensor(returns, device), to_tensor(discounts, device), next_values)
        weights = batch.weight if "weight" in batch else None
        for start in range(0, len(indices), batch_size):
            rows = slice(start, start + batch_size)
            weight_B = None if weights is None else weights[rows]
            stats, td_error_B = self._gradient_step(batch.obs[rows], batch.act[rows], targets[rows], weight_B)
            if weights is not None:
                buffer.update_weight(indices[rows], td_error_B.cpu().numpy())
        stats.train_time = time.perf_counter() - started
        return stats

    def _update_with_batch(self, batch: Any) -> DQNTrainingStats:  # type: ignore[override]
        """Takes one gradient step on a batch of Tianshou's own buffers, whose returns are already computed."""
        weight = batch.pop("weight", None)
        stats, td_error_B = self._gradient_step(batch.obs, batch.act, batch.returns.flatten().float(), weight)
        batch.weight = td_error_B  # Tianshou's prioritised buffers read it back
        return stats

    def _target_q(self, buffer: ReplayBuffer, indices: np.ndarray) -> Tensor:
        """Gives the bootstrap values of Tianshou's own buffers, without the online forward of its plain DQN."""
        return self._next_value(to_tensor(cast(Any, buffer[indices]).obs_next, self.policy.model.head.weight.device))

    def _next_value(self, next_obs: Tensor) -> Tensor:
        target_q_BA = self.target(next_obs)[0]
        if not self.is_double:
            return greedy_value(target_q_BA)
        return double_value(self.policy.model(next_obs)[0], target_q_BA)

    def _gradient_step(
        self, obs: np.ndarray, action: np.ndarray, target_B: Tensor, weight: np.ndarray | Tensor | None
    ) -> tuple[DQNTrainingStats, Tensor]:
        """Moves the online network towards the targets; copies it into the target network when that is due."""
        device = target_B.device
        weight_B = None if weight is None else torch.as_tensor(weight, dtype=torch.float32, device=device)
        action_B1 = torch.as_tensor(action, dtype=torch.int64, device=device).reshape(-1, 1)
        q_B = self.policy.model(obs)[0].gather(1, action_B1).squeeze(1)
        td_error_B = target_B - q_B
        loss = weighted_mean(self.error_loss(td_error_B), weight_B)
        self.optim.step(loss)
        self._iter += 1
        if self._iter % self.target_update_freq == 0:
            self._update_lagged_network_weights()
        return self._report(loss.detach(), q_B.detach()), td_error_B.detach()

    def _report(self, loss: Tensor, q_B: Tensor) -> DQNTrainingStats:
        """Adds to the running sums on the device, and reads them only when a report is due."""
        loss_sum, q_sum = self.sums
        loss_sum += loss
        q_sum += q_B.mean()
        if self._iter % self.metrics_period:
            return DQNTrainingStats()
        gradients = [p.grad for p in self.policy.model.parameters() if p.grad is not None]
        self.last_stats = {
            "loss": float(loss_sum) / self.metrics_period,
            "q_mean": float(q_sum) / self.metrics_period,
            "grad_norm": float(torch.nn.utils.get_total_norm(gradients)),
        }
        loss_sum.zero_()
        q_sum.zero_()
        stats = DQNTrainingStats()
        stats.__dict__.update(self.last_stats)
        return stats


class DQNAgent(Agent):
    """Acts epsilon-greedily on action values, or greedily when it does not explore."""

    kind: ClassVar[Literal["off_policy"]] = "off_policy"

    def __init__(
        self,
        config: DQNConfig,
        *,
        algorithm: DQNAlgorithm,
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
        self.dqn = algorithm
        self.num_actions = int(action_space.n)
        self.set_env_steps(0)

    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Chooses the most valuable actions; with `explore`, random ones with probability epsilon."""
        if not explore:
            return self._greedy(obs), None
        random_N = self.rng.random(len(obs)) < self.epsilon
        action_N = self.rng.integers(self.num_actions, size=len(obs))
        if not random_N.all():  # else no forward is needed
            action_N = np.where(random_N, action_N, self._greedy(obs))
        return action_N, None

    def _greedy(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            q_NA = self.dqn.policy.model(obs)[0]
            return q_NA.argmax(dim=1).cpu().numpy()

    def update(self, buffer: ReplayBuffer, batch_size: int, count: int) -> TrainingStats:
        """Takes gradient steps; those between two copies of the target network share a forward of it."""
        return self.dqn.update_many(buffer, batch_size, count)

    def set_env_steps(self, env_steps: int) -> None:
        """Moves epsilon, also the one that Tianshou's own collector uses."""
        super().set_env_steps(env_steps)
        config = self.config
        self.epsilon = linear_decay(
            env_steps, config.epsilon_initial, config.epsilon_final, config.learning_starts, config.epsilon_decay
        )
        self.dqn.policy.set_eps_training(self.epsilon)

    def metrics(self) -> dict[str, float]:
        """Gives epsilon, the learning rate, and the last report of loss, Q mean and gradient norm."""
        return {"epsilon": self.epsilon, "learning_rate": self.config.learning_rate, **self.dqn.last_stats}

    def counters(self) -> dict[str, Any]:
        """Gives the base counters, the gradient steps taken, and the running sums of the next report."""
        return {
            **super().counters(),
            "num_updates": self.dqn.num_updates,
            "metric_sums": [float(total) for total in self.dqn.sums],
            "last_stats": dict(self.dqn.last_stats),
        }

    def load_training_state(self, optimizer_state: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `optimizer_state` and `counters` gave."""
        super().load_training_state(optimizer_state, counters)
        self.dqn._iter = counters["num_updates"]
        self.dqn.last_stats = dict(counters["last_stats"])
        for total, value in zip(self.dqn.sums, counters["metric_sums"], strict=True):
            total.fill_(value)


def linear_decay(step: int, initial: float, final: float, start: int, duration: int) -> float:
    """Gives `initial` until `start`, `final` from `start + duration` on, and a straight line between.

    Source: Dopamine, jax/agents/dqn/dqn_agent.py, linearly_decaying_epsilon.
    """
    fraction = min(max((step - start) / duration, 0.0), 1.0)
    return initial + fraction * (final - initial)


def build_dqn(
    config: DQNConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
) -> DQNAgent:
    """Builds network, algorithm and agent.

    Raises:
        ValueError: if the spaces do not fit the network, or actions are not discrete.
    """
    if not isinstance(action_space, gymnasium.spaces.Discrete):
        raise ValueError(f"DQN needs a discrete action space, not {action_space}")
    with seeded_initialization(child_seed(seed, 0)):
        body = build_body(config.network, observation_space, precision=PRECISIONS[config.precision])
        network = HeadedNetwork(body, int(action_space.n), config.network.initialization).to(device)
    algorithm = DQNAlgorithm(
        policy=DiscreteQLearningPolicy(model=network, action_space=action_space, observation_space=observation_space),
        optim=TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, eps=config.adam_eps, fused=True),
        config=config,
    )
    return DQNAgent(
        config,
        algorithm=algorithm,
        observation_space=observation_space,
        action_space=action_space,
        rng=np.random.default_rng(child_seed(seed, 1)),
        device=device,
    )
