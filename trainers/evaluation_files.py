"""Evaluations on disk: ``evaluations/<protocol>-<hash>/<policy>-<env steps>/`` with the records and a summary.

``summary.json`` is written last: a folder without one is an evaluation that did not finish and is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.episodes import EpisodeRecord, read_records, write_records

if TYPE_CHECKING:
    from envs.protocols import Protocol


@dataclass(frozen=True)
class StoredEvaluation:
    """One evaluation as read from a run directory.

    Attributes:
        path: its folder.
        policy: what was evaluated: the ``last`` or ``best`` checkpoint, the agent during ``training``, or the
            ``random`` baseline.
        env_steps: training of that checkpoint (unit: env steps).
        seed: of the episode list.
        protocol: every field of the protocol, with its ``hash``.
        summary: what was written beside the records.
        records: the episodes.
    """

    path: Path
    policy: str
    env_steps: int
    seed: int
    protocol: dict[str, Any]
    summary: dict[str, Any]
    records: tuple[EpisodeRecord, ...]

    @property
    def protocol_hash(self) -> str:
        """Hash of the protocol the episodes were played under."""
        return str(self.protocol["hash"])


def evaluation_dir(run_dir: Path, protocol: Protocol) -> Path:
    """Gives the folder of a run that holds its evaluations under a protocol."""
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", protocol.id)
    return run_dir / "evaluations" / f"{name}-{protocol.hash}"


def write_evaluation(
    run_dir: Path,
    records: Sequence[EpisodeRecord],
    protocol: Protocol,
    *,
    policy: str,
    env_steps: int,
    seed: int,
    summary: Mapping[str, Any],
) -> Path:
    """Writes an evaluation, replacing one of the same protocol, policy, env steps and seed.

    Args:
        run_dir: run directory.
        records: the episodes.
        protocol: they were played under.
        policy: ``last`` | ``best`` | ``training`` | ``random``.
        env_steps: training of the evaluated checkpoint (unit: env steps).
        seed: of the episode list.
        summary: results, ready for JSON.

    Returns:
        the evaluation's folder.

    Raises:
        ValueError: if a record carries another protocol's hash, or ``policy`` is not a plain lower-case word.
    """
    from trainers.run_log import write_atomically

    foreign = sorted({record.protocol_hash for record in records} - {protocol.hash})
    if foreign:
        raise ValueError(f"records of protocol {', '.join(foreign)} do not belong to an evaluation of {protocol.hash}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", policy):
        raise ValueError(f"policy must be a lower-case word such as 'last', got {policy!r}")
    suffix = f"-seed{seed}" if seed else ""
    directory = evaluation_dir(run_dir, protocol) / f"{policy}-{env_steps:09d}{suffix}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "summary.json").unlink(missing_ok=True)
    write_records(directory / "episodes.jsonl", records)
    content = {
        "policy": policy,
        "env_steps": env_steps,
        "evaluation_seed": seed,
        "protocol": protocol.model_dump(mode="json") | {"hash": protocol.hash},
        "summary": dict(summary),
    }
    write_atomically(directory / "summary.json", json.dumps(content, indent=2) + "\n")
    return directory


def load_evaluations(run_dir: Path) -> list[StoredEvaluation]:
    """Reads every finished evaluation of a run, least trained first.

    Raises:
        ValueError: naming the file that does not read as an evaluation.
    """
    found = []
    for path in sorted((run_dir / "evaluations").glob("*/*/summary.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            evaluation = StoredEvaluation(
                path=path.parent,
                policy=content["policy"],
                env_steps=content["env_steps"],
                seed=content["evaluation_seed"],
                protocol=content["protocol"],
                summary=content["summary"],
                records=tuple(read_records(path.with_name("episodes.jsonl"))),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a summary of an evaluation: {error!r}") from None
        found.append(evaluation)
    return sorted(found, key=lambda evaluation: (evaluation.env_steps, evaluation.path))


def load_episodes(run_dir: Path, *, policy: str | None = None) -> list[EpisodeRecord]:
    """Reads the evaluation episodes of a run.

    Args:
        run_dir: run directory.
        policy: ``last``, ``best``, ``training`` or ``random``; None for all of them.
    """
    return [
        record
        for evaluation in load_evaluations(run_dir)
        if policy in (None, evaluation.policy)
        for record in evaluation.records
    ]
