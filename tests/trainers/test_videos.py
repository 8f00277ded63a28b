"""Films are real mp4 files and animated GIFs on TensorBoard, with no system ffmpeg and no moviepy."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from PIL import Image

from envs.base import EpisodeSpec
from trainers.videos import THUMBNAIL_FRAMES, Film, _Thumbnail, add_films, encode_gif, film_episodes, mp4_writer


class Clock(gymnasium.Env[np.ndarray, Any]):
    """Ends after 7 steps; every frame is its own shade. Odd frame sizes on purpose."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  # as gymnasium declares it
    observation_space = Box(0, 1, (2,), np.float32)
    action_space = Discrete(3)
    closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.time, self.asked = 0, (seed, options)
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        return np.zeros(2, np.float32), 1.0, False, self.time == 7, {"raw_reward": 2.5}

    def render(self) -> Any:
        return np.full((211, 161, 3), 30 * self.time, np.uint8)

    def close(self) -> None:
        self.closed = True


class Undrawn(Clock):
    """Has nothing to draw with."""

    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")


class Protocol:
    id, hash, env_name = "p", "h", "clock"
    evaluation_epsilon, evaluation_policy = 0.5, "greedy"
    max_episode_steps, frames_per_step = 100, 4

    def episodes(self, seed: int) -> list[EpisodeSpec]:
        return [EpisodeSpec(index, 10 + index, "clock") for index in range(3)]

    def parts(self, specs: list[EpisodeSpec]) -> list[tuple[Any, list[EpisodeSpec]]]:
        return [(self, specs)]


class Agent:
    algorithm = torch.nn.Linear(1, 1)
    kind = "off_policy"

    @contextmanager
    def using_rng(self, rng: np.random.Generator) -> Iterator[None]:
        self.lent = rng
        yield

    def initial_state(self, num_envs: int) -> None:
        return None

    def reset_state(self, state: None, rows: np.ndarray) -> None:
        return None

    def begin_episodes(self, state: None, rows: np.ndarray, tasks: Sequence[str]) -> None:
        return None

    def replace_actions(self, state: None, rows: np.ndarray, action: np.ndarray) -> None:
        return None

    def receive_rewards(self, state: None, rows: np.ndarray, reward: np.ndarray) -> None:
        return None

    def act(self, obs: np.ndarray, state: None, *, explore: bool = False) -> tuple[np.ndarray, None]:
        assert obs.shape == (1, 2)
        return np.ones(1, np.int64), None

    def env_action(self, action: np.ndarray) -> np.ndarray:
        return action


def decoded(path: Path, width: int, height: int) -> np.ndarray:
    """Gives the frames of an mp4 of that size, shape (frames, height, width, 3)."""
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [
        get_ffmpeg_exe(),
        "-i",
        str(path),
        "-fps_mode",
        "passthrough",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    pixels = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)


def film(directory: Path, env: Clock | None = None, **changes: Any) -> tuple[list[Film], Clock]:
    env = env or Clock()
    protocol: Any = Protocol()
    agent: Any = Agent()
    options: dict[str, Any] = {"seed": 0, "count": 2, "env_steps": 500} | changes
    return film_episodes(agent, lambda rules: env, protocol, directory, **options), env


def test_a_missing_package_is_a_refusal_that_names_the_extra(tmp_path: Path) -> None:
    env = Undrawn()
    with pytest.raises(RuntimeError, match=r"pygame is not installed; .* -e '\.\[classic\]'"):
        film(tmp_path, env)
    assert env.closed


def test_films_are_mp4_files_of_the_first_episodes(tmp_path: Path) -> None:
    films, env = film(tmp_path / "videos")
    assert [each.path.name for each in films] == [
        "000000500-training-000-clock-return17.5.mp4",
        "000000500-training-001-clock-return17.5.mp4",
    ]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [each.path.name for each in films]
    assert env.asked == (11, {"task": "clock", "goal_index": None})
    assert env.closed
    assert all(each.complete and each.length == 7 and each.frames_per_second == 15 for each in films)

    frames = decoded(films[0].path, 322, 422)  # doubled, even
    assert [abs(frame.mean() - 30 * (index + 1)) < 4 for index, frame in enumerate(frames)] == [True] * 7


def test_a_long_film_stops_and_says_so(tmp_path: Path) -> None:
    films, _ = film(tmp_path, count=1, max_frames=3)
    assert (films[0].length, films[0].complete, films[0].raw_return) == (3, False, 7.5)


def test_an_env_that_renders_nothing_is_refused_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "render", lambda self: None)
    with pytest.raises(RuntimeError, match="must render RGB arrays"):
        film(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_large_frame_keeps_its_size(tmp_path: Path) -> None:
    with mp4_writer(tmp_path / "x.mp4", 10) as write:
        write(np.zeros((480, 480, 3), np.uint8))
    assert len(decoded(tmp_path / "x.mp4", 480, 480)) == 1


def test_thumbnails_stay_small_and_span_the_film() -> None:
    thumbnail = _Thumbnail()
    for number in range(1000):
        thumbnail.add(np.full((210, 320, 3), number % 256, np.uint8))
    assert THUMBNAIL_FRAMES / 2 < len(thumbnail.frames) < 2 * THUMBNAIL_FRAMES
    assert thumbnail.frames[0].shape == (105, 160, 3)
    shades = [int(frame[0, 0, 0]) for frame in thumbnail.frames]
    steps = {(after - before) % 256 for before, after in pairwise(shades)}
    assert len(steps) == 1


def test_the_gif_is_animated() -> None:
    image = Image.open(io.BytesIO(encode_gif([np.full((20, 30, 3), shade, np.uint8) for shade in (0, 90, 200)])))
    assert (image.format, image.size, image.n_frames) == ("GIF", (30, 20), 3)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="at least one frame"):
        encode_gif([])


def test_tensorboard_gets_the_film_at_its_env_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    films, _ = film(tmp_path / "videos", count=1)
    writer = SummaryWriter(str(tmp_path / "log"))
    add_films(writer, films, 500)
    writer.close()
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    (event,) = events.Images("evaluation/clock-000")
    assert event.step == 500
    assert event.encoded_image_string.startswith(b"GIF89a")
