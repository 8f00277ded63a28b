"""The ``env=games`` group: several games of one suite, in which an agent learned offline is evaluated.

All games show equal observations and actions, so that one model plays them: Atari games their 18 actions, MinAtar games
all 10 channels and 6 actions. Source: Lee et al. 2022, "Multi-Game Decision Transformers", for one agent with the full
action set of all games.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from envs.atari.config import AtariConfig
from envs.atari.games import normalise_game
from envs.atari.presets import check_preset
from envs.base import Strict
from envs.minatar.config import MinatarConfig, MinatarProtocol, playable_game
from envs.protocols import AtariProtocol
from envs.several.protocol import GamesProtocol

if TYPE_CHECKING:
    import gymnasium

    from envs.tianshou_vector import VectorEnv

GameConfig = AtariConfig | MinatarConfig
AnyProtocol = GamesProtocol | AtariProtocol | MinatarProtocol
Suite = Literal["atari", "minatar"]

_SUITES: dict[Suite, tuple[type[AtariConfig] | type[MinatarConfig], dict[str, Any]]] = {
    "atari": (AtariConfig, {"full_action_space": True}),
    "minatar": (MinatarConfig, {"full_action_space": True, "all_channels": True}),
}
"""Config of one game of each suite, and the keys under which all its games have equal spaces."""

_PASSED_ON = ("sticky_prob", "evaluation_episodes", "evaluation_epsilon")
_OF_ATARI, _OF_MINATAR = ("protocol", "num_threads"), ("max_episode_steps",)


class GamesConfig(Strict):
    """Several games of one suite, for evaluation alone: with ``trainer=offline``, on data of each game by itself.

    A key left at null is what ``env=atari`` or ``env=minatar`` has.
    """

    name: Literal["games"] = Field(default="games", description="the kind of environment")
    suite: Suite = Field(description="whose games: atari or minatar")
    games: tuple[str, ...] = Field(
        min_length=2,
        description="at least two different games of the suite, by the names that env=SUITE env.game takes",
    )
    evaluation_episodes: int | None = Field(
        default=None, ge=1, description="episodes of each game per evaluation; null: the suite's number"
    )
    evaluation_epsilon: float | None = Field(
        default=None, ge=0.0, le=1.0, description="probability of a uniform random action in evaluation"
    )
    sticky_prob: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="probability that the previous action is repeated, per frame in Atari, per step in MinAtar",
    )
    protocol: str | None = Field(default=None, description="Atari: preset of rules, as env=atari takes it")
    num_threads: int | None = Field(
        default=None, ge=0, description="Atari: emulator threads; 0 = one per environment, at most one per core"
    )
    max_episode_steps: int | None = Field(default=None, ge=1, description="MinAtar: agent steps until truncation")

    @field_validator("games")
    @classmethod
    def _known_games(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "suite" not in info.data:  # it was refused itself
            return value
        games = tuple(_own_name(info.data["suite"], each) for each in value)
        if repeated := [game for game, count in Counter(games).items() if count > 1]:
            raise ValueError(f"{', '.join(repeated)} stands there more than once")
        return games

    @field_validator("protocol")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        return None if value is None else check_preset(value)

    @model_validator(mode="after")
    def _fits_the_suite(self) -> Self:
        for name in _OF_MINATAR if self.suite == "atari" else _OF_ATARI:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)} has no effect with suite={self.suite}")
        return self

    @property
    def env_id(self) -> str:
        """Short name for run directories."""
        return f"{self.suite}-games"

    @property
    def shared_spaces(self) -> dict[str, Any]:
        """Keys of one game's config under which it has the spaces of all."""
        return dict(_SUITES[self.suite][1])

    def game_config(self, game: str) -> GameConfig:
        """Gives the config of one game of the suite by itself, with the spaces and rules it has among the others.

        Args:
            game: also one that is not among ``games``, such as one held out of training.

        Raises:
            ValueError: if the suite has no such game; the message has the nearest names.
        """
        member, spaces = _SUITES[self.suite]
        names = (*_PASSED_ON, *(_OF_ATARI if self.suite == "atari" else _OF_MINATAR))
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return member.model_validate({"game": _own_name(self.suite, game), **spaces, **given})

    def training_protocol(self) -> GamesProtocol:
        """Gives the evaluation's rules: nothing is ever trained by playing here."""
        return self.evaluation_protocol()

    def evaluation_protocol(self, name: str | None = None) -> GamesProtocol:
        """Gives the evaluation protocols of all games as one.

        Args:
            name: as the games themselves take it; null for their own.

        Raises:
            ValueError: if there is no such protocol.
        """
        return GamesProtocol.of([self.game_config(game).evaluation_protocol(name) for game in self.games])

    def make_training_env(self) -> VectorEnv:
        """Refuses.

        Raises:
            ValueError: always.
        """
        raise ValueError("env=games is for evaluation alone: train on data, with trainer=offline")

    def make_evaluation_env(self, protocol: AnyProtocol, num_envs: int) -> VectorEnv:
        """Builds ``num_envs`` environments of one game.

        Args:
            protocol: of one game; that of all of them stands for the first, whose spaces are those of all.
            num_envs: number of environments.
        """
        member: Any = self.game_config(self.games[0])
        env: VectorEnv = member.make_evaluation_env(_of_one_game(protocol), num_envs)
        return env

    def make_single_env(self, protocol: AnyProtocol, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Builds one game as a plain gymnasium environment.

        Args:
            protocol: as in :meth:`make_evaluation_env`.
            render_mode: ``rgb_array`` for colour frames, or None.
        """
        member: Any = self.game_config(self.games[0])
        env: gymnasium.Env[Any, Any] = member.make_single_env(_of_one_game(protocol), render_mode)
        return env

    def action_sets(self) -> dict[str, tuple[int, ...]]:
        """Gives every game's minimal actions under its task's name, as indices into all actions."""
        return {task: actions for game in self.games for task, actions in self.game_config(game).action_sets().items()}

    def describe(self) -> dict[str, Any]:
        """Gives the evaluation protocol in full."""
        return {
            "env_id": self.env_id,
            "games": list(self.games),
            "evaluation": self.evaluation_protocol().describe(),
            "source": self.game_config(self.games[0]).describe()["source"],
        }


def _own_name(suite: Suite, game: str) -> str:
    return normalise_game(game) if suite == "atari" else playable_game(game)


def _of_one_game(protocol: AnyProtocol) -> AtariProtocol | MinatarProtocol:
    return protocol.rules[0] if isinstance(protocol, GamesProtocol) else protocol
