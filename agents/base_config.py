"""What every agent's config shares: networks, precision, and the fields of the off-policy and the on-policy loop.

Importing this module is cheap: no torch, no environment package. `agents.networks` builds the networks.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Initialization = Literal["glorot", "orthogonal", "torch"]


class Strict(BaseModel):
    """A frozen pydantic model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class NatureCnnConfig(Strict):
    """The three-convolution network of Mnih et al. 2015 over stacked frames."""

    kind: Literal["nature_cnn"] = Field("nature_cnn", description="Discriminator of the network union.")
    padding: Literal["same", "valid"] = Field(
        "same",
        description="Convolution padding. same: Flax's default, flattens 84x84 frames to 7,744 features (Dopamine, "
        "jax/networks.py NatureDQNNetwork); valid: 3,136 features (Mnih et al. 2015; CleanRL, dqn_atari.py).",
    )
    hidden_width: int = Field(
        512, ge=1, description="Units of the dense layer after the convolutions. Source: Mnih et al. 2015, Methods."
    )
    initialization: Initialization = Field(
        "glorot",
        description="glorot: uniform Glorot, zero bias (Dopamine, jax/networks.py); orthogonal: gain sqrt(2), zero "
        "bias (CleanRL, ppo_atari.py); torch: PyTorch's default (CleanRL, dqn_atari.py).",
    )


class ImpalaCnnConfig(Strict):
    """The 15-layer residual network of Espeholt et al. 2018, `width` times as wide."""

    kind: Literal["impala_cnn"] = Field("impala_cnn", description="Discriminator of the network union.")
    width: int = Field(
        1,
        ge=1,
        le=16,
        description="Multiplier of the convolution channels (16, 32, 32). Source: Obando-Ceron et al. 2024, section 4; "
        "Dopamine, labs/offline_rl/jax/networks.py.",
    )
    hidden_width: int = Field(
        512,
        ge=1,
        description="Units of the dense layer after the stacks. Source: Dopamine, labs/offline_rl/jax/networks.py.",
    )
    widen_hidden: bool = Field(
        False,
        description="Whether the dense layer is widened too (hidden_width * width), as in the Rainbow-type network of "
        "Dopamine, labs/offline_rl/jax/networks.py; its DQN-type network keeps 512.",
    )

    @property
    def initialization(self) -> Initialization:
        """Uniform Glorot outside of the residual blocks, as in Dopamine."""
        return "glorot"


class MlpConfig(Strict):
    """A multi-layer perceptron over a vector observation."""

    kind: Literal["mlp"] = Field("mlp", description="Discriminator of the network union.")
    hidden_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (256, 256), min_length=1, description="Units of each hidden layer. Source: Haarnoja et al. 2018, table 1."
    )
    activation: Literal["relu", "tanh"] = Field(
        "relu", description="Non-linearity of each hidden layer: relu in CleanRL's dqn.py and SAC, tanh in its ppo.py."
    )
    initialization: Initialization = Field(
        "torch",
        description="torch: PyTorch's default (CleanRL, dqn.py and sac_continuous_action.py); orthogonal: gain "
        "sqrt(2), zero bias (CleanRL, ppo.py); glorot: uniform Glorot, zero bias (Flax-style, as in Dopamine).",
    )


NetworkConfig = Annotated[NatureCnnConfig | ImpalaCnnConfig | MlpConfig, Field(discriminator="kind")]


class OffPolicyFields(Strict):
    """The loop of an agent that learns from a replay: how often it updates, on how much, and from when on."""

    batch_size: int = Field(32, ge=1, description="Transitions per gradient step.")
    replay_ratio: float = Field(0.25, gt=0, le=64, description="Gradient steps per env step.")
    learning_starts: int = Field(
        20_000, ge=0, description="Env steps of uniformly random actions before the first gradient step."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per env step. Source: Mnih et al. 2015, table 1.")
    n_step: int = Field(1, ge=1, le=100, description="Rewards summed before bootstrapping (env steps).")
    metrics_period: int = Field(
        50,
        ge=1,
        description="Gradient steps between two reports of loss, Q mean and gradient norm. Losses are averaged over "
        "the period; in between nothing is measured, so that the device never waits.",
    )


class OnPolicyFields(Strict):
    """The loop of an agent that learns from fresh rollouts."""

    rollout_steps: int = Field(128, ge=2, description="Env steps per environment between two updates.")
    num_epochs: int = Field(4, ge=1, description="Passes over each rollout.")
    minibatch_size: int = Field(
        256, ge=2, description="Transitions per gradient step; a smaller last minibatch is merged into the one before."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per env step. Source: Schulman et al. 2017, table 5.")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="Lambda of generalised advantages. Source: Schulman et al. 2017, table 5."
    )
