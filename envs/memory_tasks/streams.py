"""Random numbers of many environments at once: each a pure function of (seed, episode, draw), computed in numpy.

A counter-based generator needs no object per environment, and its numbers do not depend on how many environments there
are, on the order of calls, or on numpy's version.

Legend: N environments, R those listed in a call, X draws of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(word: Words) -> Words:
    """Gives the next output of SplitMix64 for every state (an array of at least one dimension).

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"; constants and shifts of
    Vigna's ``splitmix64.c``.
    """
    bits: Any = word + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    mixed: Words = bits ^ (bits >> np.uint64(31))
    return mixed


class Streams:
    """One stream of random integers per environment, started anew for each episode.

    Args:
        num_envs: N; until they are seeded the streams come from the operating system's entropy.
    """

    def __init__(self, num_envs: int) -> None:
        self._key_N: Words = np.random.SeedSequence().generate_state(num_envs, np.uint64).astype(np.uint64)

    def next_episode(self, ids: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        """Moves the listed environments to their next episode, or to the first of a seed.

        Args:
            ids: (R,) environments.
            seeds: of each; None goes on from the episode before.
        """
        self._key_N[ids] = mix(self._key_N[ids])
        seeded = [row for row, seed in enumerate(seeds) if seed is not None]
        if seeded:
            words = np.array([seed % 2**64 for seed in seeds if seed is not None], np.uint64)
            self._key_N[ids[seeded]] = mix(words)

    def integers(self, ids: NDArray[np.int64], draw: int | NDArray[np.integer], high: int) -> NDArray[np.int64]:
        """Gives uniform integers from 0 to high - 1 (unevenness below high / 2^53).

        Args:
            ids: (R,) environments.
            draw: which of the episode's numbers, from 0: one for all, one each (R,), or several (1 or R, X).
            high: how many values there are, at least 1.

        Returns:
            (R,), or (R, X) for several; the same again for the same draw.
        """
        draw_word = np.atleast_1d(np.asarray(draw, np.uint64))  # numpy warns when a single number overflows
        key_R = self._key_N[ids]
        key = key_R[:, None] if draw_word.ndim == 2 else key_R
        word = mix(key + (draw_word + np.uint64(1)) * _GOLDEN)  # the number 0 is the next episode's key
        return np.floor((word >> np.uint64(11)).astype(np.float64) * (high * 2.0**-53)).astype(np.int64)
