"""Random streams through every replay and through a slow reference: the same stacks, returns and restores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory import ReplayConfig
from memory.frame_replay import FrameReplay
from memory.replay import Replay
from memory.transition_replay import TransitionReplay
from tests.memory.reference import FRAME, TERMINATED, TRUNCATED, RandomEnvs, ReferenceReplay

Op = tuple[str, int, list[int]]

OPS = st.lists(
    st.tuples(
        st.sampled_from(["step"] * 12 + ["cut", "outside reset", "forget", "checkpoint", "priorities"]),
        st.integers(1, 7),  # which envs, as bits
        st.lists(st.sampled_from([0] * 8 + [1, 2, 3, 4]), min_size=3, max_size=3),  # what happens to each
    ),
    min_size=1,
    max_size=60,
)


class Pair:
    """One replay and its reference, fed the same stream."""

    def __init__(self, build: Callable[[], Replay], num_envs: int, stack: int, seed: int) -> None:
        self.build, self.replay = build, build()
        self.reference = ReferenceReplay(num_envs, self.replay.ring.limit)
        self.rng = np.random.default_rng(seed)
        self.envs = RandomEnvs(num_envs, stack, self.rng)
        self.chunks: list[dict[str, np.ndarray]] = []
        self.since: np.ndarray | None = None
        self.largest = 1.0
        self.num_breaks = [0] * num_envs
        self.broken_length = [-1] * num_envs  # steps since an outside reset broke the episode, -1: it did not

    def run(self, ops: list[Op]) -> None:
        for name, bits, events in ops:
            ids = [env for env in range(self.reference.num_envs) if bits >> env & 1]
            getattr(self, "do_" + name.replace(" ", "_"))(ids, events)
            self.check()

    def do_step(self, ids: list[int], events: list[int]) -> None:
        if not ids:
            return
        steps = [self.envs.step(env, events[env]) for env in ids]
        rows: dict[str, Any] = {
            name: np.array([getattr(transition, name) for transition, _ in steps])
            for name in ("obs", "act", "rew", "terminated", "truncated", "obs_next")
        }
        over = np.array([over for _, over in steps])
        self.replay.add_step(**rows, episode_over=over, env_ids=np.array(ids))
        for env, (transition, _) in zip(ids, steps, strict=True):
            transition.priority = self.largest
            self.reference.add(env, transition)
            if self.broken_length[env] >= 0:
                self.broken_length[env] = -1 if transition.done else self.broken_length[env] + 1

    def do_cut(self, ids: list[int], events: list[int]) -> None:
        self.replay.cut()
        for env in range(self.reference.num_envs):
            self.reference.close(env)
            self.envs.restart(env)
            self.broken_length[env] = -1

    def do_outside_reset(self, ids: list[int], events: list[int]) -> None:
        for env in ids:
            if self.broken_length[env] == 1 or not self.reference.num_added[env]:
                continue  # twice in a row is an error, tested elsewhere
            was_open = self.replay._is_open(np.array([env]))[0]
            self.envs.restart(env)
            self.reference.close(env)
            self.do_step([env], events)  # the replay notices here
            self.num_breaks[env] += was_open
            self.broken_length[env] = 1 if was_open else -1

    def do_forget(self, ids: list[int], events: list[int]) -> None:
        self.replay.reset(keep_statistics=True)
        self.reference.reset()
        self.chunks = []  # what the checkpoints before hold is not needed any more

    def do_checkpoint(self, ids: list[int], events: list[int]) -> None:
        self.chunks.append({name: np.array(rows) for name, rows in self.replay.new_data(self.since).items()})
        state = self.replay.state()
        restored = self.build()
        restored.load(iter(self.chunks), state)
        self.since = self.replay.num_added.copy()
        if len(restored):
            for batch_size in (3, None, 5):
                batch, indices = self.replay.sample(batch_size)
                same, same_indices = restored.sample(batch_size)
                np.testing.assert_array_equal(indices, same_indices)
                for key in batch.get_keys():
                    if key not in ("info", "policy"):
                        np.testing.assert_array_equal(batch[key], same[key])
        again = restored.state()
        original = self.replay.state()
        assert again[1] == original[1]
        assert again[0].keys() == original[0].keys()
        for key, array in original[0].items():
            np.testing.assert_array_equal(again[0][key], array)
        self.replay = restored

    def do_priorities(self, ids: list[int], events: list[int]) -> None:
        if self.replay.priorities is None or not len(self.replay):
            return
        _, indices = self.replay.sample(4)
        errors = self.rng.normal(size=4) * 3
        self.replay.update_weight(indices, errors)
        at = {index: transition for index, _, _, transition in self.reference.items(self.replay.ring.slots)}
        for index, error in zip(indices, errors, strict=True):
            at[int(index)].priority = float((np.abs(error) + 1e-10) ** 0.5)
            self.largest = max(self.largest, at[int(index)].priority)

    def check(self) -> None:
        replay, reference, slots = self.replay, self.reference, self.replay.ring.slots
        items = reference.items(slots)
        assert len(replay) == len(items)
        batch, indices = replay.sample(0)
        assert indices.tolist() == [index for index, *_ in items]
        assert np.flatnonzero(replay.ring.is_held(np.arange(-3, replay.maxsize + 3))).tolist() == sorted(
            index + 3 for index, *_ in items
        )
        unfinished = []
        for row, (index, env, position, transition) in enumerate(items):
            transitions = reference.envs[env]
            np.testing.assert_array_equal(batch.obs[row], transition.obs)
            expected_next = transition.obs_next.copy()
            if isinstance(replay, FrameReplay) and transition.terminated and transition.stream_ended:
                expected_next[-1] = 0
            np.testing.assert_array_equal(batch.obs_next[row], expected_next)
            for name in ("act", "rew", "terminated", "truncated", "done"):
                assert batch[name][row] == getattr(transition, name), name
            newest = position == len(transitions) - 1
            following = position if transition.done or newest else position + 1
            assert replay.next(index) == reference.index(slots, env, following)
            leading = position if position == 0 or transitions[position - 1].done else position - 1
            assert replay.prev(index) == reference.index(slots, env, leading)
            if newest and not transition.done:
                unfinished.append(index)
            if replay.priorities is not None:
                assert replay.priorities.leaves(np.array([index]))[0] == pytest.approx(transition.priority, rel=1e-12)
        assert replay.unfinished_index().tolist() == unfinished
        assert replay.num_breaks_E.tolist() == self.num_breaks
        for n_step in (1, 3):
            self.check_n_step(indices, items, n_step)
        if replay.priorities is not None:
            leaves = replay.priorities.leaves(np.arange(replay.maxsize))
            assert np.flatnonzero(leaves).tolist() == sorted(indices.tolist())
        if items:
            assert set(replay.sample_indices(5).tolist()) <= set(indices.tolist())

    def check_n_step(self, indices: np.ndarray, items: list[Any], n_step: int) -> None:
        returns, discounts, last = self.replay.n_step(indices, n_step, 0.9)
        for row, (_, env, position, _) in enumerate(items):
            total, discount, last_position = self.reference.n_step(env, position, n_step, 0.9)
            assert returns[row] == pytest.approx(total, rel=1e-6, abs=1e-7)
            assert discounts[row] == np.float32(discount)
            assert last[row] == self.reference.index(self.replay.ring.slots, env, last_position)


def build(frames: str, stack: int, num_envs: int, capacity: int, prioritised: bool) -> Replay:
    observation_space = gym.spaces.Box(0, 255, (stack, *FRAME), np.uint8)
    config = ReplayConfig(capacity=capacity, frames=frames, prioritised=prioritised)
    replay = config.build(observation_space, gym.spaces.Discrete(9), num_envs, np.random.default_rng(7), lambda _: None)
    assert isinstance(replay, FrameReplay if frames == "single" else TransitionReplay)
    return replay


@settings(max_examples=40, deadline=None)
@given(
    ops=OPS,
    stack=st.integers(1, 4),
    num_envs=st.integers(1, 3),
    per_env=st.integers(1, 9),
    prioritised=st.booleans(),
    seed=st.integers(0, 2**20),
)
@pytest.mark.parametrize("frames", ["single", "full"])
def test_equals_reference(
    frames: str, ops: list[Op], stack: int, num_envs: int, per_env: int, prioritised: bool, seed: int
) -> None:
    capacity = per_env * num_envs
    Pair(lambda: build(frames, stack, num_envs, capacity, prioritised), num_envs, stack, seed).run(ops)


@pytest.mark.parametrize("frames", ["single", "full"])
@pytest.mark.parametrize("prioritised", [False, True])
def test_equals_reference_over_a_long_run(frames: str, prioritised: bool) -> None:
    rng = np.random.default_rng(3)
    names = ["step"] * 30 + ["cut", "outside reset", "forget", "checkpoint", "checkpoint", "priorities"]
    ops = [
        (str(rng.choice(names)), int(rng.integers(1, 8)), rng.choice([0, 0, 0, 0, 0, 1, 2, 3, 4], 3).tolist())
        for _ in range(400)
    ]
    Pair(lambda: build(frames, 4, 3, 36, prioritised), 3, 4, seed=1).run(ops)


def test_the_streams_reach_every_seam() -> None:
    """The generator above must produce what the replay has branches for; otherwise the tests prove little."""
    envs = RandomEnvs(1, 3, np.random.default_rng(0))
    transition, over = envs.step(0, TRUNCATED)
    assert over and transition.truncated and not envs.obs[0, :-1].any()
    transition, over = envs.step(0, TERMINATED)
    assert over and transition.terminated and transition.obs_next[-2:].all()
