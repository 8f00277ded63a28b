"""Trajectories go to Minari and come back bit for bit; datasets made with Minari are read."""

import json
import warnings

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from minari.data_collector import EpisodeBuffer

from memory.minari_io import export_minari, import_minari
from memory.trajectories import Episode
from memory.trajectory_store import DatasetError, TrajectoryFacts, TrajectoryWriter, consolidate, read_directory


@pytest.fixture(autouse=True)
def minari_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def make_facts(kind, task, dtype):
    shape = {"vector": (3,), "frames": (4, 40, 40), "image": (4, 10, 10)}[kind]
    continuous = kind == "vector"
    return TrajectoryFacts(
        env_id="E",
        suite="s",
        task=task,
        observation_kind=kind,
        obs_shape=shape,
        obs_dtype=dtype,
        action_kind="continuous" if continuous else "discrete",
        num_actions=None if continuous else 5,
        action_size=2 if continuous else None,
    )


def write(directory, facts, count=4):
    rng = np.random.default_rng(len(facts.task))
    with TrajectoryWriter(directory, facts) as writer:
        for index in range(count):
            steps, shape = index + 2, (index + 3, *facts.stored_shape)
            pixels = facts.obs_dtype == "uint8"
            writer.add(
                Episode(
                    obs=rng.integers(0, 256, shape, np.uint8)
                    if pixels
                    else rng.normal(size=shape).astype(facts.obs_dtype),
                    action=rng.integers(0, 5, steps)
                    if facts.num_actions
                    else rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
                    reward=rng.normal(size=steps).astype(np.float32),
                    terminated=index == 1,
                    truncated=index == 2,
                    success=rng.integers(0, 2, steps).astype(bool) if index != 3 else None,
                    task=facts.task,
                    seed=index + 2**40,
                    goal_index=index or None,
                    noise=0.1 * index,
                    source=f"run:é@{index}",
                )
            )
    consolidate(directory, facts.task)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("vector", "float32"), ("vector", "float16"), ("frames", "uint8"), ("image", "uint8")]
)
def test_what_is_exported_comes_back_bit_for_bit(tmp_path, kind, dtype):
    for task in ("a/b", "second task"):
        write(tmp_path / "ours", make_facts(kind, task, dtype))
    files = read_directory(tmp_path / "ours")
    export_minari(files, "group/test-v0", author="me")
    back = import_minari("group/test-v0", tmp_path / "back")
    assert [file.digest for file in back] == [file.digest for file in files]
    assert [file.path.name for file in read_directory(tmp_path / "back")] == ["a%2Fb.h5", "second task.h5"]


@pytest.mark.parametrize("kind", ["vector", "frames"])
def test_minaris_own_reader_sees_the_same_numbers(tmp_path, kind):
    write(tmp_path / "ours", make_facts(kind, "t", "float32" if kind == "vector" else "uint8"))
    (file,) = read_directory(tmp_path / "ours")
    export_minari([file], "test-v3")
    dataset = minari.load_dataset("test-v3")
    assert (dataset.total_episodes, dataset.total_steps) == (file.num_episodes, file.num_steps)
    for index, theirs in enumerate(dataset.iterate_episodes()):
        ours = file.episode(index)
        for got, expected in (
            (theirs.observations, ours.obs),
            (theirs.actions, ours.action),
            (theirs.rewards, ours.reward),
        ):
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected)
        assert theirs.terminations.tolist() == [False] * (ours.length - 1) + [ours.terminated]
        assert theirs.truncations.tolist() == [False] * (ours.length - 1) + [ours.truncated]
        if ours.success is not None:
            assert theirs.infos["success"].tolist() == [False, *ours.success.tolist()]
        assert all(dataset.observation_space.contains(obs) for obs in theirs.observations)
        assert all(dataset.action_space.contains(action) for action in theirs.actions)


def theirs(dataset_id, observation_space, action_space, episodes):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`.*` is set to None|env_spec is None", category=UserWarning)
        minari.create_dataset_from_buffers(
            dataset_id, episodes, observation_space=observation_space, action_space=action_space
        )


def buffer(observations, actions, **changes):
    steps = len(actions)
    given = {
        "rewards": np.arange(steps) / 4,
        "terminations": [False] * steps,
        "truncations": [False] * (steps - 1) + [True],
    }
    return EpisodeBuffer(observations=observations, actions=actions, **given | changes)


def test_their_continuous_dataset_is_read_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(5, 3)).astype(np.float32), rng.uniform(-1, 1, (4, 2)).astype(np.float32)
    action[0] = [1e-12, -1]
    theirs(
        "xx/y-v1",
        Box(np.float32(-9), np.float32(9), (3,)),
        Box(np.float32(-1), np.float32(1), (2,)),
        [
            buffer(obs, action, seed=7, infos={"success": np.array([False, False, True, False, False])}),
            buffer(obs[:3], action[:2], terminations=[False, True], truncations=[False, False]),
        ],
    )
    (file,) = import_minari("xx/y-v1", tmp_path / "ours")
    first, second = file.episode(0), file.episode(1)
    assert np.array_equal(first.obs, obs) and np.array_equal(first.action, action)
    assert first.reward.tolist() == [0, 0.25, 0.5, 0.75]
    assert first.success is not None and first.success.tolist() == [False, True, False, False]
    assert (first.seed, first.source, first.task) == (7, "minari:xx/y-v1", "xx/y-v1")
    assert (first.terminated, first.truncated, second.terminated, second.truncated) == (False, True, True, False)
    assert second.success is None
    assert file.facts.extra["minari_id"] == "xx/y-v1"


def test_other_bounds_are_mapped_and_actions_outside_refused_or_clipped(tmp_path):
    action = np.array([[0.0, 5.0], [4.0, -5.0], [1.0, 0.0]])
    low, high = np.array([0.0, -5.0]), np.array([4.0, 5.0])
    obs = np.arange(8.0).reshape(4, 2, 1)
    theirs("b-v0", Box(-np.inf, np.inf, (2, 1), np.float64), Box(low, high, dtype=np.float64), [buffer(obs, action)])
    (file,) = import_minari("b-v0", tmp_path / "ours", task="mine")
    assert file.episode(0).action.tolist() == [[-1, 1], [1, -1], [-0.5, 0]]
    assert file.episode(0).obs.tolist() == obs.reshape(4, 2).tolist() and file.facts.task == "mine"
    assert file.facts.extra["action_bounds"] == [[0, -5], [4, 5]]
    action[1, 0] = 4.5
    theirs("c-v0", Box(-np.inf, np.inf, (2, 1), np.float64), Box(low, high, dtype=np.float64), [buffer(obs, action)])
    with pytest.raises(DatasetError, match=r"'c-v0': episode 0 has action 4\.5 outside"):
        import_minari("c-v0", tmp_path / "other")
    (file,) = import_minari("c-v0", tmp_path / "other", clip_actions=True)
    assert file.episode(0).action.tolist() == [[-1, 1], [1, -1], [-0.5, 0]]


def test_discrete_spaces_become_one_hot_vectors_and_indices_from_0(tmp_path):
    theirs("d-v0", Discrete(3), Discrete(2, start=5), [buffer(np.array([2, 0, 1]), np.array([6, 5]))])
    (file,) = import_minari("d-v0", tmp_path / "ours")
    assert file.episode(0).obs.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert file.episode(0).action.tolist() == [1, 0]


def test_images_are_kept_whole(tmp_path):
    obs = np.random.default_rng(0).integers(0, 256, (3, 4, 10, 10), np.uint8)
    theirs("i-v0", Box(0, 255, (4, 10, 10), np.uint8), Discrete(2), [buffer(obs, np.array([0, 1]))])
    (file,) = import_minari("i-v0", tmp_path / "ours")
    assert file.facts.observation_kind == "image" and np.array_equal(file.episode(0).obs, obs)


def test_datasets_that_cannot_be_converted_are_refused_and_leave_nothing(tmp_path):
    good = buffer(np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32))
    box = Box(np.float32(-1), np.float32(1), (1,))
    unbounded = Box(np.float32(-np.inf), np.float32(np.inf), (1,))
    theirs("u-v0", box, unbounded, [good])
    with pytest.raises(DatasetError, match=r"'u-v0': .*no bounds"):
        import_minari("u-v0", tmp_path / "ours")
    theirs("t-v0", Dict({"a": box}), box, [])
    with pytest.raises(DatasetError, match=r"'t-v0': its observation space is Dict"):
        import_minari("t-v0", tmp_path / "ours")
    with pytest.raises(DatasetError, match=r"'none-v0': .*doesn't exist"):
        import_minari("none-v0", tmp_path / "ours")
    on = buffer(np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32), terminations=[True, False])
    theirs("e-v0", box, box, [good, on])
    with pytest.raises(DatasetError, match="'e-v0': episode 1 has 2 steps, 2 of which end it"):
        import_minari("e-v0", tmp_path / "ours")
    assert not (tmp_path / "ours").exists() or not any((tmp_path / "ours").iterdir())


def test_a_dataset_that_would_make_an_env_is_refused(tmp_path, minari_folder):
    box = Box(np.float32(-1), np.float32(1), (1,))
    theirs("m-v0", box, box, [buffer(np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32))])
    path = minari_folder / "m-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["action_space"]
    path.write_text(json.dumps(metadata | {"env_spec": gym.spec("CartPole-v1").to_json()}))
    with pytest.raises(DatasetError, match="'m-v0': its metadata has no action_space"):
        import_minari("m-v0", tmp_path / "ours")


def test_names_and_folders_are_checked(tmp_path):
    write(tmp_path / "ours", make_facts("vector", "t", "float32"))
    files = read_directory(tmp_path / "ours")
    for name in ("no-version", "../up-v0", "a//b-v0"):
        with pytest.raises(ValueError, match=f"dataset_id='{name}'"):
            export_minari(files, name)
    with pytest.raises(ValueError, match=r"tasks \['t', 't'\]"):
        export_minari([*files, *files], "a-v0")
    write(tmp_path / "image", make_facts("image", "u", "uint8"))
    with pytest.raises(ValueError, match=r"observation_kind='image'.*'vector'"):
        export_minari([*files, *read_directory(tmp_path / "image")], "a-v0")
    export_minari(files, "a-v0")
    with pytest.raises(ValueError, match="already exists"):
        export_minari(files, "a-v0")
    with pytest.raises(ValueError, match="already holds episodes of task 't'"):
        import_minari("a-v0", tmp_path / "ours")
