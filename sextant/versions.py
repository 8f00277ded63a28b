"""Which packages touch results, and which of their versions are known to go wrong."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import Version

RESULT_PACKAGES = (
    "sextant",
    "torch",
    "tianshou",
    "gymnasium",
    "ale-py",
    "metaworld",
    "mujoco",
    "numpy",
    "scipy",
    "numba",
    "pydantic",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "zstandard",
    "tensorboard",
    "envpool",
)
"""Distributions whose version is recorded with every run."""

OPTIONAL_PACKAGES = frozenset({"envpool", "sextant"})
"""Not missed where absent; Sextant itself also runs straight from its checkout."""


@dataclass(frozen=True)
class KnownBad:
    """Versions of one package that give wrong results or do not run.

    Attributes:
        package: distribution name.
        versions: the bad versions, as a PEP 440 specifier.
        reason: what goes wrong, or what to install.
        beside: only bad where this (package, specifier) is installed too.
    """

    package: str
    versions: str
    reason: str
    beside: tuple[str, str] | None = None


KNOWN_BAD = (
    KnownBad("tianshou", "!=2.0.1", "the guards around its defects are written and tested against 2.0.1"),
    KnownBad("gymnasium", "<1.0", "vector environments reset differently; Sextant needs 1.0 or newer"),
    KnownBad("ale-py", "<0.12", "no ROMs in the wheel or no AtariVectorEnv; Sextant needs 0.12 or newer"),
    KnownBad("metaworld", "==2.0.0", "PyPI's 2.0.0 held v3 tasks under a v2 name (Metaworld issue 538)"),
    KnownBad("metaworld", "<3.1,!=2.0.0", "button-press rewards and task ids differ before 3.1 (Metaworld PR 548)"),
    KnownBad(
        "mujoco", "!=3.3.0", "metaworld 3.1 pins mujoco 3.3.0; physics differ", beside=("metaworld", ">=3.1,<3.2")
    ),
    KnownBad("torch", "<2.6", "checkpoints are read with weights_only=True, which is safe from 2.6 on"),
    KnownBad("numpy", "<2.0", "Sextant is tested with numpy 2"),
    KnownBad("pydantic", "<2.7", "strict validation of tagged unions differs"),
    KnownBad("hydra-core", "<1.3", "Sextant composes its configs with Hydra 1.3's rules"),
)


def known_problems(versions: dict[str, str]) -> list[str]:
    """Gives one line for each installed version that is missing or known to go wrong.

    Args:
        versions: version of each distribution, ``missing`` where it is not installed.
    """
    problems = [
        f"{package} is not installed: pip install -c constraints.txt -e ."
        for package, version in versions.items()
        if version == "missing" and package not in OPTIONAL_PACKAGES
    ]
    for bad in KNOWN_BAD:
        beside_applies = bad.beside is None or _matches(versions.get(bad.beside[0], "missing"), bad.beside[1])
        version = versions.get(bad.package, "missing")
        if beside_applies and _matches(version, bad.versions):
            problems.append(f"{bad.package} {version}: {bad.reason}")
    return problems


def _matches(version: str, specifier: str) -> bool:
    if version == "missing":
        return False
    public = Version(version).public  # 2.13.0+cpu is 2.13.0
    return SpecifierSet(specifier).contains(public, prereleases=True)
