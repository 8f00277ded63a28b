"""What ``sextant export`` does once its arguments are valid: writes a policy's network for use without Sextant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sextant.refusal import ConfigError
from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from agents.interface import Agent
    from sextant.export_sparse import TensorSize

SPARSE_FILE, ONNX_FILE = "network.sparse.safetensors", "network.onnx"


@dataclass(frozen=True)
class Exported:
    """What one command wrote.

    Attributes:
        directory: where the files are.
        sizes: of every tensor in the sparse file; None without ``--sparse``.
        onnx_difference: largest difference between onnxruntime's and PyTorch's outputs; None without ``--onnx``.
    """

    directory: Path
    sizes: list[TensorSize] | None
    onnx_difference: float | None


def run_export(
    run_dir: Path,
    *,
    checkpoint: Literal["last", "best"] = "last",
    out: Path | None = None,
    sparse: bool = False,
    onnx: bool = False,
    console: Console | None = None,
) -> Exported:
    """Writes the network that a checkpoint of a run acts by.

    Args:
        run_dir: run directory.
        checkpoint: which weights.
        out: folder of the files; None for one of the checkpoint in the run directory.
        sparse: whether to write the weights without their zeros (:mod:`sextant.export_sparse`).
        onnx: whether to write the network as ONNX (:mod:`sextant.export_onnx`).
        console: for what is said (default: standard output).

    Raises:
        ConfigError: if there is no run or checkpoint, nothing to write, or an agent that cannot be exported.
        RunError: if the ONNX network does not give PyTorch's outputs.
    """
    from rich.console import Console

    from sextant.config import load_run_config
    from sextant.evaluate import build_acting_agent, intact_snapshot

    console = console or Console()
    if not (sparse or onnx):
        raise ConfigError("nothing to write: add --sparse, --onnx or both")
    config: Any = load_run_config(run_dir)
    snapshot = intact_snapshot(run_dir, checkpoint, console)
    agent = build_acting_agent(config, config.env.evaluation_protocol(), "cpu", run_dir=run_dir)
    agent.load_weights(snapshot.weights, acting_only=True)
    directory = out or run_dir / "exports" / f"{checkpoint}-{snapshot.env_steps:09d}"
    directory.mkdir(parents=True, exist_ok=True)
    sizes, difference = None, None
    if sparse:
        from sextant.export_sparse import save_sparse

        path = directory / SPARSE_FILE
        facts = {"run": run_name(run_dir), "checkpoint": checkpoint, config.trainer.axis: str(snapshot.env_steps)}
        sizes = save_sparse(path, acting_weights(agent), **facts)
        console.print(sizes_table(sizes))
        _say(console, f"{path}: {path.stat().st_size:,} bytes")
    if onnx:
        from sextant.export_onnx import export_onnx

        path = directory / ONNX_FILE
        difference = export_onnx(agent, path)
        _say(
            console,
            f"{path}: {path.stat().st_size:,} bytes; onnxruntime's outputs differ from PyTorch's by at most "
            f"{difference:.2g} on random observations",
        )
    return Exported(directory, sizes, difference)


def acting_weights(agent: Agent) -> dict[str, Tensor]:
    """Gives every parameter and buffer that acting needs, by name; no targets, no critics outside of the policy."""
    return {name: tensor for name, tensor in agent.weights().items() if name.startswith("policy.")}


def sizes_table(sizes: Sequence[TensorSize]) -> Any:
    """Gives the rich table of a sparse file: a row per tensor of several dimensions, the others in one."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1))
    for title in ("tensor", "shape", "kept", "zeros", "as", "bytes dense", "written"):
        left = title in ("tensor", "shape", "as")
        table.add_column(title, justify="left" if left else "right", overflow="fold", no_wrap=title != "tensor")
    wide = [size for size in sizes if len(size.shape) > 1]
    flat = [size for size in sizes if len(size.shape) <= 1]
    for size in wide:
        shape = "x".join(map(str, size.shape))
        table.add_row(size.name.removeprefix("policy."), shape, *_numbers([size], size.layout))
    if flat:
        table.add_row(f"{len(flat)} of at most one dimension", "", *_numbers(flat, "dense"))
    table.add_section()
    table.add_row("total", "", *_numbers(sizes, ""))
    return table


def _numbers(sizes: Sequence[TensorSize], layout: str) -> list[str]:
    kept, weights = sum(size.kept for size in sizes), sum(math.prod(size.shape) for size in sizes)
    dense, written = sum(size.dense_bytes for size in sizes), sum(size.written_bytes for size in sizes)
    return [f"{kept:,}", f"{1 - kept / weights:.2%}", layout, f"{dense:,}", f"{written:,}"]


def _say(console: Console, message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)
