"""Reference scores against rows typed by hand from dqn_zoo's ``atari_data.py``."""

from __future__ import annotations

import pytest

from analysis.reference_scores import ATARI_100K, RANDOM_AND_HUMAN, human_normalised, reference_score


def test_rows_by_hand() -> None:
    assert len(RANDOM_AND_HUMAN) == 57
    assert RANDOM_AND_HUMAN["pong"] == (-20.7, 14.6)
    assert RANDOM_AND_HUMAN["breakout"] == (1.7, 30.5)
    assert RANDOM_AND_HUMAN["skiing"] == (-17098.1, -4336.9)
    assert RANDOM_AND_HUMAN["zaxxon"] == (32.5, 9173.3)
    assert all(random < human for random, human in RANDOM_AND_HUMAN.values())


def test_the_26_games_of_atari_100k() -> None:
    assert len(set(ATARI_100K)) == 26
    assert set(ATARI_100K) <= set(RANDOM_AND_HUMAN)
    assert "ms_pacman" in ATARI_100K and "beam_rider" not in ATARI_100K


def test_normalised_scores() -> None:
    assert human_normalised("pong", -20.7) == 0.0
    assert human_normalised("pong", 14.6) == 1.0
    assert human_normalised("breakout", 400.0) == pytest.approx(398.3 / 28.8)
    assert reference_score("boxing", 12.1) == 1.0
    assert reference_score("reach-v3", 12.1) is None
    with pytest.raises(KeyError, match="no reference scores for 'adventure'"):
        human_normalised("adventure", 1.0)
