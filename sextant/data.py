"""What ``sextant data`` does: shows what a dataset holds, and moves datasets to and from Minari."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from envs.base import Strict
from sextant.config import validated
from sextant.key_values import split_key_values
from sextant.refusal import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from memory.trajectory_reading import TrajectoryFile

HISTOGRAM_BINS = 24
_HEIGHTS = " ▁▂▃▄▅▆▇█"
_ROW_FACTS = ("task", "format_version")  # those that every row of a table tells, or that readers check
_MAX_SOURCES = 3


def describe(
    path: Path, *, verify: bool = False, brief: bool = False, console: Console | None = None
) -> list[TrajectoryFile]:
    """Prints what a dataset holds: per task counts, returns, lengths and successes; facts; digests.

    Args:
        path: folder of a dataset, or one of its files.
        verify: whether to read every file and compare its digest.
        brief: whether to print the counts only.
        console: for the tables (default: standard output).

    Returns:
        the files.

    Raises:
        DatasetError: if there is no dataset, or a file is damaged or not merged yet.
    """
    from rich.console import Console

    from memory.trajectory_reading import read_directory

    console = console or Console()
    files = read_directory(path, verify=verify)
    episodes, steps = sum(file.num_episodes for file in files), sum(file.num_steps for file in files)
    say(console, f"{path}: {len(files)} tasks, {episodes:,} episodes, {steps:,} env steps")
    checked = "verified" if verify else "as stored, not verified: --verify reads the files and compares"
    lines = _counts(files)
    if not brief:
        lines += ["", *_histograms(files), "", *fact_lines(files), f"digests ({checked}):"]
        lines += [f"  {file.digest}  {file.path.name}" for file in files]
    for line in lines:
        say(console, line)
    return files


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def histogram(values: np.ndarray, bins: int = HISTOGRAM_BINS) -> str:
    """Gives the counts of values between the smallest and the largest as a line of bars.

    Args:
        values: at least one.
        bins: characters of the line.
    Returns:
        a bar per bin, as high as its count relative to the largest; a space where there is nothing.
    """
    import numpy as np

    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, bins=bins, range=(low, high if high > low else low + 1.0))
    tallest = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[-(-int(count) * tallest // int(counts.max()))] for count in counts)


def fact_lines(files: Sequence[TrajectoryFile]) -> list[str]:
    """Gives one line per fact: what all files say, or which values there are."""
    import json

    found: dict[str, list[str]] = {}
    for file in files:
        for name, value in file.facts.to_json().items():
            text = json.dumps(value, sort_keys=True)
            if name not in _ROW_FACTS and text not in found.setdefault(name, []):
                found[name].append(text)
    return [f"{name}: {' | '.join(values)}" for name, values in found.items() if values != ["null"]]


def _counts(files: Sequence[TrajectoryFile]) -> list[str]:
    columns = ("task", "episodes", "steps", "mean return", "min", "max", "mean length", "success")
    rows: list[tuple[str, ...]] = [(*columns, "noise: episodes (success)", "source")]
    for file in files:
        returns_E, lengths_E = file.returns_E, file.lengths_E
        numbers = (returns_E.mean(), returns_E.min(), returns_E.max(), lengths_E.mean())
        rows.append(
            (
                file.facts.task,
                f"{file.num_episodes:,}",
                f"{file.num_steps:,}",
                *(f"{number:,.1f}" for number in numbers),
                _success(file.successes_E),
                _noise_levels(file),
                _sources(file),
            )
        )
    return _aligned(rows, left=(0, 8, 9))


def _histograms(files: Sequence[TrajectoryFile]) -> list[str]:
    rows = [("task", "return from", "", "to", "length from", "", "to")]
    for file in files:
        returns_E, lengths_E = file.returns_E, file.lengths_E
        low, high = f"{returns_E.min():,.1f}", f"{returns_E.max():,.1f}"
        shortest, longest = f"{lengths_E.min():,}", f"{lengths_E.max():,}"
        rows.append((file.facts.task, low, histogram(returns_E), high, shortest, histogram(lengths_E), longest))
    return _aligned(rows, left=(0, 2, 5))


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Gives rows as lines of columns, those of ``left`` set to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _success(successes_E: np.ndarray) -> str:
    """Gives the share of episodes with a success, or a dash where the env does not tell."""
    import numpy as np

    return "-" if np.isnan(successes_E).all() else f"{np.nanmean(successes_E):.1%}"


def _noise_levels(file: TrajectoryFile) -> str:
    """Gives for each noise level the number of episodes and, where the env tells, the share of successes."""
    import numpy as np

    noise_E, parts = file.arrays["noise"], []
    for level in np.unique(noise_E):
        mine = noise_E == level
        success = _success(file.successes_E[mine])
        parts.append(f"{level:g}: {int(mine.sum())}" + ("" if success == "-" else f" ({success})"))
    return ", ".join(parts)


def _sources(file: TrajectoryFile) -> str:
    counted = Counter(source.decode() for source in file.arrays["source"].tolist())
    names = [name for name, _ in counted.most_common(_MAX_SOURCES)]
    return ", ".join(names) + (f", ... ({len(counted)})" if len(counted) > _MAX_SOURCES else "")


def run_export(path: Path, dataset_id: str, *, console: Console | None = None) -> None:
    """Writes a dataset as a Minari dataset on this machine.

    Args:
        path: folder of a dataset, or one of its files.
        dataset_id: Minari's, such as ``mt10/expert-v0``.
        console: for what is said (default: standard output).

    Raises:
        ConfigError: if Minari refuses the id or the data.
        DatasetError: if there is no dataset, or it is damaged.
    """
    from rich.console import Console

    from memory.minari_io import export_minari
    from memory.trajectory_reading import read_directory

    files = read_directory(path)
    written: Any = _refusing(lambda: export_minari(files, dataset_id), f"--minari {dataset_id}")
    say(console or Console(), f"{path} is the Minari dataset {dataset_id}" + (f" in {written}" if written else ""))


class ImportConfig(Strict):
    """Where an imported dataset goes, and what Minari does not tell."""

    out: Path = Field(description="Folder of the new dataset (path).")
    task: str | None = Field(None, description="Name of the one task of a dataset that was not exported by us.")
    clip_actions: bool = Field(
        False, description="Clip actions beyond their bounds instead of refusing them (datasets of others)."
    )


def run_import(dataset_id: str, arguments: Sequence[str], *, console: Console | None = None) -> None:
    """Turns a Minari dataset of this machine into one of ours, and prints what it holds.

    Args:
        dataset_id: Minari's.
        arguments: ``out=DIR`` and the other keys of :class:`ImportConfig`.
        console: for what is said (default: standard output).

    Raises:
        ConfigError: if a key is unknown, or Minari has no such dataset.
        DatasetError: if its data cannot be stored.
    """
    from omegaconf import OmegaConf
    from rich.console import Console

    given = split_key_values(arguments, "out=data/hopper")
    typed: Any = OmegaConf.to_object(OmegaConf.from_dotlist([f"{key}={given[key]}" for key in given if key != "out"]))
    config = validated(ImportConfig, typed | {key: given[key] for key in given if key == "out"})
    from memory.minari_io import import_minari

    _refusing(
        lambda: import_minari(dataset_id, config.out, task=config.task, clip_actions=config.clip_actions),
        f"--minari {dataset_id}",
    )
    describe(config.out, console=console or Console())


def _refusing(work: Any, what: str) -> Any:
    """Runs a piece of work; a value that it refuses is told as the command line's."""
    from memory.trajectory_facts import DatasetError

    try:
        return work()
    except DatasetError:
        raise
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error
