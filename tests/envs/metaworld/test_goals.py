"""Goals: exactly the package's, without touching a global generator, cached without pickle, checked on reading."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.metaworld import goals as goals_module
from envs.metaworld.goals import GoalSet, cache_directory, generate_goals, load_goals
from envs.metaworld.tasks import ALL_TASKS, BENCHMARKS

metaworld = pytest.importorskip("metaworld")


def package_goals(tasks: list[Any], name: str) -> np.ndarray:
    return np.array([pickle.loads(task.data)["rand_vec"] for task in tasks if task.env_name == name])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on disk and in memory."""
    monkeypatch.setenv("SEXTANT_CACHE_DIR", str(tmp_path))
    goals_module._load_goals.cache_clear()
    return tmp_path


@pytest.mark.parametrize("task", ["reach-v3", "stick-pull-v3"])
def test_ml1_goals_are_the_packages_train_with_the_seed_and_test_with_the_next(task: str) -> None:
    benchmark = metaworld.ML1(task, seed=11)
    np.testing.assert_array_equal(generate_goals((task,), 11).vectors[task], package_goals(benchmark.train_tasks, task))
    np.testing.assert_array_equal(generate_goals((task,), 12).vectors[task], package_goals(benchmark.test_tasks, task))


def test_a_benchmarks_goals_come_from_one_stream_over_its_tasks() -> None:
    tasks = BENCHMARKS["ML10"]["test"][1:3]
    ours = generate_goals(tasks, 3)
    arguments = {task: metaworld._env_dict.ML10_ARGS_KWARGS["test"][task] for task in tasks}
    theirs = metaworld._make_tasks(metaworld._env_dict.ML10_V3["test"], arguments, metaworld._ML_OVERRIDE, seed=3)
    for task in tasks:
        np.testing.assert_array_equal(ours.vectors[task], package_goals(theirs, task))
    assert not np.array_equal(generate_goals(tasks[1:], 3).vectors[tasks[1]], ours.vectors[tasks[1]])


@pytest.mark.slow
def test_all_fifty_tasks_have_the_packages_goals() -> None:
    ours, theirs = generate_goals(ALL_TASKS, 7), metaworld.MT50(seed=7).train_tasks
    for task in ALL_TASKS:
        np.testing.assert_array_equal(ours.vectors[task], package_goals(theirs, task))


def test_generating_leaves_the_global_generator_alone() -> None:
    before = str(np.random.get_state())  # noqa: NPY002
    generate_goals(("reach-v3",), 0)
    assert str(np.random.get_state()) == before  # noqa: NPY002


def test_the_hash_sees_every_bit_and_the_order() -> None:
    vectors = {"a": np.zeros((2, 3)), "b": np.ones((2, 3))}
    nudged = {"a": np.zeros((2, 3)), "b": np.nextafter(np.ones((2, 3)), 2)}
    hashes = {
        GoalSet(0, vectors).hash,
        GoalSet(0, nudged).hash,
        GoalSet(0, dict(reversed(vectors.items()))).hash,
    }
    assert len(hashes) == 3


def test_the_second_load_reads_the_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_goals(("reach-v3",), 0)
    assert load_goals(("reach-v3",), 0) is first
    goals_module._load_goals.cache_clear()
    monkeypatch.setattr(goals_module, "generate_goals", lambda *_: pytest.fail("made again"))
    again = load_goals(("reach-v3",), 0)
    assert again.hash == first.hash
    np.testing.assert_array_equal(again.vectors["reach-v3"], first.vectors["reach-v3"])
    assert [path.suffix for path in (cache / "metaworld-goals").iterdir()] == [".npz"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "pickle"])
def test_a_damaged_file_is_made_anew(cache: Path, damage: str) -> None:
    first = load_goals(("reach-v3",), 0)
    (path,) = (cache / "metaworld-goals").iterdir()
    data = bytearray(path.read_bytes())
    place = data.index(first.vectors["reach-v3"][0].tobytes())
    data[place] ^= 1
    damaged = {
        "truncated": bytes(data[: len(data) // 2]),
        "flipped": bytes(data),
        "empty": b"",
        "pickle": pickle.dumps({"reach-v3": 1}),
    }[damage]
    path.write_bytes(damaged)
    goals_module._load_goals.cache_clear()
    assert load_goals(("reach-v3",), 0).hash == first.hash
    with np.load(path, allow_pickle=False) as stored:
        assert str(stored["hash"]) == first.hash


def test_a_file_with_other_goals_under_a_fitting_checksum_format_is_refused(cache: Path) -> None:
    first = load_goals(("reach-v3",), 0)
    (path,) = (cache / "metaworld-goals").iterdir()
    np.savez(path, hash=np.array(first.hash), **{"reach-v3": first.vectors["reach-v3"] + 1e-9})  # type: ignore[arg-type]
    goals_module._load_goals.cache_clear()
    np.testing.assert_array_equal(load_goals(("reach-v3",), 0).vectors["reach-v3"], first.vectors["reach-v3"])


def test_without_a_writable_cache_goals_still_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SEXTANT_CACHE_DIR", str(blocked))
    goals_module._load_goals.cache_clear()
    assert load_goals(("reach-v3",), 0).vectors["reach-v3"].shape == (50, 6)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEXTANT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/sextant")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "sextant"
