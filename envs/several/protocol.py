"""The rules under which one agent is evaluated in several games: those of every game, as one frozen object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from envs.base import EpisodeSpec
from envs.minatar.config import MinatarProtocol
from envs.protocols import AtariProtocol, Protocol

GameProtocol = Annotated[AtariProtocol | MinatarProtocol, Field(discriminator="suite")]


class GamesProtocol(Protocol):
    """The evaluation protocols of several games of one suite, played one game after the other.

    Its episodes are those of the games, in their order: each game is played as under its own protocol alone. The hash
    is over the rules of all games.
    """

    suite: Literal["games"] = "games"
    rules: tuple[GameProtocol, ...] = Field(min_length=2, description="evaluation protocol of each game, in order")

    @classmethod
    def of(cls, rules: Sequence[AtariProtocol | MinatarProtocol]) -> GamesProtocol:
        """Puts the protocols of several games together.

        Args:
            rules: one for each game; they differ in the game alone.

        Raises:
            ValueError: if there are fewer than two, a game is named twice, or they differ in more than the game.
        """
        first = rules[0]
        return cls(
            id=f"games-{first.id}",
            env_name=f"{first.suite}-games",
            num_episodes=sum(each.num_episodes for each in rules),
            evaluation_policy=first.evaluation_policy,
            evaluation_epsilon=first.evaluation_epsilon,
            versions=first.versions,
            rules=tuple(rules),
        )

    @model_validator(mode="after")
    def _differ_in_the_game_alone(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"rules name a game twice: {', '.join(self.tasks)}")
        first = self.rules[0]
        for each in self.rules[1:]:
            if type(each) is not type(first) or each.model_copy(update={"env_name": first.env_name}) != first:
                raise ValueError(f"the rules of {first.env_name} and {each.env_name} differ in more than the game")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the games, as in records and data."""
        return tuple(each.env_name for each in self.rules)

    @property
    def max_episode_steps(self) -> int:
        """Cap on an episode in agent steps, the same in every game."""
        return self.rules[0].max_episode_steps

    @property
    def frames_per_step(self) -> int:
        """Emulator frames per agent step, the same in every game."""
        return self.rules[0].frames_per_step

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        """Gives the episodes of every game, game by game, numbered through.

        Raises:
            ValueError: if ``seed`` is negative.
        """
        specs = [spec for each in self.rules for spec in each.episodes(seed)]
        return [replace(spec, index=index) for index, spec in enumerate(specs)]

    def parts(self, specs: Sequence[EpisodeSpec]) -> list[tuple[Protocol, list[EpisodeSpec]]]:
        """Gives the rules of every game that some of these episodes are of, each with its own episodes."""
        by_game = [(each, [spec for spec in specs if spec.task == each.env_name]) for each in self.rules]
        return [(each, own) for each, own in by_game if own]

    def describe(self) -> dict[str, Any]:
        """Gives the rules once, without the game's name, and the games."""
        data = super().describe()
        data["rules"] = {name: value for name, value in data["rules"][0].items() if name != "env_name"}
        return data | {"games": list(self.tasks)}
