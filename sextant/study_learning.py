"""How the arms of a study learned: scores during training, and updates and seconds until a share of the best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sextant.table_text import records_csv, spread

LEARNING_FILE = "learning.csv"


@dataclass(frozen=True)
class Evaluated:
    """What one run scored at one evaluation during training.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        steps: training until then (unit: env steps; of an offline run gradient steps).
        seconds: of training until then, without evaluations and saving where the run measured these apart.
        score: success rate, or where the env does not tell it, mean raw return.
    """

    arm: str
    seed: int
    steps: int
    seconds: float
    score: float


def evaluated(arm: str, run: Path) -> list[Evaluated]:
    """Gives the evaluations of a run during training, in order."""
    from sextant.config import load_run_config
    from sextant.training_evaluation import evaluation_scores

    seed, scores = load_run_config(run).seed, evaluation_scores(run)
    seconds = seconds_until(run / "timing.csv", list(scores))
    found = zip(scores.items(), seconds, strict=True)
    return [Evaluated(arm, seed, steps, spent, score) for (steps, score), spent in found]


def seconds_until(timing_csv: Path, steps: Sequence[int]) -> list[float]:
    """Gives the times a run trained until some steps, from the speeds it wrote.

    Args:
        timing_csv: of the run: steps, and steps per second since the line before.
        steps: as the run counts.
    """
    import numpy as np

    from analysis.curves import read_columns

    columns = read_columns(timing_csv)
    ends, speeds = columns.get("gradient_steps_per_second") or columns["env_steps_per_second"]
    trained = np.diff(ends, prepend=0.0)
    seconds = np.cumsum(np.divide(trained, speeds, out=np.zeros_like(trained), where=trained > 0))
    return [float(each) for each in np.interp(steps, [0.0, *ends], [0.0, *seconds])]


def write_learning(runs: Mapping[str, Sequence[Path]], share: float, unit: str, out: Path) -> str:
    """Writes ``learning.csv`` and gives its Markdown section.

    Args:
        runs: run directories by arm.
        share: of the best score, in (0, 1].
        unit: that the runs' training is counted in.
        out: folder of the results.

    Returns:
        the section; nothing, and no file, where no run was evaluated more than once.
    """
    from trainers.run_log import write_atomically

    found = [each for arm, directories in runs.items() for run in directories for each in evaluated(arm, run)]
    if len({each.steps for each in found}) < 2:
        (out / LEARNING_FILE).unlink(missing_ok=True)
        return ""
    write_atomically(out / LEARNING_FILE, records_csv(found))
    return learning_markdown(found, share, unit)


def learning_markdown(found: Sequence[Evaluated], share: float, unit: str) -> str:
    """Gives scores by arm and evaluation, and when a share of the best of them was first reached.

    Args:
        found: evaluations of all runs, those of each run in order; at least one.
        share: of the best mean over seeds that any arm had at any evaluation, in (0, 1].
        unit: of steps.
    """
    scores: dict[tuple[str, int], list[float]] = {}
    for each in found:
        scores.setdefault((each.arm, each.steps), []).append(each.score)
    means = {place: fmean(values) for place, values in scores.items()}
    (best_arm, best_steps), best = max(means.items(), key=lambda item: item[1])
    steps = sorted({each.steps for each in found})
    lines = [
        "## Learning speed",
        "",
        f"Scores during training after so many {unit}, means over seeds, of few episodes each. The best is {best:.3g} "
        f"({best_arm}, {best_steps:,}). Then: how many seeds ever had {share:.0%} of it, and the first {unit} and the "
        "seconds of training at which they did: means over these seeds [least, most]. Runs shared the machine; all "
        "evaluations are in `learning.csv`.",
        "",
        "| arm | " + " | ".join(f"{step:,}" for step in steps) + f" | seeds | {unit} | seconds |",
        "|---|" + "--:|" * (len(steps) + 3),
    ]
    for arm in dict.fromkeys(each.arm for each in found):
        of_arm = [each for each in found if each.arm == arm]
        reached: dict[int, Evaluated] = {}
        for each in of_arm:
            if each.score >= share * best:
                reached.setdefault(each.seed, each)
        cells = [f"{means[arm, step]:.3g}" if (arm, step) in means else "" for step in steps]
        cells += [f"{len(reached)} of {len({each.seed for each in of_arm})}"]
        cells += [spread([each.steps for each in reached.values()], ",.0f")]
        cells += [spread([each.seconds for each in reached.values()], ",.0f")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
