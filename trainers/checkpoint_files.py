"""Files of a checkpoint: durable writes with hashes, sealed folders, arrays streamed in the safetensors format.

A sealed folder holds a ``manifest.json`` with the sha256 and size of every other file, and ``manifest.sha256`` with the
hash of the manifest itself, readable by ``sha256sum -c``. It is written under a temporary name, forced to disk and
renamed into place, so that it exists whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard

from memory.replay_state import ReplayData
from trainers.array_stream import read_arrays, write_arrays

FORMAT_VERSION = 1
TEMPORARY = ".tmp-"
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
_ZSTD_LEVEL = 1  # Atari frames: 3.2-5.6 GB/s at 70-250:1; level 3 halves the speed for 3-50 % smaller files
_THREADED_ABOVE_BYTES = 1 << 25  # below 32 MiB starting threads costs what it saves


class CheckpointError(OSError):
    """A checkpoint that cannot be written or read; the message names the path and what to do."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint with a missing, cut or altered file."""


class CheckpointFormatError(CheckpointError):
    """An intact checkpoint in a format that this version does not know."""


@dataclass(frozen=True)
class FileRecord:
    """What the manifest knows of a file.

    Attributes:
        sha256: hash of its bytes, hexadecimal.
        bytes: its size.
    """

    sha256: str
    bytes: int


class HashingWriter:
    """A binary file that hashes and counts what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        """Wraps an open file; closing it stays the caller's."""
        self._file = file
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: Any, /) -> int:
        """Writes bytes or a contiguous buffer; gives the number of bytes."""
        count = self._file.write(data)
        self._hash.update(data)
        self._bytes += count
        return count

    @property
    def record(self) -> FileRecord:
        """Hash and size of everything written so far."""
        return FileRecord(self._hash.hexdigest(), self._bytes)


@contextmanager
def durable_file(path: Path) -> Iterator[HashingWriter]:
    """Opens a new file whose bytes are on the disk, not only in the cache, when the block ends."""
    with open(path, "xb") as file:
        yield HashingWriter(file)
        file.flush()
        os.fsync(file.fileno())


def fsync_directory(path: Path) -> None:
    """Forces a folder's entries (new names, renames) to the disk; does nothing where folders cannot be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_segment(path: Path, arrays: ReplayData) -> FileRecord:
    """Writes arrays as one compressed, checksummed file; only blocks of them are ever copied."""
    raw_bytes = sum(array.nbytes for array in arrays.values())
    threads = min(4, os.cpu_count() or 1) if raw_bytes > _THREADED_ABOVE_BYTES else 0
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=threads, write_checksum=True)
    with durable_file(path) as file, compressor.stream_writer(file, closefd=False) as stream:  # type: ignore[arg-type]
        write_arrays(stream, arrays)
    return file.record


def read_segment(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of one compressed file.

    Raises:
        DamagedCheckpointError: if the file is missing, cut or altered.
    """
    try:
        with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            return read_arrays(stream)
    except (FileNotFoundError, ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise DamagedCheckpointError(f"{path}: does not read as a replay segment ({error})") from error


def write_sealed_folder(folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Writes files and their manifest as a folder that exists whole or not at all.

    Args:
        folder: where it shall be; replaced once the new one is on the disk.
        files: contents by name.
        manifest: what else to record; format and hashes are added here.
    """
    temporary = folder.with_name(TEMPORARY + folder.name)
    temporary.mkdir()
    records = {}
    for name, content in files.items():
        with durable_file(temporary / name) as file:
            file.write(content)
        records[name] = asdict(file.record)
    encoded = json.dumps({"format": FORMAT_VERSION, **manifest, "files": records}, indent=1).encode()
    for name, content in ((MANIFEST, encoded), (SEAL, seal(encoded))):
        with durable_file(temporary / name) as file:
            file.write(content)
    fsync_directory(temporary)
    if folder.exists():
        remove_folder(folder)
    os.rename(temporary, folder)
    fsync_directory(folder.parent)


def read_sealed_folder(folder: Path, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Reads a sealed folder; what it gives back is exactly what was hashed.

    Returns:
        the manifest, and the contents of the named files.

    Raises:
        DamagedCheckpointError: if a file is missing, cut or altered.
        CheckpointFormatError: if the manifest is intact, but of another format.
    """
    encoded = _read_bytes(folder / MANIFEST)
    if _read_bytes(folder / SEAL) != seal(encoded):
        raise DamagedCheckpointError(f"{folder / MANIFEST}: its sha256 is not the one in {SEAL}")
    manifest = json.loads(encoded)
    if manifest["format"] != FORMAT_VERSION:
        raise CheckpointFormatError(
            f"{folder} has checkpoint format {manifest['format']!r}, this version of Sextant reads format "
            f"{FORMAT_VERSION}: use the version that wrote it (provenance.json of the run names it)"
        )
    if set(manifest["files"]) != set(names):
        raise DamagedCheckpointError(f"{folder / MANIFEST}: names {sorted(manifest['files'])}, not {sorted(names)}")
    contents = {name: _read_bytes(folder / name) for name in names}
    for name, content in contents.items():
        found = FileRecord(hashlib.sha256(content).hexdigest(), len(content))
        _compare(folder / name, found, FileRecord(**manifest["files"][name]))
    return manifest, contents


def seal(encoded: bytes) -> bytes:
    """Gives what ``manifest.sha256`` must hold for these bytes of a manifest."""
    return f"{hashlib.sha256(encoded).hexdigest()}  {MANIFEST}\n".encode()


def verify_file(path: Path, expected: FileRecord) -> None:
    """Compares a file's size and hash with its record, in bounded memory.

    Raises:
        DamagedCheckpointError: if they differ, or the file is missing.
    """
    try:
        with open(path, "rb") as file:
            found = FileRecord(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedCheckpointError(f"{path}: is missing") from error
    _compare(path, found, expected)


def remove_temporary(directory: Path) -> None:
    """Removes what an interrupted save left in a folder."""
    for path in directory.glob(TEMPORARY + "*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a sealed folder so that no half of it can be met under its name."""
    doomed = folder.with_name(f"{TEMPORARY}old-{folder.name}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def free_bytes(path: Path) -> int:
    """Gives the bytes free for this user on the disk that holds a path, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _compare(path: Path, found: FileRecord, expected: FileRecord) -> None:
    if found.bytes != expected.bytes:
        raise DamagedCheckpointError(f"{path}: has {found.bytes:,} bytes, its manifest says {expected.bytes:,}")
    if found.sha256 != expected.sha256:
        raise DamagedCheckpointError(f"{path}: its bytes were altered (sha256 differs from the manifest's)")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedCheckpointError(f"{path}: is missing") from error
