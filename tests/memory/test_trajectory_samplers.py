"""Samplers: uniform over steps, balanced, padded as told, with the past shifted by one, and resumable to the bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.trajectories import Episode
from memory.trajectory_data import Observations, TrajectoryData
from memory.trajectory_samplers import SegmentBatch, StreamSampler, WindowSampler
from memory.trajectory_store import TrajectoryFacts, TrajectoryFile, TrajectoryWriter, consolidate

CHI_SQUARE_59 = 98.32  # 99.9 % point at 59 degrees of freedom
FIELDS = ("obs", "previous_action", "previous_reward", "return_to_go", "timestep", "action", "reward")


def facts(task: str, **changes: Any) -> TrajectoryFacts:
    return TrajectoryFacts(
        **{
            "env_id": "toy",
            "suite": "toy",
            "task": task,
            "observation_kind": "vector",
            "obs_shape": (3,),
            "obs_dtype": "float32",
            "action_kind": "continuous",
            "action_size": 2,
            **changes,
        }
    )


def episode(task: str, number: int, length: int, reward: np.ndarray | None = None) -> Episode:
    """Gives an episode whose observations tell (number, step, 1), and whose actions do so too."""
    step = np.arange(length + 1, dtype=np.float32)
    obs = np.stack([np.full(length + 1, number, np.float32), step, np.ones(length + 1, np.float32)], axis=1)
    action = np.stack([np.full(length, number / 100, np.float32), (step[:-1] + 1) / 100], axis=1)
    reward = step[:-1] + 1 if reward is None else reward
    return Episode(
        obs=obs,
        action=action.astype(np.float32),
        reward=np.asarray(reward, np.float32),
        terminated=True,
        truncated=False,
        success=None,
        task=task,
        seed=number,
    )


def write(directory: Path, facts: TrajectoryFacts, episodes: list[Episode]) -> TrajectoryFile:
    with TrajectoryWriter(directory, facts) as writer:
        writer.add(*episodes)
    return TrajectoryFile.open(consolidate(directory, facts.task))


def toy(directory: Path, lengths: dict[str, list[int]], **options: Any) -> TrajectoryData:
    files, number = [], 0
    for task, each in lengths.items():
        episodes = [episode(task, number + place, length) for place, length in enumerate(each)]
        files.append(write(directory, facts(task), episodes))
        number += len(each)
    return TrajectoryData(files, **options)


def windows(data: TrajectoryData, *, seed: int = 0, **options: Any) -> WindowSampler:
    chosen: dict[str, Any] = {"context_length": 4, "batch_size": 8, "rng": np.random.default_rng(seed)}
    return WindowSampler(data, **chosen | options)


def stream(data: TrajectoryData, *, seed: int = 0, **options: Any) -> StreamSampler:
    chosen: dict[str, Any] = {
        "context_length": 4,
        "num_segments": 2,
        "batch_size": 8,
        "rng": np.random.default_rng(seed),
    }
    return StreamSampler(data, **chosen | options)


def same(one: SegmentBatch, other: SegmentBatch, rows: slice = slice(None)) -> bool:
    pairs = [(value, other.__dict__[name]) for name, value in one.__dict__.items() if value is not None]
    return all(np.array_equal(value, expected[rows]) for value, expected in pairs)


def test_a_window_by_hand(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [2, 3]})
    sampler = windows(data, batch_size=64)
    batch, place_B = sampler.sample(64)
    row = int(np.flatnonzero(place_B == 3)[0])  # the second episode's second step
    assert batch.obs[row, 0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]]
    assert batch.action[row, 0, 2:] == pytest.approx(np.array([[0.01, 0.01], [0.01, 0.02]]))
    assert batch.previous_action[row, 0] == pytest.approx(np.array([[0, 0], [0, 0], [0, 0], [0.01, 0.01]]))
    assert batch.reward[row, 0].tolist() == [0, 0, 1, 2]
    assert batch.previous_reward[row, 0].tolist() == [0, 0, 0, 1]
    assert batch.return_to_go[row, 0].tolist() == [0, 0, 6, 5]  # 1 + 2 + 3, 2 + 3: the last reward counts
    assert batch.timestep[row, 0].tolist() == [0, 0, 0, 1]
    assert batch.valid[row, 0].tolist() == [False, False, True, True]
    assert batch.is_first_step[row, 0].tolist() == [False, False, True, False]
    assert batch.starts.all() and batch.starts.shape == (64, 1)
    assert len(batch) == 64
    assert "obs=float32[64, 1, 4, 3]" in repr(batch)


def test_windows_are_uniform_over_steps(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [1, 7, 12], "b": [30, 10]})
    sampler = windows(data, batch_size=500)
    count = np.bincount(np.concatenate([sampler.sample(500)[1] for _ in range(60)]), minlength=60)
    expected = 60 * 500 / 60
    assert ((count - expected) ** 2 / expected).sum() < CHI_SQUARE_59


@pytest.mark.parametrize(("balance", "shares"), [("tasks", [1 / 2, 1 / 2]), ("episodes", [3 / 4, 1 / 4])])
def test_balanced_windows(tmp_path: Path, balance: str, shares: list[float]) -> None:
    data = toy(tmp_path, {"a": [10, 10, 10], "b": [70]})
    sampler = windows(data, batch_size=2000, balance=balance)
    batch, place_B = sampler.sample(2000)
    for task, share in enumerate(shares):
        found = (batch.task[:, 0] == task).mean()
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / 2000)
    inside = np.bincount(place_B[place_B >= 30] - 30, minlength=70)
    assert inside.min() > 0 or balance == "episodes"  # 1000 draws of 70 steps: each is met
    assert np.bincount(place_B[place_B < 30], minlength=30).min() > 0


def test_where_nothing_is_valid_everything_is_zero(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [1, 2, 9]})
    for sampler in (windows(data, context_length=6), stream(data, context_length=6)):
        batch, _ = sampler.sample(8)
        assert not batch.valid.all()
        for name in FIELDS:
            assert not getattr(batch, name)[~batch.valid].any()


def test_stream_rows_keep_their_episode(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [5, 9, 3, 14], "b": [8]})
    sampler = stream(data, num_segments=3, batch_size=6)
    batches = [sampler.sample(6)[0] for _ in range(20)]
    number_BT = np.concatenate([batch.obs[..., 0, 0] for batch in batches], axis=1)
    step_BT = np.concatenate([batch.timestep[..., 0] for batch in batches], axis=1)
    starts_BT = np.concatenate([batch.starts for batch in batches], axis=1)
    count_BT = np.concatenate([batch.valid.sum(axis=-1) for batch in batches], axis=1)
    length_BT = data.length_E[number_BT.astype(int)]
    assert starts_BT[:, 0].all() and not starts_BT.all()
    assert (starts_BT == (step_BT == 0)).all()
    for segment in range(1, number_BT.shape[1]):
        ended = step_BT[:, segment - 1] + 4 >= length_BT[:, segment - 1]
        assert (starts_BT[:, segment] == ended).all()
        goes_on = ~ended
        assert (number_BT[goes_on, segment] == number_BT[goes_on, segment - 1]).all()
        assert (step_BT[goes_on, segment] == step_BT[goes_on, segment - 1] + 4).all()
    assert (count_BT == np.minimum(4, length_BT - step_BT)).all()
    for batch in batches:  # padded on the right
        assert (np.diff(batch.valid.astype(int), axis=-1) <= 0).all()
        assert (batch.task == (batch.obs[..., 0, 0] == 4)).all()


def test_a_stream_segment_knows_the_step_before_it(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [10]})
    batch, _ = stream(data, num_segments=3, batch_size=1).sample(1)
    assert batch.previous_reward[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]
    assert batch.return_to_go[0, :, 0].tolist() == [55, 45, 19]
    assert batch.starts.tolist() == [[True, False, False]]


@pytest.mark.parametrize("random_offset", [False, True])
@pytest.mark.parametrize(
    ("balance", "shares"), [("steps", [1 / 3, 2 / 3]), ("tasks", [0.5, 0.5]), ("episodes", [5 / 6, 1 / 6])]
)
def test_shares_of_stream_steps(tmp_path: Path, balance: str, shares: list[float], random_offset: bool) -> None:
    data = toy(tmp_path, {"a": [8] * 5, "b": [80]})
    sampler = stream(data, batch_size=64, balance=balance, random_offset=random_offset)
    steps = np.zeros(2)
    for _ in range(400):
        batch, _ = sampler.sample(64)
        steps += np.bincount(batch.task.ravel(), weights=batch.valid.sum(axis=-1).ravel(), minlength=2)
    assert (steps / steps.sum()).tolist() == pytest.approx(shares, abs=0.03)


def test_random_offsets_enter_at_every_multiple_of_the_context(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [18]})
    sampler = stream(data, batch_size=400, num_segments=1, random_offset=True)
    batch, _ = sampler.sample(400)
    entered = np.bincount(batch.timestep[:, 0, 0], minlength=17)
    assert np.flatnonzero(entered).tolist() == [0, 4, 8, 12, 16]
    assert entered[[0, 4, 8, 12, 16]].min() > 50  # of 80 expected each
    assert batch.starts.all()


@pytest.mark.parametrize("make", [windows, stream])
@pytest.mark.parametrize("balance", ["steps", "tasks", "episodes"])
def test_going_on_bit_for_bit(tmp_path: Path, make: Any, balance: str) -> None:
    data = toy(tmp_path, {"a": [5, 9, 3], "b": [11]})
    sampler = make(data, seed=3, balance=balance)
    for _ in range(5):
        sampler.sample(8)
    arrays, state = sampler.state()
    kept = {name: array.copy() for name, array in arrays.items()}
    expected = [sampler.sample(8) for _ in range(7)]
    assert all(np.array_equal(kept[name], arrays[name]) for name in kept)  # the state is a copy
    other = make(data, seed=99, balance=balance)
    other.load(arrays, state)
    for batch, place_B in expected:
        again, place_again_B = other.sample(8)
        assert same(batch, again) and np.array_equal(place_B, place_again_B)


@pytest.mark.parametrize("make", [windows, stream])
@pytest.mark.parametrize("balance", ["steps", "tasks", "episodes"])
def test_the_number_of_calls_does_not_grow_with_the_batch(tmp_path: Path, make: Any, balance: str) -> None:
    data = toy(tmp_path, {"a": [90] * 5, "b": [90] * 5})
    counted: dict[int, int] = {}
    for batch_size in (4, 256):
        sampler = make(data, batch_size=batch_size, balance=balance)
        sampler.sample(batch_size)
        counted[batch_size] = 0

        def count(frame: Any, event: str, argument: Any, batch_size: int = batch_size) -> None:
            counted[batch_size] += "call" in event

        sys.setprofile(count)
        sampler.sample(batch_size)
        sys.setprofile(None)
    assert counted[4] > 10 and abs(counted[4] - counted[256]) < 20  # a few branches depend on what was drawn


@pytest.mark.parametrize("make", [windows, stream])
def test_slices_of_processes_make_up_the_batch(tmp_path: Path, make: Any) -> None:
    data = toy(tmp_path, {"a": [5, 9, 3], "b": [11]})
    options = {"num_prompt_steps": 2} if make is windows else {}
    whole = make(data, **options)
    parts = [make(data, **options).rows(rank, 2) for rank in range(2)]
    for _ in range(4):
        batch, place_B = whole.sample(8)
        for rank, part in enumerate(parts):
            rows = slice(4 * rank, 4 * rank + 4)
            mine, mine_B = part.sample(8)
            assert len(mine) == 4 and same(mine, batch, rows) and np.array_equal(mine_B, place_B[rows])


def test_prompts_come_from_the_same_task(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [5, 2], "b": [11, 4]})
    batch, _ = windows(data, batch_size=200, num_prompt_steps=3).sample(200)
    assert batch.prompt_obs is not None and batch.prompt_valid is not None and batch.prompt_return_to_go is not None
    assert batch.prompt_obs.shape == (200, 3, 3) and batch.prompt_valid[:, -1].all()
    number_B = batch.prompt_obs[:, -1, 0]
    assert ((number_B >= 2) == (batch.task[:, 0] == 1)).all()
    assert set(number_B.tolist()) == {0, 1, 2, 3}
    assert (number_B != batch.obs[:, 0, -1, 0]).any()
    assert not batch.prompt_return_to_go[~batch.prompt_valid].any()


def test_stacks_of_frames_are_rebuilt(tmp_path: Path) -> None:
    kinds = {"observation_kind": "frames", "obs_shape": (3, 9, 9), "obs_dtype": "uint8"}
    files = []
    for task, first in (("a", 1), ("b", 100)):
        frames = (first + np.arange(6, dtype=np.uint8))[:, None, None] * np.ones((9, 9), np.uint8)
        source = episode(task, 0, 5)
        pixels = Episode(**{**source.__dict__, "obs": frames})
        files.append(write(tmp_path, facts(task, **kinds), [pixels]))
    data = TrajectoryData(files)
    assert data.obs_mean is None and data.obs_std is None and data.summary().obs_mean is None
    batch, place_B = windows(data, batch_size=100, context_length=2).sample(100)
    assert batch.obs.shape == (100, 1, 2, 3, 9, 9) and batch.obs.dtype == np.uint8
    for place, newest in ((0, [0, 0, 1]), (1, [0, 1, 2]), (4, [3, 4, 5]), (9, [102, 103, 104])):
        row = int(np.flatnonzero(place_B == place)[0])
        assert batch.obs[row, 0, 1, :, 4, 4].tolist() == newest
    assert data.obs(np.array([0]), np.array([5]))[0, :, 0, 0].tolist() == [4, 5, 6]  # the last observation


def test_observations_in_several_files_equal_those_in_memory(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [5, 9], "b": [11]})
    on_disk = Observations(data.files, max_resident_bytes=0)
    first, step = data.first_obs_E[[[2, 2], [0, 0], [1, 1]]], np.array([[1, 11], [0, 5], [3, 9]])
    expected = data.observations.gather(first, step)
    assert expected[..., 0].tolist() == [[2, 2], [0, 0], [1, 1]] and expected[..., 1].tolist() == step.tolist()
    assert np.array_equal(on_disk.gather(first, step), expected)


def test_half_precision_observations_come_as_float32(tmp_path: Path) -> None:
    with TrajectoryWriter(tmp_path, facts("a"), float16=True) as writer:
        writer.add(episode("a", 0, 5))
    data = TrajectoryData([TrajectoryFile.open(consolidate(tmp_path, "a"))])
    assert windows(data).sample(8)[0].obs.dtype == np.float32


def test_statistics_are_over_all_tasks_and_what_was_acted_on(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [2], "b": [3]})
    assert data.obs_mean is not None and data.obs_std is not None
    numbers, steps = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 2])  # without the last observations
    assert data.obs_mean.tolist() == pytest.approx([numbers.mean(), steps.mean(), 1])
    assert data.obs_std.tolist() == pytest.approx([numbers.std(), steps.std(), 0])
    summary = data.summary()
    assert (summary.tasks, summary.max_length, summary.num_episodes, summary.num_steps) == (("a", "b"), 3, 2, 5)
    assert summary.return_quantile("b", 0.5) == 6 and summary.max_abs_reward == 3
    assert sorted(summary.digests.values()) == sorted(file.digest for file in data.files)


def test_clipped_rewards_make_clipped_returns(tmp_path: Path) -> None:
    made = write(tmp_path, facts("a"), [episode("a", 0, 3, np.array([5, -3, 0.5]))])
    told = write(tmp_path, facts("b", reward_clip=True), [episode("b", 0, 3, np.array([5, -3, 0.5]))])
    assert TrajectoryData([made]).return_to_go.tolist() == [2.5, -2.5, 0.5]
    assert TrajectoryData([made], clip_reward=True).return_to_go.tolist() == [0.5, -0.5, 0.5]
    assert TrajectoryData([told]).return_to_go.tolist() == [0.5, -0.5, 0.5]
    assert TrajectoryData([told]).summary().max_abs_reward == 1


def test_tasks_demonstrations_and_the_best_of_them(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [4, 6, 5, 7], "b": [3, 2]})
    files = data.files
    assert TrajectoryData(files, tasks=["b", "a"]).tasks == ("b", "a")
    only = TrajectoryData(files, tasks=["b"])
    assert (only.num_episodes, only.task_E.tolist(), len(only.reward)) == (2, [0, 0], 5)
    few = TrajectoryData(files, episodes_per_task=1)
    assert few.length_E.tolist() == [4, 3]
    best = TrajectoryData(files, top_fraction=0.5)
    assert best.length_E.tolist() == [6, 7, 3]  # longer is better here, in the order of the file
    batch, _ = windows(best, batch_size=300).sample(300)
    assert set(batch.obs[:, 0, -1, 0].tolist()) == {1, 3, 4}
    assert best.fingerprint != data.fingerprint


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    files = toy(tmp_path, {"reach-v3": [4], "push-v3": [3]}).files
    with pytest.raises(ValueError, match=r"no episodes of 'reech-v3' in these files; did you mean 'reach-v3'"):
        TrajectoryData(files, tasks=["reech-v3"])
    with pytest.raises(ValueError, match="none twice"):
        TrajectoryData(files, tasks=["push-v3", "push-v3"])
    hidden = write(tmp_path / "hidden", facts("push-v3", goal_visible=False), [episode("push-v3", 0, 3)])
    with pytest.raises(ValueError, match=r"hidden.push-v3\.h5 has goal_visible=False, but .* has True"):
        TrajectoryData([*files, hidden])
    with pytest.raises(ValueError, match="no episode in 0 trajectory files"):
        TrajectoryData([])
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top_fraction={fraction}"):
            TrajectoryData(files, top_fraction=fraction)
    with pytest.raises(ValueError, match="episodes_per_task=0"):
        TrajectoryData(files, episodes_per_task=0)


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [4]})
    wrong: dict[str, Any] = {"context_length": 0, "batch_size": 0, "balance": "task", "num_prompt_steps": -1}
    for option, value in wrong.items():
        with pytest.raises(ValueError, match=f"{option}={value!r}"):
            windows(data, **{option: value})
    with pytest.raises(ValueError, match="num_segments=0"):
        stream(data, num_segments=0)
    with pytest.raises(ValueError, match="batch_size=16: this sampler was built for 8"):
        windows(data).sample(16)
    for rank, world in ((2, 2), (-1, 2), (0, 3)):
        with pytest.raises(ValueError, match=f"rank={rank}, world={world}"):
            windows(data).rows(rank, world)


def test_a_state_of_another_sampler_is_refused(tmp_path: Path) -> None:
    data = toy(tmp_path, {"a": [4, 5]})
    arrays, state = windows(data).state()
    with pytest.raises(ValueError, match=r"context_length.*\(4, 5\)"):
        windows(data, context_length=5).load(arrays, state)
    with pytest.raises(ValueError, match="data"):
        windows(TrajectoryData(data.files, episodes_per_task=1)).load(arrays, state)
    with pytest.raises(ValueError, match="WindowSampler"):
        stream(data).load(arrays, state)
