"""The episode record: one line of JSON per episode, the only source of tables and intervals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from envs.protocols import Protocol

StopReason = Literal["terminated", "truncated", "cap", "cut"]
"""Why an episode ended: by the env's rules, by the env's own limit, by the evaluator's guard, by a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One finished episode and everything that says what its numbers mean.

    Attributes:
        run: name of the run (its directory below the runs folder), or ``random`` for the random policy.
        seed: training seed of the run.
        checkpoint_step: env steps the evaluated policy had been trained for, or None for an episode of training itself.
        protocol_id: name of the protocol.
        protocol_hash: first 12 hex digits over all fields of the protocol.
        env_id: env name of the protocol (game, task or benchmark).
        task: game or task of this episode.
        goal_index: which of the task's goals, or None where there are none.
        raw_return: sum of the env's rewards before any clipping.
        length: agent steps.
        success: whether any step succeeded, or None where the env knows no success.
        success_last: whether the last step succeeded, or None.
        first_success: agent step (from 1) of the first success, or None.
        target_return: raw return the policy was asked for, or None for policies that take none.
        stop_reason: ``terminated`` | ``truncated`` | ``cap`` (the evaluator's step guard) | ``cut`` (a checkpoint).
    """

    run: str
    seed: int
    checkpoint_step: int | None
    protocol_id: str
    protocol_hash: str
    env_id: str
    task: str
    goal_index: int | None = None
    raw_return: float
    length: int
    success: bool | None = None
    success_last: bool | None = None
    first_success: int | None = None
    target_return: float | None = None
    stop_reason: StopReason

    def __post_init__(self) -> None:
        """Refuses a stop reason that does not exist.

        Raises:
            ValueError: naming the reason and the valid ones.
        """
        if self.stop_reason not in get_args(StopReason):
            raise ValueError(f"stop_reason must be one of {get_args(StopReason)}, got {self.stop_reason!r}")

    def to_json(self) -> str:
        """Gives the record as one line of JSON; floats survive the round trip exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> EpisodeRecord:
        """Reads a record back.

        Raises:
            ValueError: if the line is not JSON, or a field is missing or unknown.
        """
        data: dict[str, Any] = json.loads(line)
        known = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or (unknown := sorted(data.keys() - known)):
            raise ValueError(f"not an episode record: unknown fields {unknown if isinstance(data, dict) else data!r}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"not an episode record: {error}") from None


def write_records(path: Path, records: Iterable[EpisodeRecord]) -> None:
    """Replaces a file with the records, a line each, in one step."""
    from trainers.run_log import write_atomically

    write_atomically(path, "".join(record.to_json() + "\n" for record in records))


def read_records(path: Path) -> list[EpisodeRecord]:
    """Reads a file of records.

    Raises:
        ValueError: naming the file and the line that is no record.
    """
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(EpisodeRecord.from_json(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return records


def summarise(
    records: Sequence[EpisodeRecord],
    protocol: Protocol | None = None,
    *,
    normalise: Callable[[str, float], float | None] | None = None,
) -> dict[str, Any]:
    """Describes a list of episodes: returns, lengths, successes and stop reasons, in all and per task.

    Args:
        records: episodes of one policy under one protocol.
        protocol: adds ``frames_mean`` where a step is several frames.
        normalise: gives the human-normalised score of a task's mean return, or None where there is no reference
            (``analysis.reference_scores.reference_score``).

    Returns:
        ``episodes``, ``return_mean``, ``return_std`` (of the episodes, ddof 0), ``return_median``, ``return_iqm``,
        ``return_min``, ``return_max``, ``length_mean``, ``stop_reasons``; where the env knows success also
        ``successes``, ``success_rate`` (any step), ``successes_last``, ``success_last_rate`` (last step) and
        ``first_success_mean`` (over successful episodes); with several tasks the same under ``tasks``; and
        ``human_normalised`` where ``normalise`` knows every task (the mean over tasks).

    Raises:
        ValueError: if there are no records, or they mix protocols.
    """
    if not records:
        raise ValueError("no episodes to summarise")
    hashes = sorted({record.protocol_hash for record in records})
    if len(hashes) > 1:
        raise ValueError(f"episodes of different protocols are not averaged: {', '.join(hashes)}")
    by_task: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    tasks = {task: _describe(group) for task, group in by_task.items()}
    summary = _describe(records)
    if protocol is not None and protocol.frames_per_step > 1:
        summary["frames_mean"] = summary["length_mean"] * protocol.frames_per_step
    if normalise is not None:
        scores = [normalise(task, described["return_mean"]) for task, described in tasks.items()]
        known = [score for score in scores if score is not None]
        if len(known) == len(scores):
            summary["human_normalised"] = sum(known) / len(known)
    if len(tasks) > 1:
        summary["tasks"] = tasks
    return summary


def _describe(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    import numpy as np

    returns = np.sort([record.raw_return for record in records])
    cut = len(returns) // 4
    summary: dict[str, Any] = {
        "episodes": len(records),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_median": float(np.median(returns)),
        "return_iqm": float(returns[cut : len(returns) - cut].mean()),
        "return_min": float(returns[0]),
        "return_max": float(returns[-1]),
        "length_mean": float(np.mean([record.length for record in records])),
        "stop_reasons": dict(sorted(Counter(record.stop_reason for record in records).items())),
    }
    known = [record for record in records if record.success is not None]
    if known:
        successes = sum(bool(record.success) for record in known)
        successes_last = sum(bool(record.success_last) for record in known)
        first = [record.first_success for record in known if record.first_success is not None]
        summary |= {
            "successes": successes,
            "success_rate": successes / len(known),
            "successes_last": successes_last,
            "success_last_rate": successes_last / len(known),
            "first_success_mean": float(np.mean(first)) if first else None,
        }
    return summary
