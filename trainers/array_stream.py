"""NumPy arrays streamed in the safetensors format, block by block.

The safetensors library holds a second copy of everything it writes or reads. Replay arrays are too large for that, and
they are compressed on the way; so they are streamed here, into the same format (the tests read it with the library).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from memory.arrays import Rows

_BLOCK_BYTES = 1 << 22
_MAX_HEADER_BYTES = 1 << 26
_DTYPES = {
    "|b1": "BOOL", "|u1": "U8", "|i1": "I8", "<u2": "U16", "<i2": "I16", "<f2": "F16", "<u4": "U32", "<i4": "I32",
    "<f4": "F32", "<u8": "U64", "<i8": "I64", "<f8": "F64",
}  # fmt: skip
_NUMPY_DTYPES = {name: np.dtype(code) for code, name in _DTYPES.items()}


class _Writable(Protocol):
    def write(self, data: Any, /) -> int: ...


class _Readable(Protocol):
    def readinto(self, buffer: Any, /) -> int | None: ...


def write_arrays(stream: _Writable, arrays: Mapping[str, np.ndarray | Rows]) -> None:
    """Writes arrays in the safetensors format, block by block, without a copy of contiguous ones or rows.

    Raises:
        TypeError: if an array's dtype is not a little-endian bool, integer or float of at most 8 bytes.
    Source: the safetensors format, README of huggingface/safetensors.
    """
    header: dict[str, Any] = {}
    offset = 0
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # widest first keeps data aligned
    for name in names:
        array = arrays[name]
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"arrays[{name!r}] has dtype {array.dtype}: must be one of {sorted(_DTYPES.values())}")
        header[name] = {
            "dtype": _DTYPES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    stream.write(len(encoded).to_bytes(8, "little") + encoded)
    for name in names:
        for block in _blocks(arrays[name]):
            stream.write(block.data)


def _blocks(array: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """Gives the bytes of an array in C order, some megabytes at a time."""
    if isinstance(array, Rows):
        for piece in array.blocks(_BLOCK_BYTES):
            yield piece.reshape(-1).view(np.uint8)
        return
    flat = np.asarray(array, order="C").reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _BLOCK_BYTES):
        yield flat[start : start + _BLOCK_BYTES]


def read_arrays(stream: _Readable) -> dict[str, np.ndarray]:
    """Reads what :func:`write_arrays` wrote, each array into memory of its own.

    Raises:
        ValueError: if the stream is not such a file, or is cut.
    """
    length = int.from_bytes(_read_exactly(stream, 8), "little")
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise ValueError(f"header of {length} bytes: must be in [2, {_MAX_HEADER_BYTES}]")
    header = json.loads(_read_exactly(stream, length))
    arrays, offset = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        dtype = _NUMPY_DTYPES[entry["dtype"]]
        if entry["data_offsets"] != [offset, offset + math.prod(entry["shape"]) * dtype.itemsize]:
            raise ValueError(f"array {name!r}: offsets {entry['data_offsets']} do not fit shape {entry['shape']}")
        array = np.empty(entry["shape"], dtype)
        _fill(stream, array.reshape(-1).view(np.uint8))
        arrays[name], offset = array, offset + array.nbytes
    if stream.readinto(bytearray(1)):
        raise ValueError(f"bytes left after the {offset} bytes of data")
    return {name: arrays[name] for name in sorted(arrays)}


def _read_exactly(stream: _Readable, count: int) -> bytes:
    buffer = np.empty(count, np.uint8)
    _fill(stream, buffer)
    return buffer.tobytes()


def _fill(stream: _Readable, flat: np.ndarray) -> None:
    filled = 0
    while filled < flat.size:
        count = stream.readinto(flat[filled : filled + _BLOCK_BYTES].data)
        if not count:
            raise ValueError(f"the file ends {flat.size - filled} bytes early")
        filled += count
