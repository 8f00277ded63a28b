"""Where the checkout lies, and whether its packages are the ones Python finds.

The folder names (``agents``, ``envs``, ...) are common words: another distribution may install a package of the same
name, so the checkout goes first on ``sys.path`` and a name that was taken all the same is reported with its path.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIGS = CHECKOUT / "configs"
PACKAGES = ("sextant", "agents", "envs", "memory", "trainers", "analysis", "studies")


def put_checkout_first() -> None:
    """Puts the checkout first on ``sys.path``, so that its packages win over installed ones of the same name."""
    root = str(CHECKOUT)
    if not sys.path or sys.path[0] != root:
        sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]


def python_path() -> str:
    """Gives a ``PYTHONPATH`` that has the checkout first, for processes started from here."""
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join([str(CHECKOUT), *(entry for entry in inherited if Path(entry) != CHECKOUT)])


def shadowed_packages() -> dict[str, str]:
    """Gives the path that took each of our package names, for those that do not come from the checkout."""
    taken = {}
    for name in PACKAGES:
        origin = _origin(name)
        if origin is None or Path(origin).resolve().parent != CHECKOUT / name:
            taken[name] = origin or "not found"
    return taken


def shadowing_message(taken: dict[str, str]) -> str:
    """Says which package names were taken, by what, and what to do about it."""
    lines = [f"  package {name!r} is {path}, not {CHECKOUT / name}" for name, path in taken.items()]
    remedy = "Uninstall that package, or give Sextant a virtual environment of its own."
    return "\n".join(["another installed package took a name that Sextant uses:", *lines, remedy])


def _origin(name: str) -> str | None:
    """Gives the ``__init__.py`` (or folder) that ``import name`` yields, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.origin is None and spec.submodule_search_locations:
        return str(Path(next(iter(spec.submodule_search_locations))) / "__init__.py")
    return spec.origin
