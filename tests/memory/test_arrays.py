"""Rows read when they are wanted, and comparisons of whole rows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from memory.arrays import Rows, same_rows


@pytest.mark.parametrize("num_bytes", [1, 24, 100, 10_000])
def test_blocks_join_to_the_rows(num_bytes: int) -> None:
    array = np.arange(60, dtype=np.int16).reshape(10, 2, 3)
    index = np.array([7, 7, 0, 9, 3])
    rows = Rows(array, index)
    assert (len(rows), rows.shape, rows.nbytes) == (5, (5, 2, 3), 60) and rows.dtype == np.int16
    np.testing.assert_array_equal(np.concatenate([block.copy() for block in rows.blocks(num_bytes)]), array[index])
    np.testing.assert_array_equal(np.asarray(rows), array[index])
    assert list(Rows(array, index[:0]).blocks(num_bytes)) == []


def test_rows_are_not_copied_as_a_whole() -> None:
    array = np.zeros((1000, 1000), np.uint8)
    tracemalloc.start()
    try:
        rows = Rows(array, np.arange(1000))
        total = sum(len(block) for block in rows.blocks(10_000))
        assert total == 1000 and tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(3, 84, 84), (3, 7), (3, 5, 8), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.bool_, np.float32])
def test_same_rows_sees_every_difference(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, (len(shape), *shape)).astype(dtype)[-1]
    b = a.copy()
    assert same_rows(a, b).tolist() == [True] * 3
    for place in (0, -1):
        c = b.copy()
        c.reshape(3, -1)[1, place] = not c.reshape(3, -1)[1, place]
        assert same_rows(a, c).tolist() == [True, False, True]


def test_same_rows_of_slices_and_of_special_numbers() -> None:
    stacks = np.random.default_rng(0).integers(0, 256, (4, 5, 12, 12), dtype=np.uint8)
    moved = stacks.copy()
    moved[2, 3, 4, 5] += 1
    assert same_rows(stacks[:, 1:], moved[:, 1:]).tolist() == [True, True, False, True]
    assert same_rows(stacks[:, :3], moved[:, :3]).all()
    assert same_rows(stacks[:, -1], moved[:, -1]).all()
    assert same_rows(np.array([[0.0, 1.0]]), np.array([[-0.0, 1.0]])).all()
    assert not same_rows(np.array([[np.nan]]), np.array([[np.nan]])).any()
