"""What a replay is to hold, where, and how many bytes that takes; refused before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import gymnasium as gym
    import numpy as np

    from memory.replay import Replay

MAX_STACK = 16
"""More leading entries than this are taken for an image side, not for a stack of frames. In smaller images than this,
such as MinAtar's 10x10 grids, they are taken for channels, unless single frames are asked for."""
SCALAR_BYTES = 8 + 3
"""Per transition: reward (float64, as Tianshou keeps it), and the terminated, truncated and done flags."""
FRAME_BYTES = 1 + 4
"""Per transition with single frames: number of earlier frames (uint8), place of a kept final frame (int32)."""


class ReplayTooLarge(ValueError):
    """The replay asked for does not fit into the memory or disk there is."""


class ReplayConfig(BaseModel):
    """Size, layout and sampling of a replay.

    Raises:
        pydantic.ValidationError: on unknown keys, values out of range, or settings that contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    capacity: int = Field(
        1_000_000, ge=1, description="Transitions kept, over all envs together. Source: Dopamine's DQN keeps 1M."
    )
    frames: Literal["auto", "single", "full"] = Field(
        "auto",
        description="How observations are kept. single: the newest frame of a stack (stack, height, width), stacks are "
        "rebuilt on sampling (7,056 bytes per Atari transition); full: obs and obs_next as they come (56,448); auto: "
        "single for uint8 stacks of at most 16 frames, each side above 16 pixels.",
    )
    prioritised: bool = Field(False, description="Sample in proportion to priority. Source: Schaul et al. 2016.")
    alpha: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Exponent of the error in the priority. Source: Dopamine's Rainbow, priority = sqrt(loss).",
    )
    beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Exponent of the importance weight 1 / priority**beta. Source: Dopamine's Rainbow, 1 / sqrt(p).",
    )
    storage: Literal["memory", "file"] = Field(
        "memory",
        description="Where observations lie. file: an unnamed file in `directory`, for replays larger than memory.",
    )
    directory: Path | None = Field(None, description="Folder of the file when storage=file; freed when the run ends.")
    memory_fraction: float = Field(
        0.9, gt=0, le=1, description="Share of the available memory (or disk) that the replay may take at most."
    )

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if (self.storage == "file") != (self.directory is not None):
            raise ValueError(
                f"storage={self.storage!r} with directory={self.directory}: a file needs one, memory has none"
            )
        if not self.prioritised:
            defaults = type(self).model_fields
            for name in ("alpha", "beta"):
                if getattr(self, name) != defaults[name].default:
                    raise ValueError(f"{name}={getattr(self, name)} has no effect unless prioritised=true")
        return self

    def keeps_single_frames(self, obs_shape: tuple[int, ...], obs_itemsize: int) -> bool:
        """Tells whether such observations are kept as single frames.

        Args:
            obs_shape: shape of one observation.
            obs_itemsize: bytes per element.
        Raises:
            ValueError: if frames='single' is asked for something that is no stack of images.
        """
        is_stack = len(obs_shape) == 3 and obs_shape[0] <= MAX_STACK
        if self.frames == "single" and not is_stack:
            raise ValueError(
                f"frames='single' needs observations (stack <= {MAX_STACK}, height, width), not {obs_shape}"
            )
        frame_like = is_stack and obs_itemsize == 1 and min(obs_shape[1:]) > MAX_STACK
        return self.frames == "single" or (self.frames == "auto" and frame_like)

    def slots_per_env(self, obs_shape: tuple[int, ...], obs_itemsize: int, num_envs: int) -> int:
        """Gives the ring length of each env: its share of the capacity, plus one stack where frames are single."""
        if self.capacity < num_envs:
            raise ValueError(f"capacity={self.capacity} is less than one transition for each of {num_envs} envs")
        spare = obs_shape[0] if self.keeps_single_frames(obs_shape, obs_itemsize) else 0
        return self.capacity // num_envs + spare

    def predicted_bytes(self, obs_shape: tuple[int, ...], obs_itemsize: int, act_bytes: int, num_envs: int) -> int:
        """Gives the bytes the replay allocates, in memory and file together.

        Single frames take one more frame for each truncated episode still held; that part is not included.

        Args:
            obs_shape: shape of one observation, e.g. (4, 84, 84).
            obs_itemsize: bytes per element of an observation.
            act_bytes: bytes of one action.
            num_envs: parallel envs; each has a ring of its own.
        Raises:
            ValueError: if the capacity is less than one transition per env, or the frames cannot be single.
        """
        return sum(self._bytes(obs_shape, obs_itemsize, act_bytes, num_envs))

    def _bytes(self, obs_shape: tuple[int, ...], obs_itemsize: int, act_bytes: int, num_envs: int) -> tuple[int, int]:
        """Gives the bytes of the observations and of everything else."""
        slots = num_envs * self.slots_per_env(obs_shape, obs_itemsize, num_envs)
        obs_bytes = math.prod(obs_shape) * obs_itemsize
        other = act_bytes + SCALAR_BYTES
        if self.keeps_single_frames(obs_shape, obs_itemsize):
            obs_bytes, other = obs_bytes // obs_shape[0], other + FRAME_BYTES
        else:
            obs_bytes *= 2  # obs and obs_next
        tree = 16 * 2 ** math.ceil(math.log2(slots)) if self.prioritised else 0  # a binary heap of float64 sums
        return slots * obs_bytes, slots * other + tree

    def check_size(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        num_envs: int,
        log: Callable[[str], None],
    ) -> None:
        """Logs the bytes the replay will take, of those there are. Allocates nothing.

        Args:
            observation_space: of one env; has a shape and a dtype.
            action_space: of one env, as the policy sees it.
            num_envs: parallel envs that will add to it.
            log: takes one line.
        Raises:
            ReplayTooLarge: if it exceeds ``memory_fraction`` of the available memory (or disk for storage='file').
            ValueError: for spaces without shape, or a capacity below one transition per env.
        """
        from memory.arrays import array_spec
        from memory.storage import available_bytes, format_bytes

        obs_shape, obs_dtype = array_spec(observation_space)
        act_shape, act_dtype = array_spec(action_space)
        act_bytes = math.prod(act_shape) * act_dtype.itemsize
        obs_bytes, other_bytes = self._bytes(obs_shape, obs_dtype.itemsize, act_bytes, num_envs)
        single = self.keeps_single_frames(obs_shape, obs_dtype.itemsize)
        layout = f"{'x'.join(map(str, obs_shape))} {obs_dtype} as {'single frames' if single else 'obs and obs_next'}"
        parts = {"memory": other_bytes + (obs_bytes if self.storage == "memory" else 0)}
        if self.directory is not None:
            parts[str(self.directory)] = obs_bytes
        log(f"replay: {self.capacity:,} transitions, {layout}: " + ", ".join(
            f"{format_bytes(need)} of {format_bytes(available_bytes(place))} available in {place}"
            for place, need in parts.items()
        ))  # fmt: skip
        for place, need in parts.items():
            have = available_bytes(place)
            if need > self.memory_fraction * have:
                raise ReplayTooLarge(
                    f"a replay of capacity={self.capacity:,} needs {format_bytes(need)} ({need:,} bytes) in {place}, "
                    f"more than memory_fraction={self.memory_fraction} of the {format_bytes(have)} ({have:,} bytes) "
                    "available; "
                    "lower the capacity" + ("" if self.storage == "file" else " or set storage=file with a directory")
                )

    def build(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        num_envs: int,
        rng: np.random.Generator,
        log: Callable[[str], None],
    ) -> Replay:
        """Logs the bytes the replay will take, then makes it.

        Args:
            observation_space: of one env; has a shape and a dtype.
            action_space: of one env, as the policy sees it.
            num_envs: parallel envs that will add to it.
            rng: draws the samples; the replay owns it from now on.
            log: takes one line.
        Raises:
            ReplayTooLarge: if it exceeds ``memory_fraction`` of the available memory (or disk for storage='file').
            ValueError: for spaces without shape, or a capacity below one transition per env.
        """
        self.check_size(observation_space, action_space, num_envs, log)
        from memory.arrays import array_spec

        shape, dtype = array_spec(observation_space)
        if self.keeps_single_frames(shape, dtype.itemsize):
            from memory.frame_replay import FrameReplay

            return FrameReplay(self, observation_space, action_space, num_envs, rng)
        from memory.transition_replay import TransitionReplay

        return TransitionReplay(self, observation_space, action_space, num_envs, rng)
