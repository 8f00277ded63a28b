"""Configs of the agents that learn distributions of returns: C51 (and Rainbow), QR-DQN and IQN (and Munchausen-IQN).

The defaults are Dopamine's JAX agents. Rainbow, DER and Munchausen-IQN are presets of these classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from agents.base_config import MlpConfig, NatureCnnConfig, NetworkConfig, Strict
from agents.value_based.config import ValueBasedFields
from memory.config import ReplayConfig

if TYPE_CHECKING:
    import gymnasium
    import numpy as np

    from agents.value_based.agent import NetworkAndRule, ValueAgent

MUNCHAUSEN = {"munchausen_alpha": 0.9, "munchausen_temperature": 0.03, "munchausen_clip": -1.0}


class DistributionalFields(ValueBasedFields):
    """What the distributional agents share beyond all others."""

    network: NetworkConfig = Field(
        NatureCnnConfig(initialization="fan_in_uniform"),
        description="Network from observations to distributions. Initialisation: Dopamine, jax/networks.py, "
        "RainbowNetwork, QuantileNetwork and ImplicitQuantileNetwork.",
    )

    def build(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        device: str,
        seed: np.random.SeedSequence,
    ) -> ValueAgent:
        """Builds the agent.

        Raises:
            ValueError: if the spaces do not fit the network, or actions are not discrete.
        """
        from agents.value_based.agent import ValueAgent, build_value_agent

        make_network, make_algorithm = self._network_and_rule()
        return build_value_agent(
            self,
            observation_space,
            action_space,
            device=device,
            seed=seed,
            make_network=make_network,
            make_algorithm=make_algorithm,
            make_agent=ValueAgent,
        )

    @abstractmethod
    def _network_and_rule(self) -> NetworkAndRule:
        """Gives what makes the network and the update rule, as `build_value_agent` takes them."""


class AtomFields(Strict):
    """The fixed returns over which agents learn a distribution."""

    num_atoms: int = Field(51, ge=2, le=1001, description="Returns that carry probability. Source: c51.gin.")
    value_min: float = Field(-10.0, description="Smallest of them (units of return). Source: minus vmax of c51.gin.")
    value_max: float = Field(10.0, description="Largest of them (units of return). Source: c51.gin.")

    @model_validator(mode="after")
    def _ordered_range(self) -> Self:
        if self.value_min >= self.value_max:
            raise ValueError(f"value_min={self.value_min} is not below value_max={self.value_max}")
        return self


class C51Config(AtomFields, DistributionalFields):
    """Categorical DQN; with prioritised replay and n_step=3 Dopamine's compact Rainbow.

    Source: Bellemare et al. 2017; Dopamine, jax/agents/rainbow/configs/c51.gin, unless a field says otherwise.
    """

    name: Literal["c51"] = Field("c51", description="Discriminator of the agent union.")
    learning_rate: float = Field(
        2.5e-4, gt=0, le=1, description="Adam's step size. Source: c51.gin; rainbow.gin has 6.25e-5."
    )
    adam_eps: float = Field(
        3.125e-4, gt=0, le=1, description="Adam's epsilon, outside the square root. Source: c51.gin; rainbow: 1.5e-4."
    )

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        if not self.replay.prioritised:
            return "c51"
        return "der" if self.noisy and self.dueling and self.double else "rainbow"

    def _network_and_rule(self) -> NetworkAndRule:
        from agents.value_based.c51 import c51_parts

        return c51_parts(self)


class QRDQNConfig(DistributionalFields):
    """Quantile-regression DQN.

    Source: Dabney et al. 2018 (AAAI); Dopamine, jax/agents/quantile/configs/quantile.gin, unless a field says
    otherwise.
    """

    name: Literal["qr_dqn"] = Field("qr_dqn", description="Discriminator of the agent union.")
    num_quantiles: int = Field(200, ge=1, le=1000, description="Quantiles per action. Source: quantile.gin.")
    kappa: float = Field(
        1.0, gt=0, description="Error from which the quantile Huber loss is linear (units of return). Source: the same."
    )
    n_step: int = Field(3, ge=1, le=100, description="Rewards summed before bootstrapping (env steps). Source: same.")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Adam's step size. Source: quantile.gin.")
    adam_eps: float = Field(
        3.125e-4, gt=0, le=1, description="Adam's epsilon, outside the square root. Source: quantile.gin."
    )
    replay: ReplayConfig = Field(
        ReplayConfig(prioritised=True, beta=0.0),
        description="Replay memory. Prioritised without importance weights, as Dopamine's quantile_agent.py trains: it "
        "applies the weights to the loss it shows, after the step.",
    )

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        return "qr_dqn"

    def _network_and_rule(self) -> NetworkAndRule:
        from agents.value_based.quantile import qr_dqn_parts

        return qr_dqn_parts(self)


class IQNConfig(DistributionalFields):
    """Implicit quantile networks, optionally with Munchausen's log-policy in the reward.

    Source: Dabney et al. 2018 (ICML); Dopamine, jax/agents/implicit_quantile/configs/implicit_quantile.gin, unless a
    field says otherwise.
    """

    name: Literal["iqn"] = Field("iqn", description="Discriminator of the agent union.")
    num_fractions: int = Field(64, ge=1, le=1024, description="Fractions of the prediction. Source: num_tau_samples.")
    num_target_fractions: int = Field(
        64, ge=1, le=1024, description="Fractions of the target. Source: num_tau_prime_samples."
    )
    num_acting_fractions: int = Field(
        32, ge=1, le=1024, description="Fractions of the values actions are chosen by. Source: num_quantile_samples."
    )
    num_cosines: int = Field(
        64, ge=1, le=1024, description="Cosines a fraction is embedded in. Source: Dabney et al. 2018, equation 4."
    )
    kappa: float = Field(
        1.0, gt=0, description="Error from which the quantile Huber loss is linear (units of return). Source: the gin."
    )
    n_step: int = Field(
        3, ge=1, le=100, description="Rewards summed before bootstrapping (env steps). Source: update_horizon."
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Adam's step size. Source: the gin.")
    adam_eps: float = Field(
        3.125e-4, gt=0, le=1, description="Adam's epsilon, outside the square root. Source: the gin."
    )
    munchausen: bool = Field(
        False,
        description="Whether the scaled log-probability of the action taken is added to the reward, and the bootstrap "
        "is the soft value. Source: Vieillard et al. 2020; Google Research, munchausen_rl/agents/m_iqn.py.",
    )
    munchausen_alpha: float = Field(
        0.9, ge=0, le=1, description="Factor of that log-probability. Source: m_iqn.py, alpha."
    )
    munchausen_temperature: float = Field(
        0.03, gt=0, le=100, description="Temperature of the softmax policy (units of return). Source: m_iqn.py, tau."
    )
    munchausen_clip: float = Field(
        -1.0, le=0, description="The scaled log-probability counts as no less. Source: m_iqn.py, clip_value_min."
    )

    @model_validator(mode="after")
    def _no_idle_munchausen(self) -> Self:
        for name, usual in MUNCHAUSEN.items():
            if not self.munchausen and getattr(self, name) != usual:
                raise ValueError(f"{name}={getattr(self, name)} has no effect with munchausen=false")
        if self.munchausen and self.double:
            raise ValueError("double=true has no effect with munchausen=true: no single action is bootstrapped")
        if self.cuda_graph:
            raise ValueError(f"cuda_graph=true would repeat the fractions that {self.label} draws for every update")
        if isinstance(self.network, MlpConfig) and len(self.network.hidden_widths) < 2:
            raise ValueError(
                f"network.hidden_widths={list(self.network.hidden_widths)}: iqn needs two hidden layers or more, "
                "fractions enter before the last"
            )
        return self

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        return "munchausen_iqn" if self.munchausen else "iqn"

    def _network_and_rule(self) -> NetworkAndRule:
        from agents.value_based.quantile import iqn_parts

        return iqn_parts(self)
