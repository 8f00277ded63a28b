"""A slow replay of Python lists that keeps every stack as it came, and envs that produce random streams for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FRAME = (2, 3)
LIFE, TERMINATED, TRUNCATED, TRUNCATED_LIFE = 1, 2, 3, 4  # how a step may end; the last and the first keep the game


@dataclass
class Transition:
    obs: np.ndarray
    act: int
    rew: float
    terminated: bool
    truncated: bool
    obs_next: np.ndarray
    priority: float = 1.0
    stream_ended: bool = False  # the env started anew after it

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated


@dataclass
class ReferenceReplay:
    num_envs: int
    limit: int
    envs: list[list[Transition]] = field(init=False)
    num_added: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.envs = [[] for _ in range(self.num_envs)]
        self.num_added = [0] * self.num_envs

    def add(self, env: int, transition: Transition) -> None:
        self.envs[env] = [*self.envs[env], transition][-self.limit :]
        self.num_added[env] += 1

    def close(self, env: int) -> None:
        """Ends the env's stream after its newest transition."""
        if self.envs[env]:
            newest = self.envs[env][-1]
            newest.truncated |= not newest.done
            newest.stream_ended = True

    def reset(self) -> None:
        self.envs = [[] for _ in range(self.num_envs)]

    def index(self, slots: int, env: int, position: int) -> int:
        return env * slots + (self.num_added[env] - len(self.envs[env]) + position) % slots

    def items(self, slots: int) -> list[tuple[int, int, int, Transition]]:
        return [
            (self.index(slots, env, position), env, position, transition)
            for env, transitions in enumerate(self.envs)
            for position, transition in enumerate(transitions)
        ]

    def n_step(self, env: int, position: int, n_step: int, gamma: float) -> tuple[float, float, int]:
        total, transitions = 0.0, self.envs[env]
        for k in range(n_step):
            total += gamma**k * transitions[position + k].rew
            if transitions[position + k].done or position + k == len(transitions) - 1 or k == n_step - 1:
                break
        return total, gamma ** (k + 1) * (not transitions[position + k].terminated), position + k


@dataclass
class RandomEnvs:
    """Zero-padded stacks of random frames; what happens next is the test's choice."""

    num_envs: int
    stack: int
    rng: np.random.Generator
    obs: np.ndarray = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.obs = np.zeros((self.num_envs, self.stack, *FRAME), np.uint8)
        for env in range(self.num_envs):
            self.restart(env)

    def restart(self, env: int) -> None:
        self.obs[env] = 0
        self.obs[env, -1] = self.rng.integers(1, 256, FRAME)

    def step(self, env: int, event: int) -> tuple[Transition, bool]:
        obs = self.obs[env].copy()
        obs_next = np.concatenate([obs[1:], self.rng.integers(1, 256, (1, *FRAME), np.uint8)])
        over = event in (TERMINATED, TRUNCATED)
        self.obs[env] = obs_next
        if over:
            self.restart(env)
        self.steps += 1
        transition = Transition(
            obs=obs,
            act=self.steps,
            rew=float(np.float32(self.rng.normal())),
            terminated=event in (LIFE, TERMINATED),
            truncated=event in (TRUNCATED, TRUNCATED_LIFE),
            obs_next=obs_next,
            stream_ended=over,
        )
        return transition, over
