"""Backward transfer against numbers by hand."""

from __future__ import annotations

import pytest

from analysis.transfer import backward_transfer


def test_by_hand() -> None:
    assert backward_transfer([0.9, 0.5, 0.7], [0.3, 0.6, 0.7]) == pytest.approx((-0.6 + 0.1) / 2)
    assert backward_transfer([1.0, 0.2], [1.0, 0.9]) == 0.0, "the last group has nothing after it"


@pytest.mark.parametrize(("own", "final"), [([1.0], [1.0]), ([1.0, 1.0], [1.0]), ([], [])])
def test_needs_two_scores_of_two_groups(own: list[float], final: list[float]) -> None:
    with pytest.raises(ValueError, match=f"got {len(own)} and {len(final)}"):
        backward_transfer(own, final)
