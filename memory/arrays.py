"""Checks at the door: what a caller's arrays must look like, said with the value that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium as gym


def array_spec(space: gym.Space[Any]) -> tuple[tuple[int, ...], np.dtype]:
    """Gives the shape and dtype of a space's elements.

    Raises:
        ValueError: if the space is composed (Dict, Tuple, ...) and so has none.
    """
    if space.shape is None or space.dtype is None:
        raise ValueError(f"a replay stores plain arrays, but the space has no shape or dtype: {space}")
    return tuple(space.shape), np.dtype(space.dtype)


def checked_array(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Gives ``value`` as an array of this shape and dtype.

    Raises:
        ValueError: naming the argument, for another shape, a dtype that would lose information, or NaN.
    """
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"{name} must have dtype {dtype}, got {array.dtype}")
        array = array.astype(dtype)
    if dtype.kind == "f" and np.isnan(array).any():
        row = int(np.isnan(array).reshape(len(array), -1).any(axis=1).argmax())
        raise ValueError(f"{name} holds NaN in row {row}")
    return array


def checked_env_ids(env_ids: Any, num_envs: int) -> np.ndarray:
    """Gives distinct env numbers as int64.

    Raises:
        ValueError: naming the value, unless they are distinct integers in [0, num_envs).
    """
    ids = np.asarray(env_ids)
    if ids.ndim != 1 or (len(ids) and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= num_envs)):
        raise ValueError(f"env_ids must be a list of numbers in [0, {num_envs}), got {env_ids}")
    ids = ids.astype(np.int64)
    if len(ids) and np.bincount(ids).max() > 1:
        raise ValueError(f"env_ids must be distinct, got {ids.tolist()}")
    return ids


def same_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tells for each leading index whether two arrays of equal shape agree in everything below it."""
    return (a == b).reshape(len(a), -1).all(axis=1)
