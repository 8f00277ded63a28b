"""Config of conservative Q-learning on a saved replay, on scalar values or on C51's distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agents.value_based.config import ErrorFields, ValueFields
from agents.value_based.distributional_config import AtomFields

if TYPE_CHECKING:
    import gymnasium
    import numpy as np

    from agents.value_based.agent import ValueAgent


class CQLConfig(AtomFields, ErrorFields, ValueFields):
    """Conservative Q-learning from stored transitions alone: DQN's or C51's loss plus `conservatism` times CQL's term.

    Source: Kumar et al. 2020, equation 4; Dopamine, labs/offline_rl/jax/offline_rainbow_agent.py; the numbers are
    those of Obando-Ceron et al. 2024, table 3, unless a field says otherwise.
    """

    name: Literal["cql"] = Field("cql", description="Discriminator of the agent union.")
    kind: ClassVar[Literal["offline"]] = "offline"

    conservatism: float = Field(
        0.1,
        ge=0,
        le=1000,
        description="Factor alpha of logsumexp_b Q(s, b) - Q(s, a), a the replayed action. 0 is plain DQN or C51. "
        "Source: table 3; Dopamine, jax_rainbow.gin, bc_coefficient.",
    )
    distributional: bool = Field(
        False, description="Whether a distribution over atoms is learned as in C51, and Q is its mean (CQL+C51)."
    )
    loss: Literal["mse", "huber"] = Field(
        "huber",
        description="Loss of the TD error of scalar values. Source: Dopamine, offline_rainbow_agent.py, huber_loss.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Adam's step size. Source: table 3; CQL+C51: 6.25e-5.")
    adam_eps: float = Field(
        3.125e-4, gt=0, le=1, description="Adam's epsilon, outside the square root. Source: table 3; CQL+C51: 1.5e-4."
    )
    target_update_period: int = Field(
        2000,
        ge=1,
        description="Gradient steps between two copies of the online network into the target network. Source: "
        "Dopamine, labs/offline_rl/jax/configs/jax_dqn.gin; its jax_rainbow.gin has 100.",
    )

    @model_validator(mode="after")
    def _no_idle_loss(self) -> Self:
        idle = ("loss", "huber_delta") if self.distributional else ("num_atoms", "value_min", "value_max")
        for name in idle:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name}={value} has no effect with distributional={str(self.distributional).lower()}")
        return self

    @property
    def label(self) -> str:
        """Short name for directories and tables."""
        return "cql_c51" if self.distributional else "cql"

    def epsilon(self, env_steps: int) -> float:
        """Gives 0: nothing explores while it learns."""
        return 0.0

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
        from agents.value_based.cql import build_cql

        return build_cql(self, observation_space, action_space, device=device, seed=seed)
