"""Trajectory files to and from Minari datasets, the exchange format of the Farama Foundation.

What is exported comes back bit for bit: the facts of each task lie in the dataset's metadata under ``sextant``, what
belongs to an episode in the episode's metadata, success in ``infos``. Datasets made elsewhere are converted as
:func:`import_minari` says. Minari keeps datasets in ``$MINARI_DATASETS_PATH``, else in ``~/.minari/datasets``.

The conversion of datasets made elsewhere is in ``memory/minari_conversion.py``.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.minari_conversion import converted_action, converted_obs, foreign_facts
from memory.trajectories import Episode
from memory.trajectory_facts import DatasetError, TrajectoryFacts
from memory.trajectory_reading import TrajectoryFile, episode_numbers, parts_path
from memory.trajectory_store import TrajectoryWriter, consolidate

if TYPE_CHECKING:
    import gymnasium as gym

_KEY = "sextant"
_BATCH_EPISODES = 100
_ID = re.compile(r"[-\w]+(/[-\w]+)*-v\d+")
_HINTS = r"`(code_permalink|author|author_email|eval_env)` is set to None|env_spec is None, no environment spec"


def export_minari(
    files: Sequence[TrajectoryFile],
    dataset_id: str,
    *,
    description: str = "Trajectories written by Sextant",
    author: str | None = None,
    author_email: str | None = None,
    code_permalink: str | None = None,
) -> Path:
    """Makes a local Minari dataset of all episodes of some files, without loss, 100 episodes at a time.

    Pixels are exported as they are stored: single frames, not stacks. Minari's lossy JPEG compression, its default for
    images, is off.

    Args:
        files: one per task; they agree in what is observed and done.
        dataset_id: name such as "metaworld/mt10-expert-v0"; must not exist yet.
        description: of the dataset, for people.
        author: its author.
        author_email: where the author is reached.
        code_permalink: where the code that made it is found.
    Returns:
        folder of the dataset.
    Raises:
        ValueError: for a name without version or one that exists, no files, files of one task, or files that differ.
    """
    import minari

    if not _ID.fullmatch(dataset_id):
        raise ValueError(f"dataset_id={dataset_id!r}: expected 'name-v0' or 'group/name-v0'")
    _check_agreement(files)
    facts = files[0].facts
    algorithms = sorted({source.decode() for file in files for source in np.unique(file.arrays["source"])})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_HINTS, category=UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            [],
            observation_space=_observation_space(facts),
            action_space=_action_space(facts),
            algorithm_name=", ".join(algorithms),
            description=description,
            author=author,
            author_email=author_email,
            code_permalink=code_permalink,
            jpeg_encoding=False,
        )
    folder = Path(dataset.storage.data_path).parent
    try:
        dataset.storage.update_metadata({_KEY: [file.facts.to_json() for file in files]})
        _add_episodes(dataset, (file.episode(index) for file in files for index in range(file.num_episodes)))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def import_minari(
    dataset_id: str, directory: Path | str, *, task: str | None = None, clip_actions: bool = False
) -> list[TrajectoryFile]:
    """Writes the episodes of a local Minari dataset as trajectory files.

    Datasets of :func:`export_minari` give back files of the same content. Of others, whose spaces must be ``Box`` or
    ``Discrete``:

    - observations: three-dimensional uint8 or float boxes are kept as images, everything else becomes a vector of
      float32 (float16 is kept; ``Discrete`` one-hot; other shapes flattened);
    - actions: boxes are flattened and mapped from [low, high] to [-1, 1], which changes nothing where these are the
      bounds; indices count from 0;
    - rewards become float32, success is read from ``infos["success"]``, a seed that is not given is 0.

    Nothing in the dataset is executed: one that names its spaces only through an env is refused.

    Args:
        dataset_id: of a dataset in Minari's local folder.
        directory: of the dataset to write; must not hold episodes of the task yet.
        task: name of the task for a dataset made elsewhere; None takes ``dataset_id``.
        clip_actions: clip actions outside the bounds of their space instead of refusing them.
    Returns:
        the files, one per task.
    Raises:
        DatasetError: naming the dataset: it does not exist, has other spaces, or an episode cannot be converted.
        ValueError: if the folder already holds episodes of the task.
    """
    import minari

    metadata = _read_metadata(dataset_id)
    dataset = minari.load_dataset(dataset_id)
    try:
        if _KEY in metadata:
            known = {facts.task: facts for facts in map(TrajectoryFacts.from_json, metadata[_KEY])}
            episodes = _own_episodes(dataset, known)
        else:
            facts = foreign_facts(dataset, task or dataset_id)
            known = {facts.task: facts}
            episodes = _foreign_episodes(dataset, facts, clip_actions)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"Minari dataset {dataset_id!r}: {error}") from error
    for name in known:
        if episode_numbers(directory, name):
            raise ValueError(f"{directory} already holds episodes of task {name!r}; import into another folder")
    _write(dataset_id, Path(directory), known, episodes)
    return [TrajectoryFile.open(consolidate(directory, name), verify=False) for name in sorted(known)]


def _write(dataset_id: str, directory: Path, known: dict[str, TrajectoryFacts], episodes: Iterator[Episode]) -> None:
    writers = {name: TrajectoryWriter(directory, facts) for name, facts in known.items()}
    try:
        while batch := list(islice(episodes, _BATCH_EPISODES)):
            for name, writer in writers.items():
                mine = [episode for episode in batch if episode.task == name]
                if mine:
                    writer.add(*mine)
    except BaseException as error:
        for name in known:
            shutil.rmtree(parts_path(directory, name), ignore_errors=True)
        if isinstance(error, (ValueError, KeyError, TypeError, IndexError)):
            raise DatasetError(f"Minari dataset {dataset_id!r}: {error}") from error
        raise


# ------------------------------------------------------------------ out


def _check_agreement(files: Sequence[TrajectoryFile]) -> None:
    tasks = [file.facts.task for file in files]
    if not files or len(set(tasks)) < len(tasks):
        raise ValueError(f"files hold tasks {tasks}: expected at least one, and each task once")
    for file in files:
        for name in ("observation_kind", "obs_shape", "obs_dtype", "action_kind", "num_actions", "action_size"):
            own, first = getattr(file.facts, name), getattr(files[0].facts, name)
            if own != first:
                raise ValueError(f"{file.path} has {name}={own!r}, {files[0].path} has {first!r}")


def _observation_space(facts: TrajectoryFacts) -> gym.Space[Any]:
    from gymnasium.spaces import Box

    if facts.obs_dtype == "uint8":
        return Box(0, 255, facts.stored_shape, np.uint8)
    dtype = np.dtype(facts.obs_dtype)
    return Box(dtype.type(-np.inf), dtype.type(np.inf), facts.stored_shape, dtype.type)


def _action_space(facts: TrajectoryFacts) -> gym.Space[Any]:
    from gymnasium.spaces import Box, Discrete

    if facts.num_actions is not None:
        return Discrete(facts.num_actions)
    return Box(np.float32(-1), np.float32(1), facts.action_shape, np.float32)


def _add_episodes(dataset: Any, episodes: Iterator[Episode]) -> None:
    first = 0
    while batch := list(islice(episodes, _BATCH_EPISODES)):
        dataset.update_dataset_from_buffer([_buffer(episode) for episode in batch])
        indices = range(first, first + len(batch))
        dataset.storage.update_episode_metadata([_episode_metadata(episode) for episode in batch], indices)
        first += len(batch)


def _buffer(episode: Episode) -> Any:
    from minari.data_collector import EpisodeBuffer

    last = np.arange(episode.length) == episode.length - 1
    told = episode.success is not None
    return EpisodeBuffer(
        seed=int(episode.seed),
        observations=episode.obs,
        actions=episode.action,
        rewards=episode.reward,
        terminations=last & episode.terminated,
        truncations=last & episode.truncated,
        infos={"success": np.concatenate([[False], episode.success])} if told else None,  # one for the reset, as usual
    )


def _episode_metadata(episode: Episode) -> dict[str, Any]:
    goal = {} if episode.goal_index is None else {"goal_index": int(episode.goal_index)}
    return {"task": episode.task, "noise": float(episode.noise), "source": episode.source, **goal}


# ------------------------------------------------------------------ in


def _read_metadata(dataset_id: str) -> dict[str, Any]:
    """Gives the raw metadata, having checked that Minari need not make an env to learn the spaces."""
    from minari.dataset.minari_storage import MinariStorage
    from minari.storage import get_dataset_path

    try:
        metadata: dict[str, Any] = MinariStorage.read_raw_metadata(get_dataset_path(dataset_id) / "data")
    except ValueError as error:
        raise DatasetError(f"Minari dataset {dataset_id!r}: {error}") from error
    for name in ("observation_space", "action_space"):
        if name not in metadata:
            raise DatasetError(f"Minari dataset {dataset_id!r}: its metadata has no {name}")
    return metadata


def _stored_episodes(dataset: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Gives each episode with its metadata.

    Raises:
        ValueError: if one has no steps, or goes on after it ended.
    """
    indices = dataset.episode_indices
    pairs = zip(dataset.iterate_episodes(indices), dataset.storage.get_episode_metadata(indices), strict=True)
    for data, metadata in pairs:
        ended = np.asarray(data.terminations, bool) | np.asarray(data.truncations, bool)
        if len(data) == 0 or ended[:-1].any():
            raise ValueError(f"episode {data.id} has {len(data)} steps, {int(ended.sum())} of which end it")
        yield data, metadata


def _own_episodes(dataset: Any, known: dict[str, TrajectoryFacts]) -> Iterator[Episode]:
    for data, metadata in _stored_episodes(dataset):
        if metadata["task"] not in known:
            raise ValueError(f"episode {data.id} is of task {metadata['task']!r}, expected one of {sorted(known)}")
        yield Episode(
            obs=data.observations,
            action=data.actions,
            goal_index=int(metadata["goal_index"]) if "goal_index" in metadata else None,
            noise=float(metadata["noise"]),
            source=str(metadata["source"]),
            **_common(data, metadata, metadata["task"]),
        )


def _foreign_episodes(dataset: Any, facts: TrajectoryFacts, clip_actions: bool) -> Iterator[Episode]:
    for data, metadata in _stored_episodes(dataset):
        obs = converted_obs(data.observations, dataset.observation_space, facts)
        action = converted_action(data.id, data.actions, dataset.action_space, clip_actions)
        yield Episode(obs=obs, action=action, source=f"minari:{dataset.id}", **_common(data, metadata, facts.task))


def _common(data: Any, metadata: dict[str, Any], task: str) -> dict[str, Any]:
    success = (data.infos or {}).get("success")
    return {
        "reward": np.asarray(data.rewards, np.float32),
        "terminated": bool(data.terminations[-1]),
        "truncated": bool(data.truncations[-1]),
        "success": None if success is None else np.asarray(success)[-len(data) :].astype(bool),
        "task": task,
        "seed": int(metadata.get("seed") or 0),
    }
