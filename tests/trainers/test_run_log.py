"""metrics.csv, episodes.jsonl and TensorBoard events of a run, and going back to a checkpoint's position."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainers.run_log import CsvTable, RunLog, flatten, write_atomically


def test_write_atomically_leaves_the_old_content_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_table_takes_new_columns_and_keeps_floats_exactly(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "t.csv")
    table.append({"env_steps": 1, "loss": 0.1 + 0.2})
    table.append({"env_steps": 2, "score": -1.0})
    assert table.path.read_text() == "env_steps,loss,score\n1,0.30000000000000004,\n2,,-1.0\n"


def test_a_truncated_table_continues_as_if_the_rows_had_never_been(tmp_path: Path) -> None:
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        CsvTable(path).append({"env_steps": 1, "loss": 2.0})
    table = CsvTable(paths[0])
    columns, num_rows = list(table.columns), table.num_rows
    table.append({"env_steps": 2, "other": 3.0})
    table.truncate(columns, num_rows)
    for path in paths:
        CsvTable(path).append({"env_steps": 3, "late": 4.0})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_table_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    table = CsvTable(tmp_path / "t.csv")
    table.append({"env_steps": 1})
    with pytest.raises(ValueError, match="has 1 rows, 5 were written"):
        table.truncate(["env_steps"], 5)


def test_going_back_drops_rows_and_episodes_written_after_the_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.episode('{"first": 1}')
    log.point(10, {"updates": 1, "loss/loss": 0.5})
    position = log.position()
    log.episode('{"second": 2}')
    log.point(20, {"updates": 2, "eval/return_mean": 3.0})
    log.close()
    resumed = RunLog(tmp_path, purge_step=11)
    resumed.go_back(position)
    resumed.episode('{"third": 3}')
    resumed.close()
    resumed.close()  # twice is fine
    assert (tmp_path / "episodes.jsonl").read_text() == '{"first": 1}\n{"third": 3}\n'
    assert (tmp_path / "metrics.csv").read_text() == "env_steps,updates,loss/loss\n10,1,0.5\n"


def test_an_episode_file_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.episode("{}")
    position = log.position()
    log.close()
    (tmp_path / "episodes.jsonl").write_text("")
    resumed = RunLog(tmp_path)
    with pytest.raises(ValueError, match="has 0 bytes, 3 were written before the checkpoint; put"):
        resumed.go_back(position)
    resumed.close()


def test_tensorboard_forgets_events_after_the_restored_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for purge_step, steps in ((None, (10, 20, 30)), (21, (25,))):
        log = RunLog(tmp_path, purge_step=purge_step)
        for step in steps:
            log.point(step, {"updates": step})
        log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("progress/updates")] == [10, 20, 25]


def test_flatten_gives_dotted_keys_and_plain_values() -> None:
    config = {"agent": {"name": "dqn", "widths": [1, 2], "nothing": None}, "seed": 3}
    assert flatten(config) == {"agent.name": "dqn", "agent.widths": "[1, 2]", "seed": 3}
