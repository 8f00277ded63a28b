"""Results of a benchmark: a table for people, a JSON file for ``benchmarks.report``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Cell = str | int | float | None


@dataclass(frozen=True)
class Goal:
    """A number that was promised, and what was measured.

    Attributes:
        text: what is measured, with its unit.
        measured: the value.
        bound: the promise.
        at_least: whether the bound is a lower one.
    """

    text: str
    measured: float
    bound: float
    at_least: bool = True

    @property
    def is_met(self) -> bool:
        """Whether the measured value keeps the promise."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def line(self) -> str:
        """Gives the goal as one line of text."""
        sign = ">=" if self.at_least else "<="
        verdict = "met" if self.is_met else "NOT met"
        return f"{verdict}: {self.text}: {show(self.measured)} (goal {sign} {show(self.bound)})"


@dataclass(frozen=True)
class Result:
    """One run of one benchmark.

    Attributes:
        benchmark: name of the script, without ``benchmarks.``.
        question: what the table answers, in a sentence.
        settings: what a reader needs to repeat the run.
        columns: headings, with units.
        rows: one per contestant.
        goals: promises and measurements.
        samples: the numbers behind the medians, by contestant.
    """

    benchmark: str
    question: str
    settings: Mapping[str, Cell]
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    goals: Sequence[Goal] = ()
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def publish(self, out: Path | None) -> None:
        """Prints the result and, where a folder is given, writes ``<benchmark>.json`` into it."""
        print(self.markdown())
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            path = out / f"{self.benchmark}.json"
            path.write_text(json.dumps(asdict(self) | {"machine": machine()}, indent=1) + "\n", encoding="utf-8")
            print(f"\nwritten: {path}")

    def markdown(self) -> str:
        """Gives question, settings, table and goals as markdown."""
        settings = ", ".join(f"{name} {show(value)}" for name, value in self.settings.items())
        lines = [self.question, "", f"Settings: {settings}.", "", _row(self.columns), _row(["---"] * len(self.columns))]
        lines += [_row([show(cell) for cell in row]) for row in self.rows]
        if self.goals:
            lines += ["", *(f"- {goal.line()}" for goal in self.goals)]
        return "\n".join(lines)

    @classmethod
    def read(cls, path: Path) -> tuple[Result, dict[str, Cell]]:
        """Reads a result and the machine it was measured on back from its file."""
        data = json.loads(path.read_text(encoding="utf-8"))
        measured_on = data.pop("machine")
        goals = [Goal(**goal) for goal in data.pop("goals")]
        return cls(**data, goals=goals), measured_on


def machine() -> dict[str, Cell]:
    """Describes where the numbers come from: processor, cores, versions; no host name and no paths."""
    versions = {name: _version(name) for name in ("torch", "numpy", "ale-py", "gymnasium", "tianshou")}
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def show(value: Cell) -> str:
    """Gives a number with three significant digits, thousands grouped; a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if (value == int(value) and abs(value) < 1e15) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
