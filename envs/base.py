"""Small things every environment folder shares: strict configs, episode specifications, and helpful name errors."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class EpisodeSpec:
    """One evaluation episode, fixed before anything runs.

    Attributes:
        index: position in the protocol's list of episodes.
        seed: seed of the episode's environment randomness.
        task: game, task or environment name.
        goal_index: which of the task's goals (Meta-World), or None where there are none.
    """

    index: int
    seed: int
    task: str
    goal_index: int | None = None


def nearest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """Gives a hint for an unknown name: the closest valid ones, or how many there are."""
    names = sorted(valid)
    lowered = {candidate.lower(): candidate for candidate in names}
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.4)]
    if not close:
        shown = ", ".join(names[:12])
        return f"valid names: {shown}" + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return "did you mean " + " or ".join(repr(candidate) for candidate in close) + "?"


def package_versions(*packages: str) -> dict[str, str]:
    """Gives the installed version of each distribution; ``missing`` where it is not installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions
