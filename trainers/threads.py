"""How many threads PyTorch gets: chosen by a short measurement, or set by hand.

Small networks often learn faster on one thread than on all cores, the more so beside emulator threads; the best number
depends on network, batch and machine, so it is measured. The number of threads changes the order of floating-point
sums: a run that shall resume to the same bits must keep the number it started with (store it, do not choose again).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable

from trainers.seeding import isolated_rngs

CLEARLY_FASTER = 1.10  # a larger number of threads must save this factor: less is noise, and cores have other users
_MAX_ROUNDS = 50


def available_cpus() -> int:
    """Gives how many CPUs this process may run on (its affinity mask where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_candidates() -> list[int]:
    """Gives the numbers worth measuring: powers of two up to the CPUs of this process, and that number itself."""
    cpus = available_cpus()
    return sorted({2**power for power in range(cpus.bit_length()) if 2**power <= cpus} | {cpus})


def set_torch_threads(threads: int) -> None:
    """Sets the number of threads PyTorch computes with.

    Raises:
        ValueError: if ``threads`` is not an integer of at least 1.
    """
    import torch

    torch.set_num_threads(_checked(threads))


def choose_torch_threads(
    step: Callable[[], None],
    candidates: Iterable[int] | None = None,
    budget_seconds: float = 2.0,
    log: Callable[[str], None] | None = None,
) -> tuple[int, dict[int, float]]:
    """Measures one learner step under several numbers of threads, picks one and leaves PyTorch set to it.

    Candidates are timed in turns (so that a drifting machine hits all alike) until the budget is spent, at least once
    each after one untimed step each; medians are compared. From the smallest number up, a larger one wins only if it
    is at least 10 % faster than the winner so far. Global random generators are left as they were.

    Args:
        step: one representative update, on throw-away copies: it is run many times and its effects are the caller's.
        candidates: numbers of threads; :func:`thread_candidates` by default.
        budget_seconds: soft limit of the measurement, seconds.
        log: told the outcome in one line.

    Returns:
        the chosen number of threads, and the median seconds per step of every candidate measured.

    Raises:
        ValueError: if there is no candidate, one is below 1, or the budget is negative.
    """
    import torch

    numbers = sorted({_checked(number) for number in (thread_candidates() if candidates is None else candidates)})
    if not numbers:
        raise ValueError("candidates=[]: must name at least one number of threads")
    if not budget_seconds >= 0:
        raise ValueError(f"budget_seconds={budget_seconds!r}: must be >= 0")
    if len(numbers) == 1:
        torch.set_num_threads(numbers[0])
        return numbers[0], {}
    before = torch.get_num_threads()
    try:
        with isolated_rngs(0):
            measured = _measure(step, numbers, budget_seconds, torch.set_num_threads)
    except BaseException:
        torch.set_num_threads(before)
        raise
    chosen = pick_threads(measured)
    torch.set_num_threads(chosen)
    if log is not None:
        table = ", ".join(f"{number}: {1000 * seconds:.2f} ms" for number, seconds in measured.items())
        log(f"torch threads: {chosen} chosen by measurement (per step: {table}); set threads=N to override")
    return chosen, measured


def pick_threads(measured: dict[int, float]) -> int:
    """Picks from seconds per step: the smallest number that no larger one beats clearly (factor 1.10).

    Raises:
        ValueError: if nothing was measured.
    """
    if not measured:
        raise ValueError("measured={}: there is nothing to choose from")
    chosen, *larger = sorted(measured)
    for number in larger:
        if measured[number] * CLEARLY_FASTER <= measured[chosen]:
            chosen = number
    return chosen


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed blocks of up to 32 MiB for reuse instead of handing each back to the system.

    Activations and gradients are allocated anew at every update; without this their pages are mapped and zeroed again
    each time (hundreds of page faults per update of the Nature CNN).

    Returns:
        whether the allocator took the request; False on systems without glibc.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(mmap_threshold, 32 << 20)) and bool(mallopt(trim_threshold, 512 << 20))


def _measure(
    step: Callable[[], None], numbers: list[int], budget_seconds: float, set_threads: Callable[[int], None]
) -> dict[int, float]:
    start = time.perf_counter()
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    for number in numbers:
        set_threads(number)
        step()
    for _ in range(_MAX_ROUNDS):
        for number in numbers:
            set_threads(number)
            began = time.perf_counter()
            step()
            seconds[number].append(time.perf_counter() - began)
        if time.perf_counter() - start >= budget_seconds:
            break
    return {number: statistics.median(times) for number, times in seconds.items()}


def _checked(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads={threads!r}: must be >= 1 or 'auto'")
    return threads
