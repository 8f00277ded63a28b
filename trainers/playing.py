"""What evaluating and filming share: an episode's own noise, choosing episodes, and leaving no trace behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium

    from agents.interface import Agent
    from envs.base import EpisodeSpec

_ACTION_STREAM = 0x5E47  # keeps an episode's action noise apart from anything else drawn from the same seed


class EpisodeNoise:
    """The evaluator's own random actions in one episode: a function of the episode alone, not of the env it runs in."""

    def __init__(self, spec: EpisodeSpec, epsilon: float, action_space: gymnasium.Space[Any]) -> None:
        """Starts the episode's stream.

        Args:
            spec: the episode; its seed starts the stream.
            epsilon: probability of a uniform random action at each step.
            action_space: of the env, discrete or a bounded box.
        """
        self._rng = _generator(spec.seed)
        self._epsilon = epsilon
        self._space = action_space

    def draw(self) -> Any | None:
        """Gives a uniform random env action with probability epsilon, else None."""
        if self._epsilon <= 0.0 or (self._epsilon < 1.0 and self._rng.random() >= self._epsilon):
            return None
        return random_action(self._space, self._rng)


def random_action(space: gymnasium.Space[Any], rng: np.random.Generator) -> Any:
    """Draws a uniform env action.

    Raises:
        TypeError: if the space is neither discrete nor a bounded box.
    """
    from gymnasium.spaces import Box, Discrete

    if isinstance(space, Discrete):
        return int(space.start + rng.integers(space.n))
    if isinstance(space, Box) and space.is_bounded():
        return rng.uniform(space.low, space.high).astype(space.dtype)
    raise TypeError(f"random actions need a discrete or bounded box space, got {space}")


def select_episodes(specs: Sequence[EpisodeSpec], count: int | None) -> list[EpisodeSpec]:
    """Gives the first ``count`` episodes, taken in turn from every task, in the protocol's order.

    Args:
        specs: all episodes of a protocol.
        count: how many; None for all.

    Raises:
        ValueError: if ``count`` is not within 1..len(specs).
    """
    if count is None:
        return list(specs)
    if not 1 <= count <= len(specs):
        raise ValueError(f"num_episodes must be within 1..{len(specs)}, the protocol's own number, got {count}")
    seen: Counter[str] = Counter()
    turns = []
    for position, spec in enumerate(specs):
        turns.append((seen[spec.task], position))
        seen[spec.task] += 1
    return [specs[position] for position in sorted(position for _, position in sorted(turns)[:count])]


@contextmanager
def evaluation_mode(agent: Agent | None, seed: int) -> Iterator[None]:
    """Lends everything random a stream of its own and puts the agent's modules into evaluation mode; undoes both.

    Args:
        agent: whose modules and generator; None for random play.
        seed: of the global generators and of the generator lent to the agent.
    """
    from trainers.seeding import isolated_rngs

    learns = agent is not None and agent.kind != "scripted"
    modules = list(agent.algorithm.modules()) if agent is not None and learns else []
    modes = [module.training for module in modules]
    with isolated_rngs(seed), agent.using_rng(_generator(seed)) if agent is not None else nullcontext():
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, _ACTION_STREAM])
