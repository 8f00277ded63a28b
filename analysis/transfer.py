"""What learning one thing after another does to what was learned before.

Legend: T groups of tasks, in the order in which they were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence


def backward_transfer(own_T: Sequence[float], final_T: Sequence[float]) -> float:
    """Gives how much the earlier groups gained (negative: lost) by what was trained after them.

    Args:
        own_T: score on each group right after training on it.
        final_T: score on each group after training on the last one.

    Returns:
        mean of final minus own over all groups but the last, in units of the score.

    Raises:
        ValueError: if the lengths differ or there are fewer than two groups.

    Source: Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory for Continual Learning", BWT in section 2.
    """
    if len(own_T) != len(final_T) or len(own_T) < 2:
        raise ValueError(f"expected two or more groups with two scores each, got {len(own_T)} and {len(final_T)}")
    return sum(final - own for own, final in zip(own_T[:-1], final_T[:-1], strict=True)) / (len(own_T) - 1)
