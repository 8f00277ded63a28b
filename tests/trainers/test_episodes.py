"""Episode records and stored evaluations survive the disk exactly, and nothing half-written is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs.classic.config import ClassicConfig
from trainers.episodes import EpisodeRecord, read_records
from trainers.evaluation_files import evaluation_dir, load_episodes, load_evaluations, write_evaluation

PROTOCOL = ClassicConfig(id="CartPole-v1").evaluation_protocol()


def record(raw_return: float = 1.0, **changes: Any) -> EpisodeRecord:
    base: dict[str, Any] = dict(
        run="dqn-CartPole-v1/0",
        seed=0,
        checkpoint_step=10,
        protocol_id=PROTOCOL.id,
        protocol_hash=PROTOCOL.hash,
        env_id="CartPole-v1",
        task="CartPole-v1",
        length=4,
        stop_reason="terminated",
    )
    return EpisodeRecord(**(base | changes), raw_return=raw_return)


def store(
    run_dir: Path, records: list[EpisodeRecord], policy: str = "last", env_steps: int = 10, seed: int = 0
) -> Path:
    summary = {"return_mean": 1.5}
    return write_evaluation(run_dir, records, PROTOCOL, policy=policy, env_steps=env_steps, seed=seed, summary=summary)


def test_json_keeps_every_bit() -> None:
    original = record(0.1 + 0.2, success=True, success_last=False, first_success=2, goal_index=7, target_return=-1.5)
    assert EpisodeRecord.from_json(original.to_json()) == original
    assert "\n" not in original.to_json()


def test_bad_records_are_refused_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stop_reason must be one of .* got 'tired'"):
        record(stop_reason="tired")
    path = tmp_path / "episodes.jsonl"
    for line, message in (
        ('{"run": "r"}', "missing"),
        (record().to_json()[:-1] + ', "colour": 1}', r"unknown fields \['colour'\]"),
        ("[1]", "unknown fields"),
        ("{", "Expecting"),
    ):
        path.write_text(record().to_json() + "\n" + line + "\n")
        with pytest.raises(ValueError, match=f"episodes.jsonl:2: .*{message}"):
            read_records(path)


def test_several_evaluations_lie_side_by_side_and_the_same_one_is_replaced(tmp_path: Path) -> None:
    first = store(tmp_path, [record(1.0)])
    store(tmp_path, [record(2.0)], policy="best", env_steps=5)
    store(tmp_path, [record(3.0)], seed=4)
    assert first.parent == evaluation_dir(tmp_path, PROTOCOL)
    assert first.parent.name == f"classic-eval-1-{PROTOCOL.hash}"
    assert store(tmp_path, [record(9.0)]) == first
    found = load_evaluations(tmp_path)
    assert [(each.policy, each.env_steps, each.seed) for each in found] == [
        ("best", 5, 0),
        ("last", 10, 0),
        ("last", 10, 4),
    ]
    assert [each.records[0].raw_return for each in found] == [2.0, 9.0, 3.0]
    assert found[1].protocol == json.loads(PROTOCOL.model_dump_json()) | {"hash": PROTOCOL.hash}
    assert found[1].summary == {"return_mean": 1.5}
    assert [each.raw_return for each in load_episodes(tmp_path, policy="last")] == [9.0, 3.0]


def test_an_evaluation_without_its_summary_is_not_read(tmp_path: Path) -> None:
    folder = store(tmp_path, [record()])
    (folder / "summary.json").unlink()
    assert load_evaluations(tmp_path) == []
    assert load_evaluations(tmp_path / "nowhere") == []


def test_records_of_another_protocol_and_odd_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="protocol abc do not belong"):
        store(tmp_path, [record(protocol_hash="abc")])
    with pytest.raises(ValueError, match=r"lower-case word .* got '../x'"):
        store(tmp_path, [record()], policy="../x")
    folder = store(tmp_path, [record()])
    (folder / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a summary of an evaluation"):
        load_evaluations(tmp_path)
