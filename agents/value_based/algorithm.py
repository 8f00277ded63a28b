"""What the update rules of all agents on action values share, as one Tianshou algorithm.

An update samples transitions, asks the subclass for their targets under the target network, takes one gradient step
towards them, hands errors to a prioritised replay, and copies the online network into the target network after every
`target_update_period`-th step. Subclasses say what a target is and what it costs to miss it.

Differs from Tianshou's Q-learning: targets come from the observation after the last reward summed, for distributions
too (its C51 takes the one after the first); importance weights count under every loss; the target is copied after a
step (Tianshou: before the next one, and once at step 0); with our replay an update walks no module tree and copies no
flags.

Legend: B batch, A actions.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy, QLearningOffPolicyAlgorithm
from tianshou.algorithm.optim import OptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor

from agents.heads import to_tensor
from agents.losses import weighted_mean
from agents.plasticity.renewal import Plasticity, replayed_states
from agents.value_based.augmentation import augment
from agents.value_based.config import ValueFields
from agents.value_based.q_networks import QNetwork
from agents.value_based.records import DQNTrainingStats, Prediction, Transitions
from memory.replay import Replay

if TYPE_CHECKING:
    from agents.value_based.captured import CapturedStep

MAX_JOINT_STEPS = 8
"""Gradient steps that share one forward of the target network, at most; bounds the memory it takes."""


class ValueAlgorithm(QLearningOffPolicyAlgorithm[DiscreteQLearningPolicy[QNetwork]]):
    """The update rule without its equations.

    Args:
        policy: holds the online network.
        optim: makes the optimizer.
        config: everything else.
        rng: source of the noise, fractions and augmentations of updates.
    """

    def __init__(
        self,
        *,
        policy: DiscreteQLearningPolicy[QNetwork],
        optim: OptimizerFactory,
        config: ValueFields,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(
            policy=policy,
            optim=optim,
            gamma=config.gamma,
            n_step_return_horizon=config.n_step,
            target_update_freq=config.target_update_period,
        )
        assert self.model_old is not None
        self.target = cast(QNetwork, self.model_old.module)
        self.target.requires_grad_(False)
        # Only ever read as bfloat16, so kept as that: the same numbers without a conversion per forward.
        self.target.keep_in_lower_precision()
        self.is_double = config.double
        self.augments = config.augmentation == "drq"
        self.draws = config.noisy or self.augments
        self.rng = rng
        self.metrics_period = config.metrics_period
        device = self.device
        self.sums: tuple[Tensor, Tensor] = (torch.zeros((), device=device), torch.zeros((), device=device))
        self.last_stats: dict[str, float] = {}
        self.plasticity: Plasticity | None = None
        self.captured: CapturedStep | None = None  # takes the steps on our replay where there is one
        self._source: ReplayBuffer | None = None  # of the update at hand

    @abstractmethod
    def _targets(self, transitions: Transitions) -> Tensor:
        """Gives what the values of the actions taken are moved towards, B or B..., under the target network."""

    @abstractmethod
    def _predict(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor) -> Prediction:
        """Values a batch under the online network and compares it with its targets."""

    def _mean_target(self, target: Tensor) -> Tensor:
        """Gives the mean B of what `_targets` gave."""
        return target

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.policy.model.device

    @property
    def num_updates(self) -> int:
        """Gradient steps taken."""
        return self._iter

    @contextmanager
    def using_rng(self, rng: np.random.Generator) -> Iterator[None]:
        """Lends the updates another generator, so that a look at targets or losses leaves their own untouched."""
        own, self.rng = self.rng, rng
        try:
            yield
        finally:
            self.rng = own

    def compare(self, replay: Replay, indices: np.ndarray) -> tuple[Tensor, Prediction]:
        """Gives the mean targets B of some transitions, and what the online network makes of them, without a step.

        Args:
            replay: is only read.
            indices: transitions it holds.
        """
        transitions = self._gather(replay, replay[indices], indices)
        with torch.no_grad():
            target = self._targets(transitions)
        return self._mean_target(target), self._predict(transitions.obs, transitions.action_B1, target)

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """Takes one gradient step on a batch sampled from the buffer.

        Args:
            buffer: ours, or any of Tianshou's, which takes Tianshou's own slower path.
            sample_size: transitions.

        Raises:
            RuntimeError: outside of a training step (see Tianshou's `policy_within_training_step`).
        """
        self._source = buffer
        if not isinstance(buffer, Replay) or not sample_size or not self.policy.is_within_training_step:
            return super().update(buffer, sample_size)
        if self.captured is not None:
            return self._captured_step(buffer, sample_size, self.captured)
        return self._steps_on_one_sample(buffer, sample_size, 1)

    def update_many(self, buffer: ReplayBuffer, sample_size: int, count: int) -> TrainingStats:
        """Takes gradient steps as `update` does, but those that share a target network share one forward of it.

        The same steps up to rounding: what is sampled, and what it is worth under the target network, depends on none
        of the steps between two copies, unless the online network selects (double), errors become priorities, or
        something is drawn in between.
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
        depends = self.is_double or self.draws or self.captured is not None  # a graph holds its own target forward
        if not isinstance(buffer, Replay) or buffer.priorities is not None or depends:
            return 1
        return min(count, MAX_JOINT_STEPS, self.target_update_freq - self._iter % self.target_update_freq)

    def _steps_on_one_sample(self, buffer: Replay, batch_size: int, num_steps: int) -> DQNTrainingStats:
        """Samples the batches of some gradient steps at once, values them under the target network, and takes them."""
        started = time.perf_counter()
        self._source = buffer
        sampled, indices = buffer.sample(batch_size * num_steps)
        batch = cast(Any, sampled)
        transitions = self._gather(buffer, batch, indices)
        with torch.no_grad():
            targets = self._targets(transitions)
        weights = batch.weight if "weight" in batch else None
        for start in range(0, len(indices), batch_size):
            rows = slice(start, start + batch_size)
            weight_B = None if weights is None else weights[rows]
            stats, error_B = self._gradient_step(
                transitions.obs[rows], transitions.action_B1[rows], targets[rows], weight_B
            )
            if weights is not None:
                buffer.update_weight(indices[rows], error_B.cpu().numpy())
        stats.train_time = time.perf_counter() - started
        return stats

    def _captured_step(self, buffer: Replay, batch_size: int, captured: CapturedStep) -> DQNTrainingStats:
        """Samples a batch and takes a gradient step whose part on the device is replayed."""
        started = time.perf_counter()
        sampled, indices = buffer.sample(batch_size)
        batch = cast(Any, sampled)
        weight_B = torch.as_tensor(batch.weight, dtype=torch.float32) if "weight" in batch else None
        error_B = captured.take(self._gather(buffer, batch, indices), weight_B)
        stats = self._finish_step()
        if weight_B is not None:
            buffer.update_weight(indices, error_B.cpu().numpy())
        stats.train_time = time.perf_counter() - started
        return stats

    def _gather(self, buffer: Replay, batch: Any, indices: np.ndarray) -> Transitions:
        """Adds to a batch what its n-step targets need."""
        returns, discounts, last = buffer.n_step(indices, self.n_step, self.gamma)
        next_obs = batch.obs_next if self.n_step == 1 else buffer.next_obs(last)
        return self._transitions(batch.obs, batch.act, returns, discounts, next_obs)

    def _transitions(
        self,
        obs: np.ndarray | Tensor,
        action: np.ndarray | Tensor,
        returns: np.ndarray | Tensor,
        discounts: np.ndarray | Tensor,
        next_obs: np.ndarray | Tensor,
    ) -> Transitions:
        """Moves a batch to the device, and augments its images where that is asked for."""
        device = self.device
        both = [to_tensor(part, device) for part in (obs, next_obs)]
        if self.augments:
            both = [augment(part, self.rng) for part in both]
        action_B1 = torch.as_tensor(action, dtype=torch.int64, device=device).reshape(-1, 1)
        return Transitions(both[0], action_B1, to_tensor(returns, device), to_tensor(discounts, device), both[1])

    def _preprocess_batch(self, batch: Any, buffer: ReplayBuffer, indices: np.ndarray) -> Any:
        """Adds the targets to a batch of Tianshou's own buffers."""
        last = indices
        for _ in range(self.n_step - 1):
            last = buffer.next(last)
        batch = super()._preprocess_batch(batch, buffer, indices)
        without_B, with_one_B = batch.returns.unbind(1)
        next_obs = cast(Any, buffer[last]).obs_next
        transitions = self._transitions(
            batch.obs, batch.act, without_B.float(), (with_one_B - without_B).float(), next_obs
        )
        with torch.no_grad():
            batch.returns = self._targets(transitions)
        batch.obs = transitions.obs
        return batch

    def _target_q(self, buffer: ReplayBuffer, indices: np.ndarray) -> Tensor:
        """Gives the values 0 and 1 for each transition: the n-step returns under them tell return and discount."""
        return torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(len(indices), 1)

    def _update_with_batch(self, batch: Any) -> DQNTrainingStats:
        """Takes one gradient step on a batch of Tianshou's own buffers, whose targets are already computed."""
        weight = batch.pop("weight", None)
        stats, error_B = self._gradient_step(batch.obs, batch.act, batch.returns, weight)
        batch.weight = error_B  # Tianshou's prioritised buffers read it back
        return stats

    def _best_next_action(self, next_obs: Tensor, target_q_BA: Tensor) -> Tensor:
        """Gives the next action B1: the target network's choice, or the online network's where double."""
        q_BA = self.policy.model(next_obs, rng=self.rng)[0] if self.is_double else target_q_BA
        return q_BA.argmax(dim=1, keepdim=True)

    def _gradient_step(
        self, obs: np.ndarray | Tensor, action: np.ndarray | Tensor, target: Tensor, weight: np.ndarray | Tensor | None
    ) -> tuple[DQNTrainingStats, Tensor]:
        """Moves the online network towards the targets; copies it into the target network when that is due."""
        device = target.device
        weight_B = None if weight is None else torch.as_tensor(weight, dtype=torch.float32, device=device)
        action_B1 = torch.as_tensor(action, dtype=torch.int64, device=device).reshape(-1, 1)
        error_B = self._descend(obs, action_B1, target, weight_B)
        return self._finish_step(), error_B

    def step_on_device(self, transitions: Transitions, weight_B: Tensor | None) -> Tensor:
        """Takes a gradient step as far as the device goes: what a CUDA graph holds. Gives the errors B.

        Args:
            transitions: a batch.
            weight_B: importance weights; None where there are none.
        """
        with torch.no_grad():
            target = self._targets(transitions)
        return self._descend(transitions.obs, transitions.action_B1, target, weight_B)

    def _descend(self, obs: np.ndarray | Tensor, action_B1: Tensor, target: Tensor, weight_B: Tensor | None) -> Tensor:
        """Takes the optimizer's step and adds to the running sums; gives the errors B."""
        prediction = self._predict(obs, action_B1, target)
        loss = weighted_mean(prediction.loss_B, weight_B)
        self.optim.step(loss)
        loss_sum, q_sum = self.sums
        loss_sum += loss.detach()
        q_sum += prediction.q_BA.detach().gather(1, action_B1).squeeze(1).mean()
        return prediction.error_B.detach()

    def _finish_step(self) -> DQNTrainingStats:
        """Does what is left on the host: counts, renews, copies to the target network, and reports when due."""
        self._iter += 1
        if self.plasticity is not None:
            assert self._source is not None
            self.plasticity.after_step(self._iter, replayed_states(self._source))
        if self._iter % self.target_update_freq == 0:
            self._update_lagged_network_weights()
        if self._iter % self.metrics_period:
            return DQNTrainingStats()
        loss_sum, q_sum = self.sums
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
