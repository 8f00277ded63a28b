"""``sextant evaluate`` end to end on tiny runs: files, table, notes, refusals, and films that reach TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sextant.config import ConfigError, compose_train_config, save_run_config
from sextant.evaluate import build_acting_agent, full_summary, run_evaluate
from sextant.evaluate_table import Result, notes
from trainers.checkpointing import CheckpointStore
from trainers.episodes import EpisodeRecord
from trainers.evaluation_files import load_evaluations

CARTPOLE = ("agent=dqn", "env=classic", "agent.network.kind=mlp", "threads=1", "device=cpu")
CATCH = ("agent=dqn", "env=classic", "env.id=pixel-catch-v0", "threads=1", "device=cpu")


def make_run(root: Path, overrides: tuple[str, ...], *, best: bool = True) -> Path:
    config = compose_train_config([*overrides, "seed=5"])
    run_dir = root / f"dqn-{config.env.env_id}" / "5-20260101-000000"
    run_dir.mkdir(parents=True)
    save_run_config(config, run_dir)
    any_env: Any = config.env
    agent = build_acting_agent(config, any_env.evaluation_protocol(), "cpu")
    store = CheckpointStore(run_dir / "checkpoints")
    store.save(index=1, env_steps=1000, weights=agent.weights(), optimizer={}, counters={}, arrays={})
    if best:
        store.save_best(env_steps=400, weights=agent.weights(), counters={})
    return run_dir


def evaluate(run_dir: Path, **options: Any) -> tuple[list[Result], str]:
    console = Console(file=io.StringIO(), width=160)
    results = run_evaluate(run_dir, console=console, **options)
    assert isinstance(console.file, io.StringIO)
    return results, console.file.getvalue()


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), CARTPOLE)


def test_both_checkpoints_and_the_random_policy(cartpole: Path) -> None:
    results, printed = evaluate(cartpole, checkpoint="both", num_episodes=4, num_envs=2)
    assert [(result.policy, result.env_steps) for result in results] == [("last", 1000), ("best", 400), ("random", 0)]
    last, best, random = results
    assert last.summary["return_mean"] == best.summary["return_mean"]
    assert last.summary["return_interval"][0] <= last.summary["return_mean"] <= last.summary["return_interval"][1]
    for text in ("LAST checkpoint", "BEST checkpoint", "an optimistic number", "95%, over 4 episodes of one policy"):
        assert text in printed
    assert "LAST against random play (return)" in printed
    stored = {each.policy: each for each in load_evaluations(cartpole)}
    assert {policy: len(each.records) for policy, each in stored.items()} == {"last": 4, "best": 4, "random": 4}
    record = stored["last"].records[0]
    assert (record.run, record.seed, record.checkpoint_step) == ("dqn-CartPole-v1/5-20260101-000000", 5, 1000)
    assert stored["random"].path == random.directory


def test_the_number_of_envs_changes_nothing_and_the_baseline_is_played_once(cartpole: Path) -> None:
    first, _ = evaluate(cartpole, num_episodes=5, num_envs=1)
    kept = load_evaluations(cartpole)
    written = (first[1].directory / "summary.json").stat().st_mtime_ns
    second, _ = evaluate(cartpole, num_episodes=5, num_envs=4)
    again = load_evaluations(cartpole)
    assert [each.records for each in kept] == [each.records for each in again]
    assert first[1].summary == second[1].summary
    assert (second[1].directory / "summary.json").stat().st_mtime_ns == written


def test_what_cannot_be_evaluated_is_refused(cartpole: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"protocol": "dopamine"}, "protocol=dopamine: unknown protocol 'dopamine'"),
        ({"num_episodes": 21}, r"num_episodes=21 is not allowed: expected 1\.\.20"),
        ({"num_envs": 0}, "num_envs=0 is not allowed"),
        ({"videos": -1}, "videos=-1 is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(cartpole, **options)
    with pytest.raises(ConfigError, match="is not a run directory"):
        evaluate(tmp_path)
    run_dir = make_run(tmp_path, CARTPOLE, best=False)
    with pytest.raises(ConfigError, match=r"checkpoint=best: .* no evaluation during training made one"):
        evaluate(run_dir, checkpoint="best")


def test_films_lie_in_the_run_directory_and_on_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = make_run(tmp_path, CATCH)
    _, printed = evaluate(run_dir, num_episodes=2, videos=2, random_baseline=False)
    films = sorted((run_dir / "videos").glob("*.mp4"))
    assert [film.name.split("-return")[0] for film in films] == [
        "000001000-last-000-pixel-catch-v0",
        "000001000-last-001-pixel-catch-v0",
    ]
    assert all(str(film) in printed for film in films)
    events = EventAccumulator(str(run_dir)).Reload()
    assert [event.step for event in events.Images("last/pixel-catch-v0-000")] == [1000]


def record(task: str, raw_return: float, success: bool) -> EpisodeRecord:
    return EpisodeRecord(
        run="r",
        seed=0,
        checkpoint_step=1,
        protocol_id="p",
        protocol_hash="h",
        env_id="MT2",
        task=task,
        raw_return=raw_return,
        length=5,
        success=success,
        success_last=False,
        first_success=2 if success else None,
        stop_reason="truncated",
    )


class _Protocol:
    frames_per_step = 1


def test_the_full_summary_adds_intervals_per_task() -> None:
    records = [record(task, value, value > 1) for task in ("a", "b") for value in (0.0, 1.0, 2.0)]
    protocol: Any = _Protocol()
    summary = full_summary(records, protocol)
    assert summary["successes"] == 2
    assert summary["success_interval"] == pytest.approx([0.0968, 0.7000], abs=1e-4)  # Wilson, 2 of 6
    assert summary["tasks"]["a"]["success_interval"] == pytest.approx([0.0615, 0.7923], abs=1e-4)  # 1 of 3
    assert summary["return_interval"][0] < 1.0 < summary["return_interval"][1]
    assert "human_normalised" not in summary
    assert full_summary(records[:2], protocol)["return_interval"] is None
    assert full_summary(records[:2], protocol)["return_interval_note"] == "no interval below 3 episodes, got 2"


def test_notes_say_what_the_numbers_are_worth() -> None:
    protocol: Any = _Protocol()
    good = [record("a", value, True) for value in np.linspace(10, 11, 12)]
    poor = [record("a", value, False) for value in np.linspace(0, 1, 12)]
    results = [
        Result("best", 10, full_summary(good, protocol), Path("best")),
        Result("random", 0, full_summary(poor, protocol), Path("random")),
    ]
    text = "\n".join(notes(results))
    assert "BEST against random play (success): [0.7575, 1] above [0, 0.2425]." in text
    assert "optimistic" in text
    assert "Only" not in text
    assert "Only 2 episodes per task" in "\n".join(notes([Result("last", 1, full_summary(good[:2], protocol), Path())]))
