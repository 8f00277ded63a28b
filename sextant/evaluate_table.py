"""The table of ``sextant evaluate``, and what must be read with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.protocols import Protocol

RANDOM = "random"
FEW_EPISODES = 10
"""Below this many episodes per task a success rate is printed with a warning."""


@dataclass(frozen=True)
class Result:
    """One policy's evaluation: a checkpoint's, or the random baseline's.

    Attributes:
        policy: ``last`` | ``best`` | ``random``.
        env_steps: training of that checkpoint (unit: env steps).
        summary: as :func:`full_summary` gives it.
        directory: where records and summary were written.
        unit: what that training is counted in.
    """

    policy: str
    env_steps: int
    summary: dict[str, Any]
    directory: Path
    unit: str = "env steps"


def results_table(results: Sequence[Result], protocol: Protocol, run: str) -> Any:
    """Gives the rich table: a column per policy, a row per number."""
    from rich.table import Table

    table = Table(title=f"{run} under {protocol.id} ({protocol.hash}), {protocol.env_name}", title_justify="left")
    table.add_column("")
    for result in results:
        table.add_column(_heading(result), justify="right")
    for title, show in _ROWS:
        cells = [show(result.summary) for result in results]
        if any(cells):
            table.add_row(title, *[cell or "-" for cell in cells])
    for task in results[0].summary.get("tasks", {}):
        parts = [result.summary["tasks"][task] for result in results]
        table.add_row(task, *[_success(part) or f"{part['return_mean']:.4g}" for part in parts])
    return table


def _heading(result: Result) -> str:
    if result.policy == RANDOM:
        return "random policy"
    return f"{result.policy.upper()} checkpoint\n{result.env_steps:,} {result.unit}"


def _bounds(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4g}, {interval[1]:.4g}]"


def _success(summary: dict[str, Any]) -> str:
    if "success_rate" not in summary:
        return ""
    return f"{summary['success_rate']:.3f}{_bounds(summary.get('success_interval'))}"


def _success_last(summary: dict[str, Any]) -> str:
    if "success_rate" not in summary:
        return ""
    return f"{summary['success_last_rate']:.3f}{_bounds(summary.get('success_last_interval'))}"


def _optional(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda summary: "" if summary.get(name) is None else f"{summary[name]:.4g}"


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("episodes", lambda s: str(s["episodes"])),
    ("success at any step", _success),
    ("success at the last step", _success_last),
    ("first success (step)", _optional("first_success_mean")),
    ("mean raw return", lambda s: f"{s['return_mean']:.4g}{_bounds(s.get('return_interval'))}"),
    ("human-normalised", _optional("human_normalised")),
    ("median / IQM", lambda s: f"{s['return_median']:.4g} / {s['return_iqm']:.4g}"),
    ("least / most", lambda s: f"{s['return_min']:.4g} / {s['return_max']:.4g}"),
    ("std over episodes", _optional("return_std")),
    ("length (agent steps)", _optional("length_mean")),
    ("stopped by", lambda s: ", ".join(f"{reason} {count}" for reason, count in s["stop_reasons"].items())),
)


def notes(results: Sequence[Result]) -> list[str]:
    """Gives what must be read with the table: what intervals are over, what is optimistic, how chance does."""
    first = results[0].summary
    seeds = "It says nothing about other training seeds." if first["return_interval"] else ""
    lines = [f"Interval of the mean: {first['return_interval_note']}. {seeds}".rstrip()]
    if "success_rate" in first:
        lines.append("Success: at any step of the episode; 95% Wilson intervals over episodes.")
        fewest = min(part["episodes"] for part in first.get("tasks", {"": first}).values())
        if fewest < FEW_EPISODES:
            lines.append(f"Only {fewest} episodes per task: read the success rates by their intervals.")
    if any(result.policy == "best" for result in results):
        lines.append("BEST was chosen among checkpoints by its score: an optimistic number. Report LAST beside it.")
    lines += _against_chance(results)
    return lines + [f"{result.policy}: {result.directory}" for result in results]


def _against_chance(results: Sequence[Result]) -> list[str]:
    chance = next((result for result in results if result.policy == RANDOM), None)
    if chance is None:
        return []
    key, shown = (
        ("success_interval", "success") if "success_interval" in chance.summary else ("return_interval", "return")
    )
    lines = []
    for result in results:
        own, random = result.summary.get(key), chance.summary.get(key)
        if result is chance or own is None or random is None:
            continue
        verdict = "above" if own[0] > random[1] else "below" if own[1] < random[0] else "overlaps"
        lines.append(
            f"{result.policy.upper()} against random play ({shown}):{_bounds(own)} {verdict}{_bounds(random)}."
        )
    return lines
