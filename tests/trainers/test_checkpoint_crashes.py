"""Kills, full disks and read-only disks while a checkpoint is written: the one before it is always whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainers.checkpointing import CheckpointError, CheckpointStore

NOISE = np.random.default_rng(0)


def save(store: CheckpointStore, index: int, weight_bytes: int = 4000, replay_bytes: int = 2000) -> None:
    """Saves a checkpoint whose replay chunk cannot be compressed."""
    store.save(
        index=index,
        env_steps=index,
        weights={"w": torch.full((weight_bytes // 4,), float(index))},
        optimizer={"step": torch.tensor(index)},
        counters={"index": index},
        arrays={"x": np.arange(index)},
        replay_chunk={"x": NOISE.integers(256, size=replay_bytes, dtype=np.uint8)},
        replay_counts=np.array([index + 1]),
        replay_slots=3,
    )


def assert_intact(directory: Path, index: int) -> None:
    told: list[str] = []
    snapshot = CheckpointStore(directory, warn=told.append).load_latest()
    assert snapshot is not None
    assert (snapshot.index, snapshot.weights["w"][0].item(), snapshot.counters) == (index, index, {"index": index})
    assert sum(1 for _ in snapshot.replay_chunks) == min(index + 1, 3)
    assert told == []
    assert not list(directory.rglob(".tmp-*"))


KILL_EVERYWHERE = """
    import os, sys
    from pathlib import Path
    sys.path[:0] = [{root!r}, {tests!r}]
    from test_checkpoint_crashes import CheckpointStore, assert_intact, save
    import torch

    def patch(victim):
        calls = 0
        def wrap(function):
            def counted(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == victim:
                    os._exit(9)
                return function(*args, **kwargs)
            return counted
        for name in ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir"):
            setattr(os, name, wrap(getattr(os, name)))

    directory = Path(sys.argv[1])
    store = CheckpointStore(directory)
    for index in range(4):
        save(store, index)
    index, before, after = 3, 0, 0
    for victim in range(1, 1000):
        store = CheckpointStore(directory)
        assert store.load_latest().index == index
        child = os.fork()
        if child == 0:
            patch(victim)
            save(store, index + 1)
            store.save_best(index + 1, {{"w": torch.zeros(3)}}, {{}})
            store.save_best(index + 1, {{"w": torch.ones(3)}}, {{}})
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), code
        if index + 1 in store.indices():
            index, after = index + 1, after + 1
        else:
            before += 1
        assert_intact(directory, index)
        if code == 0:
            break
    print(before, after, store.indices())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_step_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    script = textwrap.dedent(KILL_EVERYWHERE).format(
        root=str(Path(__file__).parents[2]), tests=str(Path(__file__).parent)
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    before, after, *_ = result.stdout.split()
    assert int(before) >= 12  # the segment, five files, the manifest's seal, folders and renames
    assert int(after) >= 10  # while old checkpoints and segments are removed, and in the best one


CALLS = ["fsync", "rename", "replace"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_an_error_at_any_step_is_explained_and_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 0)
    reason = "disk full" if code == errno.ENOSPC else os.strerror(code)
    victim, saved = 0, False
    while not saved:
        victim, calls = victim + 1, 0

        def wrap(function: Callable[..., Any], victim: int = victim) -> Callable[..., Any]:
            def failing(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == victim:
                    raise OSError(code, os.strerror(code))
                return function(*args, **kwargs)

            return failing

        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, wrap(getattr(os, name)))
            try:
                save(store, 1)
                saved = True
            except CheckpointError as error:
                assert error.errno == code
                assert str(error).startswith(f"{tmp_path / '000001'} was not saved: {reason}")
                assert str(error).endswith("; checkpoint 000000 is intact")
                np.testing.assert_array_equal(store.replay_counts, [1])
        if not saved:
            assert_intact(tmp_path, 0)
            assert [path.name for path in (tmp_path / "replay").iterdir()] == ["000000.safetensors.zst"]
    assert victim > 12  # the segment, six files, four folders and the renames
    assert_intact(tmp_path, 1)


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 0)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(store, 1)
    assert_intact(tmp_path, 0)


def test_too_little_space_is_refused_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    monkeypatch.setattr("trainers.checkpoint_files.free_bytes", lambda path: 50_000)
    with pytest.raises(
        CheckpointError,
        match=r"disk full: 7\d,\d{3} bytes needed and up to 2,000 more for the replay, 50,000 bytes free",
    ):
        save(store, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not possible here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(("weight_bytes", "replay_bytes"), [(2_000_000, 10), (4_000, 2_000_000)])
def test_a_full_disk(small_disk: Path, weight_bytes: int, replay_bytes: int) -> None:
    store = CheckpointStore(small_disk / "checkpoints")
    save(store, 0)
    with pytest.raises(
        CheckpointError, match=r"000001 was not saved: disk full: .* free; checkpoint 000000 is intact"
    ) as info:
        save(store, 1, weight_bytes, replay_bytes)
    assert info.value.errno == errno.ENOSPC
    assert_intact(store.directory, 0)
    assert [path.name for path in (store.directory / "replay").iterdir()] == ["000000.safetensors.zst"]
    save(store, 1)
    assert_intact(store.directory, 1)
    with pytest.raises(CheckpointError, match="disk full"):
        store.save_best(1, {"w": torch.zeros(500_000)}, {})
    assert_intact(store.directory, 1)


def test_a_read_only_disk(small_disk: Path) -> None:
    store = CheckpointStore(small_disk / "checkpoints")
    save(store, 0)
    save(store, 1)
    (small_disk / "checkpoints" / "000001" / "counters.json").write_bytes(b"{}")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CheckpointError, match=r"000002 was not saved: Read-only file system; checkpoint 000001"):
        save(store, 2)
    told: list[str] = []
    snapshot = CheckpointStore(store.directory, warn=told.append).load_latest()
    assert snapshot is not None
    assert snapshot.index == 0
    assert "could not be renamed: Read-only file system" in told[0]


def test_a_directory_without_permission(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"was not saved: .*; there is no earlier checkpoint"):
        save(CheckpointStore(tmp_path / "file" / "checkpoints"), 0)
    if os.geteuid() == 0:
        return  # permission bits do not bind root
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="was not saved: Permission denied"):
        save(CheckpointStore(tmp_path / "checkpoints"), 0)
