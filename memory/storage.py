"""Arrays in memory or in an unnamed file, and how much room there is for them."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil

from memory.config import ReplayTooLarge

CGROUP = Path("/sys/fs/cgroup")
"""Where a container's own memory limit stands (cgroup v2)."""


def allocate(shape: tuple[int, ...], dtype: np.dtype, directory: Path | None = None) -> np.ndarray:
    """Gives a zeroed array.

    Args:
        shape: of the array.
        dtype: of its elements.
        directory: None for memory, which the system hands out as it is first written; else a folder in which the array
            lies in a file without a name, so that its room is free again when the process ends, however it ends.
    Raises:
        ReplayTooLarge: if the disk has no room for the whole array (reserved at once, so that no write fails later).
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if directory is None or num_bytes == 0:
        return np.zeros(shape, dtype)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:
                file.truncate(num_bytes)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            free = shutil.disk_usage(directory).free
            raise ReplayTooLarge(
                f"the replay's file needs {format_bytes(num_bytes)} ({num_bytes:,} bytes) in {directory}, "
                f"which has {format_bytes(free)} ({free:,} bytes) free"
            ) from error
        mapped = np.memmap(file, dtype=dtype, mode="r+", shape=shape)  # keeps the file alive after it is closed here
    return np.asarray(mapped)


def available_bytes(place: str) -> int:
    """Gives the bytes still available in ``memory`` (the container's limit included) or in a folder's file system."""
    if place != "memory":
        folder = Path(place).absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free
    available = int(psutil.virtual_memory().available)
    limit = _read_number(CGROUP / "memory.max")
    used = _read_number(CGROUP / "memory.current")
    if limit is None or used is None:
        return available
    return max(0, min(available, limit - used + _reclaimable()))


def format_bytes(num_bytes: float) -> str:
    """Writes a number of bytes for a person, e.g. ``6.58 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.2f} GiB"


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def _reclaimable() -> int:
    """Gives the bytes of cached files the kernel would drop first."""
    try:
        lines = (CGROUP / "memory.stat").read_text().split("\n")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
