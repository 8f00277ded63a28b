"""What an agent is told while it is evaluated and filmed: episode starts, their tasks, and what each step paid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from agents.interface import Agent
from envs.base import EpisodeSpec
from envs.protocols import Protocol
from envs.tianshou_vector import Ids, Info, Reset, Step, VectorEnv, Work
from trainers.evaluation import evaluate
from trainers.videos import film_episodes

SPACE, ACTIONS = Box(-1000.0, 1000.0, (2,), np.float32), Discrete(3)
TASKS = ("short", "long", "lives")
LENGTH = {"short": 2, "long": 5, "lives": 6}
"""A game of ``lives`` loses one at steps 2 and 4."""


class Rules(Protocol):
    num_episodes: int = 7

    @property
    def max_episode_steps(self) -> int:
        return 50

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        return [EpisodeSpec(index, 100 + index, TASKS[index % 3], index) for index in range(self.num_episodes)]


RULES = Rules(id="hooks", env_name="hooks")


class Games(VectorEnv):
    """Observation: (goal, step). Raw reward: 10 * goal + step; the learner gets its sign."""

    def __init__(self, rules: Any, num_envs: int) -> None:
        super().__init__(num_envs, SPACE, ACTIONS, rules)
        self.goal = np.zeros(num_envs, np.int64)
        self.time = np.zeros(num_envs, np.int64)
        self.length = np.zeros(num_envs, np.int64)
        self.loses_lives = np.zeros(num_envs, bool)

    def reset(  # type: ignore[override]
        self,
        env_id: Ids = None,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Reset:
        ids = self._ids(env_id)
        if options is not None:
            self.goal[ids], self.time[ids] = options["goal_index"], 0
            self.length[ids] = [LENGTH[task] for task in options["task"]]
            self.loses_lives[ids] = [task == "lives" for task in options["task"]]
        return self.observe(ids), Info(raw_reward=np.zeros(len(ids), np.float32))

    def step(self, action: Any, id: Ids = None, *, meanwhile: Work | None = None) -> Step:  # type: ignore[override]
        ids = self._ids(id)
        self.time[ids] += 1
        time = self.time[ids]
        raw = (10.0 * self.goal[ids] + time).astype(np.float32)
        over = time == self.length[ids]
        lost = self.loses_lives[ids] & (time % 2 == 0)
        info = Info(raw_reward=raw, episode_over=over)
        return self.observe(ids), np.sign(raw), over | lost, np.zeros(len(ids), bool), info

    def observe(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([self.goal[ids], self.time[ids]], axis=1).astype(np.float32)

    def _close(self) -> None:
        pass


class Game(gymnasium.Env[np.ndarray, Any]):
    """One game, for films.

    Args:
        rules: of it.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (gymnasium declares it so)
    observation_space, action_space = SPACE, ACTIONS

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.games = Games(self.rules, 1)
        obs, _ = self.games.reset(options={key: [value] for key, value in (options or {}).items()})
        return obs[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.games.step(np.array([action]))
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {k: v[0] for k, v in info.items()}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


class Recorder(Agent):
    """Its state is one list per row: the task, then per step the observation and what the step paid."""

    def __init__(self) -> None:
        super().__init__(observation_space=SPACE, action_space=ACTIONS, rng=np.random.default_rng(0))
        self.begun: list[tuple[int, str]] = []
        self.finished: list[list[Any]] = []
        self.replaced: list[tuple[int, int]] = []

    def initial_state(self, num_envs: int) -> list[list[Any]]:
        return [[] for _ in range(num_envs)]

    def begin_episodes(
        self, state: list[list[Any]], rows: Sequence[int] | np.ndarray, tasks: Sequence[str]
    ) -> list[list[Any]]:
        assert len(rows) == len(tasks)
        for row, task in zip(rows, tasks, strict=True):
            self.begun.append((int(row), task))
            self.finished.append([task])
            state[row] = self.finished[-1]
        return list(state)

    def receive_rewards(
        self, state: list[list[Any]], rows: Sequence[int] | np.ndarray, reward: np.ndarray
    ) -> list[list[Any]]:
        assert reward.shape == (len(rows),) and reward.dtype == np.float32
        for row, one in zip(rows, reward, strict=True):
            state[row].append(float(one))
        return list(state)

    def replace_actions(self, state: Any, rows: Sequence[int] | np.ndarray, action: np.ndarray) -> Any:
        assert action.shape == (len(rows),)
        self.replaced += [(int(row), int(one)) for row, one in zip(rows, action, strict=True)]
        return state

    def act(self, obs: np.ndarray, state: Any = None, *, explore: bool = False) -> tuple[np.ndarray, Any]:
        return np.zeros(len(obs), np.int64), state


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7])
def test_every_episode_is_begun_once_with_its_task_and_paid_step_by_step(num_envs: int) -> None:
    agent = Recorder()
    records = evaluate(agent, Games, RULES, seed=0, run="hooks", run_seed=0, checkpoint_env_steps=0, num_envs=num_envs)
    told = sorted(agent.finished, key=lambda episode: int(episode[1]) // 10)
    expected: list[list[Any]] = [
        [TASKS[g % 3], *[10.0 * g + t for t in range(1, LENGTH[TASKS[g % 3]] + 1)]] for g in range(7)
    ]
    assert told == expected
    assert [record.raw_return for record in records] == [sum(episode[1:]) for episode in expected]
    assert len(agent.begun) == 7, "a lost life must not begin an episode"


def test_rows_are_those_of_the_envs() -> None:
    agent = Recorder()
    evaluate(agent, Games, RULES, seed=0, run="hooks", run_seed=0, checkpoint_env_steps=0, num_envs=7)
    assert agent.begun == [(row, TASKS[row % 3]) for row in range(7)]


def test_films_tell_the_same(tmp_path: Path) -> None:
    agent = Recorder()
    films = film_episodes(agent, Game, RULES, tmp_path, seed=0, count=3, env_steps=0)
    assert agent.finished == [["short", 1.0, 2.0], ["long", *range(11, 16)], ["lives", *range(21, 27)]]
    assert agent.begun == [(0, "short"), (0, "long"), (0, "lives")]
    assert [film.raw_return for film in films] == [3.0, 65.0, 141.0]


def test_by_default_an_episode_start_is_a_reset_and_rewards_are_ignored() -> None:
    class Resetting(Recorder):
        begin_episodes, receive_rewards = Agent.begin_episodes, Agent.receive_rewards

        def reset_state(self, state: Any, rows: Any) -> Any:
            return ("reset", state, rows)

    agent = Resetting()
    assert agent.begin_episodes("state", [1, 2], ["a", "b"]) == ("reset", "state", [1, 2])
    assert agent.receive_rewards("state", [0], np.ones(1, np.float32)) == "state"


class Witness(Games):
    """Keeps what was played in each row."""

    played: ClassVar[list[tuple[int, int]]] = []

    def step(self, action: Any, id: Ids = None, *, meanwhile: Work | None = None) -> Step:  # type: ignore[override]
        self.played.extend(zip(self._ids(id).tolist(), np.asarray(action).tolist(), strict=True))
        return super().step(action, id)


def test_the_agent_is_told_which_actions_were_random(tmp_path: Path) -> None:
    always, never = (Rules(id="hooks", env_name="hooks", evaluation_epsilon=epsilon) for epsilon in (1.0, 0.0))
    agent = Recorder()
    evaluate(agent, Witness, always, seed=0, run="hooks", run_seed=0, checkpoint_env_steps=0, num_envs=3)
    assert agent.replaced == Witness.played and {action for _, action in agent.replaced} == {0, 1, 2}
    filmed = Recorder()
    film_episodes(filmed, Game, always, tmp_path, seed=0, count=1, env_steps=0)
    assert len(filmed.replaced) == LENGTH["short"]
    own = Recorder()
    evaluate(own, Games, never, seed=0, run="hooks", run_seed=0, checkpoint_env_steps=0, num_envs=3)
    assert own.replaced == []
