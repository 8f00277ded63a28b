"""A checkpoint read back and verified."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from trainers import checkpoint_contents as packing
from trainers.checkpoint_files import CheckpointError, DamagedCheckpointError, read_sealed_folder, verify_file
from trainers.replay_segments import ReplayChunks, segment_path, segments_from_json

BEST_INDEX = -1
BEST_FILES = ("weights.safetensors", "counters.json")
FULL_FILES = (*BEST_FILES, "optimizer.pt", "arrays.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """A verified checkpoint.

    Attributes:
        index: number of the checkpoint; -1 for the best one.
        env_steps: training so far (unit: env steps).
        weights: tensors by name, on the CPU.
        optimizer: state of all optimizers; empty for the best one.
        counters: JSON values.
        arrays: NumPy arrays by name; empty for the best one.
        replay_chunks: replay data, oldest first, read lazily; none for the best one.
        path: folder it came from.
    """

    index: int
    env_steps: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    counters: dict[str, Any]
    arrays: dict[str, np.ndarray]
    replay_chunks: ReplayChunks
    path: Path

    def arrays_below(self, prefix: str) -> dict[str, np.ndarray]:
        """Gives the arrays whose names begin with a prefix, under the rest of their names."""
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


def read_snapshot(folder: Path, replay: Path, names: tuple[str, ...]) -> Snapshot:
    """Reads a checkpoint and verifies every file of it, all replay segments it names included.

    Args:
        folder: the checkpoint.
        replay: folder of the replay segments.
        names: the files it must hold besides the manifest, :data:`FULL_FILES` or :data:`BEST_FILES`.

    Raises:
        DamagedCheckpointError: if a file is missing, cut or altered.
        CheckpointFormatError: if it is intact, but of another format.
        CheckpointError: if a file cannot be read though it is there (permissions).
    """
    try:
        manifest, contents = read_sealed_folder(folder, names)
        if names == FULL_FILES and manifest["index"] != int(folder.name):
            raise DamagedCheckpointError(f"{folder}: is checkpoint {manifest['index']} under another name")
        segments = segments_from_json(manifest["replay"])
        for segment in segments:
            verify_file(segment_path(replay, segment.index), segment.record)
        full = names == FULL_FILES
        return Snapshot(
            index=manifest["index"],
            env_steps=manifest["env_steps"],
            weights=packing.unpack_weights(contents["weights.safetensors"]),
            optimizer=packing.unpack_optimizer(contents["optimizer.pt"]) if full else {},
            counters=packing.unpack_counters(contents["counters.json"]),
            arrays=packing.unpack_arrays(contents["arrays.safetensors"]) if full else {},
            replay_chunks=ReplayChunks(replay, segments),
            path=folder,
        )
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise DamagedCheckpointError(f"{folder}: does not parse ({type(error).__name__}: {error})") from error
    except OSError as error:
        kind = DamagedCheckpointError if error.errno == errno.EIO else CheckpointError  # EIO: a bad sector
        raise kind(f"{folder} cannot be read: {error}") from error
