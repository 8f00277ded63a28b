"""How long a person waits for help and for a refusal, and which heavy packages are imported for it.

python -m benchmarks.startup --out docs/results/benchmarks
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.tables import Cell, Goal, Result
from benchmarks.turns import CHECKOUT

HEAVY = ("torch", "tianshou", "gymnasium", "ale_py", "metaworld", "mujoco", "numpy", "scipy", "hydra", "tensorboard")
CASES: dict[str, tuple[list[str], float | None]] = {
    "sextant --help": (["--help"], 1.0),
    "sextant train --help": (["train", "--help"], None),
    "refused: unknown key": (["train", "agent.lerning_rate=0.1"], 2.0),
    "refused: unknown game": (["train", "env=atari", "env.game=pogn"], 2.0),
    "refused: unknown task": (["train", "agent=sac", "env=metaworld", "env.task=raech-v3"], 2.0),
    "refused: out of range": (["train", "agent.gamma=1.5"], 2.0),
}


def seconds_of(arguments: Sequence[str]) -> float:
    """Gives the wall time of one command, from process start to exit (unit: seconds).

    Raises:
        RuntimeError: if it neither helped nor refused.
    """
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "sextant", *arguments], cwd=CHECKOUT, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != (0 if "--help" in arguments else 2):
        raise RuntimeError(
            f"sextant {' '.join(arguments)}: unexpected status {done.returncode}: {done.stderr.decode()}"
        )
    return seconds


def imported_by(arguments: Sequence[str]) -> str:
    """Gives the heavy packages that the command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sextant", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    modules = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    return " ".join(name for name in HEAVY if name in modules) or "none"


def main() -> None:
    """Measures in rounds over all cases and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, help="folder for startup.json")
    options = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in CASES}
    for index in range(options.rounds + 1):
        for name, (arguments, _) in CASES.items():
            seconds = seconds_of(arguments)
            if index:  # the first round compiles and fills the file cache
                samples[name].append(seconds)
    rows: list[list[Cell]] = []
    goals: list[Goal] = []
    for name, (arguments, bound) in CASES.items():
        rows.append([name, median(samples[name]), max(samples[name]), imported_by(arguments)])
        if bound is not None:
            goals.append(Goal(f"{name}, seconds", median(samples[name]), bound, at_least=False))
    Result(
        benchmark="startup",
        question="How long does a person wait for help, and for a config to be refused?",
        settings={"rounds": options.rounds},
        columns=["command", "seconds (median)", "seconds (worst)", "heavy packages imported"],
        rows=rows,
        goals=goals,
        samples=samples,
    ).publish(options.out)


if __name__ == "__main__":
    main()
