"""Checkpoints of a run: written atomically, verified by hash, with a replay that is saved only where it is new.

Layout of the directory, all of it data and none of it pickled objects::

    000012/            weights.safetensors, optimizer.pt (read with weights_only=True), counters.json,
                       arrays.safetensors, manifest.json (sha256 and size of each), manifest.sha256
    replay/000012.safetensors.zst    what was new in the replay at checkpoint 12; manifests name all they still need
    best/000000050000/ weights and counters of the best evaluation, by env steps
    000011.corrupt/    a damaged checkpoint, set aside

A save writes the replay segment, then the folder under a temporary name, forces both to disk and renames the folder
into place: whatever the moment of a kill, power cut or full disk, the checkpoint before it stays whole. ``best/`` holds
one folder per env step for the same reason; the older ones go once the new one stands.
"""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memory.replay_state import ReplayData
from trainers import checkpoint_contents as packing
from trainers import checkpoint_files as files
from trainers.checkpoint_files import CheckpointError, CheckpointFormatError, DamagedCheckpointError, FileRecord
from trainers.replay_segments import ReplayChunks, Segment, checked_counts, segment_path, still_needed
from trainers.snapshots import BEST_FILES, BEST_INDEX, FULL_FILES, Snapshot, read_snapshot

__all__ = [
    "CheckpointError",
    "CheckpointFormatError",
    "CheckpointStore",
    "DamagedCheckpointError",
    "ReplayChunks",
    "Snapshot",
]

_SLACK_BYTES = 1 << 16  # manifest and folder entries
_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class CheckpointStore:
    """The checkpoints of one run. One process may write; others open it ``read_only`` beside it."""

    def __init__(
        self,
        directory: Path,
        keep: int = 2,
        warn: Callable[[str], None] = warnings.warn,
        *,
        read_only: bool = False,
    ) -> None:
        """Opens a directory, which need not exist; nothing is read or written yet.

        Args:
            directory: ``checkpoints/`` of a run.
            keep: how many full checkpoints stay, the newest ones; the best is kept besides.
            warn: told about damaged checkpoints and what is used instead.
            read_only: never change the directory: damaged checkpoints are passed over, not set aside.

        Raises:
            ValueError: if ``keep`` is below 1.
        """
        if keep < 1:
            raise ValueError(f"keep={keep!r}: must be >= 1")
        self.directory = Path(directory)
        self.keep = keep
        self._warn = warn
        self._read_only = read_only
        self._replay = self.directory / "replay"
        self._segments: tuple[Segment, ...] = ()  # those of the last saved or loaded checkpoint

    def indices(self) -> list[int]:
        """Gives the numbers of the checkpoints present, oldest first, verified or not."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if re.fullmatch(r"\d{6,}", path.name))

    @property
    def replay_counts(self) -> np.ndarray | None:
        """Slots written per env, shape (num_envs,), that the last saved or loaded checkpoint holds; None before any.

        What the next ``replay_chunk`` must start from.
        """
        return np.array(self._segments[-1].counts, np.int64) if self._segments else None

    def save(
        self,
        *,
        index: int,
        env_steps: int,
        weights: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, Any],
        counters: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        replay_chunk: ReplayData | None = None,
        replay_counts: np.ndarray | None = None,
        replay_slots: int | None = None,
        replay_reset: bool = False,
    ) -> Path:
        """Saves a checkpoint, removes those beyond ``keep`` and replay files that none names any more.

        The replay is a ring per env. A chunk holds what was written since :attr:`replay_counts`; a segment is dropped
        once every env has written ``replay_slots`` slots after it.

        Args:
            index: number of the checkpoint, above every one present.
            env_steps: training so far (unit: env steps).
            weights: every parameter and buffer; may share memory or lie in any layout or device.
            optimizer: tensors and plain values only.
            counters: JSON values (integers of any size) under string keys; NumPy scalars are converted.
            arrays: bool, integer and float arrays.
            replay_chunk: new replay data; None saves none and keeps what earlier checkpoints hold.
            replay_counts: slots written per env so far, shape (num_envs,); goes with ``replay_chunk``.
            replay_slots: slots of each env's ring; goes with ``replay_chunk``.
            replay_reset: forget all earlier replay data (the replay was emptied).

        Returns:
            the checkpoint's folder.

        Raises:
            CheckpointError: if it cannot be written; the checkpoints before it are intact, nothing half-written stays.
            TypeError: if something could not be read back as it is.
            ValueError: if the index or the replay's counters go backwards.
        """
        if index <= max(self.indices(), default=-1):
            raise ValueError(f"index={index}: must be above {max(self.indices(), default=-1)}, the newest checkpoint")
        segments = () if replay_reset else self._segments
        if replay_chunk is not None:
            counts = checked_counts(replay_counts, replay_slots, segments)
            segments = still_needed(segments, counts, replay_slots or 1)
        contents = {
            "weights.safetensors": packing.pack_weights(weights),
            "counters.json": packing.pack_counters(counters),
            "optimizer.pt": packing.pack_optimizer(optimizer),
            "arrays.safetensors": packing.pack_arrays(arrays),
        }
        folder = self.directory / f"{index:06d}"
        with self._saving(folder, contents, replay_chunk or {}):
            if replay_chunk is not None:
                record = self._write_segment(index, replay_chunk)
                segments += (Segment(index, record.sha256, record.bytes, counts),)
            replay = [asdict(segment) for segment in segments]
            files.write_sealed_folder(folder, contents, {"index": index, "env_steps": env_steps, "replay": replay})
        self._segments = segments
        self._prune()
        return folder

    def save_best(self, env_steps: int, weights: Mapping[str, torch.Tensor], counters: Mapping[str, Any]) -> Path:
        """Replaces the best checkpoint: weights and counters only. Returns and errors as :meth:`save`."""
        contents = {
            "weights.safetensors": packing.pack_weights(weights),
            "counters.json": packing.pack_counters(counters),
        }
        folder = self.directory / "best" / f"{env_steps:012d}"
        with self._saving(folder, contents, {}):
            files.write_sealed_folder(folder, contents, {"index": BEST_INDEX, "env_steps": env_steps, "replay": []})
        for other in self._best_folders():
            if other != folder:
                self._remove(other)
        return folder

    def load_latest(self) -> Snapshot | None:
        """Loads the newest checkpoint that verifies; damaged ones are set aside as ``*.corrupt`` and reported.

        Returns:
            the snapshot, or None if there is no intact checkpoint.

        Raises:
            CheckpointFormatError: if the newest intact one was written by an incompatible version.
            CheckpointError: if a file cannot be read though it is there (permissions).
        """
        if not self._read_only:
            with suppress(OSError):  # a read-only disk: leftovers do no harm
                self._clean()
        return self._newest_intact(lambda: [self.directory / f"{index:06d}" for index in self.indices()], FULL_FILES)

    def load_best(self) -> Snapshot | None:
        """Loads the best checkpoint; None if there is none, or it is damaged. Errors as :meth:`load_latest`."""
        return self._newest_intact(self._best_folders, BEST_FILES)

    def load(self, index: int) -> Snapshot:
        """Loads one checkpoint.

        Raises:
            DamagedCheckpointError: if it is missing or does not verify; it stays where it is.
            CheckpointError: as :meth:`load_latest`.
        """
        if index not in self.indices():
            raise DamagedCheckpointError(f"{self.directory}: has no checkpoint {index:06d}, only {self.indices()}")
        return self._read(self.directory / f"{index:06d}", FULL_FILES)

    # Reading

    def _newest_intact(self, folders: Callable[[], list[Path]], names: tuple[str, ...]) -> Snapshot | None:
        damaged: list[str] = []
        tried: set[Path] = set()
        snapshot = None
        while snapshot is None and (left := [folder for folder in folders() if folder not in tried]):
            tried.add(left[-1])
            try:
                snapshot = self._read(left[-1], names)
            except DamagedCheckpointError as error:
                if left[-1].exists():  # else the training process has replaced it by a newer one meanwhile
                    damaged.append(f"damaged checkpoint {left[-1].name} is not loaded: {error}")
                    damaged[-1] += self._set_aside(left[-1])
        for message in damaged:
            if snapshot is None:
                self._warn(f"{message}; no intact one is left")
            else:
                self._warn(f"{message}; using {snapshot.path.name} (of step {snapshot.env_steps:,}) instead")
        return snapshot

    def _read(self, folder: Path, names: tuple[str, ...]) -> Snapshot:
        snapshot = read_snapshot(folder, self._replay, names)
        if snapshot.index != BEST_INDEX:
            self._segments = snapshot.replay_chunks.segments
        return snapshot

    def _set_aside(self, folder: Path) -> str:
        if self._read_only:
            return ""
        number = 1
        while (aside := folder.with_name(folder.name + ".corrupt" + (f"-{number}" if number > 1 else ""))).exists():
            number += 1
        try:
            os.rename(folder, aside)
        except OSError as error:
            return f" (and could not be renamed: {error.strerror})"
        return f" (set aside as {aside.name})"

    def _best_folders(self) -> list[Path]:
        return sorted(path for path in self.directory.glob("best/*") if re.fullmatch(r"\d{12,}", path.name))

    # Writing

    @contextmanager
    def _saving(self, folder: Path, contents: Mapping[str, bytes], chunk: ReplayData) -> Iterator[None]:
        """Prepares for a save; cleans up and explains if it fails."""
        if self._read_only:
            raise CheckpointError(f"{folder} was not saved: this store was opened read-only")
        state_bytes = sum(map(len, contents.values())) + _SLACK_BYTES
        replay_bytes = sum(array.nbytes for array in chunk.values())
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            files.fsync_directory(folder.parent.parent)
            self._clean()
            if files.free_bytes(folder.parent) < state_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield
        except BaseException as error:
            self._undo(folder)
            if not isinstance(error, OSError):
                raise
            reason = error.strerror or str(error)
            if error.errno in _DISK_FULL:
                reason = f"disk full: {state_bytes:,} bytes needed"
                reason += f" and up to {replay_bytes:,} more for the replay" if replay_bytes else ""
                reason += f", {files.free_bytes(folder.parent):,} bytes free"
            kept = self.indices()
            previous = f"checkpoint {kept[-1]:06d} is intact" if kept else "there is no earlier checkpoint"
            failure = CheckpointError(f"{folder} was not saved: {reason}; {previous}")
            failure.errno = error.errno
            raise failure from error

    def _undo(self, folder: Path) -> None:
        """Removes the traces of a failed save, as far as the disk lets us; the next save or load tries again."""
        with suppress(OSError):
            self._clean()
            if folder.parent == self.directory:  # its index is new, so nothing else needs the folder or the segment
                if folder.exists():
                    files.remove_folder(folder)
                segment_path(self._replay, int(folder.name)).unlink(missing_ok=True)

    def _write_segment(self, index: int, chunk: ReplayData) -> FileRecord:
        path = segment_path(self._replay, index)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(files.TEMPORARY + path.name)
        record = files.write_segment(temporary, chunk)
        os.replace(temporary, path)
        files.fsync_directory(path.parent)
        files.fsync_directory(self.directory)
        return record

    def _clean(self) -> None:
        for folder in (self.directory, self._replay, self.directory / "best"):
            files.remove_temporary(folder)

    def _prune(self) -> None:
        """Removes checkpoints beyond ``keep``, then replay files that no remaining checkpoint names."""
        for index in self.indices()[: -self.keep]:
            self._remove(self.directory / f"{index:06d}")
        named: set[Path] = set()
        try:
            for index in self.indices():
                manifest = json.loads((self.directory / f"{index:06d}" / files.MANIFEST).read_bytes())
                named |= {segment_path(self._replay, entry["index"]) for entry in manifest["replay"]}
        except (OSError, ValueError, KeyError, TypeError):
            return  # a damaged checkpoint: it may name anything, until it falls out of `keep` or is set aside
        for path in self._replay.glob("*.zst"):
            if path not in named:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        try:
            files.remove_folder(path) if path.is_dir() else path.unlink()
        except OSError as error:
            self._warn(f"{path} is no longer needed, but could not be removed: {error.strerror}")
