"""Checks at the door: what a caller's arrays must look like, said with the value that does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
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


class Rows:
    """Some rows of an array, read only when they are wanted: a checkpoint needs no second copy of a large replay.

    Numpy takes it for the array of these rows. What it gives changes with the array it reads from.

    Attributes:
        shape, dtype, nbytes: of those rows together.
    """

    def __init__(self, array: np.ndarray, index: np.ndarray) -> None:
        """Reads nothing yet.

        Args:
            array: (M, ...).
            index: which rows, in this order, each in [0, M).
        """
        self._array, self._index = array, index
        self.shape: tuple[int, ...] = (len(index), *array.shape[1:])
        self.dtype = array.dtype
        self.nbytes = math.prod(self.shape) * array.dtype.itemsize

    def __len__(self) -> int:
        """Gives the number of rows."""
        return len(self._index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Gives the rows as an array of its own."""
        return self._array[self._index].astype(dtype or self.dtype, copy=False)

    def blocks(self, num_bytes: int) -> Iterator[np.ndarray]:
        """Gives the rows in pieces of about this size; each is overwritten by the next."""
        num_rows = max(1, num_bytes // max(1, self.nbytes // max(1, len(self))))
        piece = np.empty((min(num_rows, len(self)), *self.shape[1:]), self.dtype)
        for start in range(0, len(self), num_rows):
            index = self._index[start : start + num_rows]
            yield self._array.take(index, axis=0, out=piece[: len(index)], mode="clip")


def same_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tells for each leading index whether two arrays of equal shape and dtype agree in everything below it."""
    a, b = _as_words(a), _as_words(b)
    return (a == b).all(axis=1)


def _as_words(array: np.ndarray) -> np.ndarray:
    """Gives the rows as vectors; of integers eight bytes at a time where they divide so, which compares faster."""
    rows = array.reshape(len(array), -1)
    if rows.dtype.kind in "iub" and rows.size and rows.strides[1] == rows.itemsize and not rows[0].nbytes % 8:
        return rows.view(np.uint64)
    return rows
