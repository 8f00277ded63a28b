"""Renders the JSON files of the benchmarks as one markdown page.

python -m benchmarks.report docs/results/benchmarks > docs/results/benchmarks/README.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.tables import Result, show

TITLE = """# Benchmark results

Made by `python -m benchmarks.report`. What is measured and how: [docs/benchmarks.md](../../benchmarks.md).
"""
ORDER = ("collect", "learn_dqn", "replay", "checkpoint", "startup")


def section(path: Path) -> str:
    """Gives one benchmark's part of the page."""
    result, machine = Result.read(path)
    told = ", ".join(f"{name} {show(value)}" for name, value in machine.items())
    return f"## `python -m benchmarks.{result.benchmark}`\n\n{result.markdown()}\n\nMeasured on: {told}.\n"


def report(folder: Path) -> str:
    """Gives the page for all results in a folder.

    Raises:
        FileNotFoundError: if there are none.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.json"))}
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results; run a benchmark with --out {folder}")
    names = [name for name in ORDER if name in paths] + [name for name in paths if name not in ORDER]
    return "\n".join([TITLE, *(section(paths[name]) for name in names)])


def main() -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/results/benchmarks"))
    print(report(parser.parse_args().folder), end="")


if __name__ == "__main__":
    main()
