"""The ``env=classic`` group: any registered gymnasium environment, and ours with a known optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from envs.base import Strict, nearest
from envs.protocols import Protocol

if TYPE_CHECKING:
    import gymnasium

    from envs.tianshou_vector import VectorEnv

OURS: dict[str, int] = {"identity-v0": 16, "identity-box-v0": 16, "pixel-catch-v0": 11}
"""Our environments and their episode lengths in env steps; built directly, in no registry."""

USUAL: dict[str, int] = {
    "CartPole-v1": 500,
    "Pendulum-v1": 200,
    "Acrobot-v1": 500,
    "MountainCar-v0": 200,
    "MountainCarContinuous-v0": 999,
}
"""Classic control and its time limits in env steps, so that the usual names need no import (a test compares them)."""


def time_limit(env_name: str) -> int | None:
    """Gives the env's own time limit in env steps; None where it has none.

    Raises:
        ValueError: if no such environment is known to us or to gymnasium.
    """
    known = OURS | USUAL
    if env_name in known:
        return known[env_name]
    if ":" in env_name:
        raise ValueError(f"env id {env_name!r} names a module to import; only ids already registered are taken")
    import gymnasium

    if env_name not in gymnasium.registry:
        raise ValueError(f"unknown environment {env_name!r}, {nearest(env_name, [*OURS, *gymnasium.registry])}")
    return gymnasium.spec(env_name).max_episode_steps


class ClassicProtocol(Protocol):
    """The rules of a gymnasium environment and of its evaluation, frozen and hashed."""

    packages: ClassVar[tuple[str, ...]] = ("gymnasium",)

    suite: Literal["classic"] = "classic"
    num_episodes: int = Field(default=20, ge=1, description="evaluation episodes per evaluation seed")
    horizon: int = Field(ge=1, description="env steps until an episode is truncated")

    @property
    def max_episode_steps(self) -> int:
        """Env steps until an episode is truncated."""
        return self.horizon


class ClassicConfig(Strict):
    """A gymnasium environment with Discrete or Box actions and array observations."""

    name: Literal["classic"] = "classic"
    id: str = Field(
        default="CartPole-v1",
        description="registered gymnasium id, or ours: identity-v0, identity-box-v0, pixel-catch-v0",
    )
    num_envs: int = Field(default=8, ge=1, description="parallel training environments, in this process")
    max_episode_steps: int | None = Field(
        default=None, ge=1, description="env steps until truncation; when left out: the environment's own limit"
    )
    evaluation_episodes: int = Field(default=20, ge=1, description="episodes per evaluation")

    @field_validator("id")
    @classmethod
    def _known_id(cls, value: str) -> str:
        time_limit(value)
        return value

    @model_validator(mode="after")
    def _bounded(self) -> ClassicConfig:
        own = time_limit(self.id)
        if own is None and self.max_episode_steps is None:
            raise ValueError(f"{self.id} has no time limit of its own: set max_episode_steps")
        if self.id in OURS and self.max_episode_steps not in (None, own):
            raise ValueError(f"{self.id} always lasts {own} steps, got max_episode_steps={self.max_episode_steps}")
        return self

    @property
    def env_id(self) -> str:
        """Short file-system-safe name, for example ``CartPole-v1``."""
        return self.id.replace("/", "-")

    def training_protocol(self) -> ClassicProtocol:
        """Gives the rules of training: the same dynamics as evaluation."""
        return self._protocol("classic-train-1")

    def evaluation_protocol(self, name: str | None = None) -> ClassicProtocol:
        """Gives the one evaluation protocol there is here, ``classic-eval-1``: greedy, full episodes.

        Raises:
            ValueError: if ``name`` is another one.
        """
        if name not in (None, "classic-eval-1"):
            raise ValueError(f"unknown protocol {name!r} for {self.id}, valid names: classic-eval-1")
        return self._protocol("classic-eval-1")

    def make_training_env(self) -> VectorEnv:
        """Builds ``num_envs`` training envs in this process."""
        return self.make_evaluation_env(self.training_protocol(), self.num_envs)

    def make_evaluation_env(self, protocol: ClassicProtocol, num_envs: int) -> VectorEnv:
        """Builds ``num_envs`` envs under the protocol, in this process."""
        from envs.classic.envs import make_vector_env

        return make_vector_env(protocol, num_envs)

    def make_single_env(self, protocol: ClassicProtocol, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Builds one gymnasium env under the protocol."""
        from envs.classic.envs import make_env

        return make_env(protocol, render_mode)

    def describe(self) -> dict[str, Any]:
        """Gives the training and evaluation protocols in full."""
        return {
            "env_id": self.env_id,
            "num_envs": self.num_envs,
            "training": self.training_protocol().describe(),
            "evaluation": self.evaluation_protocol().describe(),
        }

    def _protocol(self, preset: str) -> ClassicProtocol:
        horizon = self.max_episode_steps or time_limit(self.id)
        assert horizon is not None  # _bounded refused it
        changed = ["horizon"] if horizon != time_limit(self.id) else []
        changed += ["num_episodes"] if self.evaluation_episodes != 20 else []
        return ClassicProtocol(
            id="+".join([preset, *changed]),
            env_name=self.id,
            num_episodes=self.evaluation_episodes,
            horizon=horizon,
        )
