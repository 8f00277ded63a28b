"""The evaluator against a scripted vector env: every episode once, no bias, no trace left behind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from envs.base import EpisodeSpec
from trainers.episodes import EpisodeRecord
from trainers.evaluation import evaluate, evaluate_random, random_action, select_episodes, summarise

NUM_ACTIONS = 4


@dataclass
class FakeProtocol:
    specs: list[EpisodeSpec]
    evaluation_epsilon: float = 0.0
    evaluation_policy: str = "greedy"
    max_episode_steps: int = 50
    frames_per_step: int = 1
    id: str = "fake"
    hash: str = "0123456789ab"
    env_name: str = "fake"

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        return [EpisodeSpec(spec.index, spec.seed + 1000 * seed, spec.task, spec.goal_index) for spec in self.specs]

    def parts(self, specs: Sequence[EpisodeSpec]) -> list[tuple[FakeProtocol, list[EpisodeSpec]]]:
        return [(self, list(specs))]


def disturb_global_rngs() -> float:
    """Draws from every global generator; gives torch's number."""
    random.random()
    np.random.random()  # noqa: NPY002
    return float(torch.rand(1))


def numpy_position() -> object:
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    return state[2]


def goals(count: int, task: str = "fake") -> list[EpisodeSpec]:
    return [EpisodeSpec(index=index, seed=100 + index, task=task, goal_index=index) for index in range(count)]


class FakeVectorEnv:
    """Length, success and reward of an episode are functions of its goal; keeps account of what it is asked."""

    def __init__(self, num_envs: int, *, horizon: int = 10, solved: Sequence[int] = (), lives: int = 1) -> None:
        self.num_envs, self.horizon, self.solved, self.lives = num_envs, horizon, set(solved), lives
        self.single_action_space = Discrete(NUM_ACTIONS)
        self.spec: list[EpisodeSpec | None] = [None] * num_envs
        self.time = np.zeros(num_envs, int)
        self.begun: list[int] = []
        self.actions: dict[int, list[int]] = {}
        self.resets: list[int] = []
        self.closed = False

    def _obs(self, ids: np.ndarray) -> np.ndarray:
        specs: list[Any] = [self.spec[env_id] for env_id in ids]
        return np.array([[spec.goal_index, self.time[i]] for i, spec in zip(ids, specs, strict=True)], np.float32)

    def begin_episodes(self, ids: np.ndarray, specs: Sequence[EpisodeSpec]) -> tuple[np.ndarray, dict[str, Any]]:
        for env_id, spec in zip(ids, specs, strict=True):
            self.spec[env_id], self.time[env_id] = spec, 0
            self.begun.append(spec.index)
            self.actions[spec.index] = []
        return self._obs(ids), {}

    def reset(self, env_id: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        self.resets += [int(i) for i in env_id]
        return self._obs(env_id), {}

    def step(self, action: np.ndarray, id: np.ndarray) -> tuple[Any, ...]:
        assert len(action) == len(id)
        assert len(set(id.tolist())) == len(id)
        goal = []
        for env_id, one in zip(id, action, strict=True):
            self.time[env_id] += 1
            spec = self.spec[env_id]
            assert spec is not None
            self.actions[spec.index].append(int(one))
            goal.append(spec.goal_index)
        time = self.time[id]
        success = np.array([g in self.solved and t >= 2 for g, t in zip(goal, time, strict=True)])
        truncated = (time >= self.horizon) & ~success
        lost_life = (time % 3 == 0) & (time < 3 * self.lives) & (self.lives > 1)
        info = {
            "raw_reward": np.array([10.0 * g + t for g, t in zip(goal, time, strict=True)], np.float32),
            "episode_over": success | truncated,
            "success": success.astype(np.float32),
        }
        return self._obs(id), np.sign(info["raw_reward"]), success | lost_life, truncated, info

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeAgent:
    """Always answers 1; keeps a counter of its own steps per row as recurrent state."""

    kind: str = "off_policy"
    seen_states: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.algorithm = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
        self.algorithm[1].eval()

    @contextmanager
    def using_rng(self, rng: np.random.Generator) -> Iterator[None]:
        self.lent = rng
        yield

    def initial_state(self, num_envs: int) -> np.ndarray:
        return np.full(num_envs, -7)

    def reset_state(self, state: np.ndarray, rows: np.ndarray) -> np.ndarray:
        state = state.copy()
        state[rows] = 0
        return state

    def begin_episodes(self, state: np.ndarray, rows: np.ndarray, tasks: Sequence[str]) -> np.ndarray:
        return self.reset_state(state, rows)

    def replace_actions(self, state: np.ndarray, rows: np.ndarray, action: np.ndarray) -> np.ndarray:
        return state

    def receive_rewards(self, state: np.ndarray, rows: np.ndarray, reward: np.ndarray) -> np.ndarray:
        return state

    def act(self, obs: np.ndarray, state: np.ndarray, *, explore: bool = False) -> tuple[np.ndarray, np.ndarray]:
        assert not any(module.training for module in self.algorithm.modules())
        self.explore = explore
        self.seen_states.append(np.stack([state, obs[:, 1].astype(int)]))
        disturb_global_rngs()
        return np.ones(len(obs), np.int64), state + 1

    def env_action(self, action: np.ndarray) -> np.ndarray:
        return action


def run(
    protocol: FakeProtocol, num_envs: int, *, agent: Any = None, seed: int = 0, **env: Any
) -> tuple[list[EpisodeRecord], FakeVectorEnv]:
    made: list[FakeVectorEnv] = []
    player: Any = agent or FakeAgent()
    rules: Any = protocol

    def make_env(rules: Any, count: int) -> Any:
        made.append(FakeVectorEnv(count, **env))
        return made[-1]

    records = evaluate(
        player,
        make_env,
        rules,
        seed=seed,
        run="dqn-fake/0",
        run_seed=3,
        checkpoint_env_steps=500,
        num_envs=num_envs,
    )
    return records, made[0]


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7, 50])
def test_every_episode_is_played_once_and_recorded_in_order(num_envs: int) -> None:
    records, env = run(FakeProtocol(goals(7)), num_envs, solved=[0, 5])
    assert sorted(env.begun) == list(range(7))
    assert [record.goal_index for record in records] == list(range(7))
    assert env.num_envs == min(num_envs, 7)
    assert env.closed


def test_the_record_of_one_episode_by_hand() -> None:
    records, _ = run(FakeProtocol(goals(2)), 2, solved=[1])
    assert records[1] == EpisodeRecord(
        run="dqn-fake/0",
        seed=3,
        checkpoint_step=500,
        protocol_id="fake",
        protocol_hash="0123456789ab",
        env_id="fake",
        task="fake",
        goal_index=1,
        raw_return=11.0 + 12.0,  # raw, not the clipped reward of 1 + 1
        length=2,
        success=True,
        success_last=True,
        first_success=2,
        stop_reason="terminated",
    )
    assert records[0].raw_return == sum(range(1, 11))
    assert (records[0].length, records[0].success, records[0].first_success) == (10, False, None)
    assert records[0].stop_reason == "truncated"


def test_successful_episodes_are_not_counted_more_often() -> None:
    """5 envs, 5 goals, only goal 0 is solved, and ends early: the true rate is 0.2."""

    def first_to_finish(count: int) -> float:
        """Metaworld's ``evaluation()``: the first ``count`` episodes to end, each env repeating its goal."""
        env = FakeVectorEnv(5, horizon=100, solved=[0])
        env.begin_episodes(np.arange(5), goals(5))
        ended: list[float] = []
        while len(ended) < count:
            *_, info = env.step(np.ones(5, int), np.arange(5))
            over = np.flatnonzero(info["episode_over"])
            ended += info["success"][over].tolist()
            env.begin_episodes(over, [env.spec[i] for i in over])  # type: ignore[misc]
        return float(np.mean(ended[:count]))

    assert first_to_finish(15) == 1.0
    for num_envs in (2, 5):
        records, _ = run(FakeProtocol(goals(5), max_episode_steps=200), num_envs, horizon=100, solved=[0])
        assert summarise(records)["success_rate"] == 0.2


def test_the_guard_ends_an_endless_episode_as_cap() -> None:
    records, _ = run(FakeProtocol(goals(3), max_episode_steps=6), 2, horizon=10**9)
    assert [(record.length, record.stop_reason) for record in records] == [(6, "cap")] * 3
    assert summarise(records)["stop_reasons"] == {"cap": 3}


def test_a_lost_life_neither_ends_the_episode_nor_the_recurrent_state() -> None:
    agent = FakeAgent()
    records, env = run(FakeProtocol(goals(1)), 1, agent=agent, lives=3)
    assert [record.length for record in records] == [10]
    assert env.resets == [0, 0]  # told to go on after steps 3 and 6, never a real reset
    assert [int(state[0, 0]) for state in agent.seen_states] == list(range(10))


def test_recurrent_state_starts_anew_with_each_episode_in_its_row_only() -> None:
    agent = FakeAgent()
    run(FakeProtocol(goals(6)), 3, agent=agent, solved=[0, 4])
    for state, time in agent.seen_states:
        live = time < 10
        np.testing.assert_array_equal(state[live], time[live])


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_random_actions_belong_to_the_episode_not_to_the_env(epsilon: float) -> None:
    played = []
    for num_envs in (1, 2, 4):
        records, env = run(FakeProtocol(goals(5), evaluation_epsilon=epsilon), num_envs, solved=[2])
        played.append((records, env.actions))
    assert played[0] == played[1] == played[2]
    actions = np.concatenate(list(played[0][1].values()))
    if epsilon == 0.0:
        assert (actions == 1).all()
    else:
        assert set(actions) == set(range(NUM_ACTIONS))
    _, other = run(FakeProtocol(goals(5), evaluation_epsilon=epsilon), 2, seed=1, solved=[2])
    assert (other.actions == played[0][1]) == (epsilon == 0.0)


def test_epsilon_is_a_probability_per_step() -> None:
    _, env = run(FakeProtocol(goals(1), evaluation_epsilon=0.1, max_episode_steps=10_000), 1, horizon=10_000)
    share = np.mean(np.array(env.actions[0]) != 1)
    assert share == pytest.approx(0.1 * 3 / 4, abs=0.01)  # a quarter of the random actions are the policy's own


def test_the_random_baseline_plays_the_same_episodes_and_asks_no_agent() -> None:
    protocol: Any = FakeProtocol(goals(5))
    made = [FakeVectorEnv(count, solved=[2]) for count in (1, 4)]
    makers: list[Any] = [lambda *_: made[0], lambda *_: made[1]]
    first, second = (
        evaluate_random(make, protocol, seed=0, num_envs=n) for make, n in zip(makers, (1, 4), strict=True)
    )
    assert first == second
    assert made[0].actions == made[1].actions
    assert {record.run for record in first} == {"random"}
    assert [record.goal_index for record in first] == list(range(5))


def test_random_state_and_module_modes_are_put_back() -> None:
    agent = FakeAgent()
    torch.manual_seed(0)
    expected = disturb_global_rngs()
    before = numpy_position()
    torch.manual_seed(0)
    state = random.getstate()
    run(FakeProtocol(goals(3), evaluation_epsilon=0.5), 2, agent=agent)
    assert numpy_position() == before
    assert random.getstate() == state
    assert disturb_global_rngs() == expected
    assert [module.training for module in agent.algorithm.modules()] == [True, True, False]


def test_the_env_is_closed_and_modes_put_back_after_an_error() -> None:
    agent, env = FakeAgent(), FakeVectorEnv(2)
    agent.env_action = lambda action: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        run_with(agent, env)
    assert env.closed
    assert agent.algorithm.training


def run_with(agent: Any, env: Any) -> list[EpisodeRecord]:
    protocol: Any = FakeProtocol(goals(2))
    return evaluate(
        agent, lambda *_: env, protocol, seed=0, run="r", run_seed=0, checkpoint_env_steps=0, num_envs=env.num_envs
    )


class TwoParts(FakeProtocol):
    """Its tasks need an env each; the second has random actions of its own, and a shorter cap."""

    def parts(self, specs: Sequence[EpisodeSpec]) -> list[tuple[FakeProtocol, list[EpisodeSpec]]]:
        first, second = FakeProtocol([], hash="a"), FakeProtocol([], hash="b", evaluation_epsilon=1.0)
        second.max_episode_steps = 4
        return [(first, [s for s in specs if s.task == "one"]), (second, [s for s in specs if s.task == "two"])]


@pytest.mark.parametrize("num_envs", [1, 2, 5])
def test_every_part_is_played_in_an_env_of_its_own(num_envs: int) -> None:
    made: list[tuple[Any, FakeVectorEnv]] = []

    def make_env(rules: Any, count: int) -> Any:
        assert all(env.closed for _, env in made), "one env at a time"
        made.append((rules.hash, FakeVectorEnv(count)))
        return made[-1][1]

    specs = [EpisodeSpec(i, 100 + i, "one" if i < 3 else "two", i) for i in range(5)]
    protocol, agent = TwoParts(specs), FakeAgent()
    seen: list[EpisodeRecord] = []
    records = evaluate(
        agent,  # type: ignore[arg-type]
        make_env,
        protocol,  # type: ignore[arg-type]
        seed=0,
        run="r",
        run_seed=0,
        checkpoint_env_steps=0,
        num_envs=num_envs,
        observer=seen.append,
    )
    assert [(name, env.num_envs) for name, env in made] == [("a", min(num_envs, 3)), ("b", min(num_envs, 2))]
    assert [(record.task, record.goal_index, record.length) for record in records] == [
        *[("one", goal, 10) for goal in range(3)],
        *[("two", goal, 4) for goal in (3, 4)],
    ]
    assert {(record.protocol_id, record.protocol_hash, record.env_id) for record in records} == {
        ("fake", "0123456789ab", "fake")
    }
    assert sorted(seen, key=records.index) == records and made[-1][1].closed
    assert {action for actions in made[0][1].actions.values() for action in actions} == {1}
    assert {action for actions in made[1][1].actions.values() for action in actions} > {1}


def test_a_sampled_protocol_asks_the_agent_to_sample() -> None:
    for policy, explore in (("greedy", False), ("sampled", True)):
        agent = FakeAgent()
        run(FakeProtocol(goals(1), evaluation_policy=policy), 1, agent=agent)
        assert agent.explore is explore


def test_the_observer_sees_every_record_as_it_ends() -> None:
    seen: list[int | None] = []
    protocol: Any = FakeProtocol(goals(4))
    evaluate_random(
        lambda _, count: FakeVectorEnv(count, solved=[3]),  # type: ignore[arg-type,return-value]
        protocol,
        seed=0,
        num_envs=4,
        observer=lambda record: seen.append(record.goal_index),
    )
    assert seen[0] == 3
    assert sorted(goal for goal in seen if goal is not None) == [0, 1, 2, 3]


def test_fewer_episodes_are_taken_in_turn_from_every_task() -> None:
    specs = [EpisodeSpec(3 * task + goal, 0, f"task{task}", goal) for task in range(3) for goal in range(3)]
    assert [spec.index for spec in select_episodes(specs, 3)] == [0, 3, 6]
    assert [spec.index for spec in select_episodes(specs, 5)] == [0, 1, 3, 4, 6]
    assert select_episodes(specs, None) == specs
    with pytest.raises(ValueError, match=r"1\.\.9, .* got 10"):
        select_episodes(specs, 10)


def test_random_actions_fit_the_space() -> None:
    rng = np.random.default_rng(0)
    assert {random_action(Discrete(3, start=-1), rng) for _ in range(50)} == {-1, 0, 1}
    box = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
    draws = np.stack([random_action(box, rng) for _ in range(200)])
    assert draws.dtype == np.float32
    assert all(box.contains(draw) for draw in draws)
    assert draws[:, 0].min() < -1.5
    with pytest.raises(TypeError, match="bounded box"):
        random_action(Box(-np.inf, np.inf, (1,)), rng)


def test_num_envs_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        run(FakeProtocol(goals(1)), 0)


def record(raw_return: float, **changes: Any) -> EpisodeRecord:
    base: dict[str, Any] = dict(
        run="r", seed=0, checkpoint_step=1, protocol_id="p", protocol_hash="h", env_id="e", task="pong", length=4
    )
    return EpisodeRecord(**(base | {"stop_reason": "terminated"} | changes), raw_return=raw_return)


def test_summary_by_hand() -> None:
    protocol: Any = SimpleNamespace(frames_per_step=4)
    summary = summarise([record(value) for value in (8, 1, 2, 100)], protocol, normalise=lambda task, score: score / 2)
    assert summary == {
        "episodes": 4,
        "return_mean": 27.75,
        "return_std": pytest.approx(1747.1875**0.5),
        "return_median": 5.0,
        "return_iqm": 5.0,
        "return_min": 1.0,
        "return_max": 100.0,
        "length_mean": 4.0,
        "stop_reasons": {"terminated": 4},
        "frames_mean": 16.0,
        "human_normalised": 27.75 / 2,
    }


def test_summary_of_successes_per_task() -> None:
    found = dict(success=True, success_last=False, first_success=3)
    missed = dict(success=False, success_last=False)
    summary = summarise(
        [record(1, task="a", **found), record(2, task="a", **missed), record(3, task="b", **missed)],
        normalise=lambda task, score: None,
    )
    assert (summary["successes"], summary["success_rate"], summary["success_last_rate"]) == (1, 1 / 3, 0.0)
    assert summary["first_success_mean"] == 3.0
    assert summary["tasks"]["a"]["success_rate"] == 0.5
    assert summary["tasks"]["b"]["first_success_mean"] is None
    assert "human_normalised" not in summary


def test_a_summary_never_mixes_protocols() -> None:
    with pytest.raises(ValueError, match="different protocols are not averaged: g, h"):
        summarise([record(1), record(2, protocol_hash="g")])
    with pytest.raises(ValueError, match="no episodes"):
        summarise([])
