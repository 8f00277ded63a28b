"""The ``env=minatar`` group: which game, under which rules. Light: the package is imported by ``make_*`` only.

Source: Young and Tian 2019, "MinAtar: An Atari-inspired testbed for thorough and reproducible reinforcement learning
experiments" (arXiv 1903.03176); the package's version 1.0.15.
"""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from envs.base import Strict, nearest
from envs.protocols import Protocol

if TYPE_CHECKING:
    import gymnasium

    from envs.tianshou_vector import VectorEnv

GAMES: tuple[str, ...] = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
"""Every game of the package (a test compares them)."""

PREFIX = "minatar-"
"""Before a game's name where it could be taken for the Atari game, whose reference scores are others."""

HORIZON = 5_000
"""Agent steps until truncation unless asked otherwise: twice Freeway's own limit, the only one a game has."""

MOST_CHANNELS = 10
"""Channels of Seaquest, the game with most (a test compares them with the package)."""

_RULES = ("sticky_prob", "difficulty_ramping", "full_action_space", "all_channels")
_IN_PROTOCOL = {"max_episode_steps": "horizon", "evaluation_episodes": "num_episodes"}


def normalise_game(name: str) -> str:
    """Gives the package's own name of a game; accepts ``SpaceInvaders`` and ``MinAtar/SpaceInvaders-v1`` too.

    Raises:
        ValueError: if there is no such game; the message has the nearest names.
    """
    bare = re.sub(r"-v[01]$", "", name.removeprefix("MinAtar/").removeprefix(PREFIX))
    by_key = {game.replace("_", ""): game for game in GAMES}
    game = by_key.get(re.sub(r"[^a-z0-9]", "", bare.lower()))
    if game is None:
        raise ValueError(f"unknown MinAtar game {name!r}, {nearest(bare, GAMES)}")
    return game


def playable_game(name: str) -> str:
    """Gives the package's own name of a game, as :func:`normalise_game`.

    Raises:
        ValueError: if there is no such game, or the package is not installed.
    """
    game = normalise_game(name)
    if importlib.util.find_spec("minatar") is None:
        raise ValueError("MinAtar games need the package minatar: pip install -e '.[minatar]'")
    return game


class MinatarProtocol(Protocol):
    """The rules of one MinAtar game and of its evaluation, frozen and hashed."""

    packages: ClassVar[tuple[str, ...]] = ("minatar",)

    suite: Literal["minatar"] = "minatar"
    num_episodes: int = Field(default=30, ge=1, description="evaluation episodes per evaluation seed")
    sticky_prob: float = Field(ge=0.0, le=1.0, description="probability per step that the previous action is repeated")
    difficulty_ramping: bool = Field(description="enemies get faster as an episode goes on, in the games that have it")
    full_action_space: bool = Field(description="all 6 actions instead of the game's minimal set")
    horizon: int = Field(ge=1, description="agent steps until an episode is truncated")
    all_channels: bool = Field(
        default=False, description="observations have the channels of the game with most; those it lacks are zeros"
    )

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves ``all_channels`` out where it is false: hashes are those from before there was such a rule."""
        data: dict[str, Any] = serialize(self)
        if not self.all_channels:
            del data["all_channels"]
        return data

    @property
    def game(self) -> str:
        """The package's own name of the game."""
        return self.env_name.removeprefix(PREFIX)

    @property
    def max_episode_steps(self) -> int:
        """Agent steps until an episode is truncated."""
        return self.horizon


class MinatarConfig(Strict):
    """A MinAtar game under its authors' rules, with single rules changed where asked.

    Changed rules show in the protocol's id (``minatar-eval-1+sticky_prob``), so that the result cannot be taken for
    one under the authors' rules.
    """

    name: Literal["minatar"] = "minatar"
    game: str = Field(description=f"one of {', '.join(GAMES)}; SpaceInvaders and MinAtar/SpaceInvaders-v1 work too")
    num_envs: int = Field(default=8, ge=1, description="games played side by side in training, in this process")
    sticky_prob: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="probability per step that the previous action is repeated; default of the package's Environment",
    )
    difficulty_ramping: bool = Field(
        default=True,
        description="enemies get faster as an episode goes on (asterix, seaquest, space_invaders); default of the "
        "package's Environment",
    )
    full_action_space: bool = Field(
        default=False,
        description="all 6 actions, as in the package's -v0 ids, instead of the game's minimal set, as in its -v1 ids",
    )
    all_channels: bool = Field(
        default=False,
        description=f"observations of {MOST_CHANNELS} channels, as many as Seaquest's, in every game; those it lacks "
        "are zeros. With full_action_space=true all games have equal spaces, as a model of several games needs",
    )
    max_episode_steps: int = Field(
        default=HORIZON,
        ge=1,
        description="agent steps until truncation; the package has no such cap, the default is twice Freeway's limit",
    )
    evaluation_episodes: int = Field(default=30, ge=1, description="episodes per evaluation")
    evaluation_epsilon: float = Field(
        default=0.0, ge=0.0, le=1.0, description="probability of a uniform random action in evaluation"
    )

    @field_validator("game")
    @classmethod
    def _known_game(cls, value: str) -> str:
        return playable_game(value)

    @property
    def env_id(self) -> str:
        """Short name for run directories, for example ``minatar-breakout``."""
        return PREFIX + self.game

    @property
    def id(self) -> str:
        """The id under which the package itself registers the game with gymnasium (there without a cap)."""
        camel = self.game.title().replace("_", "")
        return f"MinAtar/{camel}-v{0 if self.full_action_space else 1}"

    def training_protocol(self) -> MinatarProtocol:
        """Gives the rules of training: the same dynamics as evaluation, without its random actions."""
        return self._protocol("minatar-train-1", "max_episode_steps")

    def evaluation_protocol(self, name: str | None = None) -> MinatarProtocol:
        """Gives the one evaluation protocol there is here, ``minatar-eval-1``: greedy, full episodes.

        Raises:
            ValueError: if ``name`` is another one.
        """
        if name not in (None, "minatar-eval-1"):
            raise ValueError(f"unknown protocol {name!r} for {self.env_id}, valid names: minatar-eval-1")
        return self._protocol("minatar-eval-1", "max_episode_steps", "evaluation_episodes", "evaluation_epsilon")

    def make_training_env(self) -> VectorEnv:
        """Builds ``num_envs`` games under the training protocol, in this process."""
        return self.make_evaluation_env(self.training_protocol(), self.num_envs)

    def make_evaluation_env(self, protocol: MinatarProtocol, num_envs: int) -> VectorEnv:
        """Builds ``num_envs`` games under the protocol, in this process."""
        from envs.minatar.envs import make_vector_env

        return make_vector_env(protocol, num_envs)

    def make_single_env(self, protocol: MinatarProtocol, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Builds one game as a plain gymnasium environment.

        Args:
            protocol: the rules.
            render_mode: ``rgb_array`` for colour frames, or None.
        """
        from envs.minatar.envs import MinatarEnv

        return MinatarEnv(protocol, render_mode)

    def action_sets(self) -> dict[str, tuple[int, ...]]:
        """Gives the game's minimal actions under its task's name, as indices into all 6; nothing without these."""
        from envs.minatar.envs import minimal_actions

        return {self.env_id: minimal_actions(self.game)} if self.full_action_space else {}

    def describe(self) -> dict[str, Any]:
        """Gives the training and evaluation protocols in full."""
        return {
            "env_id": self.env_id,
            "num_envs": self.num_envs,
            "training": self.training_protocol().describe(),
            "evaluation": self.evaluation_protocol().describe(),
            "source": f"Young and Tian 2019, arXiv 1903.03176; the rules of {self.id}, with a cap",
        }

    def _protocol(self, preset: str, *fields: str) -> MinatarProtocol:
        """Gives a protocol with the rules and these fields of the config, its id naming all that were changed."""
        values = {_IN_PROTOCOL.get(name, name): getattr(self, name) for name in (*_RULES, *fields)}
        defaults = type(self).model_fields
        changed = [
            _IN_PROTOCOL.get(name, name) for name in (*_RULES, *fields) if getattr(self, name) != defaults[name].default
        ]
        return MinatarProtocol(id="+".join([preset, *sorted(changed)]), env_name=self.env_id, **values)
