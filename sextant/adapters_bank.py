"""The adapters of several runs in one file: one small set of tensors for each task, beside one base model.

The file is safetensors with the names of :class:`agents.decision_transformer.lora_bank.LoRABank`, ``task/layer.part``;
its metadata say which weights the adapters belong to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.base_run import adaptation_of, tasks_of
from sextant.refusal import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from agents.decision_transformer.lora_bank import LoRABank

_MODEL = "policy.model."
_SHARED = ("where", "rank", "alpha", "base_digest")


def write_bank(run_dirs: Sequence[Path], path: Path) -> Path:
    """Gathers the adapters of runs of one base, each adapted to one task, from their last checkpoints.

    Args:
        run_dirs: of ``sextant adapt method=lora``.
        path: of the file, which is replaced.
    Returns:
        the path.
    Raises:
        ConfigError: if a run is none of that kind, two are of one task, or they differ in base or kind of adapter.
    """
    import safetensors.torch

    from trainers.checkpoint_files import durable_file, fsync_directory

    shared: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensor] = {}
    for run_dir in run_dirs:
        task, settings, adapters = _adapters(run_dir)
        if task in shared:
            raise ConfigError(f"{run_dir}: there are adapters of {task} already; a bank has one set for each task")
        shared[task] = settings
        if settings != (first := next(iter(shared.values()))):
            differing = {name: (first[name], settings[name]) for name in _SHARED if first[name] != settings[name]}
            raise ConfigError(f"{run_dir} differs from the first run in {differing}: a bank belongs to one base")
        tensors |= {f"{task}/{name}": tensor for name, tensor in adapters.items()}
    if not shared:
        raise ConfigError("a bank needs at least one run")
    facts = {**next(iter(shared.values())), "tasks": list(shared)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    with durable_file(temporary) as file:
        file.write(safetensors.torch.save(tensors, {"adapters": json.dumps(facts)}))
    temporary.replace(path)
    fsync_directory(path.parent)
    return path


def load_bank(path: Path, model: nn.Module, *, base_digest: str | None = None) -> LoRABank:
    """Puts the adapters of a file on a model, of which it then uses those of one task at a time.

    Args:
        path: of the file.
        model: the base's sequence model, with its weights; changed in place.
        base_digest: sha256 of the file the model's weights came from, to be compared with the bank's; None trusts.
    Returns:
        the bank: ``bank.switch(task)``.
    Raises:
        ConfigError: if the file is no bank, or belongs to other weights.
        ValueError: if its tensors do not fit the model.
    """
    from safetensors import SafetensorError, safe_open

    from agents.decision_transformer.lora_bank import LoRABank

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["adapters"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is no bank of adapters: {error}") from error
    if base_digest is not None and base_digest != facts["base_digest"]:
        raise ConfigError(
            f"{path} belongs to weights with sha256 {facts['base_digest'][:16]}..., not {base_digest[:16]}..."
        )
    layers = {name.partition("/")[2].rpartition(".")[0] for name in tensors}
    bank = LoRABank(model, lambda name, _: name in layers, facts["tasks"], facts["rank"], facts["alpha"])
    bank.load_state_dict(tensors)
    return bank


def _adapters(run_dir: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Gives the one task of an adapted run, what its adapters have in common with others, and the adapters."""
    from rich.console import Console

    from sextant.config import load_run_config
    from sextant.evaluate import intact_snapshot

    config = load_run_config(run_dir)
    adaptation, tasks = adaptation_of(config), tasks_of(config)
    if adaptation is None or adaptation.method != "lora" or adaptation.also_heads or adaptation.also_initial_slots:
        raise ConfigError(f"{run_dir} holds no run of `sextant adapt method=lora` that trained the adapters alone")
    if len(tasks) != 1:
        raise ConfigError(f"{run_dir} was adapted to {len(tasks) or 'all'} tasks: a bank takes runs of one task each")
    weights = intact_snapshot(run_dir, "last", Console(stderr=True)).weights
    adapters = {
        name.removeprefix(_MODEL): tensor
        for name, tensor in weights.items()
        if name.rpartition(".")[2] in ("lora_a", "lora_b")
    }
    return tasks[0], {name: getattr(adaptation, name) for name in _SHARED}, adapters
