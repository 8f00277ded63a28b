"""What goes into a checkpoint's files, packed into bytes and back: weights, optimizers, counters, arrays.

Everything is refused at saving time that would not come back as it was: a checkpoint must not fail on the day it is
needed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from trainers.array_stream import read_arrays, write_arrays


def pack_weights(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Packs tensors as safetensors; they may lie on any device, in any memory layout, and share memory."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in weights.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        tensors[name] = plain.clone() if address in seen else plain
        seen.add(address)
    return safetensors.torch.save(tensors)


def unpack_weights(content: bytes) -> dict[str, torch.Tensor]:
    """Gives back the tensors, on the CPU."""
    return dict(safetensors.torch.load(content))


def pack_optimizer(state: Mapping[str, Any]) -> bytes:
    """Packs optimizer states for ``torch.load(weights_only=True)``.

    Raises:
        TypeError: if the state holds objects that such a load refuses.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    if unsafe := get_unsafe_globals_in_checkpoint(buffer):
        raise TypeError(f"optimizer state holds {', '.join(sorted(unsafe))}: only tensors and plain values are allowed")
    return buffer.getvalue()


def unpack_optimizer(content: bytes) -> dict[str, Any]:
    """Gives back the optimizer states, tensors on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def pack_counters(counters: Mapping[str, Any]) -> bytes:
    """Packs JSON values; floats and integers of any size come back exactly.

    Raises:
        TypeError: if a value would come back as something else (a tuple, a non-string key) or not at all.
    """
    return json.dumps(_plain(counters, "counters"), indent=1).encode()


def unpack_counters(content: bytes) -> dict[str, Any]:
    """Gives back the JSON values."""
    counters: dict[str, Any] = json.loads(content)
    return counters


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Packs arrays as safetensors. Raises ``TypeError`` for dtypes other than bool, integers and floats."""
    buffer = io.BytesIO()
    write_arrays(buffer, arrays)
    return buffer.getvalue()


def unpack_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Gives back the arrays, writable."""
    return read_arrays(io.BytesIO(content))


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: JSON keys are strings")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is of type {type(value).__name__}: must be a dict, list, str, int, float, bool or None "
        "(arrays go into `arrays`)"
    )
