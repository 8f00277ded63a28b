"""The probes of a study: its finished runs evaluated otherwise than they were trained, as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from studies import Probe


@dataclass(frozen=True)
class Answer:
    """How one run scored under one probe.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        probe: name of the probe.
        return_mean: mean raw return over the protocol's episodes.
        success_rate: share of them that succeeded; None where the env does not tell.
    """

    arm: str
    seed: int
    probe: str
    return_mean: float
    success_rate: float | None


def ask(probes: Sequence[Probe], runs: Mapping[str, Sequence[Path]]) -> list[Answer]:
    """Evaluates every run under every probe meant for its arm.

    Args:
        probes: of the study.
        runs: run directories by arm.

    Raises:
        ConfigError: if a probe does not fit a run.
    """
    answers = []
    for arm, directories in runs.items():
        for probe in probes:
            if not probe.arms or arm in probe.arms:
                answers += [_answer(arm, probe, directory) for directory in directories]
    return answers


def _answer(arm: str, probe: Probe, run: Path) -> Answer:
    from rich.console import Console

    from sextant.config import load_run_config
    from sextant.evaluate import run_evaluate
    from sextant.evaluate_config import read_evaluate_config

    config = read_evaluate_config([f"run={run}", "random_baseline=false", *probe.arguments])
    given: dict[str, Any] = {key: value for key, value in config if key != "run"}
    summary = run_evaluate(config.run, **given, console=Console(stderr=True))[0].summary
    return Answer(arm, load_run_config(run).seed, probe.name, summary["return_mean"], summary.get("success_rate"))


def answers_csv(answers: Sequence[Answer]) -> str:
    """Gives one line per run and probe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Answer.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(answer) for answer in answers)
    return text.getvalue()


def answers_markdown(answers: Sequence[Answer]) -> str:
    """Gives means over seeds as a Markdown section: a line per arm, a column per probe."""
    arms = list(dict.fromkeys(answer.arm for answer in answers))
    probes = list(dict.fromkeys(answer.probe for answer in answers))
    succeeds = all(answer.success_rate is not None for answer in answers)
    cells: dict[tuple[str, str], list[float]] = {}
    for answer in answers:
        value = answer.success_rate if answer.success_rate is not None else answer.return_mean
        cells.setdefault((answer.arm, answer.probe), []).append(value)
    texts = {key: f"{fmean(values):.3g} [{min(values):.3g}, {max(values):.3g}]" for key, values in cells.items()}
    lines = [
        "## Probes",
        "",
        f"{'Success rate' if succeeds else 'Mean raw return'} of the finished runs, evaluated as the column says: mean "
        "over seeds [least, most]; single runs are in `probes.csv`.",
        "",
        "| arm | " + " | ".join(probes) + " |",
        "|---|" + "--:|" * len(probes),
        *(f"| {arm} | " + " | ".join(texts.get((arm, probe), "") for probe in probes) + " |" for arm in arms),
    ]
    return "\n".join(lines) + "\n"


def write_probes(probes: Sequence[Probe], runs: Mapping[str, Sequence[Path]], out: Path) -> str:
    """Asks, writes ``probes.csv`` and gives the Markdown section; nothing where there are no probes.

    Args:
        probes: of the study.
        runs: run directories by arm.
        out: folder of the results.
    """
    from trainers.run_log import write_atomically

    answers = ask(probes, runs)
    if not answers:
        return ""
    write_atomically(out / "probes.csv", answers_csv(answers))
    return answers_markdown(answers)
