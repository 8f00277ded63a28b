"""What this machine offers: CPUs, memory and disk as this process may use them, and accelerators."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """One machine as seen by this process.

    Attributes:
        system: operating system and its version.
        processor: model of the CPU.
        cpus: CPUs this process may run on (affinity mask).
        cpu_quota: CPUs' worth of time a container limit leaves, or None.
        memory_bytes: physical memory.
        memory_available_bytes: what is free now, or what a container limit leaves where that is less.
        disk_free_bytes: free bytes where the current directory lies.
    """

    system: str
    processor: str
    cpus: int
    cpu_quota: float | None
    memory_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int


def this_machine(folder: Path = Path()) -> Machine:
    """Gives the machine this runs on; ``folder`` is where the free disk space is looked up."""
    import psutil

    memory = psutil.virtual_memory()
    limit = _first_number(CGROUP / "memory.max", CGROUP / "memory/memory.limit_in_bytes")
    used = _first_number(CGROUP / "memory.current", CGROUP / "memory/memory.usage_in_bytes")
    left = memory.available if limit is None or used is None else min(memory.available, max(0, limit - used))
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_quota=_cpu_quota(),
        memory_bytes=memory.total,
        memory_available_bytes=left,
        disk_free_bytes=shutil.disk_usage(_existing(folder)).free,
    )


def devices() -> dict[str, Any]:
    """Gives PyTorch's view of the accelerators; imports torch (about 2 s)."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = [torch.cuda.get_device_properties(index).total_memory for index in range(len(names))]
    return {
        "cuda": torch.version.cuda,
        "gpus": [f"{name}, {size / GIB:.0f} GiB" for name, size in zip(names, memory, strict=True)],
        "torch_threads": torch.get_num_threads(),
    }


def _existing(folder: Path) -> Path:
    """Gives the folder, or the closest parent of it that exists."""
    path = folder.resolve()
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _cpu_quota() -> float | None:
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota = str(_first_number(CGROUP / "cpu/cpu.cfs_quota_us") or "max")
        period = str(_first_number(CGROUP / "cpu/cpu.cfs_period_us") or "0")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _first_number(*files: Path) -> int | None:
    """Gives the whole number in the first of these files that holds one; None for none or ``max``."""
    for file in files:
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            continue
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
