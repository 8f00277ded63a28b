"""The traps of ale-py's AtariVectorEnv, one test each; the raw environment is the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import gymnasium
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch, Collector, VectorReplayBuffer

from envs.atari import atari_protocol
from envs.atari.vector import AtariVector
from envs.base import EpisodeSpec
from envs.protocols import MAX_SEED, AtariProtocol, derive_seeds

BREAKOUT = atari_protocol("dopamine", "breakout", "evaluation")
LIVES = 5  # of Breakout
TABLE = np.random.default_rng(0).integers(0, 4, (2000, 4))
Make = Callable[..., AtariVector]


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    """Builds environments, or gives the one built before under the same rules: loading ROMs takes most of the time."""
    built: dict[tuple[str, int, int], AtariVector] = {}

    def build(protocol: AtariProtocol = BREAKOUT, num_envs: int = 4, num_threads: int = 1) -> AtariVector:
        key = (protocol.hash, num_envs, num_threads)
        if key not in built:
            built[key] = AtariVector(protocol, num_envs, num_threads=num_threads)
        return built[key]

    yield build
    for venv in built.values():
        venv.close()


def raw_env(protocol: AtariProtocol, num_envs: int, mode: str) -> AtariVectorEnv:
    return AtariVectorEnv(
        protocol.env_name,
        num_envs,
        num_threads=1,
        max_num_frames_per_episode=protocol.max_frames,
        repeat_action_probability=protocol.sticky_prob,
        autoreset_mode=mode,
        noop_max=protocol.noop_max,
        use_fire_reset=protocol.fire_reset,
        life_loss_info=protocol.terminal_on_life_loss,
        reward_clipping=False,
    )


class TablePolicy(Policy):
    """Plays row t of the table at its t-th call."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        super().__init__(action_space=space, action_bound_method=None)
        self.time = 0

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Any:
        self.time += 1
        return Batch(act=TABLE[self.time - 1, : len(batch.obs)].copy(), state=None)


def play(venv: AtariVector, ids: list[int], actions: NDArray[np.int64]) -> list[tuple[Any, ...]]:
    """Steps the listed games, resetting what is over; gives what was seen."""
    seen = []
    for action in actions:
        obs, reward, terminated, truncated, info = venv.step(action, ids)
        seen.append((obs.copy(), reward, terminated, truncated, info["raw_reward"], info["episode_over"]))
        done = terminated | truncated
        if done.any():
            venv.reset(np.array(ids)[done])
    return seen


def assert_same(left: list[tuple[Any, ...]], right: list[tuple[Any, ...]]) -> None:
    assert len(left) == len(right)
    for mine, theirs in zip(left, right, strict=True):
        for mine_value, their_value in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(mine_value, their_value)


def life_loss_protocol() -> AtariProtocol:
    return BREAKOUT.changed(terminal_on_life_loss=True, noop_max=30, fire_reset=True, max_frames=800)


def test_tianshou_collects_what_a_raw_loop_sees_over_many_lost_lives_and_games(make: Make) -> None:
    """NEXT_STEP is an independent oracle: there a final observation is in `obs` and a reset is a step of its own."""
    protocol, steps = life_loss_protocol(), 450
    raw = raw_env(protocol, 1, "NextStep")
    seeds = [7, 8, 9, 10]
    expected: list[list[tuple[Any, ...]]] = []
    for index, seed in enumerate(seeds):
        rows: list[tuple[Any, ...]] = []
        obs, _ = raw.reset(seed=np.array([seed]))
        age = 0
        for time in range(steps):
            next_obs, reward, terminated, truncated, info = raw.step(TABLE[time, index : index + 1])
            rows.append((obs[0], TABLE[time, index], reward[0], terminated[0], truncated[0], next_obs[0]))
            obs, age = next_obs, age + 1
            if info["lives"][0] == 0 or age == protocol.max_episode_steps:
                obs, age = raw.step(np.array([0]))[0], 0  # the reset
        expected.append(rows)
    venv = make(protocol)
    buffer = VectorReplayBuffer(4 * steps, 4)
    collector: Collector[Any] = Collector(TablePolicy(venv.single_action_space), venv, buffer)
    collector.reset(gym_reset_kwargs={"seed": seeds})
    stats = collector.collect(n_step=4 * steps)
    for index, rows in enumerate(expected):
        part = buffer[np.arange(index * steps, (index + 1) * steps)]
        for column, key in enumerate(("obs", "act", "rew", "terminated", "truncated", "obs_next")):
            np.testing.assert_array_equal(getattr(part, key), np.stack([row[column] for row in rows]))
    assert stats.n_collected_episodes > 40
    assert buffer.truncated.sum() >= 2
    assert (buffer.terminated & ~buffer.info.episode_over).sum() > 20
    assert buffer.info.episode_over.sum() >= 8


def test_n_episode_collection_plays_whole_games_with_any_number_of_envs(make: Make) -> None:
    venv = make(BREAKOUT.changed(max_frames=1200))
    for num_episodes in (6, 2):
        buffer = VectorReplayBuffer(8000, 4)
        collector: Collector[Any] = Collector(TablePolicy(venv.single_action_space), venv, buffer)
        collector.reset(gym_reset_kwargs={"seed": 1})
        with pytest.warns(UserWarning, match="n_episode=2") if num_episodes == 2 else nullcontext():
            stats = collector.collect(n_episode=num_episodes)
        assert stats.n_collected_episodes == num_episodes
        assert len(buffer) == stats.lens.sum()
        assert buffer.done.sum() == buffer.info.episode_over.sum() == num_episodes
        starts = buffer.obs[[start for start in range(0, 8000, 2000) if buffer.obs[start].any()]]
        assert (starts[:, :3] == 0).all()
        assert collector.collect(n_step=8).n_collected_steps == 8  # the games left idle were reset


def test_a_lost_life_ends_the_learners_episode_but_not_the_game(make: Make) -> None:
    venv = make(life_loss_protocol().changed(max_frames=108_000))
    venv.reset(seed=3)
    lost = np.zeros(4, dtype=int)
    games = 0
    for action in TABLE[:1200]:
        obs, _, terminated, truncated, info = venv.step(action)
        assert not truncated.any()
        over = info["episode_over"]
        lost += terminated & ~over
        assert (lost[over] == LIVES - 1).all()  # episodic_life=True would end the game at the first one
        games += over.sum()
        lost[over] = 0
        for each in np.flatnonzero(terminated):
            kept, info_again = venv.reset(int(each))
            assert not info_again["episode_over"].any()
            assert (kept[0] == obs[each]).all() != over[each]
            assert (kept[0, :3] == 0).all() == over[each]
    assert games >= 4


def test_life_loss_changes_nothing_but_the_flag(make: Make) -> None:
    """Statistics over `raw_reward` and `episode_over` are those of an environment without life-loss episodes."""
    whole, cut = make(BREAKOUT), make(BREAKOUT.changed(terminal_on_life_loss=True, clip_reward=True))
    for venv in (whole, cut):
        venv.reset(seed=11)
    left, right = (play(venv, [0, 1, 2, 3], TABLE[:400]) for venv in (whole, cut))
    assert_same([(row[0], *row[4:]) for row in left], [(row[0], *row[4:]) for row in right])
    assert sum(row[2].sum() for row in right) > sum(row[2].sum() for row in left) > 0


@pytest.mark.parametrize(("game", "points"), [("qbert", 25), ("beam_rider", 44)])
def test_rewards_are_raw_in_evaluation_and_clipped_only_for_the_learner(make: Make, game: str, points: int) -> None:
    raw = make(atari_protocol("dopamine", game, "evaluation"), 2)
    clipped = make(atari_protocol("dopamine", game, "training"), 2)
    actions = np.random.default_rng(1).integers(0, int(raw.single_action_space.n), (300, 2))  # type: ignore[attr-defined]
    for venv in (raw, clipped):
        venv.reset(seed=4)
    left, right = (play(venv, [0, 1], actions) for venv in (raw, clipped))
    rewards, learner, recorded = (
        np.stack(each) for each in ([r[1] for r in left], [r[1] for r in right], [r[4] for r in right])
    )
    assert rewards.max() == points
    np.testing.assert_array_equal(recorded, rewards)
    np.testing.assert_array_equal(learner, np.clip(rewards, -1, 1))
    assert rewards.dtype == learner.dtype == recorded.dtype == np.float32


def test_first_stacks_are_padded_with_black(make: Make) -> None:
    venv = make()
    obs, _ = venv.reset(seed=0)
    assert obs.shape == (4, 4, 84, 84)
    assert obs.dtype == np.uint8
    assert (obs[:, :3] == 0).all()
    assert obs[:, 3].any(axis=(1, 2)).all()
    after = venv.step(np.zeros(4, int))[0]
    np.testing.assert_array_equal(after[:, 2], obs[:, 3])
    assert (after[:, :2] == 0).all()


@pytest.mark.parametrize(("max_frames", "steps"), [(40, 10), (41, 11)])
def test_the_cap_truncates_and_does_not_count_the_reset(make: Make, max_frames: int, steps: int) -> None:
    protocol = BREAKOUT.changed(max_frames=max_frames, noop_max=30, fire_reset=True)
    assert protocol.max_episode_steps == steps
    venv = make(protocol)
    venv.reset(seed=0)
    assert venv.reset_frames.max() > 8
    seen = play(venv, [0, 1, 2, 3], np.zeros((2 * steps, 4), int))
    for time, (_, _, terminated, truncated, _, over) in enumerate(seen, start=1):
        assert not terminated.any()
        assert truncated.all() == over.all() == (time % steps == 0)


def test_no_ops_and_fire_at_reset(make: Make) -> None:
    venv = make(BREAKOUT.changed(noop_max=30), 1)
    frames = []
    venv.reset(seed=0)
    for _ in range(150):
        venv.step(np.array([0]))
        venv.reset()
        frames.append(int(venv.reset_frames[0]))
    assert min(frames) == 0
    assert max(frames) == 29
    fire = make(BREAKOUT.changed(fire_reset=True, sticky_prob=0.0), 1)
    quiet = make(BREAKOUT.changed(sticky_prob=0.0), 1)
    for venv, reset_frames in ((fire, 1), (quiet, 0)):
        venv.reset(seed=0)
        assert venv.reset_frames.tolist() == [reset_frames]
    served, waiting = (play(venv, [0], np.zeros((20, 1), int)) for venv in (fire, quiet))
    assert any((left[0] != right[0]).any() for left, right in zip(served, waiting, strict=True))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 1, 2, 4]), r"0\.\.3, got \[0, 1, 2, 4\]"),
        (np.array([0, -1, 2, 3]), "-1"),
        (np.array([0.0, 1.0, np.nan, 3.0]), "nan"),
        (np.array([0, 1, 2]), r"shape \(4,\), got \(3,\)"),
    ],
)
def test_bad_actions_never_reach_the_emulator(make: Make, action: NDArray[Any], message: str) -> None:
    """Out of range, the C++ side would wait for ever for a worker thread that died."""
    venv = make()
    obs, _ = venv.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        venv.step(action)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        venv.step(np.array([7]), [2])
    np.testing.assert_array_equal(venv.step(np.array([0, 1, 2, 3], np.int32))[0][:, 2], obs[:, 3])


def test_an_episode_depends_on_its_seed_and_nothing_else(make: Make) -> None:
    """Number of games and threads, place among them, and what was played before make no difference."""
    protocol = BREAKOUT.changed(noop_max=30)
    specs = [EpisodeSpec(index, seed, "breakout") for index, seed in enumerate((5, 0, MAX_SEED))]
    alone = make(protocol, 1)
    expected = []
    for spec in specs:
        start, _ = alone.begin_episodes([0], [spec])
        expected.append([(start,), *play(alone, [0], TABLE[:60, :1])])
    for num_threads, order in ((1, [2, 0, 3]), (2, [3, 1, 0])):
        venv = make(protocol, 4, num_threads)
        venv.reset()
        play(venv, [0, 1, 2, 3], TABLE[:17])
        start, _ = venv.begin_episodes(order, specs)
        seen = play(venv, order, np.repeat(TABLE[:60, :1], 3, axis=1))
        for row in range(3):
            assert_same(
                [(start[row : row + 1],), *[tuple(v[row : row + 1] for v in step) for step in seen]], expected[row]
            )
    assert any((left[0] != right[0]).any() for left, right in zip(expected[0], expected[1], strict=True))


def test_int_seed_gives_each_game_its_own(make: Make) -> None:
    protocol = BREAKOUT.changed(noop_max=30)
    venv = make(protocol)
    by_int = venv.reset(seed=3)[0], play(venv, [0, 1, 2, 3], np.repeat(TABLE[:40, :1], 4, axis=1))
    by_list = venv.reset(seed=derive_seeds(3, 4))[0], play(venv, [0, 1, 2, 3], np.repeat(TABLE[:40, :1], 4, axis=1))
    venv.seed(3)
    later = venv.reset()[0], play(venv, [0, 1, 2, 3], np.repeat(TABLE[:40, :1], 4, axis=1))
    for other in (by_list, later):
        np.testing.assert_array_equal(other[0], by_int[0])
        assert_same(other[1], by_int[1])
    last = by_int[1][-1][0]
    assert all((last[i] != last[j]).any() for i in range(4) for j in range(i))
    venv.reset(seed=4)
    assert (play(venv, [0, 1, 2, 3], np.repeat(TABLE[:40, :1], 4, axis=1))[-1][0] != last).any()


def test_idle_games_are_never_seen_to_advance(make: Make) -> None:
    venv = make(BREAKOUT)
    venv.reset(seed=5)
    expected = play(venv, [0, 1, 2, 3], TABLE[:50])
    venv.reset(seed=5)
    columns = [3, 1]
    seen = play(venv, columns, TABLE[:50][:, columns])
    assert_same(seen, [tuple(value[columns] for value in step) for step in expected])
    with pytest.raises(RuntimeError, match=r"\[0, 2\]"):
        venv.step(TABLE[0])
    obs, _ = venv.reset([2, 0])
    assert (obs[:, :3] == 0).all()
    venv.step(TABLE[0])


def test_a_finished_game_must_be_reset(make: Make) -> None:
    venv = make(BREAKOUT.changed(max_frames=40))
    venv.reset(seed=0)
    play(venv, [0, 1, 2, 3], TABLE[:9])
    final = venv.step(TABLE[9])[0]
    with pytest.raises(RuntimeError, match=r"\[0, 1, 2, 3\]"):
        venv.step(TABLE[10])
    assert final[:, 0].any()
    assert (venv.reset()[0][:, :3] == 0).all()


def test_a_reset_inside_a_game_is_real_and_one_at_its_start_costs_nothing(make: Make) -> None:
    venv = make(BREAKOUT.changed(noop_max=30))
    first, _ = venv.reset(seed=5)
    again, _ = venv.reset()
    np.testing.assert_array_equal(first, again)
    venv.step(TABLE[0])
    assert (venv.reset(1)[0][0, :3] == 0).all()
    np.testing.assert_array_equal(venv.step(TABLE[1])[0][:, :2].any(axis=(1, 2, 3)), [True, False, True, True])


def test_returned_observations_are_the_callers(make: Make) -> None:
    venv = make(BREAKOUT.changed(max_frames=40))
    first, _ = venv.reset(seed=0)
    kept = first.copy()
    for action in TABLE[:10]:
        obs = venv.step(action)[0]
        obs[:] = 0
    np.testing.assert_array_equal(first, kept)
    start, _ = venv.reset()
    assert start[:, 3].any(axis=(1, 2)).all()
    start[:] = 0
    assert venv.reset()[0][:, 3].any(axis=(1, 2)).all()


def test_other_tasks_goals_options_and_seeds_are_refused(make: Make) -> None:
    venv = make()
    with pytest.raises(ValueError, match="'breakout', not \\['pong'\\]"):
        venv.begin_episodes([1], [EpisodeSpec(0, 1, "pong")])
    with pytest.raises(ValueError, match="no goals"):
        venv.begin_episodes([1], [EpisodeSpec(0, 1, "breakout", 3)])
    with pytest.raises(ValueError, match="'mode'"):
        venv.reset(options={"mode": 3})
    with pytest.raises(ValueError, match=str(MAX_SEED + 1)):
        venv.reset(seed=[1, 2, 3, MAX_SEED + 1])


def test_action_sets_and_rendering(make: Make) -> None:
    full = make(atari_protocol("machado2018", "breakout", "training"), 1)
    assert full.single_action_space == gymnasium.spaces.Discrete(18)
    assert make().single_action_space == gymnasium.spaces.Discrete(4)
    full.reset(seed=0)
    (image,) = full.render()
    assert image.shape == (84, 84, 3)
    assert image.dtype == np.uint8


def test_first_reset_may_be_of_some_games_only() -> None:
    venv = AtariVector(BREAKOUT, 2, num_threads=1)
    obs, _ = venv.begin_episodes([1], [EpisodeSpec(0, 9, "breakout")])
    assert obs.shape == (1, 4, 84, 84)
    with pytest.raises(RuntimeError, match=r"\[0\]"):
        venv.step(np.array([0, 0]))
    venv.step(np.array([0]), [1])
    venv.close()
    venv.close()
    with pytest.raises(RuntimeError, match="closed"):
        venv.reset()
