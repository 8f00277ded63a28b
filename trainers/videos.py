"""Films evaluation episodes: mp4 files in the run directory, and small animations on TensorBoard's Images page.

The mp4 comes from the ffmpeg binary that the ``imageio-ffmpeg`` wheel carries. TensorBoard gets an animated GIF made
by Pillow, because its own ``add_video`` needs moviepy, which holds Pillow back.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from trainers.playing import EpisodeNoise, evaluation_mode, select_episodes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from agents.interface import Agent
    from envs.base import EpisodeSpec
    from envs.protocols import Protocol

MAX_FRAMES = 4500
"""Rendered frames after which a film stops, the episode not being over: 5 minutes of Atari at 15 frames a second."""
THUMBNAIL_FRAMES = 60
THUMBNAIL_WIDTH = 160


@dataclass(frozen=True)
class Film:
    """One filmed episode.

    Attributes:
        path: the mp4 file.
        spec: the episode.
        raw_return: sum of raw rewards over the filmed part.
        length: agent steps filmed.
        complete: whether the episode ended before the film did.
        thumbnail: a few small RGB frames, evenly spaced, for TensorBoard.
        frames_per_second: of the mp4.
    """

    path: Path
    spec: EpisodeSpec
    raw_return: float
    length: int
    complete: bool
    frames_per_second: int
    thumbnail: list[np.ndarray] = field(repr=False)


def film_episodes(
    agent: Agent,
    make_single_env: Callable[[Any], gymnasium.Env[Any, Any]],
    protocol: Protocol,
    directory: Path,
    *,
    seed: int,
    count: int,
    env_steps: int,
    name: str = "training",
    max_frames: int = MAX_FRAMES,
) -> list[Film]:
    """Films the first ``count`` episodes of the protocol (taken in turn from its tasks).

    The single env has the dynamics of the evaluation env but random numbers of its own, so where the env is
    stochastic a film shows another course of the episode than the one in the records; its return is in its name.

    Args:
        agent: acts as in :func:`trainers.evaluation.evaluate`.
        make_single_env: makes the env of a protocol, or of a part of one, with ``render_mode="rgb_array"``; closed
            here.
        protocol: gives episodes, policy mode, epsilon and step guard.
        directory: where the mp4 files go; made if missing.
        seed: of the episode list.
        count: episodes to film.
        env_steps: training so far; first part of the file names (unit: env steps).
        name: which policy, next part of the file names.
        max_frames: length of a film at most (unit: rendered frames).

    Returns:
        a film per episode.

    Raises:
        ValueError: if ``count`` is out of range.
        RuntimeError: if the env renders nothing, or lacks a package to render with.
    """
    films = []
    directory.mkdir(parents=True, exist_ok=True)
    with evaluation_mode(agent, seed), _missing_packages_told():
        for rules, specs in protocol.parts(select_episodes(protocol.episodes(seed), count)):
            env = make_single_env(rules)
            try:
                for spec in specs:
                    films.append(_film(agent, env, rules, spec, directory / f"{env_steps:09d}-{name}", max_frames))
            finally:
                env.close()
    return films


@contextmanager
def _missing_packages_told() -> Iterator[None]:
    """Turns what Gymnasium raises where it cannot render into one kind of error, with the package of ours to install.

    Raises:
        RuntimeError: in place of Gymnasium's own errors and of failed imports.
    """
    try:
        yield
    except (gymnasium.error.Error, ImportError) as error:
        extra = "; with the tested version: pip install -c constraints.txt -e '.[classic]'"
        raise RuntimeError(f"{error}{extra if 'pygame' in str(error) else ''}") from error


def _film(
    agent: Agent,
    env: gymnasium.Env[Any, Any],
    protocol: Protocol,
    spec: EpisodeSpec,
    stem: Path,
    max_frames: int,
) -> Film:
    from agents.interface import to_agent_action

    rate = max(1, round(float(env.metadata.get("render_fps", 30))))
    draft = stem.with_name(f"{stem.name}-{spec.index:03d}.part.mp4")
    thumbnail, raw_return, length, over = _Thumbnail(), 0.0, 0, False
    obs, _ = env.reset(seed=spec.seed, options={"task": spec.task, "goal_index": spec.goal_index})
    row = np.zeros(1, np.int64)
    state = agent.begin_episodes(agent.initial_state(1), row, [spec.task])
    noise = EpisodeNoise(spec, protocol.evaluation_epsilon, env.action_space)
    sampled = protocol.evaluation_policy == "sampled"
    with mp4_writer(draft, rate) as write:
        while not over and length < min(max_frames, protocol.max_episode_steps):
            policy_action, state = agent.act(np.asarray(obs)[None], state, explore=sampled)
            action = agent.env_action(policy_action)[0]
            if (random := noise.draw()) is not None:
                action = random
                state = agent.replace_actions(state, row, to_agent_action(np.asarray(random)[None], env.action_space))
            obs, reward, terminated, truncated, info = env.step(action)
            over = bool(info.get("episode_over", terminated or truncated))
            raw_reward = float(info.get("raw_reward", reward))
            state = agent.receive_rewards(state, row, np.full(1, raw_reward, np.float32))
            raw_return += raw_reward
            length += 1
            frame = _rgb(env)
            write(frame)
            thumbnail.add(frame)
    path = stem.with_name(f"{stem.name}-{spec.index:03d}-{spec.task.replace('/', '-')}-return{raw_return:.4g}.mp4")
    draft.replace(path)
    return Film(path, spec, raw_return, length, over, rate, thumbnail.frames)


def _rgb(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    frame: Any = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[-1] != 3:
        raise RuntimeError(f"the env must render RGB arrays (height, width, 3), got {getattr(frame, 'shape', frame)!r}")
    return frame


@contextmanager
def mp4_writer(path: Path, frames_per_second: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that appends an RGB frame to an mp4; frames are doubled while small and padded to even sizes.

    A file left unfinished by an error is removed.

    Raises:
        OSError: if ffmpeg cannot write the file.
    """
    from imageio_ffmpeg import write_frames

    encoder: Any = None

    def write(frame: np.ndarray) -> None:
        nonlocal encoder
        image = _printable(frame)
        if encoder is None:
            height, width = image.shape[:2]
            encoder = write_frames(
                str(path), (width, height), fps=frames_per_second, macro_block_size=2, ffmpeg_log_level="error"
            )
            encoder.send(None)
        encoder.send(image)

    try:
        yield write
    except BaseException:
        if encoder is not None:
            encoder.close()
        path.unlink(missing_ok=True)
        raise
    if encoder is not None:
        encoder.close()


def _printable(frame: np.ndarray) -> np.ndarray:
    """Doubles frames narrower than 320 pixels and repeats the last row or column to even sizes (yuv420p needs them)."""
    scale = 2 if frame.shape[1] < 320 else 1
    image = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    pad = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))
    return np.ascontiguousarray(np.pad(image, pad, mode="edge"), dtype=np.uint8)


class _Thumbnail:
    """Keeps at most twice ``THUMBNAIL_FRAMES`` small frames of a film of unknown length, evenly spaced."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self._every, self._seen = 1, 0

    def add(self, frame: np.ndarray) -> None:
        if self._seen % self._every == 0:
            step = max(1, round(frame.shape[1] / THUMBNAIL_WIDTH))
            self.frames.append(np.ascontiguousarray(frame[::step, ::step]))
        self._seen += 1
        if len(self.frames) >= 2 * THUMBNAIL_FRAMES:
            self.frames = self.frames[::2]
            self._every *= 2


def encode_gif(frames: Sequence[np.ndarray], frames_per_second: int = 12) -> bytes:
    """Gives an endlessly repeating GIF of RGB frames.

    Raises:
        ValueError: if there are no frames.
    """
    from PIL import Image

    if not frames:
        raise ValueError("a GIF needs at least one frame")
    images = [Image.fromarray(np.asarray(frame, np.uint8)).quantize(64) for frame in frames]
    stream = io.BytesIO()
    duration_ms = round(1000 / frames_per_second)
    images[0].save(stream, "GIF", save_all=True, append_images=images[1:], duration=duration_ms, loop=0)
    return stream.getvalue()


def add_films(writer: SummaryWriter, films: Sequence[Film], env_steps: int, tag: str = "evaluation") -> None:
    """Puts the films' thumbnails on TensorBoard's Images page, at the given env step."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    for film in films:
        if not film.thumbnail:
            continue
        height, width, _ = film.thumbnail[0].shape
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_gif(film.thumbnail))
        name = f"{tag}/{film.spec.task}-{film.spec.index:03d}"
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        events: Any = writer._get_file_writer()  # type: ignore[no-untyped-call]  # as add_video does
        events.add_summary(summary, env_steps)
