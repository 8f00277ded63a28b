"""Which Atari game, under which rules. Light: ale-py is imported by ``make_*`` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from envs.atari.games import normalise_game
from envs.atari.presets import ATARI_PRESETS, atari_protocol, check_preset
from envs.base import Strict
from envs.protocols import AtariProtocol

if TYPE_CHECKING:
    import gymnasium

    from envs.tianshou_vector import VectorEnv

_EVERYWHERE = ("sticky_prob", "noop_max", "fire_reset", "full_action_space", "max_frames", "frame_skip")
_TRAINING_ONLY = ("terminal_on_life_loss", "clip_reward")
_EVALUATION_ONLY = ("evaluation_episodes", "evaluation_epsilon", "evaluation_policy")


class AtariConfig(Strict):
    """An Atari game under a named protocol, with single fields of the preset changed where asked.

    A field left at None is the preset's. Changed fields show in the protocol's id (``dopamine+sticky_prob``), so that
    the result cannot be taken for the preset's.
    """

    name: Literal["atari"] = Field(default="atari", description="the kind of environment")
    game: str = Field(description="short name as in `sextant env list` (ms_pacman); MsPacman and ALE/MsPacman-v5 work")
    protocol: str = Field(
        default="dopamine",
        description="preset of training, and of evaluation unless evaluation_preset is set: dopamine, machado2018, "
        "ale_v5_raw, dqn_nature, baselines_v4, dqn_zoo, atari100k (sources in envs/atari/presets.py)",
    )
    evaluation_preset: str | None = Field(
        default=None,
        description="preset of evaluation, taken as published; None: `protocol`, with the changes below",
    )
    num_envs: int = Field(default=8, ge=1, description="games played side by side in training")
    num_threads: int = Field(default=0, ge=0, description="emulator threads; 0 = one per game, at most one per core")
    sticky_prob: float | None = Field(
        default=None, ge=0.0, le=1.0, description="probability per frame that the previous action is repeated"
    )
    noop_max: int | None = Field(default=None, ge=0, description="frames; no-ops at reset are drawn from 0..noop_max-1")
    fire_reset: bool | None = Field(default=None, description="press FIRE at each game's start, where it exists")
    full_action_space: bool | None = Field(default=None, description="all 18 actions instead of the game's minimal set")
    max_frames: int | None = Field(default=None, ge=1, description="cap on a game in emulator frames after the reset")
    frame_skip: int | None = Field(default=None, ge=1, description="emulator frames per agent step")
    terminal_on_life_loss: bool | None = Field(
        default=None, description="training: a lost life ends the learner's episode; the game goes on"
    )
    clip_reward: bool | None = Field(default=None, description="training: the learner's reward is clipped to [-1, 1]")
    evaluation_episodes: int | None = Field(default=None, ge=1, description="games per evaluation")
    evaluation_epsilon: float | None = Field(
        default=None, ge=0.0, le=1.0, description="probability of a uniform random action in evaluation"
    )
    evaluation_policy: Literal["greedy", "sampled"] | None = Field(
        default=None, description="greedy: the agent's best action; sampled: from its distribution"
    )

    @field_validator("game")
    @classmethod
    def _known_game(cls, value: str) -> str:
        return normalise_game(value)

    @field_validator("protocol", "evaluation_preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        return None if value is None else check_preset(value)

    @property
    def env_id(self) -> str:
        """Short name for run directories."""
        return self.game

    def training_protocol(self) -> AtariProtocol:
        """Gives the rules of training: the preset's, with the changes of this config."""
        protocol = atari_protocol(self.protocol, self.game, "training")
        return protocol.changed(**self._changes(*_EVERYWHERE, *_TRAINING_ONLY))

    def evaluation_protocol(self, name: str | None = None) -> AtariProtocol:
        """Gives the rules of evaluation: whole games, raw rewards.

        Args:
            name: a preset, taken as published; None for the config's own. The agent's action set is kept in any
                case (and named in the id where it is not the preset's), for it could not play otherwise.

        Raises:
            ValueError: if there is no such preset.
        """
        preset = name or self.evaluation_preset
        protocol = atari_protocol(preset or self.protocol, self.game, "evaluation")
        changes = self._changes(*_EVERYWHERE) if preset is None else {}
        if name is None:
            renamed = {"evaluation_episodes": "num_episodes"}
            changes |= {renamed.get(field, field): value for field, value in self._changes(*_EVALUATION_ONLY).items()}
        full = self.training_protocol().full_action_space
        return protocol.changed(**changes | {"full_action_space": full})

    def make_training_env(self) -> VectorEnv:
        """Builds ``num_envs`` games under the training protocol."""
        from envs.atari.vector import AtariVector

        return AtariVector(self.training_protocol(), self.num_envs, num_threads=self.num_threads)

    def make_evaluation_env(self, protocol: AtariProtocol, num_envs: int) -> VectorEnv:
        """Builds ``num_envs`` games under an evaluation protocol."""
        from envs.atari.vector import AtariVector

        return AtariVector(protocol, num_envs, num_threads=self.num_threads)

    def make_single_env(self, protocol: AtariProtocol, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Builds one game as a plain gymnasium environment, frame for frame the vector environment's.

        Args:
            protocol: the rules.
            render_mode: ``rgb_array`` for colour frames of the whole screen, or None.
        """
        from envs.atari.single import AtariSingle

        return AtariSingle(protocol, render_mode=render_mode)

    def action_sets(self) -> dict[str, tuple[int, ...]]:
        """Gives the game's minimal actions under its name, as indices into all 18; nothing without these."""
        from envs.atari.single import minimal_actions

        return {self.game: minimal_actions(self.game)} if self.training_protocol().full_action_space else {}

    def describe(self) -> dict[str, Any]:
        """Gives the resolved rules of training and evaluation, ready for JSON or a table."""
        return {
            "env_id": self.env_id,
            "num_envs": self.num_envs,
            "training": self.training_protocol().describe(),
            "evaluation": self.evaluation_protocol().describe(),
            "source": ATARI_PRESETS[self.protocol].source,
        }

    def _changes(self, *names: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}
