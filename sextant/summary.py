"""What a finished run shows: the closing lines in the terminal, and the numbers on TensorBoard's HParams page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sextant.run_dirs import run_name

if TYPE_CHECKING:
    from trainers.online import TrainingResult
    from trainers.run_state import RunState


def final_metrics(state: RunState, axis: str = "env_steps") -> dict[str, float]:
    """Gives the numbers by which runs are compared on TensorBoard's HParams page.

    Args:
        state: at the end of the run.
        axis: what its steps are, ``env_steps`` or ``gradient_steps``.
    """
    metrics = {f"final/{axis}": float(state.env_steps)}
    if axis == "env_steps":
        metrics["final/updates"] = float(state.updates)
    if state.last_score is not None and state.best_score is not None:
        metrics |= {"final/last_score": state.last_score, "final/best_score": state.best_score}
    metrics |= {name.replace("train/", "final/train_"): value for name, value in state.training_metrics().items()}
    return metrics


def summary_lines(run_dir: Path, result: TrainingResult, axis: str = "env_steps") -> list[str]:
    """Gives what is shown at the end of a run: how it went, and where everything lies. Arguments as above."""
    state, unit = result.state, axis.replace("_", " ")
    rows = [(unit, f"{state.env_steps:,}")]
    if axis == "env_steps":
        rows = [
            ("env steps / updates", f"{state.env_steps:,} / {state.updates:,}"),
            ("training episodes", f"{state.episodes:,}"),
        ]
    for name, value in state.training_metrics().items():
        label = name.replace("train/", "training ").replace("_", " ")
        rows.append((label, f"{value:.4g} (last {len(state.recent_returns)} episodes)"))
    if state.last_score is not None and state.best_score is not None:
        rows.append(("last evaluation score", f"{state.last_score:.4g}"))
        rows.append(("best evaluation score", f"{state.best_score:.4g} at {state.best_env_steps:,} {unit}"))
    for name in ("config.yaml", "metrics.csv", "episodes.jsonl", "checkpoints", "evaluations", "videos"):
        if (run_dir / name).exists():
            rows.append((name, str(run_dir / name)))
    rows.append(("see the curves", f"sextant board {run_dir.parent.parent}"))
    if result.status == "interrupted":
        rows.append(("go on", f"sextant resume {run_dir}"))
    else:
        rows.append(("evaluate", f"sextant evaluate run={run_dir}"))
    title = f"run {run_name(run_dir)}: {result.status}"
    return ["", title, "-" * len(title), *(f"{label:<24}{value}" for label, value in rows)]
