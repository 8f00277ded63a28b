"""The trajectory store gives back what was added, survives kills and refuses damaged files by name."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from memory.trajectories import Episode, frame_stacks
from memory.trajectory_files import FLAT, map_file
from memory.trajectory_store import (
    DatasetError,
    TrajectoryFacts,
    TrajectoryFile,
    TrajectoryWriter,
    consolidate,
    episode_numbers,
    read_directory,
    task_path,
)

VECTOR = TrajectoryFacts(
    env_id="Meta-World/MT1",
    suite="metaworld",
    task="reach-v3",
    observation_kind="vector",
    obs_shape=(3,),
    obs_dtype="float32",
    action_kind="continuous",
    action_size=2,
    protocol_hash="abc",
    goal_visible=False,
    versions={"metaworld": "3.1.1"},
    extra={"goal": [0.1, 0.2], "nested": {"a": None}},
)
FRAMES = replace(
    VECTOR,
    task="ALE/Pong-v5",
    observation_kind="frames",
    obs_shape=(4, 6, 5),
    obs_dtype="uint8",
    action_kind="discrete",
    num_actions=6,
    action_size=None,
)
IMAGE = replace(FRAMES, task="breakout", observation_kind="image", obs_shape=(3, 10, 10))


def make_episode(facts=VECTOR, index=0, **changes):
    rng = np.random.default_rng(index)
    steps = int(rng.integers(1, 12))
    shape = (steps + 1, *facts.stored_shape)
    pixels = facts.obs_dtype == "uint8"
    discrete = facts.action_kind == "discrete"
    given = {
        "obs": rng.integers(0, 256, shape, np.uint8) if pixels else rng.normal(size=shape).astype(np.float32),
        "action": rng.integers(0, 6, steps) if discrete else rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "reward": rng.normal(size=steps).astype(np.float32),
        "terminated": bool(rng.integers(2)),
        "truncated": bool(rng.integers(2)),
        "success": rng.integers(0, 2, steps).astype(bool) if index % 3 else None,
        "task": facts.task,
        "seed": index + 100,
        "goal_index": index if index % 2 else None,
        "noise": index / 10,
        "source": "expert" if index % 2 else "run:café@100",
    }
    return Episode(**given | changes)


def write(directory, facts=VECTOR, indices=range(5), **options):
    with TrajectoryWriter(directory, facts, **options) as writer:
        for index in indices:
            writer.add(make_episode(facts, index))
    return consolidate(directory, facts.task)


def assert_same(episode, expected):
    for name in ("obs", "action", "reward", "success"):
        got, wanted = getattr(episode, name), getattr(expected, name)
        assert (got is None) == (wanted is None)
        if wanted is not None:
            assert got.dtype == wanted.dtype
            assert np.array_equal(got, wanted)
    for name in ("terminated", "truncated", "task", "seed", "goal_index", "noise", "source", "raw_return", "succeeded"):
        assert getattr(episode, name) == getattr(expected, name), name


@pytest.mark.parametrize("facts", [VECTOR, FRAMES, IMAGE], ids=lambda facts: facts.observation_kind)
def test_what_was_added_comes_back(tmp_path, facts):
    file = TrajectoryFile.open(write(tmp_path, facts))
    episodes = [make_episode(facts, index) for index in range(5)]
    assert file.facts == facts
    assert (file.num_episodes, file.num_steps) == (5, sum(episode.length for episode in episodes))
    for index, episode in enumerate(episodes):
        assert_same(file.episode(index), episode)
    assert file.lengths_E.tolist() == [episode.length for episode in episodes]
    assert file.returns_E.tolist() == [episode.raw_return for episode in episodes]
    known = [np.nan if episode.success is None else float(episode.success.any()) for episode in episodes]
    assert np.array_equal(file.successes_E, known, equal_nan=True)
    with pytest.raises(IndexError, match="episode 5"):
        file.episode(5)


def test_the_arrays_are_read_only_aligned_views_of_the_file(tmp_path):
    file = TrajectoryFile.open(write(tmp_path))
    base = file.obs
    while isinstance(base, np.ndarray) and base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    for name in (*FLAT, "episode_offsets"):
        assert file.arrays[name].ctypes.data % file.arrays[name].dtype.itemsize == 0
    with pytest.raises(ValueError, match="read-only"):
        file.obs[0] = 1


def test_frames_give_back_the_stacks_of_their_episode(tmp_path):
    file = TrajectoryFile.open(write(tmp_path, FRAMES))
    for index in range(file.num_episodes):
        frames, start = make_episode(FRAMES, index).obs, file.obs_starts_E[index]
        last = file.lengths_E[index]
        stack = frame_stacks(file.obs, start, last, FRAMES.stack_num)
        history = frames[max(last - 3, 0) : last + 1]
        assert np.array_equal(stack[4 - len(history) :], history)
        assert not stack[: 4 - len(history)].any()


def test_plain_h5py_reads_it_in_five_lines(tmp_path):
    path = write(tmp_path)
    with h5py.File(path) as file:
        index, offsets = 2, file["episode_offsets"][()]
        begin, end = offsets[index : index + 2]
        obs, action = file["obs"][begin + index : end + index + 1], file["action"][begin:end]
        assert file.attrs["task"] == "reach-v3" and not file.attrs["goal_visible"]
    assert np.array_equal(obs, make_episode(index=2).obs)
    assert np.array_equal(action, make_episode(index=2).action)


def test_float16_halves_vectors_and_refuses_what_it_cannot_hold(tmp_path):
    file = TrajectoryFile.open(write(tmp_path, float16=True))
    assert file.obs.dtype == np.float16 and file.facts.obs_dtype == "float16"
    assert np.array_equal(file.episode(1).obs, make_episode(index=1).obs.astype(np.float16))
    writer = TrajectoryWriter(tmp_path, VECTOR, first_episode=9, float16=True)
    with pytest.raises(ValueError, match=r"obs reaches 70000\.0, float16 holds up to 65504"):
        writer.add(make_episode(obs=np.full((make_episode().length + 1, 3), 70000, np.float32)))
    with pytest.raises(ValueError, match=r"float16=True.*'frames'"):
        TrajectoryWriter(tmp_path, FRAMES, float16=True)


@pytest.mark.parametrize(
    ("facts", "episode", "message"),
    [
        (VECTOR, make_episode(task="push-v3"), "'push-v3'.*'reach-v3'"),
        (VECTOR, make_episode(IMAGE, task="reach-v3"), r"obs is uint8\[3, 10, 10\], expected float32\[3\]"),
        (replace(VECTOR, action_size=3), make_episode(), r"action is continuous \[2\], expected continuous \[3\]"),
        (VECTOR, make_episode(action=np.zeros(make_episode().length, np.int64)), "action is discrete"),
        (replace(FRAMES, num_actions=2), make_episode(FRAMES, index=1), "num_actions=2"),
    ],
)
def test_an_episode_that_does_not_match_the_facts_is_refused(tmp_path, facts, episode, message):
    with TrajectoryWriter(tmp_path, facts) as writer, pytest.raises(ValueError, match=message):
        writer.add(episode)
    with pytest.raises(ValueError, match="open writer"):
        writer.add(make_episode())
    assert episode_numbers(tmp_path, facts.task) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_kind": "pixels"}, "'pixels'.*'vector', 'frames', 'image'"),
        ({"obs_dtype": "float64"}, "obs_dtype: got 'float64'"),
        ({"obs_shape": (2, 2)}, r"obs_shape: got \(2, 2\).*1 sizes"),
        ({"action_size": None}, "action_size: got None"),
        ({"num_actions": 4}, "num_actions: got 4.*None"),
        ({"task": ""}, "task: got ''"),
        ({"extra": {"a": np.zeros(1)}}, "extra: got"),
        ({"format_version": 2}, "format_version: got 2"),
    ],
)
def test_facts_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(VECTOR, **changes)


def test_facts_survive_json_and_unknown_keys_are_refused():
    assert TrajectoryFacts.from_json(FRAMES.to_json()) == FRAMES
    with pytest.raises(ValueError, match=r"unknown.*surplus"):
        TrajectoryFacts.from_json(FRAMES.to_json() | {"surplus": 1})


# ------------------------------------------------------------------ parts and merging


def test_parts_of_several_writers_are_ordered_by_number_and_appended_later(tmp_path):
    late, early = TrajectoryWriter(tmp_path, VECTOR, first_episode=3), TrajectoryWriter(tmp_path, VECTOR)
    late.add(make_episode(index=3), make_episode(index=4))
    early.add(make_episode(index=0))
    with pytest.raises(DatasetError, match="not merged yet"):
        read_directory(tmp_path)
    consolidate(tmp_path, VECTOR.task)
    early.add(make_episode(index=1))
    assert episode_numbers(tmp_path, VECTOR.task) == [0, 1, 3, 4]
    consolidate(tmp_path, VECTOR.task)
    (file,) = read_directory(tmp_path)
    assert file.arrays["episode_number"].tolist() == [0, 1, 3, 4]
    for place, index in enumerate([0, 1, 3, 4]):
        assert_same(file.episode(place), make_episode(index=index))
    assert [path.name for path in tmp_path.iterdir()] == ["reach-v3.h5"]


def test_equal_episodes_give_equal_files_however_they_were_added(tmp_path):
    one = write(tmp_path / "one")
    (tmp_path / "two").mkdir()
    with TrajectoryWriter(tmp_path / "two", VECTOR, first_episode=2) as writer:
        writer.add(*(make_episode(index=index) for index in range(2, 5)))
    write(tmp_path / "two", indices=range(2))
    two = consolidate(tmp_path / "two", VECTOR.task)
    assert one.read_bytes() == two.read_bytes()


def test_more_parts_than_may_stay_mapped_are_merged_alike(tmp_path, monkeypatch):
    expected = write(tmp_path / "one").read_bytes()
    monkeypatch.setattr("memory.trajectory_store._MAX_MAPPED", 2)
    assert write(tmp_path / "two").read_bytes() == expected


def test_merging_again_changes_nothing(tmp_path):
    path = write(tmp_path)
    content, inode = path.read_bytes(), path.stat().st_ino
    assert consolidate(tmp_path, VECTOR.task) == path
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def test_a_merge_killed_before_it_removed_the_parts_is_finished_by_the_next(tmp_path):
    for index in range(3):
        TrajectoryWriter(tmp_path, VECTOR, first_episode=index).add(make_episode(index=index))
    parts = tmp_path / "reach-v3.parts"
    kept = {part.name: part.read_bytes() for part in parts.iterdir()}
    content = consolidate(tmp_path, VECTOR.task).read_bytes()
    parts.mkdir()
    for name, data in kept.items():
        (parts / name).write_bytes(data)
    (tmp_path / ".reach-v3.h5.123.tmp").write_bytes(b"half")
    (parts / ".00000001.h5.123.tmp").write_bytes(b"half")
    assert consolidate(tmp_path, VECTOR.task).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["reach-v3.h5"]


def test_two_episodes_of_one_number_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="episode 2 of task 'reach-v3' is already in"):
        TrajectoryWriter(tmp_path, VECTOR, first_episode=2).add(make_episode())
    write(tmp_path / "other", indices=[9])
    parts = tmp_path / "reach-v3.parts"
    parts.mkdir()
    (tmp_path / "other" / "reach-v3.h5").rename(parts / "00000000.h5")
    with pytest.raises(DatasetError, match=r"00000000\.h5: its episode 0 is not episode 0 of"):
        consolidate(tmp_path, VECTOR.task)


def test_parts_of_different_envs_are_refused_and_other_versions_are_kept(tmp_path):
    write(tmp_path, indices=[0])
    newer = replace(VECTOR, code_version="2", seed=5, extra={"x": 1})
    write(tmp_path, newer, indices=[1], first_episode=1)
    (file,) = read_directory(tmp_path)
    source = {"versions": VECTOR.versions, "code_version": "2", "seed": 5, "extra": {"x": 1}}
    assert file.facts == replace(VECTOR, extra={**VECTOR.extra, "other_sources": [source]})
    write(tmp_path, newer, indices=[2], first_episode=2)
    assert read_directory(tmp_path)[0].facts == file.facts
    TrajectoryWriter(tmp_path, replace(VECTOR, goal_visible=True), first_episode=3).add(make_episode())
    with pytest.raises(DatasetError, match=r"reach-v3\.h5: its parts do not belong together: goal_visible is True"):
        consolidate(tmp_path, VECTOR.task)


def test_a_damaged_part_stops_the_merge_and_nothing_is_lost(tmp_path):
    write(tmp_path, indices=[0])
    TrajectoryWriter(tmp_path, VECTOR, first_episode=1).add(make_episode(index=1))
    part = tmp_path / "reach-v3.parts" / "00000001.h5"
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(DatasetError, match=r"00000001\.h5: has"):
        consolidate(tmp_path, VECTOR.task)
    assert part.exists()
    assert TrajectoryFile.open(task_path(tmp_path, VECTOR.task)).num_episodes == 1


def test_a_folder_is_read_sorted_by_task_and_an_empty_one_is_refused(tmp_path):
    write(tmp_path, IMAGE)
    path = write(tmp_path, FRAMES)
    assert path.name == "ALE%2FPong-v5.h5"
    assert [file.facts.task for file in read_directory(tmp_path)] == ["ALE/Pong-v5", "breakout"]
    assert [file.facts.task for file in read_directory(path)] == ["ALE/Pong-v5"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: holds no \.h5 files"):
        read_directory(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"missing\.h5: cannot be read \(No such file"):
        read_directory(tmp_path / "missing.h5")
    with pytest.raises(DatasetError, match=r"push\.h5: does not exist, and there are no parts"):
        consolidate(tmp_path, "push")


def test_large_facts_are_kept(tmp_path):
    facts = replace(VECTOR, extra={"goals": [float(value) for value in range(20_000)]})
    assert TrajectoryFile.open(write(tmp_path, facts)).facts == facts


KILLED = """
import sys
import numpy as np
from memory.trajectories import Episode
from memory.trajectory_store import TrajectoryFacts, TrajectoryWriter
facts = TrajectoryFacts(env_id="e", suite="s", task="t", observation_kind="vector", obs_shape=(4,),
                        obs_dtype="float32", action_kind="discrete", num_actions=2)
writer = TrajectoryWriter(sys.argv[1], facts, first_episode=int(sys.argv[2]))
while True:
    number = writer.next_episode
    steps = 1 + number % 50
    writer.add(Episode(obs=np.full((steps + 1, 4), number, np.float32), action=np.zeros(steps, np.int64),
                       reward=np.full(steps, number, np.float32), terminated=True, truncated=False, success=None,
                       task="t", seed=number))
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_loses_at_most_the_open_episode(tmp_path):
    rng, done = random.Random(3), -1
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(done + 1)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path.cwd(),
        )
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        done = int(([str(done), *process.communicate()[0].split("\n")[:-1]])[-1])
        numbers = episode_numbers(tmp_path, "t")
        assert numbers in (list(range(done + 1)), list(range(done + 2)))
        done = numbers[-1]
    file = TrajectoryFile.open(consolidate(tmp_path, "t"))
    assert file.arrays["episode_number"].tolist() == list(range(done + 1))
    for number in range(done + 1):
        episode = file.episode(number)
        assert episode.length == 1 + number % 50
        assert (episode.reward == number).all() and (episode.obs == number).all()


# ------------------------------------------------------------------ damage


def test_no_flipped_bit_is_loaded(tmp_path):
    path = write(tmp_path, FRAMES)
    content = path.read_bytes()
    rng = random.Random(0)
    places = [rng.randrange(512) for _ in range(10)] + [rng.randrange(512, len(content)) for _ in range(30)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"ALE%2FPong-v5\.h5: "):
            TrajectoryFile.open(path)
    path.write_bytes(content)
    TrajectoryFile.open(path)


def test_no_truncated_file_is_loaded_even_unverified(tmp_path):
    path = write(tmp_path)
    content = path.read_bytes()
    rng = random.Random(1)
    for size in [0, 1, 511, 512, 513, len(content) - 1, *(rng.randrange(len(content)) for _ in range(30))]:
        path.write_bytes(content[:size])
        for verify in (True, False):
            with pytest.raises(DatasetError, match=r"reach-v3\.h5: "):
                TrajectoryFile.open(path, verify=verify)


def reseal(path):
    """Gives a changed file a seal that matches, as a faulty writer would."""
    from memory.trajectory_files import _write_seal

    _write_seal(path)


def change(path, alter):
    with h5py.File(path, "r+") as file:
        alter(file)
    reseal(path)


def replaced(name, make):
    def alter(file):
        old = file[name][()]
        del file[name]
        file.create_dataset(name, **make(old))

    return alter


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda file: file.pop("reward"), r"datasets missing \['reward'\]"),
        (lambda file: file.create_dataset("more", data=[1]), r"unknown \['more'\]"),
        (replaced("reward", lambda old: {"data": old[:-1]}), r"reward is float32\["),
        (replaced("reward", lambda old: {"data": old.astype(np.float64)}), "reward is float64"),
        (replaced("obs", lambda old: {"data": old[:, :2]}), r"obs is float32\[.*, 2\], expected"),
        (replaced("obs", lambda old: {"data": old, "chunks": (2, 3)}), "obs is chunked"),
        (replaced("reward", lambda old: {"data": old.astype(">f4")}), "reward is empty or of a dtype"),
        (replaced("episode_offsets", lambda old: {"data": old[::-1].copy()}), "episode_offsets holds values"),
        (replaced("episode_offsets", lambda old: {"data": old + 1}), "episode_offsets holds values"),
        (replaced("episode_number", lambda old: {"data": old[::-1].copy()}), "episode_number holds values"),
        (replaced("success", lambda old: {"data": old + 2}), "success holds values"),
        (replaced("noise", lambda old: {"data": old - 1}), "noise holds values"),
        (replaced("source", lambda old: {"data": old, "dtype": h5py.string_dtype()}), "source is"),
        (lambda file: file.attrs.pop("task"), r"facts: missing \['task'\]"),
        (lambda file: file.attrs.create("odd", 1), r"unknown \['odd'\]"),
        (lambda file: file.attrs.modify("format_version", 2), "format_version: got 2"),
        (lambda file: file.attrs.modify("extra", "{"), "Expecting property name"),
    ],
)
def test_a_file_of_another_schema_is_refused(tmp_path, alter, message):
    path = write(tmp_path)
    change(path, alter)
    for verify in (True, False):
        with pytest.raises(DatasetError, match=rf"reach-v3\.h5: .*{message}"):
            TrajectoryFile.open(path, verify=verify)


def test_datasets_that_lie_elsewhere_are_refused(tmp_path):
    path, other = write(tmp_path), write(tmp_path / "other")

    def link(file):
        del file["reward"]
        file["reward"] = h5py.ExternalLink(other, "reward")

    change(path, link)
    with pytest.raises(DatasetError, match=r"reach-v3\.h5: reward is a link"):
        TrajectoryFile.open(path)
    change(path, lambda file: (file.pop("reward"), file.create_group("reward")))
    with pytest.raises(DatasetError, match=r"reach-v3\.h5: reward is a group"):
        TrajectoryFile.open(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w") as file:
        file["obs"] = np.zeros(100)
    with pytest.raises(DatasetError, match=r"plain\.h5: is not a trajectory file"):
        TrajectoryFile.open(plain)
    newer = write(tmp_path)
    newer.write_bytes(newer.read_bytes().replace(b"sextant-trajectories 1", b"sextant-trajectories 2"))
    with pytest.raises(DatasetError, match="has format '2', this version of Sextant reads format 1"):
        TrajectoryFile.open(newer)
    with pytest.raises(DatasetError, match="cannot be read"):
        map_file(tmp_path, verify=False)
