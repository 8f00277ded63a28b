"""Configs of what all agents on action values share, and of DQN and Double DQN. The defaults are Dopamine's JAX DQN."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agents.base_config import MlpConfig, NatureCnnConfig, NetworkConfig, OffPolicyFields, ReplayedFields, Strict
from agents.plasticity.config import PlasticityConfig
from memory.config import ReplayConfig

if TYPE_CHECKING:
    import gymnasium
    import numpy as np

    from agents.value_based.dqn import DQNAgent

NOISY_SIGMA = 0.5


class ValueFields(ReplayedFields):
    """The fields of every agent that learns action values, whoever made its transitions.

    Source: Dopamine, jax/agents/dqn/configs/dqn.gin, unless a field says otherwise.
    """

    network: NetworkConfig = Field(NatureCnnConfig(), description="Network from observations to action values.")
    double: bool = Field(
        False,
        description="Whether the online network chooses the action whose target value is bootstrapped. "
        "Source: van Hasselt et al. 2016.",
    )
    dueling: bool = Field(
        False,
        description="Whether the head adds a state value to advantages, both linear in the network's features. "
        "Source: Wang et al. 2016; Dopamine, jax/networks.py, FullRainbowNetwork.",
    )
    noisy: bool = Field(
        False,
        description="Whether all dense layers carry learned noise, redrawn for every forward of an update and every "
        "exploring step; greedy actions use the mean weights. Source: Fortunato et al. 2018.",
    )
    noisy_sigma: float = Field(
        NOISY_SIGMA,
        gt=0,
        le=10,
        description="Initial deviation of that noise times sqrt(inputs of the layer). Source: Fortunato et al. 2018, "
        "section 3.2; Dopamine's jax/networks.py has 0.1.",
    )
    augmentation: Literal["none", "drq"] = Field(
        "none",
        description="drq: the images of every update are shifted by up to 4 pixels each way and scaled in intensity. "
        "Source: Kostrikov et al. 2021; Dopamine, labs/atari_100k.",
    )
    learning_rate: float = Field(6.25e-5, gt=0, le=1, description="Adam's step size.")
    adam_eps: float = Field(1.5e-4, gt=0, le=1, description="Adam's epsilon, outside the square root.")
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of every parameter, biases included, taken off at each gradient step, times learning_rate. "
        "Source: Loshchilov and Hutter 2019 (AdamW); Obando-Ceron et al. 2024, figure 12, found 1e-5 best.",
    )
    plasticity: PlasticityConfig | None = Field(
        None,
        description="Renewal of parts of a dense network (docs/pruning.md), such as agent.plasticity.method=redo. null "
        "renews nothing.",
    )
    target_update_period: int = Field(
        2000,
        ge=1,
        description="Gradient steps between two copies of the online network into the target network: Dopamine's "
        "8,000 env steps at one update every 4.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="Number format the network body computes in. Parameters, Adam, head, TD targets and loss stay in "
        "float32. Dopamine computes in float32.",
    )

    cuda_graph: bool = Field(
        False,
        description="Whether gradient steps are replayed from one CUDA graph, which launches all of a step at once. "
        "Needs device=cuda and steps that draw nothing. Not run on a GPU yet.",
    )

    @model_validator(mode="after")
    def _can_be_replayed(self) -> Self:
        if not self.cuda_graph:
            return self
        if self.noisy or self.augmentation != "none":
            drawing = "noisy=true" if self.noisy else f"augmentation={self.augmentation}"
            raise ValueError(f"cuda_graph=true would repeat what {drawing} draws for every update: set one of them off")
        if self.pruning is not None and self.pruning.method in ("rigl", "set"):
            raise ValueError(
                f"cuda_graph=true cannot skip steps as pruning.method={self.pruning.method} does: choose "
                "pruning.method=magnitude|static, or cuda_graph=false"
            )
        return self

    @model_validator(mode="after")
    def _network_fits(self) -> Self:
        if isinstance(self.network, MlpConfig) and self.precision != "fp32":
            raise ValueError("precision=bf16 needs a convolutional network, not network.kind=mlp")
        if isinstance(self.network, MlpConfig) and self.augmentation != "none":
            raise ValueError(f"augmentation={self.augmentation} needs a convolutional network, not network.kind=mlp")
        if not self.noisy and self.noisy_sigma != NOISY_SIGMA:
            raise ValueError(f"noisy_sigma={self.noisy_sigma} has no effect with noisy=false")
        if self.plasticity is not None and self.pruning is not None:
            raise ValueError(
                f"plasticity.method={self.plasticity.method} would fill what pruning.method={self.pruning.method} "
                "empties: set one of the two to null"
            )
        return self

    @abstractmethod
    def epsilon(self, env_steps: int) -> float:
        """Gives the probability of a random action when exploring after this many env steps."""


class ValueBasedFields(ValueFields, OffPolicyFields):
    """The fields of every agent that learns action values from its own play, epsilon-greedy on them.

    Source: Dopamine, jax/agents/dqn/configs/dqn.gin, unless a field says otherwise.
    """

    kind: ClassVar[Literal["off_policy"]] = "off_policy"

    replay: ReplayConfig = Field(
        ReplayConfig(), description="Replay memory; Dopamine keeps 1,000,000 transitions, sampled uniformly."
    )
    epsilon_initial: float = Field(1.0, ge=0, le=1, description="Probability of a random action until learning starts.")
    epsilon_final: float = Field(0.01, ge=0, le=1, description="Probability of a random action after the decay.")
    epsilon_decay: int = Field(
        250_000, ge=1, description="Env steps, counted from learning_starts, of the linear decay of epsilon."
    )

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.epsilon_final > self.epsilon_initial:
            raise ValueError(f"epsilon_final={self.epsilon_final} lies above epsilon_initial={self.epsilon_initial}")
        if self.replay.capacity < self.batch_size:
            raise ValueError(f"replay.capacity={self.replay.capacity} is smaller than batch_size={self.batch_size}")
        return self

    def epsilon(self, env_steps: int) -> float:
        """Gives the probability of a random action when exploring after this many env steps."""
        return linear_decay(
            env_steps, self.epsilon_initial, self.epsilon_final, self.learning_starts, self.epsilon_decay
        )


def linear_decay(step: int, initial: float, final: float, start: int, duration: int) -> float:
    """Gives `initial` until `start`, `final` from `start + duration` on, and a straight line between.

    Source: Dopamine, jax/agents/dqn/dqn_agent.py, linearly_decaying_epsilon.
    """
    fraction = min(max((step - start) / duration, 0.0), 1.0)
    return initial + fraction * (final - initial)


class ErrorFields(Strict):
    """The loss of agents that regress one number per action."""

    loss: Literal["mse", "huber"] = Field(
        "mse", description="Loss of the TD error; importance weights apply to both. Dopamine's JAX DQN trains with mse."
    )
    huber_delta: float = Field(1.0, gt=0, description="Error from which the Huber loss is linear (units of return).")

    @model_validator(mode="after")
    def _no_idle_delta(self) -> Self:
        if self.loss == "mse" and "huber_delta" in self.model_fields_set and self.huber_delta != 1.0:
            raise ValueError(f"huber_delta={self.huber_delta} has no effect with loss=mse: set loss=huber")
        return self


class DQNConfig(ErrorFields, ValueBasedFields):
    """Deep Q-learning, optionally with double estimation.

    Source: Dopamine, jax/agents/dqn/configs/dqn.gin and jax/agents/dqn/dqn_agent.py, unless a field says otherwise.
    """

    name: Literal["dqn"] = Field("dqn", description="Discriminator of the agent union.")

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        if self.augmentation == "drq":
            return "drq"
        return "double_dqn" if self.double else "dqn"

    def build(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        device: str,
        seed: np.random.SeedSequence,
    ) -> DQNAgent:
        """Builds the agent.

        Raises:
            ValueError: if the spaces do not fit the network, or actions are not discrete.
        """
        from agents.value_based.dqn import build_dqn

        return build_dqn(self, observation_space, action_space, device=device, seed=seed)
