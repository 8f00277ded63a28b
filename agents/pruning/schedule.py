"""When masks change, and how sparse they then are. Numbers in, numbers out; every step is a gradient step.

Sources: Zhu & Gupta 2018, equation 1; Obando-Ceron et al. 2024, equation 1; Evci et al. 2020, section 3; JaxPruner,
sparsity_schedules.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_MASK_UPDATES = 100
"""Mask updates between start and end, at least, as long as there are as many gradient steps."""


def cubic_sparsity(step: int, start: int, end: int, final: float) -> float:
    """Gives the sparsity due before a gradient step: 0 before `start`, rising as a cubic, `final` from `end` on.

    Args:
        step: gradient steps taken so far.
        start: gradient step at which the rise begins; sparsity is still 0 there.
        end: gradient step from which on sparsity is `final`.
        final: share of zeros, in [0, 1).

    Source: Obando-Ceron et al. 2024, equation 1. Differs: JaxPruner's PolynomialSchedule evaluates the same cubic one
    step later (step + 1 - start), so that its first mask update at `start` removes a handful of weights of a large
    network and ours removes none (docs/pruning.md).

    Example:
        >>> cubic_sparsity(1_250_000, 500_000, 2_000_000, 0.95)
        0.83125
    """
    if step >= end:
        return final
    remaining = 1.0 - max(step - start, 0) / (end - start)
    return final * (1.0 - remaining**3)


def cosine_drop_fraction(step: int, end: int, initial: float) -> float:
    """Gives the share of a layer's weights to replace: `initial` at step 0, falling as a half cosine to 0 at `end`.

    Args:
        step: gradient steps taken so far.
        end: gradient step from which on nothing is replaced.
        initial: share in (0, 1).

    Source: Evci et al. 2020, section 3, f_decay.
    """
    return initial / 2.0 * (1.0 + math.cos(math.pi * min(step, end) / end)) if end else 0.0


@dataclass(frozen=True)
class MaskSchedule:
    """The gradient steps before which masks are updated.

    Attributes:
        start: first of them.
        end: last of them.
        period: gradient steps between two.
    """

    start: int
    end: int
    period: int

    @classmethod
    def of_run(cls, total_gradient_steps: int, start: float, end: float, update_period: int) -> MaskSchedule:
        """Fits a schedule into a run.

        Args:
            total_gradient_steps: length of the run, at least 1.
            start: share of the run.
            end: share of the run, above `start`.
            update_period: wanted gradient steps between two updates; shortened where there would be fewer than
                `MIN_MASK_UPDATES` of them.

        Raises:
            ValueError: if the run has no gradient step.
        """
        if total_gradient_steps < 1:
            raise ValueError(f"total_gradient_steps={total_gradient_steps}: pruning needs a run of at least 1")
        last = min(round(end * total_gradient_steps), total_gradient_steps - 1)
        first = min(round(start * total_gradient_steps), last)
        return cls(first, last, max(1, min(update_period, (last - first) // MIN_MASK_UPDATES)))

    def is_due(self, step: int) -> bool:
        """Says whether masks are updated before the gradient step that follows `step` others.

        Every `period` steps from `start` on, and at `end` itself, so that the final sparsity is reached where the
        period does not divide the distance. Source: JaxPruner, PeriodicSchedule. Differs: JaxPruner counts its period
        from step 0 and has no update at `end`; at the paper's numbers both give the same steps.
        """
        return self.start <= step <= self.end and ((step - self.start) % self.period == 0 or step == self.end)
