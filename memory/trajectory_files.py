"""The bytes of a trajectory file: a 512-byte seal, then HDF5 with contiguous datasets that can be memory-mapped.

The seal is one line of text, ``sextant-trajectories 1 sha256 <hex> bytes <n>``, in the user block that HDF5 leaves to
applications; the hash is over everything after it, HDF5's own structures included, so that no changed bit and no cut
gets as far as the HDF5 library. ``tail -c +513 FILE | sha256sum`` gives the same hash.

Legend: E episodes of a file, N steps of all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from memory.trajectory_facts import FORMAT_VERSION, DatasetError, TrajectoryFacts

SEAL_BYTES = 512
FLAT = ("obs", "action", "reward", "success")
"""Datasets with a row per step (``obs``: one more per episode)."""
PER_EPISODE = {
    "episode_number": "int64",
    "terminated": "bool",
    "truncated": "bool",
    "seed": "int64",
    "goal_index": "int64",
    "noise": "float64",
    "source": "text",
}
"""Datasets with a row per episode, and their dtypes; ``source`` is fixed-length UTF-8."""

_MAGIC = "sextant-trajectories"
_ALIGNMENT = 64  # bytes: a cache line, so that mapped arrays are aligned for any dtype


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; what was written there takes its name when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(
    path: Path,
    facts: TrajectoryFacts,
    lengths_E: np.ndarray,
    table: Mapping[str, np.ndarray],
    pieces: Iterable[Mapping[str, np.ndarray]],
) -> None:
    """Writes a sealed file, one piece of the flat datasets after the other.

    Args:
        path: where; replaced in one step.
        facts: its attributes.
        lengths_E: steps of each episode.
        table: the datasets of :data:`PER_EPISODE`, each with E rows.
        pieces: rows of the datasets of :data:`FLAT`, in order; together they are all the episodes.
    """
    offsets_E1 = np.concatenate([[0], np.cumsum(lengths_E)]).astype(np.int64)
    with replacing(path) as temporary:
        with h5py.File(
            temporary,
            "w",
            libver="v110",
            userblock_size=SEAL_BYTES,
            alignment_threshold=_ALIGNMENT,
            alignment_interval=_ALIGNMENT,
        ) as file:
            for name, value in attributes(facts).items():
                file.attrs[name] = value
            for name, (dtype, shape) in flat_layout(facts, int(offsets_E1[-1]), len(lengths_E)).items():
                file.create_dataset(name, shape, dtype)
            file.create_dataset("episode_offsets", data=offsets_E1)
            for name in PER_EPISODE:
                file.create_dataset(name, data=table[name])
            at = dict.fromkeys(FLAT, 0)
            for piece in pieces:
                for name in FLAT:
                    rows = len(piece[name])
                    file[name][at[name] : at[name] + rows] = piece[name]
                    at[name] += rows
        _write_seal(temporary)


def flat_layout(facts: TrajectoryFacts, num_steps: int, num_episodes: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Gives dtype and shape of each dataset of :data:`FLAT`."""
    return {
        "obs": (facts.obs_dtype, (num_steps + num_episodes, *facts.stored_shape)),
        "action": ("int64" if facts.action_kind == "discrete" else "float32", (num_steps, *facts.action_shape)),
        "reward": ("float32", (num_steps,)),
        "success": ("int8", (num_steps,)),
    }


def map_file(path: Path, *, verify: bool) -> tuple[TrajectoryFacts, str, dict[str, np.ndarray]]:
    """Gives the facts, the digest and all datasets of a file; the datasets are read-only views of the mapped file.

    Args:
        path: the file.
        verify: read it all to compare its digest; else only size and schema are checked.
    Raises:
        DatasetError: if it is missing, cut, altered or not of this format.
    """
    try:
        with open(path, "rb") as file:
            digest = _check_seal(path, file, verify=verify)
            mapped = np.asarray(np.memmap(file, np.uint8, "r"))
            file.seek(0)
            with h5py.File(file, "r") as content:
                facts = TrajectoryFacts.from_json(_decoded(content.attrs))
                arrays = _map_datasets(content, facts, mapped)
    except DatasetError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: {error}") from error
    return facts, digest, arrays


def attributes(facts: TrajectoryFacts) -> dict[str, Any]:
    """Gives the facts as HDF5 attributes: text, numbers, flags, sizes; dicts as JSON text; what is None is left out."""
    values = {name: value for name, value in facts.to_json().items() if value is not None}
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}


def _decoded(attrs: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"num_actions": None, "action_size": None}
    for name, value in attrs.items():
        values[name] = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    for name in ("versions", "extra"):
        if name in values:
            values[name] = json.loads(values[name])
    return values


def _map_datasets(content: Any, facts: TrajectoryFacts, mapped: np.ndarray) -> dict[str, np.ndarray]:
    """Checks the schema; gives each dataset as a view of the mapped file."""
    expected = {*FLAT, *PER_EPISODE, "episode_offsets"}
    if set(content) != expected:
        raise ValueError(
            f"datasets missing {sorted(expected - set(content))}, unknown {sorted(set(content) - expected)}"
        )
    arrays = {name: _map_dataset(content, name, mapped) for name in sorted(expected)}
    offsets_E1 = arrays["episode_offsets"]
    _require("episode_offsets", offsets_E1.dtype == np.int64 and offsets_E1.ndim == 1 and len(offsets_E1) > 1)
    _require("episode_offsets", offsets_E1[0] == 0 and bool((np.diff(offsets_E1) > 0).all()))
    layout = flat_layout(facts, int(offsets_E1[-1]), len(offsets_E1) - 1)
    layout |= {name: (dtype, (len(offsets_E1) - 1,)) for name, dtype in PER_EPISODE.items()}
    for name, (dtype, shape) in layout.items():
        kind = "text" if arrays[name].dtype.kind == "S" else arrays[name].dtype.name
        if (kind, arrays[name].shape) != (dtype, shape):
            raise ValueError(f"{name} is {kind}{list(arrays[name].shape)}, expected {dtype}{list(shape)}")
    _require("episode_number", bool((np.diff(arrays["episode_number"]) > 0).all()) and arrays["episode_number"][0] >= 0)
    _require("success", bool(((arrays["success"] >= -1) & (arrays["success"] <= 1)).all()))
    _require("goal_index", bool((arrays["goal_index"] >= -1).all()))
    _require("noise", bool((np.isfinite(arrays["noise"]) & (arrays["noise"] >= 0)).all()))
    return arrays


def _map_dataset(content: Any, name: str, mapped: np.ndarray) -> np.ndarray:
    if not isinstance(content.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link, expected a dataset")
    dataset = content[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is a group, expected a dataset")
    if dataset.chunks is not None or dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} is chunked, virtual or external, expected a contiguous dataset")
    begin, dtype = dataset.id.get_offset(), np.dtype(dataset.dtype)
    if begin is None or dtype.hasobject or dtype.byteorder == ">":
        raise ValueError(f"{name} is empty or of a dtype that cannot be mapped ({dtype})")
    end = begin + dataset.size * dtype.itemsize
    if end > len(mapped):
        raise ValueError(f"{name} ends at byte {end}, the file at {len(mapped)}")
    return mapped[begin:end].view(dtype).reshape(dataset.shape)


def _require(name: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} holds values that are not allowed")


def _seal(digest: str, num_bytes: int) -> bytes:
    line = f"{_MAGIC} {FORMAT_VERSION} sha256 {digest} bytes {num_bytes}\n"
    return line.encode().ljust(SEAL_BYTES, b"\0")


def _write_seal(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(SEAL_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = file.tell()
        file.seek(0)
        file.write(_seal(digest, num_bytes))


def _check_seal(path: Path, file: BufferedReader, *, verify: bool) -> str:
    """Gives the digest named in the seal, having compared it with the file if asked."""
    head, size = file.read(SEAL_BYTES), os.fstat(file.fileno()).st_size
    words = head.rstrip(b"\0").decode("utf-8", "replace").split()
    if len(words) != 6 or words[0] != _MAGIC:
        raise DatasetError(f"{path}: is not a trajectory file (it does not begin with {_MAGIC!r})")
    if words[1] != str(FORMAT_VERSION):
        raise DatasetError(f"{path}: has format {words[1]!r}, this version of Sextant reads format {FORMAT_VERSION}")
    if words[5] != str(size):
        raise DatasetError(f"{path}: has {size} bytes, its seal names {words[5]}; it was cut or altered")
    if head != _seal(words[3], size):
        raise DatasetError(f"{path}: its seal was altered")
    if verify and hashlib.file_digest(file, "sha256").hexdigest() != words[3]:
        raise DatasetError(f"{path}: its content does not have the sha256 that its seal names; it was altered")
    return words[3]


def _fsync_directory(path: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
