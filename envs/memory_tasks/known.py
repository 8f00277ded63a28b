"""Mean returns that are known without playing: of the best policy, of the best one without memory, of random actions.

"Without memory" means a policy of the newest observation alone. All three are exact, from the rules.
"""

from __future__ import annotations

from math import comb

from envs.memory_tasks.config import MemoryTasksProtocol


def known_returns(protocol: MemoryTasksProtocol) -> dict[str, float]:
    """Gives the mean return of ``optimal``, ``memoryless`` and ``random`` play under a protocol.

    The distractor rewards of ``key_to_door`` have mean 0; every other task's best return is 1 in each episode.
    """
    symbols = protocol.num_symbols or 1
    memoryless, random = {
        "t_maze": lambda: (0.5, _random_t_maze(protocol)),
        "key_to_door": lambda: (1 / symbols, 1 / (symbols + 2) ** 2),  # pick up at the key, then the right lock
        "copy": lambda: (1 / symbols, 1 / symbols),
        "identity": lambda: (1.0, 1 / symbols),
    }[protocol.task]()
    return {"optimal": 1.0, "memoryless": memoryless, "random": random}


def _random_t_maze(protocol: MemoryTasksProtocol) -> float:
    """Gives the mean over all corridor lengths."""
    assert protocol.min_corridor is not None
    assert protocol.max_corridor is not None
    assert protocol.max_wasted_steps is not None
    lengths = range(protocol.min_corridor, protocol.max_corridor + 1)
    return sum(random_t_maze_return(length, protocol.max_wasted_steps) for length in lengths) / len(lengths)


def random_t_maze_return(corridor: int, max_wasted_steps: int) -> float:
    """Gives the probability that uniform random actions take the right turn in time.

    The junction is reached at step n with the negative binomial probability of the L-th forward move at trial n, p =
    1/4. There each step decides with probability 1/2, rightly in half of the cases, so m steps left are worth
    (1 - 2^-m) / 2.

    Args:
        corridor: length L in env steps.
        max_wasted_steps: W; the episode has L + 1 + W steps at most.
    """
    cap = corridor + 1 + max_wasted_steps
    return sum(
        comb(n - 1, corridor - 1) * 0.25**corridor * 0.75 ** (n - corridor) * 0.5 * (1.0 - 0.5 ** (cap - n))
        for n in range(corridor, cap)
    )
