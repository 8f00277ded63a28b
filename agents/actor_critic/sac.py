"""SAC as Tianshou provides it, on our networks, for bounded continuous actions.

Learn two critics of the entropy-regularised return, a tanh-squashed Gaussian actor that maximises the smaller of them,
and a temperature that keeps the policy's entropy near a target.

Source: Haarnoja et al. 2018 (arXiv 1812.05905).
Differs from Tianshou's SAC: the actor's step computes no gradients of the critics' weights, which nobody reads; targets
move by one fused interpolation; with our replay the n-step target comes from `Replay.n_step`, not from a copy of the
whole buffer's flags; the temperature's optimizer is part of the checkpoint. The results are the same up to rounding.

Legend: B batch, A action dimensions, N environments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.sac import SAC, Alpha, AutoAlpha, FixedAlpha, SACPolicy, SACTrainingStats
from tianshou.algorithm.optim import OptimizerFactory, TorchOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from torch import nn

from agents.actor_critic.config import SACConfig
from agents.heads import ActionValueNetwork, GaussianActor, to_tensor
from agents.interface import Agent, State, child_seed, require_bounded, seeded_initialization, to_env_action
from agents.losses import td_target
from agents.networks import build_body
from memory.replay import Replay


class SquashedPolicy(SACPolicy):
    """Tianshou's SAC policy, whose actions never leave the box by rounding."""

    def map_action(self, act: Any) -> np.ndarray:
        """Gives what the environment receives."""
        return to_env_action(self._action_to_numpy(act), self.action_space)


class SACAlgorithm(SAC[SACTrainingStats]):
    """The update rule, with our replay's n-step targets and numbers to show."""

    critic: ActionValueNetwork

    def __init__(self, *, metrics_period: int, **tianshou: Any) -> None:
        super().__init__(**tianshou)
        self.metrics_period = metrics_period
        self.num_updates = 0
        self.last_stats: dict[str, float] = {}
        self._critics = nn.ModuleList([self.critic, self.critic2]).parameters
        self._targets = nn.ModuleList([self.critic_old, self.critic2_old]).parameters
        self._require_critic_gradients(False, self._targets())

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """Takes one gradient step of each network on a batch sampled from the buffer.

        Args:
            buffer: ours, or any of Tianshou's, which takes Tianshou's own slower path.
            sample_size: transitions.

        Raises:
            RuntimeError: outside of a training step (see Tianshou's `policy_within_training_step`).
        """
        if not isinstance(buffer, Replay) or not sample_size or not self.policy.is_within_training_step:
            return super().update(buffer, sample_size)
        started = time.perf_counter()
        batch, indices = buffer.sample(sample_size)
        stats = self._update_with_batch(self._preprocess_batch(batch, buffer, indices))
        self._postprocess_batch(batch, buffer, indices)
        stats.train_time = time.perf_counter() - started
        return stats

    def _preprocess_batch(self, batch: Any, buffer: ReplayBuffer, indices: np.ndarray) -> Any:
        """Moves the batch to the device once and adds the targets of both critics."""
        if not isinstance(buffer, Replay):
            return super()._preprocess_batch(batch, buffer, indices)
        device = self.critic.head.weight.device
        return_B, discount_B, last_B = buffer.n_step(indices, self.n_step_return_horizon, self.gamma)
        next_obs = batch.obs_next if self.n_step_return_horizon == 1 else buffer.next_obs(last_B)
        next_batch = Batch(obs=to_tensor(next_obs, device), info=Batch())
        with torch.no_grad():
            next_action = self._target_q_compute_action(next_batch)
            next_value_B = self._target_q_compute_value(next_batch, next_action).flatten()
        batch.returns = td_target(to_tensor(return_B, device), to_tensor(discount_B, device), next_value_B)
        batch.obs, batch.act = to_tensor(batch.obs, device), to_tensor(batch.act, device)
        if "weight" in batch:
            batch.weight = to_tensor(batch.weight, device)
        return batch

    def _update_with_batch(self, batch: Any) -> SACTrainingStats:
        td1_B, critic1_loss = self._minimize_critic_squared_loss(batch, self.critic, self.critic_optim)
        td2_B, critic2_loss = self._minimize_critic_squared_loss(batch, self.critic2, self.critic2_optim)
        batch.weight = (td1_B + td2_B).detach() / 2  # prioritised buffers read it back
        self._require_critic_gradients(False, self._critics())
        sampled = self.policy(batch)
        q_B = torch.min(self.critic(batch.obs, sampled.act), self.critic2(batch.obs, sampled.act)).flatten()
        actor_loss = (self.alpha.value * sampled.log_prob.flatten() - q_B).mean()
        self.policy_optim.step(actor_loss)
        self._require_critic_gradients(True, self._critics())
        alpha_loss = self.alpha.update(-sampled.log_prob.detach())
        self._update_lagged_network_weights()
        stats = SACTrainingStats(
            actor_loss=actor_loss.item(),
            critic1_loss=critic1_loss.item(),
            critic2_loss=critic2_loss.item(),
            alpha=self.alpha.value,
            alpha_loss=alpha_loss,
        )
        self.num_updates += 1
        if self.num_updates % self.metrics_period == 0:
            gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
            self.last_stats = {
                "loss": (stats.critic1_loss + stats.critic2_loss) / 2,
                "policy_loss": stats.actor_loss,
                "q_mean": float(batch.returns.mean()),
                "alpha": self.alpha.value,
                "grad_norm": float(nn.utils.get_total_norm(gradients)),
            }
        return stats

    def _update_lagged_network_weights(self) -> None:
        """Moves both targets by the share tau towards their critics."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self._targets()), list(self._critics()), self.tau)

    @staticmethod
    def _require_critic_gradients(required: bool, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.requires_grad_(required)


class SACAgent(Agent):
    """Samples from its squashed policy, or takes the squashed mean when it does not explore."""

    kind: ClassVar[Literal["off_policy"]] = "off_policy"

    def __init__(self, config: SACConfig, *, algorithm: SACAlgorithm, **spaces_rng_device: Any) -> None:
        super().__init__(algorithm=algorithm, **spaces_rng_device)
        self.config = config
        self.sac = algorithm

    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Chooses the squashed means; with `explore`, squashed samples."""
        with torch.inference_mode():
            mean_NA, std_NA = self.sac.policy.actor(obs)[0]
            if explore:
                noise = self.rng.standard_normal(tuple(mean_NA.shape), dtype=np.float32)
                mean_NA = mean_NA + std_NA * to_tensor(noise, self.device)
            return mean_NA.tanh().cpu().numpy(), None

    def metrics(self) -> dict[str, float]:
        """Gives the learning rate and the last report: losses, mean target, temperature, the actor's gradient norm."""
        return {**super().metrics(), "learning_rate": self.config.actor_learning_rate, **self.sac.last_stats}

    def counters(self) -> dict[str, Any]:
        """Gives the base counters and the gradient steps taken."""
        return {
            **super().counters(),
            "num_updates": self.sac.num_updates,
            "last_stats": dict(self.sac.last_stats),
        }

    def load_training_state(self, optimizer_state: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `optimizer_state` and `counters` gave."""
        super().load_training_state(optimizer_state, counters)
        self.sac.num_updates = counters["num_updates"]
        self.sac.last_stats = dict(counters["last_stats"])

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = super()._optimizers()
        alpha = self.sac.alpha
        return [*optimizers, alpha._optim] if isinstance(alpha, AutoAlpha) else optimizers


def make_alpha(config: SACConfig, num_dimensions: int, device: str) -> Alpha:
    """Builds the temperature: fixed, or tuned towards the target entropy."""
    if config.alpha != "auto":
        return FixedAlpha(float(config.alpha))
    target = -float(num_dimensions) if config.target_entropy is None else config.target_entropy
    alpha = AutoAlpha(target, math.log(config.initial_alpha), adam(config, config.alpha_learning_rate))
    alpha.to(device)
    return alpha


def adam(config: SACConfig, learning_rate: float) -> OptimizerFactory:
    """Gives the optimizer factory of one network."""
    return TorchOptimizerFactory(torch.optim.Adam, lr=learning_rate, eps=config.adam_eps, fused=True)


def build_sac(
    config: SACConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
) -> SACAgent:
    """Builds networks, algorithm and agent.

    Raises:
        ValueError: if the spaces do not fit the network, or the action space is not a bounded Box.
    """
    num_dimensions = require_bounded(action_space).shape[0]
    initialization = config.network.initialization
    with seeded_initialization(child_seed(seed, 0)):
        actor_body = build_body(config.network, observation_space)  # refuses observations that are no vectors
        assert observation_space.shape is not None
        critic_space = gymnasium.spaces.Box(-np.inf, np.inf, (observation_space.shape[0] + num_dimensions,), np.float32)
        actor = GaussianActor(
            actor_body,
            num_dimensions,
            initialization,
            log_std_range=(config.log_std_min, config.log_std_max),
        ).to(device)
        critics = [
            ActionValueNetwork(build_body(config.network, critic_space), initialization).to(device) for _ in range(2)
        ]
    algorithm = SACAlgorithm(
        metrics_period=config.metrics_period,
        policy=SquashedPolicy(actor=actor, action_space=action_space, observation_space=observation_space),
        policy_optim=adam(config, config.actor_learning_rate),
        critic=critics[0],
        critic2=critics[1],
        critic_optim=adam(config, config.critic_learning_rate),
        tau=config.tau,
        gamma=config.gamma,
        alpha=make_alpha(config, num_dimensions, device),
        n_step_return_horizon=config.n_step,
    )
    return SACAgent(
        config,
        algorithm=algorithm,
        observation_space=observation_space,
        action_space=action_space,
        rng=np.random.default_rng(child_seed(seed, 1)),
        device=device,
    )
