"""One episode as a frozen record, and stacks of frames to and from single frames.

An episode holds all its observations, the last one included: (T + 1) of them for T steps. Stacks of pixels are kept
as single frames, four times smaller for stacks of four; :func:`frame_stacks` rebuilds them, zero-padded at the start
of an episode as in ``memory/frame_replay.py``.

Legend: T steps of an episode, O observation shape, A action shape (empty for discrete actions), E episodes, F frames,
S frames of a stack, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

OBS_DTYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True, repr=False, eq=False)
class Episode:
    """What happened between a reset and the end of an episode.

    Attributes:
        obs: all observations, (T + 1, *O): float32 or float16 vectors, or uint8 single frames or small images.
        action: as agents give them, (T,) int64 indices or (T, A) float32 in [-1, 1].
        reward: as the env gave it, unclipped, (T,) float32.
        terminated: the last step ended the task.
        truncated: a time limit ended the last step. Both False: the episode was cut from outside.
        success: after each step, (T,) bool; None where the env does not tell.
        task: name of the task.
        seed: with which the episode was begun.
        goal_index: which of the task's goals, None where there are none.
        noise: standard deviation of the Gaussian noise added to the collecting policy's actions; >= 0.
        source: who acted: "expert", "run:<name>@<step>", "replay:<name>", "minari:<id>".
    Raises:
        ValueError: naming the field, its shape or value, and what is expected.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool
    success: np.ndarray | None
    task: str
    seed: int
    goal_index: int | None = None
    noise: float = 0.0
    source: str = "expert"

    def __post_init__(self) -> None:
        self._check_arrays()
        for name in ("terminated", "truncated"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), (bool, np.bool_)), "True or False")
        _check("task", self.task, _is_text(self.task), "text")
        _check("seed", self.seed, _is_count(self.seed), "an int in [0, 2**63)")
        _check("goal_index", self.goal_index, self.goal_index is None or _is_count(self.goal_index), "None or >= 0")
        _check("noise", self.noise, math.isfinite(self.noise) and self.noise >= 0, "a finite number >= 0")
        _check("source", self.source, _is_text(self.source), "text")

    def _check_arrays(self) -> None:
        for name in ("obs", "action", "reward"):
            _check(name, type(getattr(self, name)).__name__, isinstance(getattr(self, name), np.ndarray), "an array")
        _check_array(
            "reward", self.reward, self.reward.ndim == 1 and len(self.reward) > 0, ("float32",), "(T,), T >= 1"
        )
        steps = len(self.reward)
        fits = self.obs.ndim >= 2 and len(self.obs) == steps + 1
        _check_array("obs", self.obs, fits, OBS_DTYPES, f"({steps + 1}, ...)")
        discrete = self.action.dtype == np.int64
        fits = self.action.ndim == (1 if discrete else 2) and len(self.action) == steps
        _check_array("action", self.action, fits, ("int64", "float32"), f"({steps},) int64 or ({steps}, A)")
        low, high = self.action.min(initial=0), self.action.max(initial=0)
        inside = bool(low >= 0 if discrete else low >= -1 and high <= 1)
        _check("action", f"values in [{low}, {high}]", inside, ">= 0" if discrete else "values in [-1, 1]")
        if self.success is not None:
            _check_array("success", self.success, self.success.shape == (steps,), ("bool",), f"({steps},)")

    @classmethod
    def from_stacks(cls, stacks: np.ndarray, **values: Any) -> Episode:
        """Gives an episode of single frames from the stacks that an agent saw.

        Args:
            stacks: (T + 1, S, H, W) uint8, newest frame last.
            values: the other fields of the episode.
        Raises:
            ValueError: if the stacks cannot be rebuilt from their newest frames.
        """
        return cls(obs=frames_of_stacks(stacks), **values)

    @property
    def length(self) -> int:
        """Steps T."""
        return len(self.reward)

    @property
    def raw_return(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(episode_sums(self.reward, np.array([0, self.length]))[0])

    @property
    def succeeded(self) -> bool | None:
        """Whether any step was a success (it may flicker); None where the env does not tell."""
        return None if self.success is None else bool(self.success.any())

    def __repr__(self) -> str:
        shown = (f"{field.name}={_shown(getattr(self, field.name))}" for field in fields(self))
        return f"Episode({', '.join(shown)})"


def episode_sums(values: np.ndarray, offsets_E1: np.ndarray) -> np.ndarray:
    """Gives the sum of each episode's values in float64, (E,), from flat values and the episodes' offsets."""
    return np.add.reduceat(np.asarray(values, np.float64), offsets_E1[:-1])


def frames_of_stacks(stacks: np.ndarray) -> np.ndarray:
    """Gives the newest frame of each stack, having checked that the stacks can be rebuilt from them.

    Args:
        stacks: of one episode, (T + 1, S, H, W), newest frame last.
    Returns:
        frames, (T + 1, H, W), a copy.
    Raises:
        ValueError: if the first stack is not zero but for its newest frame, or one is not the stack before moved on.
    """
    if stacks.ndim != 4:
        raise ValueError(f"stacks have shape {stacks.shape}, expected (T + 1, S, H, W)")
    if stacks[0, :-1].any():
        raise ValueError("the first stack of an episode must be zero but for its newest frame, to be kept as frames")
    slides = (stacks[1:, :-1] == stacks[:-1, 1:]).all(axis=(1, 2, 3))
    if not slides.all():
        raise ValueError(f"stack {int(np.argmin(slides)) + 1} is not the stack before it moved on by one frame")
    return stacks[:, -1].copy()


def frame_stacks(frames: np.ndarray, offsets: np.ndarray, steps: np.ndarray, stack_num: int) -> np.ndarray:
    """Gives the stacks seen at some steps, with zeros for the frames before an episode's first.

    Args:
        frames: of all episodes one after the other, (F, H, W).
        offsets: for each wanted stack the place in ``frames`` of its episode's first frame, any shape.
        steps: for each wanted stack its step in the episode, 0-based (T for the last observation), the same shape.
        stack_num: S, >= 1.
    Returns:
        (*shape, S, H, W), an array of its own, newest frame last.
    Raises:
        ValueError: for shapes that differ, ``stack_num`` below 1 or a negative step.
    """
    offsets, steps = np.asarray(offsets), np.asarray(steps)
    if stack_num < 1 or offsets.shape != steps.shape or (steps < 0).any():
        raise ValueError(
            f"stack_num={stack_num}, offsets {offsets.shape}, steps {steps.shape}: expected stack_num >= 1, "
            "equal shapes and steps >= 0"
        )
    step_S = steps[..., None] + np.arange(1 - stack_num, 1)
    stacks = frames[offsets[..., None] + np.maximum(step_S, 0)]
    stacks[step_S < 0] = 0
    return stacks


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"Episode.{name}: got {value!r}, expected {expected}")


def _check_array(name: str, array: np.ndarray, fits: bool, dtypes: tuple[str, ...], expected: str) -> None:
    if not fits or array.dtype.name not in dtypes:
        raise ValueError(
            f"Episode.{name}: got shape {array.shape} of {array.dtype}, expected {expected} of {' or '.join(dtypes)}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"Episode.{name}: shape {array.shape} holds NaN or infinite values, expected finite ones")


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) < 2**63


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _shown(value: object) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)
