"""The random numbers are SplitMix64's, and a function of seed, episode and draw alone."""

from __future__ import annotations

import numpy as np
import pytest

from envs.memory_tasks.streams import Streams, mix

GOLDEN = 0x9E3779B97F4A7C15


def seeded(*seeds: int) -> Streams:
    streams = Streams(len(seeds))
    streams.next_episode(np.arange(len(seeds)), seeds)
    return streams


def test_the_generator_gives_the_published_sequence() -> None:
    """The outputs of Vigna's ``splitmix64.c`` from the state 1234567."""
    states = np.array([(1234567 + index * GOLDEN) % 2**64 for index in range(3)], np.uint64)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_seed_decides_everything_wherever_it_stands() -> None:
    here, there = seeded(5, 6, 7), seeded(7, 1, 1, 5)
    draws = np.arange(20)[None]
    for _ in range(3):
        assert np.array_equal(
            here.integers(np.array([0, 2]), draws, 1000), there.integers(np.array([3, 0]), draws, 1000)
        )
        here.next_episode(np.array([0, 1, 2]), [None] * 3)
        there.next_episode(np.array([0, 3]), [None] * 2)


def test_episodes_seeds_and_draws_differ() -> None:
    streams, ids = seeded(0, 1), np.arange(2)
    first = streams.integers(ids, np.arange(10)[None], 2**20)
    streams.next_episode(ids, [None, None])
    second = streams.integers(ids, np.arange(10)[None], 2**20)
    assert len(np.unique(np.concatenate([first, second]))) == 40


def test_one_draw_for_all_one_each_or_several() -> None:
    streams, ids = seeded(3, 4, 5), np.arange(3)
    table = streams.integers(ids, np.arange(6)[None], 100)
    assert table.shape == (3, 6)
    assert np.array_equal(streams.integers(ids, 2, 100), table[:, 2])
    assert np.array_equal(streams.integers(ids, np.array([5, 0, 1]), 100), table[ids, [5, 0, 1]])
    assert np.array_equal(streams.integers(ids, np.array([[5], [0], [1]]), 100)[:, 0], table[ids, [5, 0, 1]])
    assert np.array_equal(streams.integers(np.array([1]), np.arange(6)[None], 100), table[1:2])


@pytest.mark.parametrize("high", [1, 2, 3, 7])
def test_the_integers_are_uniform_over_seeds_and_over_draws(high: int) -> None:
    streams = seeded(*range(2000))
    table = streams.integers(np.arange(2000), np.arange(30)[None], high)
    counts = np.bincount(table.ravel(), minlength=high)
    assert len(counts) == high
    slack = 5 * np.sqrt(table.size / high)
    assert np.abs(counts - table.size / high).max() <= slack
    deviation = table - (high - 1) / 2
    variance = (high**2 - 1) / 12
    for one, next_one in ((deviation[:-1], deviation[1:]), (deviation[:, :-1], deviation[:, 1:])):  # seeds, draws
        assert abs((one * next_one).mean()) <= 5 * variance / np.sqrt(one.size)


def test_unseeded_streams_are_not_all_alike() -> None:
    assert len(np.unique(Streams(8).integers(np.arange(8), 0, 2**30))) == 8
    one, other = (Streams(4).integers(np.arange(4), 0, 2**30) for _ in range(2))
    assert not np.array_equal(one, other)
