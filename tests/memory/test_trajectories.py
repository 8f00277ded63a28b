"""Episodes refuse what does not fit; stacks survive the way through single frames."""

import json

import numpy as np
import pytest

from memory.data_summary import DataSummary
from memory.trajectories import Episode, episode_sums, frame_stacks, frames_of_stacks


def values(steps=3, **changes):
    good = {
        "obs": np.zeros((steps + 1, 2), np.float32),
        "action": np.zeros((steps, 1), np.float32),
        "reward": np.ones(steps, np.float32),
        "terminated": False,
        "truncated": True,
        "success": np.zeros(steps, bool),
        "task": "reach-v3",
        "seed": 7,
    }
    return good | changes


def test_an_episode_tells_its_length_return_and_success():
    episode = Episode(
        **values(reward=np.array([1, -2, 0.5], np.float32), success=np.array([False, True, False]), goal_index=4)
    )
    assert (episode.length, episode.raw_return, episode.succeeded) == (3, -0.5, True)
    assert Episode(**values()).succeeded is False
    assert Episode(**values(success=None)).succeeded is None


def test_the_repr_shows_shapes_not_data():
    shown = repr(Episode(**values(obs=np.zeros((4, 84, 84), np.uint8))))
    assert "obs=uint8[4, 84, 84]" in shown and "task='reach-v3'" in shown
    assert len(shown) < 250


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.zeros((3, 2), np.float32)}, r"obs: got shape \(3, 2\).*\(4, ...\)"),
        ({"obs": np.zeros((4, 2))}, "obs: got.*float64, expected.*float32"),
        ({"obs": np.full((4, 2), np.nan, np.float32)}, "obs: .*NaN"),
        ({"obs": [[0.0]] * 4}, "obs: got 'list'"),
        ({"action": np.zeros((2, 1), np.float32)}, r"action: got shape \(2, 1\)"),
        ({"action": np.zeros((3, 1), np.int64)}, r"action: got shape \(3, 1\) of int64"),
        ({"action": np.full((3, 1), 1.5, np.float32)}, r"action: .*1\.5.*\[-1, 1\]"),
        ({"action": np.full((3, 1), -1.5, np.float32)}, r"action: .*-1\.5.*\[-1, 1\]"),
        ({"action": np.array([0, -3, 0])}, "action: .*-3.*>= 0"),
        ({"reward": np.zeros(3)}, "reward: got.*float64"),
        ({"reward": np.array([0, np.inf, 0], np.float32)}, "reward: .*infinite"),
        ({"reward": np.zeros(0, np.float32)}, r"reward: got shape \(0,\).*T >= 1"),
        ({"success": np.zeros(4, bool)}, r"success: got shape \(4,\)"),
        ({"success": np.zeros(3, np.int8)}, "success: .*int8"),
        ({"terminated": 1}, "terminated: got 1"),
        ({"task": ""}, "task: got ''"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 1.0}, "seed: got 1.0"),
        ({"goal_index": -2}, "goal_index: got -2"),
        ({"noise": -0.1}, "noise: got -0.1"),
        ({"noise": float("nan")}, "noise: got nan"),
        ({"source": "a\0b"}, "source: got"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"Episode.{message}"):
        Episode(**values(**changes))


def test_discrete_actions_and_all_observation_dtypes_are_accepted():
    for dtype in (np.float32, np.float16, np.uint8):
        Episode(**values(obs=np.zeros((4, 2), dtype), action=np.array([0, 5, 2])))


def stacks_of(frames, stack):
    """The stacks an env would show, frame by frame."""
    history = [np.zeros_like(frames[0])] * stack
    shown = []
    for frame in frames:
        history = [*history[1:], frame]
        shown.append(np.stack(history))
    return np.stack(shown)


@pytest.mark.parametrize("stack", [1, 3, 4])
def test_stacks_are_rebuilt_bit_for_bit_and_never_cross_episodes(stack):
    rng = np.random.default_rng(0)
    lengths = [6, 2, 1, 9]
    episodes = [rng.integers(1, 256, (length, 5, 4), np.uint8) for length in lengths]
    expected = np.concatenate([stacks_of(frames, stack) for frames in episodes])
    frames = np.concatenate([frames_of_stacks(stacks_of(each, stack)) for each in episodes])
    offsets = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    steps = np.concatenate([np.arange(length) for length in lengths])
    assert np.array_equal(frame_stacks(frames, offsets, steps, stack), expected)
    order = rng.permutation(len(steps)).reshape(3, 6)
    assert np.array_equal(frame_stacks(frames, offsets[order], steps[order], stack), expected[order])


def test_an_episode_from_stacks_keeps_single_frames():
    frames = np.random.default_rng(1).integers(1, 256, (4, 84, 84), np.uint8)
    given = {name: value for name, value in values(action=np.array([0, 1, 2])).items() if name != "obs"}
    assert np.array_equal(Episode.from_stacks(stacks_of(frames, 4), **given).obs, frames)


def test_stacks_that_cannot_be_rebuilt_are_refused():
    stacks = stacks_of(np.arange(1, 7, dtype=np.uint8)[:, None, None] * np.ones((2, 2), np.uint8), 3)
    with pytest.raises(ValueError, match="first stack"):
        frames_of_stacks(stacks[1:])
    stacks[4, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="stack 4 is not"):
        frames_of_stacks(stacks)
    with pytest.raises(ValueError, match=r"shape \(6, 2, 2\)"):
        frames_of_stacks(stacks[:, 0])


def test_frame_stacks_refuses_bad_arguments():
    frames = np.zeros((5, 2, 2), np.uint8)
    for offsets, steps, stack in [([0], [-1], 2), ([0, 0], [1], 2), ([0], [1], 0)]:
        with pytest.raises(ValueError, match=f"stack_num={stack}"):
            frame_stacks(frames, np.array(offsets), np.array(steps), stack)


def test_episode_sums_are_in_float64():
    values = np.array([1e8, 1, -1e8, 0.25, 0.5], np.float32)
    assert episode_sums(values, np.array([0, 3, 5])).tolist() == [1.0, 0.75]


SUMMARY = DataSummary(
    tasks=("b", "a"),
    obs_mean=(0.1, -2.0),
    obs_std=(1.0, 0.0),
    max_length=9,
    return_quantiles={"b": tuple(map(float, range(101))), "a": (1.5,) * 101},
    max_abs_reward=3.0,
    num_episodes=4,
    num_steps=20,
    digests={"a.h5": "00ff"},
)


def test_a_summary_survives_json():
    assert DataSummary.from_json(json.loads(json.dumps(SUMMARY.to_json()))) == SUMMARY


def test_return_quantiles_are_interpolated():
    assert SUMMARY.return_quantile("b", 0.0) == 0.0
    assert SUMMARY.return_quantile("b", 0.125) == 12.5
    assert SUMMARY.return_quantile("b", 1.0) == 100.0
    with pytest.raises(ValueError, match=r"quantile=1\.01"):
        SUMMARY.return_quantile("b", 1.01)
    with pytest.raises(ValueError, match=r"'c'.*b, a"):
        SUMMARY.return_quantile("c", 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["a", "a"]}, "tasks="),
        ({"obs_std": None}, "obs_mean and obs_std"),
        ({"obs_std": [1.0]}, "2 entries, obs_std 1"),
        ({"obs_mean": [float("nan"), 0]}, "finite"),
        ({"return_quantiles": {"a": [0.0] * 101}}, r"\['a'\]"),
        ({"return_quantiles": {"a": [0.0] * 101, "b": [0.0] * 100}}, "'b'.*101.*100"),
        ({"return_quantiles": {"a": [0.0] * 101, "b": [1.0] + [0.0] * 100}}, "'b' must not decrease"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_abs_reward": -1.0}, r"max_abs_reward=-1\.0"),
        ({"surplus": 1}, r"unknown keys \['surplus'\]"),
    ],
)
def test_a_summary_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DataSummary.from_json(SUMMARY.to_json() | changes)
