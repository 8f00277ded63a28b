"""One seed for a whole run: each consumer of randomness gets its own child, found by name.

A child depends on the root seed, the consumer's name and optional indices, and on nothing else: neither the order in
which children are asked for nor Python's hash randomisation moves it. The global generators of Python, NumPy and
PyTorch, which libraries below us draw from, are seeded, captured for checkpoints and shielded from evaluation here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_SEED = 2**31 - 1  # exclusive: ALE and Gymnasium take signed 32-bit seeds
_NAME_WORDS = 4  # 128 bits of the name's hash: collisions are out of the question


@dataclass(frozen=True)
class Seeds:
    """The root seed of a run and the children derived from it.

    Attributes:
        seed: root seed, at least 0.

    Example:
        >>> Seeds(0).integer("env", 3) == Seeds(0).integer("env", 3)
        True
    """

    seed: int

    def __post_init__(self) -> None:
        """Refuses a root seed that NumPy's ``SeedSequence`` cannot take.

        Raises:
            ValueError: if the seed is not an integer of at least 0.
        """
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r}: must be an integer >= 0")

    def sequence(self, name: str, *index: int) -> np.random.SeedSequence:
        """Gives the child of one consumer; a fresh object on every call, so that spawning from it has no memory.

        Args:
            name: the consumer, e.g. ``"env"``.
            *index: which of several, e.g. the environment's number or the checkpoint's index; each in [0, 2**64).

        Raises:
            ValueError: if an index is out of range.
        """
        digest = hashlib.sha256(name.encode()).digest()
        words = [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(_NAME_WORDS)]
        for number in index:
            if not 0 <= number < 2**64:
                raise ValueError(f"index={number!r} of seed {name!r}: must be in [0, 2**64)")
            words += [int(number) & 0xFFFFFFFF, int(number) >> 32]
        return np.random.SeedSequence(self.seed, spawn_key=tuple(words))

    def integer(self, name: str, *index: int) -> int:
        """Gives one consumer's integer seed in [0, 2**31 - 1). Arguments and errors as :meth:`sequence`."""
        return int(self.sequence(name, *index).generate_state(1, np.uint64)[0]) % MAX_SEED

    def generator(self, name: str, *index: int) -> np.random.Generator:
        """Gives one consumer's NumPy generator (PCG64). Arguments and errors as :meth:`sequence`."""
        return np.random.Generator(np.random.PCG64(self.sequence(name, *index)))


def seed_global_rngs(seeds: Seeds) -> None:
    """Seeds Python's, NumPy's (legacy MT19937) and PyTorch's (CPU and every CUDA device) global generators."""
    import torch

    _seed_python_and_numpy(seeds)
    torch.manual_seed(seeds.integer("global torch"))


def global_rng_state() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Captures the global generators of Python, NumPy and PyTorch for a checkpoint.

    Returns:
        arrays: ``python`` (625,) uint32, ``numpy`` (624,) uint32, ``torch`` (n,) uint8, and ``torch_cuda_<device>``
            for every CUDA device once CUDA is in use (it is never started for this).
        json: what is left, as JSON: positions and cached Gaussians.
    """
    import torch

    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    arrays = {
        "python": np.array(words, dtype=np.uint32),
        "numpy": np.array(keys, dtype=np.uint32),
        "torch": torch.get_rng_state().numpy().copy(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            arrays[f"torch_cuda_{device}"] = state.numpy().copy()
    return arrays, {
        "python": {"version": version, "gauss": gauss},
        "numpy": {"name": str(name), "position": int(position), "has_gauss": int(has_gauss), "gauss": float(cached)},
    }


def set_global_rng_state(arrays: Mapping[str, np.ndarray], json: Mapping[str, Any]) -> None:
    """Restores what :func:`global_rng_state` captured, bit for bit.

    States of CUDA devices that this machine lacks are passed over: such a run goes on, but no longer to the same bits.

    Raises:
        KeyError: if a generator's state is missing.
        ValueError: if a state does not fit its generator.
    """
    import torch

    python, numpy = json["python"], json["numpy"]
    random.setstate((python["version"], tuple(int(word) for word in arrays["python"]), python["gauss"]))
    np.random.set_state(  # noqa: NPY002
        (numpy["name"], np.asarray(arrays["numpy"]), numpy["position"], numpy["has_gauss"], numpy["gauss"])
    )
    torch.set_rng_state(_byte_tensor(arrays["torch"]))
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            if f"torch_cuda_{device}" in arrays:
                torch.cuda.set_rng_state(_byte_tensor(arrays[f"torch_cuda_{device}"]), device)


@contextmanager
def isolated_rngs(seed: int) -> Iterator[None]:
    """Runs its body on freshly seeded global generators and puts the old states back, also after an error.

    Args:
        seed: seed of the global generators inside, at least 0; equal seeds give equal draws.
    """
    import torch

    arrays, json = global_rng_state()
    seeds = Seeds(seed)
    try:
        _seed_python_and_numpy(seeds)
        torch.default_generator.manual_seed(seeds.integer("global torch"))
        if arrays.keys() - {"python", "numpy", "torch"}:  # CUDA runs; else the seed waiting for its start stays
            torch.cuda.manual_seed_all(seeds.integer("global torch"))
        yield
    finally:
        set_global_rng_state(arrays, json)


def _seed_python_and_numpy(seeds: Seeds) -> None:
    random.seed(seeds.integer("global python"))
    np.random.seed(seeds.sequence("global numpy").generate_state(8))  # noqa: NPY002


def _byte_tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(array, dtype=np.uint8))
