"""What every agent's config shares: networks, precision, and the fields of the off-policy and the on-policy loop.

Importing this module is cheap: no torch, no environment package. `agents.networks` builds the networks.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.pruning.config import PruningConfig

Initialization = Literal["glorot", "fan_in_uniform", "orthogonal", "torch"]


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
        description="glorot: uniform Glorot, zero bias (Dopamine, jax/networks.py, NatureDQNNetwork); fan_in_uniform: "
        "uniform with variance 1 / (sqrt(3) * inputs), zero bias (the same file, RainbowNetwork); orthogonal: gain "
        "sqrt(2), zero bias (CleanRL, ppo_atari.py); torch: PyTorch's default (CleanRL, dqn_atari.py).",
    )
    global_average_pooling: bool = Field(
        False,
        description="Whether the dense layer reads the mean of each channel over the image (64 features) instead of "
        "every position. Source: Sokar and Castro 2025.",
    )
    layer_norm: bool = Field(
        False,
        description="Whether every layer's output is normalised over its channels, at each position, before the ReLU. "
        "Source: Gallici et al. 2024; purejaxql, pqn_atari.py.",
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
    global_average_pooling: bool = Field(
        False,
        description="Whether the dense layer reads the mean of each channel over the image (32 * width features) "
        "instead of every position. Source: Sokar and Castro 2025.",
    )
    layer_norm: bool = Field(
        False,
        description="Whether the input of every ReLU is normalised over its channels, at each position. Sources: "
        "Gallici et al. 2024 for the norm, He et al. 2016, figure 4e, for its place in residual blocks.",
    )

    @property
    def initialization(self) -> Initialization:
        """Uniform Glorot outside of the residual blocks, as in Dopamine."""
        return "glorot"


class MinatarCnnConfig(Strict):
    """The network of MinAtar's authors over a 10x10 grid, `width` times as wide."""

    kind: Literal["minatar_cnn"] = Field("minatar_cnn", description="Discriminator of the network union.")
    width: int = Field(
        1,
        ge=1,
        le=16,
        description="Multiplier of the 16 convolution filters and of the dense layer's 128 units. Of our own.",
    )
    initialization: Initialization = Field(
        "torch",
        description="torch: PyTorch's default (MinAtar, examples/dqn.py); glorot: uniform Glorot, zero bias, as in "
        "Dopamine's DQN; orthogonal: gain sqrt(2), zero bias; fan_in_uniform: as in Dopamine's RainbowNetwork.",
    )
    global_average_pooling: bool = Field(
        False,
        description="Whether the dense layer reads the mean of each channel over the image (16 * width features) "
        "instead of every position. Source: Sokar and Castro 2025.",
    )
    layer_norm: bool = Field(
        False,
        description="Whether every layer's output is normalised over its channels, at each position, before the ReLU. "
        "Source: Gallici et al. 2024.",
    )


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
        "sqrt(2), zero bias (CleanRL, ppo.py); glorot: uniform Glorot, zero bias (Flax-style, as in Dopamine); "
        "fan_in_uniform: uniform with variance 1 / (sqrt(3) * inputs), zero bias (Dopamine, RainbowNetwork).",
    )
    layer_norm: bool = Field(
        False,
        description="Whether every hidden layer's output is normalised before the activation. Source: Gallici et al. "
        "2024.",
    )


NetworkConfig = Annotated[NatureCnnConfig | ImpalaCnnConfig | MinatarCnnConfig | MlpConfig, Field(discriminator="kind")]


class PrunableFields(Strict):
    """What every learning agent can be given, whatever its loop."""

    pruning: PruningConfig | None = Field(
        None, description="Sparse training (docs/pruning.md), such as agent.pruning.sparsity=0.9. null trains densely."
    )


class ReplayedFields(PrunableFields):
    """How an agent learns from stored transitions, whether it makes them itself or not."""

    batch_size: int = Field(32, ge=1, description="Transitions per gradient step.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per env step. Source: Mnih et al. 2015, table 1.")
    n_step: int = Field(1, ge=1, le=100, description="Rewards summed before bootstrapping (env steps).")
    metrics_period: int = Field(
        50,
        ge=1,
        description="Gradient steps between two reports of loss, Q mean and gradient norm. Losses are averaged over "
        "the period; in between nothing is measured, so that the device never waits.",
    )


class OffPolicyFields(ReplayedFields):
    """The loop of an agent that fills the replay it learns from: how often it updates, and from when on."""

    replay_ratio: float = Field(0.25, gt=0, le=64, description="Gradient steps per env step.")
    learning_starts: int = Field(
        20_000, ge=0, description="Env steps of uniformly random actions before the first gradient step."
    )


class OnPolicyFields(PrunableFields):
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
