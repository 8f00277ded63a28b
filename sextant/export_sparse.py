"""A network whose pruned weights take no room: one safetensors file, read back to the dense tensors.

A weight is pruned where it is exactly 0, so that the masks need no record of their own. Of each tensor that has zeros
and more than one dimension the file holds instead of ``NAME``:

- of a matrix (linear layers), compressed sparse rows: ``NAME.csr.values``, ``NAME.csr.columns`` (int32) and
  ``NAME.csr.rows`` (int32, row r is values[rows[r]:rows[r + 1]]);
- of anything larger (convolutions), ``NAME.mask.values`` and ``NAME.mask.bits``: the kept weights in row-major order,
  and a bit per weight in the same order, 1 = kept, eight to a byte, the first in the highest bit.

A tensor that would grow is kept as it is. The header's metadata has one key, ``sextant``, whose JSON names layout and
shape of every tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

FORMAT = "sextant-sparse-1"
METADATA_KEY = "sextant"

Layout = Literal["dense", "csr", "mask"]
Parts = dict[str, Tensor]


@dataclass(frozen=True)
class TensorSize:
    """What one tensor takes in the file.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        kept: weights that are not 0.
        layout: how it is written.
        dense_bytes: what it would take as it is.
        written_bytes: what it takes.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    layout: Layout
    dense_bytes: int
    written_bytes: int


def save_sparse(path: Path, weights: Mapping[str, Tensor], **facts: str) -> list[TensorSize]:
    """Writes tensors, those with zeros without them.

    Args:
        path: of the file; replaced if it is there.
        weights: tensors by name, on any device and in any memory layout.
        facts: what else to write into the metadata.

    Returns:
        the size of every tensor, in the order given.

    Raises:
        ValueError: if two tensors would share a name in the file.
    """
    written: Parts = {}
    sizes = []
    for name, tensor in weights.items():
        dense = tensor.detach().cpu().contiguous()
        layout, parts = _smallest(dense)
        for part, content in parts.items():
            if name + part in written:
                raise ValueError(f"two tensors would be written as {name + part!r}")
            written[name + part] = content.clone()
        kept = int(dense.count_nonzero())
        sizes.append(TensorSize(name, tuple(dense.shape), kept, layout, dense.nbytes, _bytes(parts)))
    tensors = {size.name: {"layout": size.layout, "shape": list(size.shape)} for size in sizes}
    header = json.dumps({"format": FORMAT, **facts, "tensors": tensors})
    draft = path.with_name(path.name + ".tmp")
    draft.write_bytes(safetensors.torch.save(written, {METADATA_KEY: header}))
    draft.replace(path)
    return sizes


def load_sparse(path: Path) -> dict[str, Tensor]:
    """Reads the dense tensors of a file that ``save_sparse`` wrote.

    Returns:
        every tensor by name, bit for bit, but for the sign of zeros: they come back as +0.

    Raises:
        ValueError: if it is no such file, or its parts do not fit together.
    """
    header = sparse_metadata(path)
    parts = safetensors.torch.load_file(path)
    try:
        return {name: _restored(parts, name, **entry) for name, entry in header["tensors"].items()}
    except (KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def sparse_metadata(path: Path) -> dict[str, Any]:
    """Reads the metadata of a file that ``save_sparse`` wrote: layouts, shapes, and the facts given to it.

    Raises:
        ValueError: if it is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} was not written by `sextant export --sparse`") from error
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has format {header['format']!r}, expected {FORMAT!r}")
    return header


def _smallest(dense: Tensor) -> tuple[Layout, Parts]:
    """Gives the layout for a tensor's number of dimensions if it saves bytes, else the tensor itself."""
    if dense.ndim > 1 and dense.is_floating_point():
        layout: Layout = "csr" if dense.ndim == 2 else "mask"
        parts = _csr(dense) if layout == "csr" else _masked(dense)
        if _bytes(parts) < dense.nbytes:
            return layout, parts
    return "dense", {"": dense}


def _csr(dense: Tensor) -> Parts:
    kept = dense != 0
    rows = torch.zeros(dense.shape[0] + 1, dtype=torch.int32)
    rows[1:] = kept.sum(dim=1).cumsum(dim=0)
    return {".csr.values": dense[kept], ".csr.columns": kept.nonzero()[:, 1].to(torch.int32), ".csr.rows": rows}


def _masked(dense: Tensor) -> Parts:
    kept = dense != 0
    return {".mask.values": dense[kept], ".mask.bits": torch.from_numpy(np.packbits(kept.flatten().numpy()))}


def _restored(parts: Parts, name: str, layout: Layout, shape: list[int]) -> Tensor:
    if layout == "dense":
        return parts[name].reshape(shape)
    values = parts[f"{name}.{layout}.values"]
    dense = torch.zeros(shape, dtype=values.dtype)
    if layout == "csr":
        row = torch.repeat_interleave(torch.arange(shape[0]), parts[f"{name}.csr.rows"].diff())
        dense[row, parts[f"{name}.csr.columns"].long()] = values
    else:
        kept = np.unpackbits(parts[f"{name}.mask.bits"].numpy(), count=dense.numel()).astype(bool)
        dense.view(-1)[torch.from_numpy(kept)] = values
    return dense


def _bytes(parts: Parts) -> int:
    return sum(part.nbytes for part in parts.values())
