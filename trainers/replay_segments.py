"""Replay data over many checkpoints: each writes one segment, and a ring says which segments are still needed.

Every env's replay is a ring of slots with a counter of how many were ever written. A segment remembers the counters at
its writing and holds nothing newer, so it is done with once every env has written a whole ring after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.checkpoint_files import FileRecord, read_segment


@dataclass(frozen=True)
class Segment:
    """One file of replay data.

    Attributes:
        index: checkpoint that wrote it.
        sha256, bytes: of the file.
        counts: per env, how many slots had ever been written when it was saved.
    """

    index: int
    sha256: str
    bytes: int
    counts: tuple[int, ...]

    @property
    def record(self) -> FileRecord:
        """What the file must hash to."""
        return FileRecord(self.sha256, self.bytes)


@dataclass(frozen=True)
class ReplayChunks:
    """The replay data of a checkpoint, oldest first; each chunk is read when the iteration reaches it."""

    directory: Path
    segments: tuple[Segment, ...] = ()

    def __len__(self) -> int:
        """Gives the number of chunks."""
        return len(self.segments)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Gives each chunk's arrays.

        Raises:
            DamagedCheckpointError: if a file was removed or altered after the checkpoint was verified.
        """
        return (read_segment(segment_path(self.directory, segment.index)) for segment in self.segments)


def segment_path(directory: Path, index: int) -> Path:
    """Gives the file of a checkpoint's segment in the folder of all segments."""
    return directory / f"{index:06d}.safetensors.zst"


def segments_from_json(entries: Iterable[dict[str, object]]) -> tuple[Segment, ...]:
    """Rebuilds segments from their dictionaries in a manifest."""
    return tuple(Segment(**{**entry, "counts": tuple(entry["counts"])}) for entry in entries)  # type: ignore[arg-type]


def checked_counts(counts: np.ndarray | None, slots: int | None, segments: tuple[Segment, ...]) -> tuple[int, ...]:
    """Gives the counters of a new segment, checked against the last one.

    Raises:
        ValueError: if counters or ring length are missing, or a counter went backwards.
    """
    if counts is None or slots is None or slots < 1:
        raise ValueError(f"replay_chunk needs replay_counts and replay_slots >= 1, not {counts!r} and {slots!r}")
    now = tuple(int(count) for count in counts)
    before = segments[-1].counts if segments else (0,) * len(now)
    if len(now) != len(before) or any(new < old for new, old in zip(now, before, strict=True)):
        raise ValueError(f"replay_counts={list(now)}: must be at least {list(before)}, those of the last checkpoint")
    return now


def still_needed(segments: tuple[Segment, ...], counts: tuple[int, ...], slots: int) -> tuple[Segment, ...]:
    """Leaves out segments all of whose slots have been written again since; ``counts`` and ``slots`` per env."""
    return tuple(
        segment
        for segment in segments
        if any(old > now - slots for old, now in zip(segment.counts, counts, strict=True))
    )
