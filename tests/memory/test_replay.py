"""What the replay refuses, what it gives back, and that it can be restored over another's remains."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memory import ReplayConfig
from tests.memory.reference import FRAME, RandomEnvs
from tests.memory.test_tianshou_algorithms import (
    BOX,
    DISCRETE,
    NUM_ENVS,
    OBSERVATION,
    fill,
    make_replay,
    stack_stream,
    vector_stream,
)

STACKS = gym.spaces.Box(0, 255, (2, *FRAME), np.uint8)


def add(replay: Any, env_ids: Any = None, **changes: Any) -> None:
    rows = vector_stream(DISCRETE, 1)[0] | {"episode_over": np.zeros(NUM_ENVS, bool)}
    rows |= {"terminated": np.zeros(NUM_ENVS, bool), "truncated": np.zeros(NUM_ENVS, bool), **changes}
    replay.add_step(**rows, env_ids=env_ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.zeros((3, 4), np.float32)}, r"obs must have shape \(3, 5\), got \(3, 4\)"),
        ({"rew": np.zeros((3, 1))}, r"rew must have shape \(3,\), got \(3, 1\)"),
        ({"act": np.zeros(3)}, "act must have dtype int64, got float64"),
        ({"terminated": np.zeros(3)}, "terminated must have dtype bool, got float64"),
        ({"episode_over": np.ones(3, bool)}, r"episode_over without terminated or truncated in envs \[0, 1, 2\]"),
        ({"env_ids": [0, 1, 1]}, r"distinct, got \[0, 1, 1\]"),
        ({"env_ids": [0, 1, 3]}, r"in \[0, 3\), got \[0, 1, 3\]"),
        ({"env_ids": [-1, 1, 2]}, r"in \[0, 3\), got \[-1, 1, 2\]"),
        ({"env_ids": [0.0, 1.0, 2.0]}, r"in \[0, 3\), got"),
    ],
)
def test_bad_transitions_are_refused_before_anything_changes(changes: dict[str, Any], message: str) -> None:
    replay = make_replay(DISCRETE)
    with pytest.raises(ValueError, match=message):
        add(replay, **changes)
    assert len(replay) == 0 and not replay.num_added.any()


def test_stacks_that_cannot_be_rebuilt_are_refused() -> None:
    replay, rows = make_replay(DISCRETE, STACKS), stack_stream(1)[0]
    repeated = rows | {"obs": np.repeat(rows["obs"][:, -1:], 2, axis=1)}
    with pytest.raises(ValueError, match=r"envs \[0, 1, 2\]: the first stack .* zero"):
        fill(replay, [repeated])
    turned = rows | {"obs_next": rows["obs_next"][:, ::-1], "terminated": np.array([False, True, False])}
    with pytest.raises(ValueError, match=r"envs \[0, 2\]: obs_next must be obs moved on by one frame"):
        fill(replay, [turned])
    assert len(replay) == 0


def test_a_stack_that_is_wrong_in_one_row_is_found_within_some_steps() -> None:
    space = gym.spaces.Box(0, 255, (3, 84, 84), np.uint8)
    replay = ReplayConfig(capacity=100).build(space, DISCRETE, 1, np.random.default_rng(0), lambda line: None)
    frames = np.random.default_rng(0).integers(1, 256, (40, 84, 84), dtype=np.uint8)
    frames[:3] = 0
    never, wrong = np.zeros(1, bool), 57
    with pytest.raises(ValueError, match=r"envs \[0\]: obs_next must be obs moved on"):
        for step in range(3, 20):
            obs, obs_next = frames[None, step - 2 : step + 1].copy(), frames[None, step - 1 : step + 2].copy()
            obs[:, :-1] *= step > 4
            obs_next[:, 0] *= step > 4
            obs_next[:, 1, wrong] = 0
            replay.add_step(
                obs=obs,
                act=np.zeros(1, np.int64),
                rew=np.zeros(1, np.float32),
                terminated=never,
                truncated=never,
                obs_next=obs_next,
                episode_over=never,
            )
    assert len(replay) < 10


def test_what_is_sampled_is_the_callers_own() -> None:
    for replay in (
        fill(make_replay(DISCRETE), vector_stream(DISCRETE, 9)),
        fill(make_replay(DISCRETE, STACKS), stack_stream(9)),
    ):
        batch, _ = replay.sample(0)
        expected = batch.obs.copy(), batch.obs_next.copy()
        replay.sample(32)
        batch_again, _ = replay.sample(0)
        batch_again.obs[:] = 77
        batch_again.act[:] = 77
        np.testing.assert_array_equal(batch.obs, expected[0])
        np.testing.assert_array_equal(replay.sample(0)[0].obs, expected[0])
        np.testing.assert_array_equal(replay.next_obs(replay.sample_indices(0)), expected[1])
        assert replay.act.max() < 77


def test_indexing() -> None:
    replay = fill(make_replay(BOX), vector_stream(BOX, 30))
    everything, indices = replay.sample(0)
    np.testing.assert_array_equal(replay[:].obs, everything.obs)
    np.testing.assert_array_equal(replay[3:7].act, everything.act[3:7])
    np.testing.assert_array_equal(replay[indices >= 0].rew, replay[np.arange(60)].rew)
    assert replay[int(indices[5])].rew == everything.rew[5]
    np.testing.assert_array_equal(replay.get(indices, "obs_next"), everything.obs_next)
    assert replay.get(indices, "extra", 0) == 0
    with pytest.raises(IndexError, match="index 60 holds no transition"):
        replay[np.array([3, 60])]
    assert replay.sample(None)[1].tolist() != indices.tolist()
    assert sorted(replay.sample(None)[1].tolist()) == sorted(indices.tolist())
    with pytest.raises(ValueError, match="batch_size must be >= 0 or None, got -1"):
        replay.sample(-1)
    with pytest.raises(ValueError, match="cannot sample 4 transitions from an empty replay"):
        make_replay(BOX).sample(4)
    with pytest.raises(ValueError, match="n_step must be >= 1, got 0"):
        replay.n_step(indices, 0, 0.9)


def test_n_step_by_hand() -> None:
    replay = ReplayConfig(capacity=8).build(
        gym.spaces.Box(-1, 1, (1,), np.float32), DISCRETE, 1, np.random.default_rng(0), lambda _: None
    )
    ends = {2: (True, False), 5: (False, True)}
    for step in range(7):
        terminated, truncated = ends.get(step, (False, False))
        row = np.full((1, 1), step / 10, np.float32)
        flags = {"terminated": np.array([terminated]), "truncated": np.array([truncated])}
        over = np.array([terminated or truncated])
        replay.add_step(
            obs=row,
            act=np.zeros(1, int),
            rew=np.array([2.0**step]),
            obs_next=row + np.float32(0.1),
            episode_over=over,
            **flags,
        )
    returns, discounts, last = replay.n_step(np.arange(7), 2, 0.5)
    assert returns.tolist() == [1 + 1, 2 + 2, 4, 8 + 8, 16 + 16, 32, 64]
    assert discounts.tolist() == [0.25, 0, 0, 0.25, 0.25, 0.5, 0.5]
    assert last.tolist() == [1, 2, 2, 4, 5, 5, 6]
    assert replay.n_step(np.arange(7), 1, 0.5)[0].tolist() == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("prioritised", [False, True])
def test_a_used_replay_can_be_restored_over(single: bool, prioritised: bool) -> None:
    def make(seed: int) -> Any:
        return make_replay(DISCRETE, STACKS if single else OBSERVATION, seed=seed, prioritised=prioritised)

    def stream(seed: int) -> list[dict[str, np.ndarray]]:
        return stack_stream(45, seed) if single else vector_stream(DISCRETE, 45, seed)

    saved, used = fill(make(0), stream(0)[:30]), fill(make(1), stream(1))
    if prioritised:
        used.update_weight(used.sample_indices(9), np.arange(9.0) * 50)
    arrays, counters = saved.state()
    used.load([saved.new_data(None)], (arrays, json.loads(json.dumps(counters))))
    if prioritised:
        leaves = used.priorities.leaves(np.arange(used.maxsize))
        assert np.flatnonzero(leaves).tolist() == sorted(saved.sample_indices(0).tolist())
    for replay in (saved, used):
        fill(replay, stream(0)[30:])
    (batch, indices), (same, same_indices) = saved.sample(40), used.sample(40)
    np.testing.assert_array_equal(indices, same_indices)
    for key in set(batch.get_keys()) - {"info", "policy"}:
        np.testing.assert_array_equal(batch[key], same[key])


def test_increments_are_small_and_must_be_complete() -> None:
    replay, stream = make_replay(DISCRETE), vector_stream(DISCRETE, 12)
    fill(replay, stream[:10])
    first, since = replay.new_data(None), replay.num_added.copy()
    fill(replay, stream[10:])
    second = replay.new_data(since)
    assert (len(first["index"]), len(second["index"])) == (30, 9)  # per env: the 2 new ones, and the newest before
    with pytest.raises(ValueError, match="the chunks lack 27 of the 36 transitions held"):
        make_replay(DISCRETE).load([second], replay.state())
    with pytest.raises(ValueError, match=r"another layout .*'slots_per_env': \(20, 7\)"):
        make_replay(DISCRETE, capacity=21).load([first, second], replay.state())
    with pytest.raises(ValueError, match=r"since=\[99, 99, 99\]"):
        replay.new_data(np.full(3, 99))


@pytest.mark.parametrize("bit_generator", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_any_generator_is_restored(bit_generator: Any) -> None:
    def make(seed: int) -> Any:
        rng = np.random.Generator(bit_generator(seed))
        return ReplayConfig(capacity=60).build(gym.spaces.Discrete(5), DISCRETE, NUM_ENVS, rng, lambda _: None)

    saved, restored = make(0), make(1)
    rows = vector_stream(DISCRETE, 1)[0] | {"obs": np.arange(3), "obs_next": np.arange(3)}
    for _ in range(9):
        fill(saved, [rows | {"terminated": np.ones(3, bool)}])
    saved.sample(7)
    arrays, counters = saved.state()
    restored.load([saved.new_data(None)], (arrays, json.loads(json.dumps(counters))))
    for _ in range(3):
        assert saved.sample_indices(7).tolist() == restored.sample_indices(7).tolist()


def test_cut_closes_only_what_is_open() -> None:
    replay, envs = make_replay(DISCRETE, STACKS), RandomEnvs(NUM_ENVS, 2, np.random.default_rng(0))
    last_obs = []
    for env, event in enumerate((0, 1, 2)):  # goes on, lost a life, over
        transition, over = envs.step(env, event)
        last_obs.append(transition.obs_next)
        rows: dict[str, Any] = {
            name: np.array([getattr(transition, name)])
            for name in ("obs", "act", "rew", "terminated", "truncated", "obs_next")
        }
        replay.add_step(**rows, episode_over=np.array([over]), env_ids=np.array([env]))
    for _ in range(2):  # the second does nothing
        replay.cut()
        batch, indices = replay.sample(0)
        assert batch.truncated.tolist() == [True, False, False]
        assert batch.terminated.tolist() == [False, True, True]
        np.testing.assert_array_equal(batch.obs_next[0], last_obs[0])
        assert replay.n_step(indices, 3, 0.9)[1].tolist() == pytest.approx([0.9, 0, 0])
    for env in range(NUM_ENVS):
        envs.restart(env)
    fill(replay, [stack_stream(1, seed=9)[0]])
    assert not replay.num_breaks_E.any()


def test_the_repr_shows_shapes_not_data() -> None:
    assert repr(fill(make_replay(DISCRETE), vector_stream(DISCRETE, 2))) == "TransitionReplay(6 of 3 x 20 transitions)"
