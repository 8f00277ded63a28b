"""Configs of PPO and SAC. PPO's defaults are CleanRL's for Atari, SAC's are those of Stable-Baselines3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from agents.base_config import MlpConfig, NatureCnnConfig, NetworkConfig, OffPolicyFields, OnPolicyFields
from memory.config import ReplayConfig

if TYPE_CHECKING:
    import gymnasium
    import numpy as np

    from agents.actor_critic.ppo import PPOAgent
    from agents.actor_critic.sac import SACAgent


class PPOConfig(OnPolicyFields):
    """Proximal policy optimisation, for discrete actions (categorical) and boxes (diagonal Gaussian, clipped).

    Source: CleanRL, ppo_atari.py, unless a field says otherwise.
    """

    kind: ClassVar[Literal["on_policy"]] = "on_policy"

    name: Literal["ppo"] = Field("ppo", description="Discriminator of the agent union.")
    network: NetworkConfig = Field(
        NatureCnnConfig(padding="valid", initialization="orthogonal"),
        description="Network from observations to features, for actor and critic.",
    )
    shared_body: bool = Field(
        True,
        description="Whether actor and critic share one network up to their heads: true in CleanRL's ppo_atari.py, "
        "false in its ppo.py and ppo_continuous_action.py.",
    )
    learning_rate: float = Field(2.5e-4, gt=0, le=1, description="Adam's step size at the start.")
    learning_rate_decay: int | None = Field(
        None,
        ge=1,
        description="Env steps after which the learning rate, falling linearly from the start, is zero: the length of "
        "the run in CleanRL. None keeps it constant.",
    )
    adam_eps: float = Field(1e-5, gt=0, le=1, description="Adam's epsilon.")
    clip: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Bound on the change of the probability ratio: 0.1 on Atari, 0.2 in CleanRL's ppo.py.",
    )
    clip_value_loss: bool = Field(
        True, description="Whether the value may move by no more than `clip` without penalty (units of return)."
    )
    value_coefficient: float = Field(
        0.25,
        ge=0,
        description="Factor of the mean squared value error in the loss. CleanRL's 0.5 multiplies half of that error.",
    )
    entropy_coefficient: float = Field(
        0.01, ge=0, description="Factor of the policy's entropy (nats): 0.01 on Atari, 0 in ppo_continuous_action.py."
    )
    max_grad_norm: float = Field(0.5, gt=0, description="L2 norm to which the gradient of each minibatch is clipped.")
    normalize_advantages: bool = Field(
        True, description="Whether advantages are shifted and scaled to mean 0, deviation 1 in each minibatch."
    )
    normalize_returns: bool = Field(
        False,
        description="Whether values are learned in units of the running deviation of returns. "
        "Source: Tianshou, a2c.py, return_scaling; CleanRL's ppo_continuous_action.py scales rewards instead.",
    )
    normalize_observations: bool = Field(
        False,
        description="Whether vector observations are shifted and scaled by a running mean and deviation, then clipped "
        "to +-10 (CleanRL, ppo_continuous_action.py). Kept with the weights, moved only by training updates.",
    )
    log_std: float = Field(
        0.0, ge=-10, le=2, description="Initial log deviation of continuous actions, in units of half the action range."
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Number format the network body computes in; all else stays in float32."
    )

    @model_validator(mode="after")
    def _no_contradictions(self) -> PPOConfig:
        vector = isinstance(self.network, MlpConfig)
        if vector and self.precision != "fp32":
            raise ValueError("precision=bf16 needs a convolutional network, not network.kind=mlp")
        if self.normalize_observations and not vector:
            raise ValueError(
                f"normalize_observations=true is for vectors; network.kind={self.network.kind} scales pixels itself"
            )
        return self

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        return "ppo"

    def build(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        device: str,
        seed: np.random.SeedSequence,
    ) -> PPOAgent:
        """Builds the agent.

        Raises:
            ValueError: if the spaces do not fit the network, or the action space is neither Discrete nor a bounded Box.
        """
        from agents.actor_critic.ppo import build_ppo

        return build_ppo(self, observation_space, action_space, device=device, seed=seed)


class SACConfig(OffPolicyFields):
    """Soft actor-critic for bounded continuous actions: tanh-squashed Gaussian, two critics, tuned temperature.

    Source: Haarnoja et al. 2018 (arXiv 1812.05905); Stable-Baselines3, sac/sac.py, unless a field says otherwise.
    """

    kind: ClassVar[Literal["off_policy"]] = "off_policy"

    name: Literal["sac"] = Field("sac", description="Discriminator of the agent union.")
    network: MlpConfig = Field(
        MlpConfig(),
        description="Hidden layers of the actor and of each critic; metaworld-algorithms, config/networks.py, uses "
        "three of 400 on Meta-World.",
    )
    replay: ReplayConfig = Field(ReplayConfig(), description="Replay memory; 1,000,000 transitions, uniform.")
    batch_size: int = Field(256, ge=1, description="Transitions per gradient step.")
    replay_ratio: float = Field(1.0, gt=0, le=64, description="Gradient steps per env step.")
    learning_starts: int = Field(
        5_000,
        ge=0,
        description="Env steps of uniformly random actions before the first gradient step. "
        "Source: CleanRL, sac_continuous_action.py; 4,000 in metaworld-algorithms, examples/mtsac_mt10.py.",
    )
    actor_learning_rate: float = Field(3e-4, gt=0, le=1, description="Adam's step size for the actor.")
    critic_learning_rate: float = Field(
        3e-4, gt=0, le=1, description="Adam's step size for both critics; 1e-3 in CleanRL, sac_continuous_action.py."
    )
    alpha_learning_rate: float = Field(3e-4, gt=0, le=1, description="Adam's step size for the log temperature.")
    adam_eps: float = Field(1e-8, gt=0, le=1, description="Adam's epsilon: PyTorch's default.")
    tau: float = Field(
        0.005, gt=0, le=1, description="Share of the critics that is mixed into their targets at every gradient step."
    )
    alpha: float | Literal["auto"] = Field(
        "auto", description="Temperature (return per nat of entropy); auto tunes it towards `target_entropy`."
    )
    initial_alpha: float = Field(1.0, gt=0, description="Temperature that tuning starts from.")
    target_entropy: float | None = Field(
        None, description="Entropy tuned for (nats); None is minus the number of action dimensions."
    )
    log_std_min: float = Field(-20.0, description="Lower bound of the log deviation before squashing.")
    log_std_max: float = Field(2.0, description="Upper bound of the log deviation before squashing.")

    @model_validator(mode="after")
    def _no_contradictions(self) -> SACConfig:
        if self.alpha != "auto":
            if self.alpha < 0:
                raise ValueError(f"alpha={self.alpha} must be 'auto' or at least 0")
            if self.target_entropy is not None or self.initial_alpha != 1.0:
                raise ValueError(
                    f"target_entropy, initial_alpha have no effect with alpha={self.alpha}: set alpha=auto"
                )
        if self.log_std_min >= self.log_std_max:
            raise ValueError(f"log_std_min={self.log_std_min} must lie below log_std_max={self.log_std_max}")
        if self.replay.capacity < self.batch_size:
            raise ValueError(f"replay.capacity={self.replay.capacity} is smaller than batch_size={self.batch_size}")
        return self

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        return "sac"

    def build(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        device: str,
        seed: np.random.SeedSequence,
    ) -> SACAgent:
        """Builds the agent.

        Raises:
            ValueError: if the spaces do not fit the network, or the action space is not a bounded Box.
        """
        from agents.actor_critic.sac import build_sac

        return build_sac(self, observation_space, action_space, device=device, seed=seed)
