"""PPO as Tianshou provides it, on our networks: categorical policies for discrete actions, Gaussians for boxes.

Collect a rollout, estimate advantages (GAE, bootstrapping at truncations from the true last observation), and take a
few epochs of clipped policy-gradient steps on it.

Sources: Schulman et al. 2017; CleanRL, ppo.py, ppo_atari.py and ppo_continuous_action.py.
Differs from CleanRL: truncated episodes bootstrap; the normaliser of observations moves once per update, after its
gradient steps, so that the first ratios are exactly one.

Legend: B batch, A actions, N environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import Algorithm, TrainingStats
from tianshou.algorithm.modelfree.a2c import A2CTrainingStats
from tianshou.algorithm.modelfree.ppo import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import OptimizerFactory, TorchOptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from agents.actor_critic.config import PPOConfig
from agents.heads import GaussianActor, HeadedNetwork, SharedBody, ValueNetwork, to_tensor
from agents.interface import Agent, State, child_seed, require_bounded, seeded_initialization, to_env_action
from agents.networks import PRECISIONS, Body, build_body
from agents.normalization import NormalizedBody, RunningNormalizer

MAX_INFERENCE_BATCH = 512  # transitions per forward when values of a rollout are computed


class ClippingOptimizer(Algorithm.Optimizer):
    """Tianshou's optimizer wrapper, which also remembers the gradient's norm before clipping."""

    grad_norm: Tensor | None = None

    def step(self, loss: Tensor, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Takes one clipped optimizer step."""
        assert self._max_grad_norm is not None
        self._optim.zero_grad()
        loss.backward(retain_graph=retain_graph, create_graph=create_graph)  # type: ignore[no-untyped-call]
        self.grad_norm = nn.utils.clip_grad_norm_(self._module.parameters(), self._max_grad_norm)
        self._optim.step()
        for module in self._module.modules():
            if isinstance(module, SharedBody):
                module.forget()


class BoxPolicy(ProbabilisticActorPolicy):
    """A Gaussian policy whose actions are clipped to [-1, 1] and scaled to the box, never past its bounds."""

    def map_action(self, act: Any) -> np.ndarray:
        """Gives what the environment receives."""
        return to_env_action(self._action_to_numpy(act), self.action_space)


class PPOAlgorithm(PPO):
    """The update rule, plus observation statistics and numbers to show."""

    optim: ClippingOptimizer
    critic: ValueNetwork

    def __init__(
        self,
        *,
        policy: ProbabilisticActorPolicy,
        critic: ValueNetwork,
        optim: OptimizerFactory,
        config: PPOConfig,
        normalizer: RunningNormalizer | None,
    ) -> None:
        super().__init__(
            policy=policy,
            critic=critic,
            optim=optim,
            eps_clip=config.clip,
            value_clip=config.clip_value_loss,
            advantage_normalization=config.normalize_advantages,
            vf_coef=config.value_coefficient,
            ent_coef=config.entropy_coefficient,
            max_grad_norm=config.max_grad_norm,
            gae_lambda=config.gae_lambda,
            max_batchsize=MAX_INFERENCE_BATCH,
            gamma=config.gamma,
            return_scaling=config.normalize_returns,
        )
        self.normalizer = normalizer
        self.num_updates = 0
        self.last_stats: dict[str, float] = {}

    def _create_optimizer(
        self, module: nn.Module, factory: OptimizerFactory, max_grad_norm: float | None = None
    ) -> ClippingOptimizer:
        torch_optimizer = super()._create_optimizer(module, factory, max_grad_norm)._optim
        self._optimizers[-1] = wrapper = ClippingOptimizer(torch_optimizer, module, max_grad_norm)
        return wrapper

    def _preprocess_batch(self, batch: Any, buffer: ReplayBuffer, indices: np.ndarray) -> Any:
        """Moves the rollout to the device once, then adds values, advantages and old log probabilities."""
        device = self.critic.head.weight.device
        batch.obs, batch.obs_next = to_tensor(batch.obs, device), to_tensor(batch.obs_next, device)
        return super()._preprocess_batch(batch, buffer, indices)

    def _update_with_batch(self, batch: Any, batch_size: int | None, repeat: int) -> A2CTrainingStats:
        error_B, return_B = batch.returns - batch.v_s, batch.returns
        stats = super()._update_with_batch(batch, batch_size, repeat)
        self.num_updates += stats.gradient_steps
        assert self.optim.grad_norm is not None
        self.last_stats = {
            "loss": float(stats.loss.mean),
            "policy_loss": float(stats.actor_loss.mean),
            "value_loss": float(stats.vf_loss.mean),
            "entropy": float(stats.ent_loss.mean),
            "value_mean": float(batch.v_s.mean()),
            "explained_variance": float(1.0 - error_B.var() / return_B.var().clamp(min=1e-12)),
            "grad_norm": float(self.optim.grad_norm),
            **self._policy_change(batch, batch_size or len(batch)),
        }
        return stats

    def _policy_change(self, batch: Any, num_samples: int) -> dict[str, float]:
        """Measures how far the gradient steps moved the policy, on about one minibatch spread over the rollout.

        Returns:
            ``approx_kl``, an estimate of KL(old, new) in nats, and ``clip_fraction``, the share of ratios out of range.

        Source: Schulman 2020, "Approximating KL divergence", estimator k3; names as in CleanRL and Stable-Baselines3.
        """
        sample = batch[:: max(1, len(batch) // num_samples)]
        with torch.no_grad():
            distribution = self.policy.dist_fn(self.policy.actor(sample.obs)[0])  # policy() would draw actions
            log_ratio_B = distribution.log_prob(sample.act) - sample.logp_old
            ratio_B = log_ratio_B.exp()
            return {
                "approx_kl": float((ratio_B - 1.0 - log_ratio_B).mean()),
                "clip_fraction": float(((ratio_B - 1.0).abs() > self.eps_clip).float().mean()),
            }

    def _postprocess_batch(self, batch: Any, buffer: ReplayBuffer, indices: np.ndarray) -> None:
        """Shows the rollout's observations to the normaliser, now that its gradient steps are done."""
        if self.normalizer is not None:
            self.normalizer.observe(batch.obs)

    def update(self, buffer: ReplayBuffer, batch_size: int | None, repeat: int) -> TrainingStats:
        """Takes the gradient steps of one rollout.

        Raises:
            RuntimeError: outside of a training step (see Tianshou's `policy_within_training_step`).
        """
        return super().update(buffer, batch_size, repeat)


class PPOAgent(Agent):
    """Samples from its policy, or takes its mode when it does not explore."""

    kind: ClassVar[Literal["on_policy"]] = "on_policy"

    def __init__(self, config: PPOConfig, *, algorithm: PPOAlgorithm, **spaces_rng_device: Any) -> None:
        super().__init__(algorithm=algorithm, **spaces_rng_device)
        self.config = config
        self.ppo = algorithm
        self.set_env_steps(0)

    def act(self, obs: np.ndarray, state: State = None, *, explore: bool = False) -> tuple[np.ndarray, State]:
        """Chooses the likeliest actions; with `explore`, sampled ones."""
        with torch.inference_mode():
            output = self.ppo.policy.actor(obs)[0]
        if isinstance(output, tuple):
            mean_NA, std_NA = (part.cpu().numpy() for part in output)
            noise_NA = self.rng.standard_normal(mean_NA.shape, dtype=np.float32) if explore else np.float32(0.0)
            return mean_NA + std_NA * noise_NA, None
        if not explore:
            return output.argmax(dim=1).cpu().numpy(), None
        return sample_categorical(output.double().softmax(dim=1).cpu().numpy(), self.rng), None

    def set_env_steps(self, env_steps: int) -> None:
        """Moves the learning rate."""
        super().set_env_steps(env_steps)
        decay = self.config.learning_rate_decay
        fraction = 1.0 if decay is None else max(1.0 - env_steps / decay, 0.0)
        self.learning_rate = self.config.learning_rate * fraction
        for group in self.ppo.optim._optim.param_groups:
            group["lr"] = self.learning_rate

    def metrics(self) -> dict[str, float]:
        """Gives the learning rate and the last update's losses, entropy, explained variance and gradient norm."""
        return {**super().metrics(), "learning_rate": self.learning_rate, **self.ppo.last_stats}

    def counters(self) -> dict[str, Any]:
        """Gives the base counters, the gradient steps taken, and the running deviation of returns."""
        ret_rms = self.ppo.ret_rms
        return {
            **super().counters(),
            "num_updates": self.ppo.num_updates,
            "last_stats": dict(self.ppo.last_stats),
            "return_statistics": [float(ret_rms.mean), float(ret_rms.var), int(ret_rms.count)],
        }

    def load_training_state(self, optimizer_state: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Restores what `optimizer_state` and `counters` gave."""
        super().load_training_state(optimizer_state, counters)
        self.ppo.num_updates = counters["num_updates"]
        self.ppo.last_stats = dict(counters["last_stats"])
        ret_rms = self.ppo.ret_rms
        ret_rms.mean, ret_rms.var, ret_rms.count = counters["return_statistics"]


def sample_categorical(probs_NA: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws one index per row with the row's probabilities, by inverting their running sum."""
    running_NA = probs_NA.cumsum(axis=1)
    draw_N1 = rng.random((len(probs_NA), 1)) * running_NA[:, -1:]  # the sum is 1 only up to rounding
    return (draw_N1 >= running_NA).sum(axis=1)


def gaussian(parameters: tuple[Tensor, Tensor]) -> Distribution:
    """Gives the diagonal Gaussian of means and deviations BA."""
    return Independent(Normal(*parameters), 1)


def categorical(logits_BA: Tensor) -> Distribution:
    """Gives the categorical distribution of logits BA."""
    return Categorical(logits=logits_BA)


def build_ppo(
    config: PPOConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    device: str,
    seed: np.random.SeedSequence,
) -> PPOAgent:
    """Builds networks, algorithm and agent.

    Raises:
        ValueError: if the spaces do not fit the network, or the action space is neither Discrete nor a bounded Box.
    """
    discrete = isinstance(action_space, gymnasium.spaces.Discrete)
    if not discrete:
        require_bounded(action_space)
    with seeded_initialization(child_seed(seed, 0)):
        actor_body, critic_body, normalizer = build_bodies(config, observation_space)
        actor: nn.Module
        if discrete:
            num_actions = int(cast(gymnasium.spaces.Discrete, action_space).n)
            actor = HeadedNetwork(actor_body, num_actions, "orthogonal", gain=0.01)
        else:
            num_actions = require_bounded(action_space).shape[0]
            actor = GaussianActor(actor_body, num_actions, "orthogonal", mean_gain=0.01, log_std=config.log_std)
        critic = ValueNetwork(critic_body)
    policy_class = ProbabilisticActorPolicy if discrete else BoxPolicy
    policy = policy_class(
        actor=cast(Any, actor.to(device)),
        dist_fn=cast(Any, categorical if discrete else gaussian),
        deterministic_eval=True,
        action_space=action_space,
        observation_space=observation_space,
        action_scaling=not discrete,
        action_bound_method=None if discrete else "clip",
    )
    algorithm = PPOAlgorithm(
        policy=policy,
        critic=critic.to(device),
        optim=TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, eps=config.adam_eps, fused=True),
        config=config,
        normalizer=normalizer,
    )
    return PPOAgent(
        config,
        algorithm=algorithm,
        observation_space=observation_space,
        action_space=action_space,
        rng=np.random.default_rng(child_seed(seed, 1)),
        device=device,
    )


def build_bodies(
    config: PPOConfig, observation_space: gymnasium.Space[Any]
) -> tuple[Body, Body, RunningNormalizer | None]:
    """Builds the actor's and the critic's body (one and the same if shared) and their normaliser, if any."""
    bodies: list[Body] = []
    for _ in range(1 if config.shared_body else 2):
        bodies.append(build_body(config.network, observation_space, precision=PRECISIONS[config.precision]))
    normalizer = None
    if config.normalize_observations:
        assert observation_space.shape is not None
        normalizer = RunningNormalizer(observation_space.shape[0])
        bodies = [NormalizedBody(normalizer, body) for body in bodies]
    if config.shared_body:
        bodies = [SharedBody(bodies[0])] * 2
    return bodies[0], bodies[1], normalizer
