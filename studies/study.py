"""What a study is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arm:
    """One of the settings compared.

    Attributes:
        name: label in tables and plots, and folder of its runs.
        overrides: of ``sextant train``, on top of the scale's.
    """

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """A size of a study.

    Attributes:
        takes: how long, and on what.
        common: overrides of all arms.
        arms: what is compared.
        seeds: each arm is trained once per seed.
    """

    takes: str
    common: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]

    def runs(self) -> Iterator[tuple[Arm, int, list[str]]]:
        """Gives arm, seed and overrides of every run, seed by seed, so that a study cut short compares what it has."""
        for seed in self.seeds:
            for arm in self.arms:
                yield arm, seed, [*self.common, *arm.overrides, f"seed={seed}"]


@dataclass(frozen=True)
class Study:
    """A question, the runs that answer it, and what the answer may not be taken for.

    Attributes:
        name: as on the command line.
        title: heading of the page.
        question: what the runs shall tell.
        reading: how to read the result; what the paper claimed, at which scale, and what was not tried here.
        scales: by name: ``smoke``, ``cpu`` or ``gpu``.
        metric: of the comparison (see ``sextant compare``); None chooses by env.
    """

    name: str
    title: str
    question: str
    reading: str
    scales: Mapping[str, Scale] = field(default_factory=dict)
    metric: str | None = None
