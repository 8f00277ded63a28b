"""Bytes foretold and kept to; too large, contradictory or impossible settings refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from pydantic import ValidationError

import memory.storage
from memory import ReplayConfig, ReplayTooLarge
from memory.frame_replay import FrameReplay
from memory.replay import Replay
from memory.transition_replay import TransitionReplay

ATARI = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
VECTOR = gym.spaces.Box(-1, 1, (39,), np.float32)
DISCRETE, BOX = gym.spaces.Discrete(6), gym.spaces.Box(-1, 1, (4,), np.float32)


def build(config: ReplayConfig, observations: Any = ATARI, actions: Any = DISCRETE, num_envs: int = 8) -> Replay:
    return config.build(observations, actions, num_envs, np.random.default_rng(0), lambda _: None)


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("frames", ["single", "full"])
@pytest.mark.parametrize(("capacity", "num_envs"), [(1000, 8), (1, 1), (77, 5)])
def test_predicted_bytes_are_the_allocated_ones(frames: str, prioritised: bool, capacity: int, num_envs: int) -> None:
    config = ReplayConfig(capacity=capacity, frames=frames, prioritised=prioritised)
    assert build(config, num_envs=num_envs).nbytes == config.predicted_bytes((4, 84, 84), 1, 8, num_envs)


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize(("capacity", "num_envs"), [(100_000, 8), (1_000_000, 16)])
def test_an_atari_transition_takes_at_most_two_per_cent_more_than_its_frame(
    capacity: int, num_envs: int, prioritised: bool
) -> None:
    config = ReplayConfig(capacity=capacity, prioritised=prioritised)
    assert config.predicted_bytes((4, 84, 84), 1, 8, num_envs) <= 1.02 * 7056 * capacity


def test_vector_observations_are_kept_twice() -> None:
    assert ReplayConfig(capacity=1000).predicted_bytes((39,), 4, 16, 10) == 1000 * (2 * 39 * 4 + 16 + 8 + 3)


@pytest.mark.parametrize(
    ("space", "frames", "kind"),
    [
        (ATARI, "auto", FrameReplay),
        (ATARI, "full", TransitionReplay),
        (VECTOR, "auto", TransitionReplay),
        (gym.spaces.Box(0, 1, (4, 84, 84), np.float32), "auto", TransitionReplay),
        (gym.spaces.Box(0, 1, (4, 84, 84), np.float32), "single", FrameReplay),
        (gym.spaces.Box(0, 255, (84, 84, 3), np.uint8), "auto", TransitionReplay),
        (gym.spaces.Discrete(5), "auto", TransitionReplay),
    ],
)
def test_the_layout_follows_the_observations(space: Any, frames: str, kind: type) -> None:
    assert type(build(ReplayConfig(capacity=16, frames=frames), space)) is kind


def test_the_bytes_are_logged_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.storage.available_bytes", lambda place: 10_000_000)
    lines: list[str] = []
    with pytest.raises(ReplayTooLarge, match=r"71,026,560 bytes.*0\.5 of the 9\.54 MiB \(10,000,000 bytes\)"):
        ReplayConfig(capacity=10_000, memory_fraction=0.5).build(
            ATARI, DISCRETE, 8, np.random.default_rng(0), lines.append
        )
    assert lines == [
        "replay: 10,000 transitions, 4x84x84 uint8 as single frames: 67.7 MiB of 9.54 MiB available in memory"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 0}, "greater than or equal to 1"),
        ({"capacty": 5}, "capacty"),
        ({"prioritised": True, "alpha": 0}, "alpha"),
        ({"alpha": 0.6}, "alpha=0.6 has no effect unless prioritised=true"),
        ({"storage": "file"}, "storage='file' with directory=None"),
        ({"directory": "x"}, "storage='memory' with directory=x"),
        ({"memory_fraction": 1.5}, "memory_fraction"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ReplayConfig(**settings)


def test_a_resolved_config_reads_back() -> None:
    config = ReplayConfig(capacity=5, prioritised=True, alpha=0.6)
    assert ReplayConfig(**config.model_dump(mode="json")) == config
    assert ReplayConfig(**ReplayConfig().model_dump(mode="json")) == ReplayConfig()


def test_impossible_replays_are_refused() -> None:
    with pytest.raises(ValueError, match="capacity=4 is less than one transition for each of 8 envs"):
        build(ReplayConfig(capacity=4))
    with pytest.raises(ValueError, match=r"frames='single' needs .* not \(39,\)"):
        build(ReplayConfig(capacity=16, frames="single"), VECTOR)
    with pytest.raises(ValueError, match="no shape or dtype: Dict"):
        build(ReplayConfig(capacity=16), gym.spaces.Dict({"a": VECTOR}))


def test_files_have_no_name_and_hold_the_same(tmp_path: Path) -> None:
    replay = build(ReplayConfig(capacity=64, storage="file", directory=tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []  # nothing to clean up, however the process ends
    rows: dict[str, Any] = {"act": np.zeros(8, int), "rew": np.zeros(8), "terminated": np.zeros(8, bool)}
    obs = np.zeros((8, 4, 84, 84), np.uint8)
    obs[:, -1] = 7
    obs_next = np.concatenate([obs[:, 1:], obs[:, -1:] + 1], axis=1)
    flags = {"truncated": np.zeros(8, bool), "episode_over": np.zeros(8, bool)}
    replay.add_step(obs=obs, obs_next=obs_next, **rows, **flags)
    batch: Any = replay.sample(0)[0]
    np.testing.assert_array_equal(batch.obs, obs)
    np.testing.assert_array_equal(batch.obs_next, obs_next)
    assert type(batch.obs.base) is np.ndarray


def test_a_file_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayTooLarge, match=f"needs .* in {tmp_path}, more than memory_fraction"):
        build(ReplayConfig(capacity=10**8, storage="file", directory=tmp_path))


def test_a_disk_that_fills_up_meanwhile_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ReplayTooLarge, match=rf"needs .* \(451,584 bytes\) in {tmp_path}, which has .* free"):
        memory.storage.allocate((64, 84, 84), np.dtype(np.uint8), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.storage, "CGROUP", tmp_path)
    unlimited = memory.storage.available_bytes("memory")
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 700\n")
    assert memory.storage.available_bytes("memory") == 1700
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.storage.available_bytes("memory") > unlimited / 2


def test_importing_memory_is_light() -> None:
    heavy = "{'numpy', 'torch', 'tianshou', 'gymnasium', 'psutil', 'numba'}"
    code = f"import memory, memory.config, sys; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_small_grids_of_channels_are_kept_whole_unless_asked() -> None:
    grid = gym.spaces.Box(0, 255, (4, 10, 10), np.uint8)
    assert isinstance(build(ReplayConfig(capacity=80), grid), TransitionReplay)
    assert isinstance(build(ReplayConfig(capacity=80, frames="single"), grid), FrameReplay)
    assert isinstance(build(ReplayConfig(capacity=80), ATARI), FrameReplay)
