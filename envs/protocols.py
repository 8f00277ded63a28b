"""Named, hashed protocols: every rule that decides what a score means, as one frozen object.

Results whose protocols hash differently are never averaged silently. ``Protocol`` is the base, ``AtariProtocol`` the
Atari rules; ``MetaworldProtocol`` and ``ClassicProtocol`` live beside their environments and are found here by name.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from envs.base import EpisodeSpec, Strict, package_versions

MAX_SEED = 2**31 - 1  # prime, and the largest seed the emulator's int32 takes

_ELSEWHERE = {
    "MetaworldProtocol": "envs.metaworld.protocol",
    "ClassicProtocol": "envs.classic.config",
    "GamesProtocol": "envs.several.protocol",
}


def __getattr__(name: str) -> Any:
    """Finds the protocols that live beside their environments, on first use."""
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def derive_seeds(seed: int, count: int) -> list[int]:
    """Gives ``count`` distinct environment seeds in [1, 2**31 - 1], a pure function of ``seed``.

    Used for evaluation episodes and for the sub-environments of a vector env.

    The i-th seed is start + i * stride modulo the prime 2**31 - 1, start and stride from sha256: never twice the
    same, and the first n do not depend on ``count``. 0 is left out: to some emulators it means "use the clock".

    Raises:
        ValueError: if ``seed`` is negative.
    """
    if seed < 0:
        raise ValueError(f"a seed must not be negative, got {seed}")
    digest = hashlib.sha256(f"sextant environment seeds {seed}".encode()).digest()
    start = int.from_bytes(digest[:8]) % MAX_SEED
    stride = 1 + int.from_bytes(digest[8:16]) % (MAX_SEED - 1)
    return [1 + (start + index * stride) % MAX_SEED for index in range(count)]


class Protocol(Strict):
    """The rules of an environment and of its evaluation, frozen.

    A subclass adds its own fields (and a ``suite`` literal), sets ``packages``, and overrides the properties
    ``max_episode_steps`` and, where an agent step is several frames, ``frames_per_step``, plus ``episodes`` if the
    episodes differ in more than their seed.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions can change a score; they enter the hash."""

    id: str = Field(description="preset name, with '+field' for each field that differs from the preset")
    env_name: str = Field(description="game, task or environment name")
    num_episodes: int = Field(default=10, ge=1, description="evaluation episodes per evaluation seed")
    evaluation_policy: Literal["greedy", "sampled"] = Field(
        default="greedy", description="greedy: the agent's best action; sampled: from its distribution"
    )
    evaluation_epsilon: float = Field(
        default=0.0, ge=0.0, le=1.0, description="probability of a uniform random action in evaluation"
    )
    versions: dict[str, str] = Field(
        default_factory=dict, description="versions of the environment packages, as installed when left out"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_versions(cls, data: Any) -> Any:
        if isinstance(data, dict) and "versions" not in data:
            return data | {"versions": package_versions(*cls.packages)}
        return data

    @property
    def max_episode_steps(self) -> int:
        """Cap on an episode in agent steps."""
        raise NotImplementedError(f"{type(self).__name__} must give max_episode_steps")

    @property
    def frames_per_step(self) -> int:
        """Emulator frames per agent step; 1 where there is no frame skip."""
        return 1

    @property
    def hash(self) -> str:
        """First 12 hex digits of the sha256 over the canonical JSON of every field."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.hash)

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        """Gives the evaluation episodes of one evaluation seed, fixed before anything runs.

        Raises:
            ValueError: if ``seed`` is negative.
        """
        seeds = derive_seeds(seed, self.num_episodes)
        return [EpisodeSpec(index=index, seed=each, task=self.env_name) for index, each in enumerate(seeds)]

    def parts(self, specs: Sequence[EpisodeSpec]) -> list[tuple[Protocol, list[EpisodeSpec]]]:
        """Gives the rules under which episodes are played, each with its own in their order; here one for all.

        A protocol over several games, each of which needs an env of its own, has several (``GamesProtocol``).

        Args:
            specs: some of the protocol's episodes, in its order.
        """
        return [(self, list(specs))]

    def describe(self) -> dict[str, Any]:
        """Gives every field and what follows from them, ready for JSON or a table."""
        derived = {
            "hash": self.hash,
            "max_episode_steps": self.max_episode_steps,
            "frames_per_step": self.frames_per_step,
        }
        return self.model_dump(mode="json") | derived


class AtariProtocol(Protocol):
    """The rules of one Atari game, for training or for evaluation.

    Observations are those of ale-py's ``AtariVectorEnv``: the last two of the skipped frames max-pooled, grey, resized
    (area) to ``screen_size``, stacked; the first stacks of an episode are padded with black frames, not with copies.
    Returns for statistics are always raw and over whole games, whatever ``clip_reward`` and ``terminal_on_life_loss``
    make of the learner's reward and episode.
    """

    packages: ClassVar[tuple[str, ...]] = ("ale-py",)

    suite: Literal["atari"] = "atari"
    role: Literal["training", "evaluation"] = Field(description="what the rules are for")
    sticky_prob: float = Field(
        ge=0.0, le=1.0, description="probability, per emulator frame, that the previous action is repeated"
    )
    noop_max: int = Field(
        ge=0, description="no-op frames at reset are drawn from 0..noop_max-1 (a FIRE reset is one of them); 0 = none"
    )
    fire_reset: bool = Field(description="press FIRE for one frame at each game's start, where the action exists")
    terminal_on_life_loss: bool = Field(
        description="a lost life is `terminated` for the learner; the game and its statistics go on"
    )
    full_action_space: bool = Field(description="all 18 actions instead of the game's minimal set")
    max_frames: int = Field(ge=1, description="cap in emulator frames after the reset; reaching it truncates")
    clip_reward: bool = Field(description="the learner's reward is clipped to [-1, 1]; raw rewards are in info")
    frame_skip: int = Field(default=4, ge=1, description="emulator frames per agent step; the vector env applies it")
    screen_size: Literal[84] = Field(default=84, description="observation height and width in pixels")
    stack_num: Literal[4] = Field(default=4, description="frames per observation")
    stack_padding: Literal["zero"] = Field(default="zero", description="what fills the stack after a reset")
    preprocessing: Literal["ale_vector_env"] = Field(
        default="ale_vector_env", description="max-pool of the last two frames, grey, area resize, all in ale-py's C++"
    )

    @property
    def max_episode_steps(self) -> int:
        """Cap on a game in agent steps: ``max_frames`` over ``frame_skip``, rounded up."""
        return -(-self.max_frames // self.frame_skip)

    @property
    def frames_per_step(self) -> int:
        """Emulator frames per agent step."""
        return self.frame_skip

    def changed(self, **changes: Any) -> AtariProtocol:
        """Gives the protocol with some fields changed, its id naming every field that really differs.

        Raises:
            ValueError: if a value is out of range or a field does not exist.
        """
        differing = {name: value for name, value in changes.items() if getattr(self, name, None) != value}
        if not differing:
            return self
        preset, *before = self.id.split("+")
        identifier = "+".join([preset, *sorted({*before, *differing})])
        return AtariProtocol.model_validate(self.model_dump() | differing | {"id": identifier})
