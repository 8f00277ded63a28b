from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers import replay_segments
from trainers.checkpoint_files import MANIFEST, SEAL, read_segment, seal
from trainers.checkpointing import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointStore,
    DamagedCheckpointError,
    Snapshot,
)


class FakeReplay:
    """Rings of counted numbers that save themselves as the real replay does."""

    def __init__(self, num_envs: int = 2, slots: int = 10) -> None:
        self.slots = slots
        self.counts = np.zeros(num_envs, np.int64)
        self.values = np.full(num_envs * slots, -1, np.int64)

    def add(self, *nums: int) -> None:
        for env, num in enumerate(nums):
            for count in range(self.counts[env], self.counts[env] + num):
                self.values[env * self.slots + count % self.slots] = 1000 * env + count
            self.counts[env] += num

    def chunk(self, since: np.ndarray | None) -> dict[str, np.ndarray]:
        first = np.maximum(self.counts - self.slots, 0)
        if since is not None:
            first = np.maximum(first, since - 1)  # the newest saved slot comes again
        where = [
            env * self.slots + count % self.slots
            for env in range(len(self.counts))
            for count in range(max(first[env], 0), self.counts[env])
        ]
        index = np.array(where, np.int64)
        return {"index": index, "value": self.values[index]}

    def restored(self, snapshot: Snapshot) -> np.ndarray:
        values = np.full_like(self.values, -1)
        for chunk in snapshot.replay_chunks:
            values[chunk["index"]] = chunk["value"]
        return values

    def saved_in(self, store: CheckpointStore, index: int, **more: Any) -> Path:
        chunk = self.chunk(store.replay_counts)
        ring = {"replay_chunk": chunk, "replay_counts": self.counts, "replay_slots": self.slots}
        return save(store, index, **ring, **more)


def save(store: CheckpointStore, index: int, **more: Any) -> Path:
    """Saves a small checkpoint whose contents tell its index."""
    torch_state = torch.Generator().manual_seed(index)
    parts: dict[str, Any] = {
        "env_steps": 1000 * index,
        "weights": {"layer.weight": torch.randn(4, 3, generator=torch_state), "layer.bias": torch.zeros(4)},
        "optimizer": {"state": {0: {"step": torch.tensor(float(index)), "exp_avg": torch.ones(4, 3)}}, "lr": 1e-3},
        "counters": {"index": index, "rng": {"state": 2**127 + index, "inc": 3}},
        "arrays": {"numbers": np.arange(index + 5)},
    }
    return store.save(index=index, **(parts | more))


def assert_is(snapshot: Snapshot | None, index: int) -> None:
    assert snapshot is not None
    expected = torch.randn(4, 3, generator=torch.Generator().manual_seed(index))
    assert (snapshot.index, snapshot.env_steps) == (index, 1000 * index)
    assert torch.equal(snapshot.weights["layer.weight"], expected)
    assert snapshot.counters == {"index": index, "rng": {"state": 2**127 + index, "inc": 3}}
    np.testing.assert_array_equal(snapshot.arrays["numbers"], np.arange(index + 5))
    assert snapshot.optimizer["state"][0]["step"] == index


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


# What goes in comes out


def test_an_empty_or_missing_directory_holds_nothing(store: CheckpointStore) -> None:
    assert (store.indices(), store.load_latest(), store.load_best(), store.replay_counts) == ([], None, None, None)
    assert not store.directory.exists()


def test_round_trip_and_layout(store: CheckpointStore) -> None:
    folder = FakeReplay().saved_in(store, 3)
    assert names(store.directory) == ["000003", "replay"]
    assert names(folder) == [
        "arrays.safetensors", "counters.json", "manifest.json", "manifest.sha256", "optimizer.pt",
        "weights.safetensors",
    ]  # fmt: skip
    assert names(store.directory / "replay") == ["000003.safetensors.zst"]
    assert_is(CheckpointStore(store.directory).load_latest(), 3)
    assert_is(CheckpointStore(store.directory).load(3), 3)


def test_what_cannot_come_back_is_refused_before_anything_is_written(store: CheckpointStore) -> None:
    with pytest.raises(TypeError, match="of type set"):
        save(store, 0, counters={"a": {3}})
    assert not store.directory.exists()


def test_the_index_must_grow(store: CheckpointStore) -> None:
    save(store, 4)
    for index in (4, 3, -1):
        with pytest.raises(ValueError, match=rf"index={index}: must be above 4"):
            save(store, index)


def test_keep_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep=0"):
        CheckpointStore(tmp_path, keep=0)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for index in range(6):
        save(store, index)
    assert store.indices() == [3, 4, 5]
    assert_is(store.load(3), 3)
    with pytest.raises(CheckpointError, match="has no checkpoint 000001"):
        store.load(1)


# Best


def test_best_is_replaced_and_survives_pruning(store: CheckpointStore) -> None:
    for index in range(4):
        save(store, index)
        store.save_best(1000 * index, {"w": torch.full((2,), float(index))}, {"score": index})
    assert names(store.directory / "best") == ["000000003000"]
    best = store.load_best()
    assert best is not None
    assert (best.index, best.env_steps, best.counters) == (-1, 3000, {"score": 3})
    assert (best.optimizer, best.arrays, len(best.replay_chunks)) == ({}, {}, 0)
    assert best.weights["w"].tolist() == [3.0, 3.0]


def test_best_of_the_same_step_is_written_again(store: CheckpointStore) -> None:
    for score in (1, 2):
        store.save_best(500, {"w": torch.zeros(2)}, {"score": score})
    best = store.load_best()
    assert best is not None
    assert best.counters == {"score": 2}
    assert names(store.directory / "best") == ["000000000500"]


def test_damaged_best_is_reported(tmp_path: Path) -> None:
    told: list[str] = []
    store = CheckpointStore(tmp_path, warn=told.append)
    folder = store.save_best(500, {"w": torch.zeros(2)}, {})
    (folder / "weights.safetensors").write_bytes(b"")
    assert store.load_best() is None
    assert len(told) == 1
    assert "weights.safetensors: has 0 bytes" in told[0]
    assert "no intact one is left" in told[0]


# Replay


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14), st.sampled_from(["", "", "load", "none"])), max_size=9),
    st.integers(1, 3),
)
def test_replay_is_restored_and_only_what_is_needed_is_kept(
    tmp_path_factory: pytest.TempPathFactory, saves: list[tuple[int, int, str]], keep: int
) -> None:
    store = CheckpointStore(tmp_path_factory.mktemp("run"), keep=keep)
    replay = FakeReplay()
    for index, (first, second, event) in enumerate(saves):
        replay.add(first, second)
        if event == "none":
            before = store.replay_counts
            save(store, index)
            np.testing.assert_array_equal(store.replay_counts, before)
            continue
        replay.saved_in(store, index)
        if event == "load":  # a new process goes on
            store = CheckpointStore(store.directory, keep=keep)
        snapshot = store.load_latest()
        assert snapshot is not None
        np.testing.assert_array_equal(replay.restored(snapshot), replay.values)
        np.testing.assert_array_equal(store.replay_counts, replay.counts)
    named = {entry["index"] for index in store.indices() for entry in manifest(store, index)["replay"]}
    if store.indices():
        assert names(store.directory / "replay") == [f"{index:06d}.safetensors.zst" for index in sorted(named)]


def manifest(store: CheckpointStore, index: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((store.directory / f"{index:06d}" / MANIFEST).read_bytes())
    return content


def test_only_new_data_is_written_and_overwritten_segments_are_dropped(tmp_path: Path) -> None:
    store, replay, segments = CheckpointStore(tmp_path, keep=1), FakeReplay(), []
    for index in range(6):
        replay.add(4, 4)
        assert len(replay.chunk(store.replay_counts)["index"]) == (8 if index == 0 else 10)
        replay.saved_in(store, index)
        segments.append([entry["index"] for entry in manifest(store, index)["replay"]])
    # 10 slots: data of save k (up to count 4k + 4) is gone once 4n + 4 - 10 >= 4k + 4, that is n >= k + 3.
    assert segments == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert names(tmp_path / "replay") == [f"00000{index}.safetensors.zst" for index in (3, 4, 5)]


def test_segments_stay_while_an_older_checkpoint_names_them(tmp_path: Path) -> None:
    store, replay = CheckpointStore(tmp_path, keep=2), FakeReplay()
    replay.add(3, 3)
    replay.saved_in(store, 0)
    replay.add(20, 20)
    replay.saved_in(store, 1)
    assert len(names(tmp_path / "replay")) == 2
    assert_is(store.load(0), 0)
    replay.add(20, 20)
    replay.saved_in(store, 2, replay_reset=True)
    assert names(tmp_path / "replay") == ["000001.safetensors.zst", "000002.safetensors.zst"]


def test_a_reset_forgets_earlier_data(store: CheckpointStore) -> None:
    replay = FakeReplay()
    replay.add(3, 3)
    replay.saved_in(store, 0)
    save(store, 1, replay_reset=True)
    assert store.replay_counts is None
    assert len(store.load(1).replay_chunks) == 0


def test_chunks_are_read_one_by_one(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, read = FakeReplay(), []
    for index in range(3):
        replay.add(2, 2)
        replay.saved_in(store, index)

    def note(path: Path) -> dict[str, np.ndarray]:
        read.append(path.name[:6])
        return read_segment(path)

    monkeypatch.setattr(replay_segments, "read_segment", note)
    snapshot = store.load_latest()
    assert snapshot is not None
    assert (len(snapshot.replay_chunks), read) == (3, [])
    next(iter(snapshot.replay_chunks))
    assert read == ["000000"]
    assert len(list(snapshot.replay_chunks)) == 3  # and again from the start


def test_contradicting_counters_are_refused(store: CheckpointStore) -> None:
    replay = FakeReplay()
    replay.add(3, 3)
    with pytest.raises(ValueError, match="replay_chunk needs replay_counts"):
        save(store, 0, replay_chunk=replay.chunk(None))
    replay.saved_in(store, 0)
    replay.counts -= 1
    with pytest.raises(ValueError, match=r"replay_counts=\[2, 2\]: must be at least \[3, 3\]"):
        replay.saved_in(store, 1)
    assert store.indices() == [0]


# Damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints; the last two share replay segments, the first needs none of them."""
    directory = tmp_path_factory.mktemp("sound")
    store, replay = CheckpointStore(directory, keep=3), FakeReplay()
    save(store, 0)
    for index in (1, 2):
        replay.add(4, 4)
        replay.saved_in(store, index)
    return directory


def cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: rng.integers(len(content))]


def flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


@pytest.mark.parametrize("damage", [cut, flip])
def test_no_damage_loads_silently(
    tmp_path: Path, sound: Path, damage: Callable[[bytearray, np.random.Generator], bytearray]
) -> None:
    rng, met = np.random.default_rng(0), set()
    for trial in range(50):
        directory = tmp_path / str(trial)
        shutil.copytree(sound, directory)
        victims = [*sorted((directory / "000002").iterdir()), *sorted((directory / "replay").iterdir())]
        victim = victims[trial % len(victims)]
        victim.write_bytes(damage(bytearray(victim.read_bytes()), rng))
        told: list[str] = []
        store = CheckpointStore(directory, warn=told.append)
        with pytest.raises(DamagedCheckpointError, match=victim.name.replace(SEAL, MANIFEST)):
            store.load(2)
        snapshot = store.load_latest()
        shared = victim.name == "000001.safetensors.zst"  # checkpoint 1 needs it too
        assert_is(snapshot, 0 if shared else 1)
        assert len(told) == (2 if shared else 1)
        assert str(victim).replace(SEAL, MANIFEST) in told[0]
        assert "checkpoint 000002 is not loaded" in told[0]
        assert "set aside as 000002.corrupt" in told[0]
        assert f"using {'000000 (of step 0' if shared else '000001 (of step 1,000'}) instead" in told[0]
        met.add(victim.name)
    assert len(met) == 8


def test_training_goes_on_after_damage_under_the_same_index(tmp_path: Path, sound: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(sound, directory)
    told: list[str] = []
    for number in range(3):
        (directory / "replay" / "000002.safetensors.zst").write_bytes(b"torn")
        store, replay = CheckpointStore(directory, warn=told.append), FakeReplay()
        assert_is(store.load_latest(), 1)
        assert not (directory / "000002").exists()
        replay.add(4, 4)
        np.testing.assert_array_equal(store.replay_counts, replay.counts)
        replay.add(5, 5)
        replay.saved_in(store, 2)
        snapshot = CheckpointStore(directory).load_latest()
        assert_is(snapshot, 2)
        assert snapshot is not None
        np.testing.assert_array_equal(replay.restored(snapshot), replay.values)
        assert len(told) == number + 1
    assert [name for name in names(directory) if "corrupt" in name] == [
        "000002.corrupt", "000002.corrupt-2", "000002.corrupt-3",
    ]  # fmt: skip


def test_missing_files_are_damage(tmp_path: Path, sound: Path) -> None:
    for number, path in enumerate(sorted((sound / "000002").iterdir())):
        shutil.copytree(sound, tmp_path / str(number))
        (tmp_path / str(number) / "000002" / path.name).unlink()
        told: list[str] = []
        assert_is(CheckpointStore(tmp_path / str(number), warn=told.append).load_latest(), 1)
        assert f"{path.name}: is missing" in told[0]


def test_when_nothing_is_intact_the_user_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    store = CheckpointStore(tmp_path, warn=told.append)
    for index in (0, 1):
        (save(store, index) / "weights.safetensors").write_bytes(b"x")
    assert store.load_latest() is None
    assert len(told) == 2
    assert all("no intact one is left" in line for line in told)


def test_a_renamed_checkpoint_is_not_taken_for_another(store: CheckpointStore) -> None:
    save(store, 0).rename(store.directory / "000007")
    with pytest.raises(DamagedCheckpointError, match="is checkpoint 0 under another name"):
        store.load(7)


def test_an_unknown_format_is_refused_and_left_alone(store: CheckpointStore) -> None:
    save(store, 0)
    folder = save(store, 1)
    content = json.dumps(manifest(store, 1) | {"format": 2}).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / SEAL).write_bytes(seal(content))
    with pytest.raises(CheckpointFormatError, match="has checkpoint format 2, this version of Sextant reads format 1"):
        store.load_latest()
    assert store.indices() == [0, 1]


def test_a_reader_beside_the_training_changes_nothing(tmp_path: Path, sound: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(sound, directory)
    (directory / "000002" / "optimizer.pt").write_bytes(b"x")
    (directory / ".tmp-000003").mkdir()
    told: list[str] = []
    reader = CheckpointStore(directory, warn=told.append, read_only=True)
    before = sorted(directory.rglob("*"))
    assert_is(reader.load_latest(), 1)
    assert "optimizer.pt" in told[0]
    with pytest.raises(CheckpointError, match="opened read-only"):
        save(reader, 3)
    assert sorted(directory.rglob("*")) == before


def test_a_reader_follows_when_the_training_prunes_what_it_reads(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 0)
    told: list[str] = []
    reader = CheckpointStore(store.directory, warn=told.append, read_only=True)
    plain = reader._read

    def slow_read(folder: Path, files: tuple[str, ...]) -> Snapshot:
        if folder.name == "000000":
            for index in (1, 2, 3):
                save(store, index)
        return plain(folder, files)

    monkeypatch.setattr(reader, "_read", slow_read)
    assert_is(reader.load_latest(), 3)
    assert told == []


def test_leftovers_of_a_killed_save_are_cleaned(store: CheckpointStore) -> None:
    FakeReplay().saved_in(store, 0)
    store.save_best(0, {"w": torch.zeros(1)}, {})
    for folder in (store.directory, store.directory / "best"):
        (folder / ".tmp-000001").mkdir()
        (folder / ".tmp-000001" / "weights.safetensors").write_bytes(b"half")
    (store.directory / "replay" / ".tmp-000001.safetensors.zst").write_bytes(b"half")
    assert_is(CheckpointStore(store.directory).load_latest(), 0)
    assert not list(store.directory.rglob(".tmp-*"))
