"""One episode of every task, step by step by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.memory_tasks.config import MemoryTasksConfig
from envs.memory_tasks.tasks import Copy, KeyToDoor, TMaze
from envs.memory_tasks.vector import MemoryTasksVector

FORWARD, LEFT, RIGHT, STAY = 0, 1, 2, 3
Played = tuple[list[list[float]], list[float], list[str]]


def vector(num_envs: int = 1, **settings: Any) -> MemoryTasksVector:
    return MemoryTasksConfig.model_validate({"num_envs": num_envs, **settings}).make_training_env()


def play(env: MemoryTasksVector, obs: np.ndarray, actions: list[int]) -> Played:
    """Gives the one env's observations, rewards, and how each step left the episode."""
    seen, rewards, ends = [obs[0].tolist()], [], []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(np.array([action]))
        seen.append(obs[0].tolist())
        rewards.append(float(reward[0]))
        end = "terminated" if terminated[0] else "truncated" if truncated[0] else ""
        ends.append(end + "+success" * bool(info["success"][0]))
        assert bool(info["episode_over"][0]) is bool(end)
        assert info["raw_reward"][0] == reward[0]
    return seen, rewards, ends


def maze(goal: int, *, corridor: int = 2, max_wasted_steps: int = 2) -> tuple[MemoryTasksVector, np.ndarray]:
    env = vector(task="t_maze", min_corridor=corridor, max_corridor=corridor, max_wasted_steps=max_wasted_steps)
    obs, _ = env.reset(seed=0, options={"goal_index": goal})
    return env, obs


def test_the_t_maze_solved() -> None:
    seen, rewards, ends = play(*maze(1), [FORWARD, FORWARD, RIGHT])
    assert seen == [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert rewards == [0, 0, 1]
    assert ends == ["", "", "terminated+success"]


def test_the_wrong_turn_is_worth_nothing() -> None:
    seen, rewards, ends = play(*maze(0), [FORWARD, FORWARD, RIGHT])
    assert seen[0] == [1, 0, 0]
    assert (rewards, ends) == ([0, 0, 0], ["", "", "terminated"])


def test_turns_in_the_corridor_waste_the_step_and_hide_the_cue() -> None:
    seen, rewards, ends = play(*maze(0), [LEFT, RIGHT, FORWARD, FORWARD, LEFT])
    assert seen == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert rewards == [0, 0, 0, 0, 1] and ends[-1] == "terminated+success"


@pytest.mark.parametrize("wasted", [[STAY, STAY], [FORWARD, FORWARD]])
def test_too_many_wasted_steps_end_the_maze(wasted: list[int]) -> None:
    """2 + 1 + 2 steps are allowed, on the way or at the junction, where forward leads nowhere."""
    _, rewards, ends = play(*maze(0), [*wasted, FORWARD, FORWARD, STAY])
    assert rewards == [0] * 5 and ends == ["", "", "", "", "truncated"]


def test_the_last_allowed_step_may_decide() -> None:
    env, obs = maze(1, max_wasted_steps=0)
    assert play(env, obs, [FORWARD, FORWARD, RIGHT])[2] == ["", "", "terminated+success"]
    env, obs = maze(1, max_wasted_steps=0)
    assert play(env, obs, [FORWARD, STAY, FORWARD])[2] == ["", "", "truncated"]


def key_room(distractor_reward: float = 0.5) -> tuple[MemoryTasksVector, KeyToDoor]:
    """A way of 2 steps and 2 colours, with the key of colour 1 at the room's middle step."""
    env = vector(task="key_to_door", min_corridor=2, max_corridor=2, num_symbols=2, distractor_reward=distractor_reward)
    assert isinstance(env.task, KeyToDoor)
    return env, env.task


def walk(actions: list[int], distractor_reward: float = 0.5) -> Played:
    env, task = key_room(distractor_reward)
    env.reset(seed=3, options={"goal_index": 1})
    task.key_step_N[:] = 1
    return play(env, task.observe(np.arange(1)), actions)


def test_key_to_door_solved() -> None:
    seen, rewards, ends = walk([0, 1, 0, 0, 0, 3])
    room, key, signs, door = seen[0], seen[1], [seen[3][2], seen[4][2]], seen[5]
    assert (room, key, seen[2]) == ([0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0])
    assert {abs(sign) for sign in signs} == {1}
    assert [seen[3], seen[4]] == [[0, 0, sign, 0] for sign in signs]
    assert (door, seen[6]) == ([0, 0, 0, 1], [0, 0, 0, 0])
    assert rewards == [0, 0, 0, 0.5 * signs[0], 0.5 * signs[1], 1]
    assert ends == [""] * 5 + ["terminated+success"]


@pytest.mark.parametrize("actions", [[0, 0, 0, 0, 0, 3], [1, 0, 1, 1, 1, 3], [1, 1, 1, 1, 1, 2], [0, 1, 0, 0, 0, 0]])
def test_no_key_or_the_wrong_lock_is_worth_nothing(actions: list[int]) -> None:
    """Not picked up; picked up everywhere but at the key; the other lock; no lock."""
    _, rewards, ends = walk(actions, 0.0)
    assert rewards == [0] * 6 and ends == [""] * 5 + ["terminated"]


def test_what_is_in_hand_is_not_seen() -> None:
    assert walk([0, 1, 0, 0, 0, 3])[0] == walk([0, 0, 0, 0, 0, 3])[0]


def test_the_ways_rewards_do_not_depend_on_the_actions_and_cancel_on_average() -> None:
    env = vector(4000, task="key_to_door", min_corridor=7, max_corridor=7, distractor_reward=0.5)
    env.reset(seed=0)
    best = env.optimal_returns()
    assert np.unique(best).tolist() == [1 + 0.5 * total for total in range(-7, 8, 2)]
    assert abs(best.mean() - 1) < 5 * 0.5 * 7**0.5 / 4000**0.5
    assert best.std() == pytest.approx(0.5 * 7**0.5, rel=0.05)


def copy_of(symbols: list[int]) -> tuple[MemoryTasksVector, np.ndarray]:
    env = vector(task="copy", min_corridor=2, max_corridor=2, num_symbols=3, sequence_length=len(symbols))
    env.reset(seed=0)
    assert isinstance(env.task, Copy)
    env.task.symbol_NS[:] = symbols
    return env, env.task.observe(np.arange(1))


def test_copy_solved() -> None:
    seen, rewards, ends = play(*copy_of([2, 0]), [0, 0, 0, 0, 2, 0])
    assert seen == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert rewards == [0, 0, 0, 0, 0.5, 0.5]
    assert ends == [""] * 5 + ["terminated+success"]


def test_symbols_named_too_early_or_in_another_order_are_wrong() -> None:
    _, rewards, ends = play(*copy_of([2, 0]), [2, 0, 2, 0, 0, 0])
    assert rewards == [0, 0, 0, 0, 0, 0.5] and ends[-1] == "terminated"
    _, rewards, ends = play(*copy_of([2, 0]), [0, 0, 0, 0, 0, 2])
    assert rewards == [0] * 6 and ends[-1] == "terminated"


def test_identity_pays_for_the_symbol_shown() -> None:
    env = vector(task="identity", num_symbols=3)
    obs, _ = env.reset(seed=0)
    total = 0.0
    for step in range(16):
        shown = int(obs[0].argmax())
        assert obs[0].sum() == 1 and obs.dtype == np.float32
        action = shown if step != 5 else (shown + 1) % 3
        obs, reward, terminated, truncated, info = env.step(np.array([action]))
        assert reward[0] == (0 if step == 5 else 1 / 16)
        total += float(reward[0])
        assert not terminated[0] and truncated[0] == (step == 15) and info["success"][0] == 0
    assert total == 15 / 16


def test_actions_are_named() -> None:
    assert (TMaze.FORWARD, TMaze.LEFT, TMaze.RIGHT, TMaze.STAY) == (FORWARD, LEFT, RIGHT, STAY)
    assert (KeyToDoor.WALK, KeyToDoor.PICK_UP, KeyToDoor.OPEN) == (0, 1, 2)
