"""The n-step return over a ring of transitions, as a function of arrays.

Legend: B first transitions, K steps.
"""

from __future__ import annotations

import numpy as np

from memory.ring import Ring


def n_step_return(
    ring: Ring,
    rew: np.ndarray,
    done: np.ndarray,
    terminated: np.ndarray,
    indices_B: np.ndarray,
    n_step: int,
    gamma: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums rewards forward from each transition, up to ``done``, the newest transition, or ``n_step`` of them.

    Args:
        ring: says which slot follows which.
        rew: reward of every slot.
        done: end of an episode (or life) at every slot.
        terminated: no value beyond this slot.
        indices_B: held transitions.
        n_step: K, >= 1.
        gamma: discount per env step.
    Returns:
        return_B = sum over k < m of gamma**k * rew_k, float32; discount_B = gamma**m * (1 - terminated), float32, which
        multiplies the value after the last transition; its index; m is the number of transitions summed.
    Raises:
        ValueError: if ``n_step`` is below 1.
    Source: Sutton and Barto 2018, equation 7.1. Differs: stops early at a cut and at the newest transition.
    """
    if n_step < 1:
        raise ValueError(f"n_step must be >= 1, got {n_step}")
    steps_K = np.arange(n_step)
    grid_BK = ring.shift(indices_B[:, None], steps_K)
    ended_BK = done[grid_BK]
    ended_BK[:, -1] = True
    last_B = np.minimum(ended_BK.argmax(axis=1), ring.age(indices_B))
    rew_BK = np.where(steps_K <= last_B[:, None], rew[grid_BK], 0.0)
    return_B = (rew_BK * gamma**steps_K).sum(axis=1)
    last_indices_B = ring.shift(indices_B, last_B)
    discount_B = gamma ** (last_B + 1.0) * ~terminated[last_indices_B]
    return return_B.astype(np.float32), discount_B.astype(np.float32), last_indices_B
