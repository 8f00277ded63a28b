"""One guard per known defect of Tianshou 2.0.1's buffers; each shows the defect where it can, and ours without it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tianshou.data import Batch, PrioritizedVectorReplayBuffer, ReplayBuffer, VectorReplayBuffer

from memory import ReplayConfig
from memory.frame_replay import FrameReplay
from memory.replay import Replay
from tests.memory.reference import FRAME, LIFE, TRUNCATED, RandomEnvs
from tests.memory.test_tianshou_algorithms import (
    DISCRETE,
    NUM_ENVS,
    STEPS,
    collected,
    fill,
    make_replay,
    vector_stream,
)

STACKS = gym.spaces.Box(0, 255, (3, *FRAME), np.uint8)


def one_env(stack: int = 3, **settings: Any) -> Replay:
    space = gym.spaces.Box(0, 255, (stack, *FRAME), np.uint8)
    config = ReplayConfig(**{"capacity": 10, "frames": "single", **settings})
    return config.build(space, DISCRETE, 1, np.random.default_rng(0), lambda _: None)


def play(replay: Replay, envs: RandomEnvs, events: list[int]) -> list[Any]:
    transitions = []
    for event in events:
        transition, over = envs.step(0, event)
        rows: dict[str, Any] = {
            name: np.array([getattr(transition, name)])
            for name in ("obs", "act", "rew", "terminated", "truncated", "obs_next")
        }
        replay.add_step(**rows, episode_over=np.array([over]))
        transitions.append(transition)
    return transitions


def test_defect_1_hasnull_does_not_copy_the_buffer() -> None:
    replay = ReplayConfig(capacity=20_000).build(
        gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), DISCRETE, 1, np.random.default_rng(0), lambda _: None
    )
    replay.ring.num_added_E[:] = 20_000
    started = time.perf_counter()
    assert replay.hasnull() is False
    assert time.perf_counter() - started < 0.5  # a copy of the 2.3 GB of stacks takes seconds


def test_defect_1_nan_is_refused_instead() -> None:
    replay, rows = make_replay(DISCRETE), vector_stream(DISCRETE, 1)[0]
    for name in ("obs", "obs_next", "rew"):
        spoiled = rows | {name: rows[name].copy()}
        spoiled[name][1] = np.nan
        with pytest.raises(ValueError, match=f"{name} holds NaN in row 1"):
            fill(replay, [spoiled])
    assert len(replay) == 0


def test_defect_2_a_restored_replay_knows_its_unfinished_episodes() -> None:
    stream = vector_stream(DISCRETE, 9)
    stream[-1]["terminated"][:] = stream[-1]["truncated"][:] = False
    theirs = pickle.loads(pickle.dumps(fill(VectorReplayBuffer(60, NUM_ENVS), stream)))
    ours = make_replay(DISCRETE)
    fill(ours, stream)
    restored = make_replay(DISCRETE, seed=5)
    restored.load([ours.new_data(None)], ours.state())
    ended = vector_stream(DISCRETE, 1)[0] | {"obs": stream[-1]["obs_next"], "terminated": np.ones(NUM_ENVS, bool)}
    assert fill(theirs, [ended]).unfinished_index().tolist() != []  # the defect
    assert restored.unfinished_index().tolist() == ours.unfinished_index().tolist() != []
    assert fill(restored, [ended]).unfinished_index().tolist() == []


def test_defect_2_pickling_is_refused() -> None:
    replay = make_replay(DISCRETE)
    attempts: list[Callable[[], Any]] = [
        lambda: pickle.dumps(replay),
        lambda: replay.save_hdf5("x"),
        lambda: type(replay).load_hdf5("x"),
    ]
    for attempt in attempts:
        with pytest.raises(TypeError, match=r"state\(\) and new_data\(\)"):
            attempt()


@pytest.mark.parametrize("frames", ["single", "full"])
def test_defect_4_a_reset_from_outside_ends_the_open_episode(frames: str) -> None:
    replay, envs = one_env(frames=frames), RandomEnvs(1, 3, np.random.default_rng(0))
    last = play(replay, envs, [0, 0, 0])[-1]
    envs.restart(0)
    first = play(replay, envs, [0, 0])[0]
    batch, _ = replay.sample(0)
    assert batch.truncated.tolist() == batch.done.tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(batch.obs_next[2], last.obs_next)
    np.testing.assert_array_equal(batch.obs[3], first.obs)
    assert replay.num_breaks_E.tolist() == [1]
    assert replay.next(2) == 2 and replay.prev(3) == 3


def test_defect_4_with_tianshous_collector() -> None:
    space: Any = gym.make("CartPole-v1").observation_space
    lengths = []
    for buffer in (make_replay(gym.spaces.Discrete(2), space, capacity=600), VectorReplayBuffer(600, NUM_ENVS)):
        collector, _ = collected(buffer, n_step=15)  # 5 steps into each first episode
        collector.reset(reset_buffer=False, gym_reset_kwargs={"seed": 1})
        lengths.append(collector.collect(n_episode=NUM_ENVS).lens.tolist())
    assert [theirs - ours for ours, theirs in zip(*lengths, strict=True)] == [5, 5, 5]  # theirs: two in one


def test_defect_4_streams_that_never_continue_are_an_error() -> None:
    replay, envs = one_env(), RandomEnvs(1, 3, np.random.default_rng(0))
    play(replay, envs, [0])
    envs.restart(0)
    play(replay, envs, [0])
    envs.restart(0)
    with pytest.raises(ValueError, match=r"envs \[0\]: obs is not the obs_next before it, twice in a row"):
        play(replay, envs, [0])
    assert len(replay) == 2


def test_defect_5_the_seed_decides_the_samples() -> None:
    stream = vector_stream(DISCRETE, STEPS)
    theirs = [fill(VectorReplayBuffer(60, NUM_ENVS, random_seed=seed), stream).sample_indices(32) for seed in (1, 2)]
    assert np.array_equal(np.bincount(theirs[0] // 20), np.bincount(theirs[1] // 20))  # the defect: always seed 42
    ours = [fill(make_replay(DISCRETE, seed=seed), stream).sample_indices(32) for seed in (1, 1, 2)]
    assert np.array_equal(ours[0], ours[1])
    assert not np.array_equal(np.bincount(ours[0] // 20), np.bincount(ours[2] // 20))


def test_defect_5_envs_are_sampled_independently_and_uniformly() -> None:
    replay = make_replay(DISCRETE)
    for env, steps in enumerate((2, 20, 8)):
        for rows in vector_stream(DISCRETE, steps):
            replay.add(Batch({name: array[[env]] for name, array in rows.items()}), buffer_ids=[env])
    counts = np.bincount(replay.sample_indices(60_000), minlength=60)
    held = replay.sample_indices(0)
    assert counts.sum() == counts[held].sum()
    chi_square = ((counts[held] - 2000) ** 2 / 2000).sum()
    assert chi_square < 60  # 29 degrees of freedom: p > 0.0006


def test_defect_6_beta_takes_effect() -> None:
    theirs = fill(PrioritizedVectorReplayBuffer(60, NUM_ENVS, alpha=0.5, beta=0.5), vector_stream(DISCRETE, 5))
    ours = fill(make_replay(DISCRETE, prioritised=True), vector_stream(DISCRETE, 5))
    at, errors = np.array([0, 1]), np.array([1.0, 16.0])
    for buffer in (theirs, ours):
        buffer.update_weight(at, errors)
    for beta, expected in ((0.5, 0.5), (1.0, 0.25), (0.0, 1.0)):  # (sqrt(1) / sqrt(16)) ** beta
        theirs.set_beta(beta)
        ours.set_beta(beta)
        assert ours[at].weight.tolist() == pytest.approx([1.0, expected], rel=1e-6)
        assert theirs[at].weight[1] == pytest.approx(0.5, rel=1e-3)  # the defect


def test_defect_9_extra_keys_are_refused_not_dropped() -> None:
    rows = vector_stream(DISCRETE, 1)[0]
    for extra, name in (({"dist": np.zeros(NUM_ENVS)}, "dist"), ({"policy": Batch(h=np.zeros(NUM_ENVS))}, "policy.h")):
        with pytest.raises(ValueError, match=rf"does not store \['{name}'\]"):
            make_replay(DISCRETE).add(Batch({**rows, **extra}))


def test_entries_attached_later_are_sampled_but_not_saved_in_silence() -> None:
    replay = fill(make_replay(DISCRETE), vector_stream(DISCRETE, 4))
    replay.set_array_at_key(np.arange(4.0), "goal", index=np.arange(4))
    assert replay[np.arange(4)].goal.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"\['goal'\] were attached"):
        replay.state()


def test_first_stacks_are_zero_padded_not_repeated() -> None:
    replay = one_env()
    transitions = play(replay, RandomEnvs(1, 3, np.random.default_rng(0)), [0, 0])
    batch, _ = replay.sample(0)
    assert not batch.obs[0, :2].any() and not batch.obs[1, :1].any() and batch.obs[1, 1:].all()
    np.testing.assert_array_equal(batch.obs_next[1], transitions[1].obs_next)


def test_a_lost_life_ends_returns_but_not_the_stack() -> None:
    replay = one_env()
    transitions = play(replay, RandomEnvs(1, 3, np.random.default_rng(0)), [0, 0, LIFE, 0, 0])
    batch, indices = replay.sample(0)
    assert batch.obs[3].all()  # the true history, across the life
    np.testing.assert_array_equal(batch.obs[3], transitions[3].obs)
    np.testing.assert_array_equal(batch.obs_next[2], transitions[2].obs_next)
    returns, discounts, last = replay.n_step(indices, 3, 0.5)
    assert last.tolist() == [2, 2, 2, 4, 4]
    assert discounts.tolist() == [0, 0, 0, 0.25, 0.5]
    assert returns[1] == pytest.approx(transitions[1].rew + 0.5 * transitions[2].rew)


def test_a_truncated_episode_bootstraps_from_its_own_last_observation() -> None:
    replay, envs = one_env(), RandomEnvs(1, 3, np.random.default_rng(0))
    transitions = play(replay, envs, [0, 0, TRUNCATED, 0])
    assert isinstance(replay, FrameReplay)
    np.testing.assert_array_equal(replay.next_obs(np.array([2]))[0], transitions[2].obs_next)
    assert [array.tolist() for array in replay.n_step(np.array([1]), 5, 0.5)[1:]] == [[0.25], [2]]
    theirs = ReplayBuffer(10, stack_num=3, ignore_obs_next=True, save_only_last_obs=True)
    for row in transitions:
        theirs.add(Batch(**{name: getattr(row, name) for name in ("obs", "act", "rew", "terminated", "truncated")}))
    np.testing.assert_array_equal(theirs[2].obs_next, theirs[2].obs)  # the defect


def test_final_frames_are_freed_with_their_slots() -> None:
    replay, envs = one_env(capacity=4), RandomEnvs(1, 3, np.random.default_rng(0))
    assert isinstance(replay, FrameReplay)
    play(replay, envs, [TRUNCATED] * 200)
    assert len(replay.finals.frames) <= 16
