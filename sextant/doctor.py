"""``sextant doctor``: what is installed, what is known to go wrong with it, and what this machine offers."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from envs.base import package_versions
from sextant.checkout import CHECKOUT, shadowed_packages, shadowing_message
from sextant.machine import GIB, Machine, devices, this_machine
from sextant.versions import OPTIONAL_PACKAGES, RESULT_PACKAGES, known_problems

MIN_PYTHON = (3, 11)
MIN_FREE_DISK_BYTES = GIB


def run_doctor(runs_dir: Path = Path("runs")) -> int:
    """Prints a report on packages, names, threads, memory, disk and devices.

    Args:
        runs_dir: where runs would be written.

    Returns:
        0 if nothing stands in the way of a run, 1 if there are problems.
    """
    machine = this_machine(runs_dir)
    versions = package_versions(*RESULT_PACKAGES)
    problems = known_problems(versions)
    if sys.version_info < MIN_PYTHON:
        problems.append(f"Python {platform.python_version()}: 3.11 or newer is needed")
    if taken := shadowed_packages():
        problems.append(shadowing_message(taken))
    problems += storage_problems(machine, runs_dir)
    _print_section("Packages", _package_lines(versions))
    _print_section("Machine", _machine_lines(machine))
    _print_section("Threads", _thread_lines())
    _print_section("Devices", _device_lines(installed=versions["torch"] != "missing"))
    hints = list(_hints(machine))
    _print_section("Hints", hints or ["none"])
    _print_section("Problems", problems or ["none"])
    return 1 if problems else 0


def storage_problems(machine: Machine, runs_dir: Path) -> list[str]:
    """Gives what stands in the way of writing runs: a folder that cannot be written, or a full disk."""
    problems = []
    if machine.disk_free_bytes < MIN_FREE_DISK_BYTES:
        problems.append(f"only {machine.disk_free_bytes / GIB:.2f} GiB of disk are free for {runs_dir}")
    target = runs_dir if runs_dir.exists() else Path()
    try:
        with tempfile.NamedTemporaryFile(dir=target):
            pass
    except OSError as error:
        problems.append(f"{target.resolve()} cannot be written: {error.strerror}")
    return problems


def _package_lines(versions: dict[str, str]) -> Iterator[str]:
    yield f"{'python':<13}{platform.python_version():<16}{sys.executable}"
    yield f"{'checkout':<13}{CHECKOUT}"
    for package, version in versions.items():
        if version != "missing" or package not in OPTIONAL_PACKAGES:
            yield f"{package:<13}{version}"


def _machine_lines(machine: Machine) -> Iterator[str]:
    yield f"{'system':<13}{machine.system}"
    yield f"{'processor':<13}{machine.processor}"
    quota = "" if machine.cpu_quota is None else f", container limit {machine.cpu_quota:g}"
    yield f"{'cpus':<13}{machine.cpus}{quota}"
    yield f"{'memory':<13}{machine.memory_available_bytes / GIB:.1f} GiB free of {machine.memory_bytes / GIB:.1f} GiB"
    yield f"{'disk':<13}{machine.disk_free_bytes / GIB:.1f} GiB free"


def _thread_lines() -> Iterator[str]:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS"):
        yield f"{name:<17}{os.environ.get(name, 'not set')}"


def _device_lines(*, installed: bool) -> Iterator[str]:
    if not installed:
        yield "unknown: torch is not installed"
        return
    found = devices()
    yield f"{'torch':<13}{found['torch_threads']} threads by default, CUDA {found['cuda'] or 'not built in'}"
    for index, gpu in enumerate(found["gpus"]):
        yield f"{f'cuda:{index}':<13}{gpu}"
    if not found["gpus"]:
        yield f"{'gpu':<13}none"
        if shutil.which("nvidia-smi") and found["cuda"] is None:
            yield "this machine has an NVIDIA driver, but this torch was built without CUDA"


def _hints(machine: Machine) -> Iterator[str]:
    if machine.cpu_quota is not None and machine.cpu_quota < machine.cpus:
        yield f"a container limits {machine.cpus} visible CPUs to {machine.cpu_quota:g}: set threads by hand"
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > machine.cpus:
        yield f"OMP_NUM_THREADS={threads} is more than the {machine.cpus} CPUs: threads will wait for each other"
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "active":
        yield "OMP_WAIT_POLICY=active keeps idle threads spinning, which takes CPU time from the emulator: use passive"
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ and "DISPLAY" not in os.environ:
        yield "no display: videos of Meta-World need MUJOCO_GL=egl (GPU) or MUJOCO_GL=osmesa (CPU)"


def _print_section(title: str, lines: Iterator[str] | list[str]) -> None:
    print(title)
    for line in lines:
        print("  " + line.replace("\n", "\n  "))
    print()
