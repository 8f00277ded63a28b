"""Whole training sessions on CartPole: determinism, boundaries, clean stops, resuming, damaged checkpoints."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sextant.config import compose_train_config
from sextant.run_dirs import RunError, RunInterrupted
from sextant.train import run_resume, run_train
from trainers.progress import Progress, Status

DQN = [
    "agent=dqn_classic",
    "env=classic",
    "env.num_envs=4",
    "agent.learning_starts=200",
    "agent.replay.capacity=2000",
    "trainer.total_env_steps=1200",
    "trainer.checkpoint_every_env_steps=300",
    "trainer.evaluate_every_env_steps=600",
    "trainer.evaluation_episodes=2",
    "threads=1",
    "seed=1",
]
PPO = [
    "agent=ppo_classic",
    "env=classic",
    "env.num_envs=4",
    "agent.rollout_steps=64",
    "trainer.total_env_steps=2048",
    "trainer.checkpoint_every_env_steps=512",
    "trainer.evaluate_every_env_steps=1024",
    "trainer.evaluation_episodes=2",
    "threads=1",
    "seed=1",
]


def train(folder: Path, overrides: list[str]) -> Path:
    return run_train(compose_train_config([*overrides, f"runs_dir={folder}"]))


def train_until_stopped(folder: Path, overrides: list[str]) -> Path:
    with pytest.raises(RunInterrupted):
        train(folder, overrides)
    return next(folder.glob("*/*/config.yaml")).parent


def newest_checkpoint(run_dir: Path) -> Path:
    return sorted(run_dir.glob("checkpoints/[0-9]*[0-9]"))[-1]


def digests(run_dir: Path) -> dict[str, str]:
    newest = newest_checkpoint(run_dir)
    files = [newest / "weights.safetensors", newest / "optimizer.pt", newest / "arrays.safetensors"]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [*files, run_dir / "metrics.csv"]}
    for path in [run_dir / "episodes.jsonl", *sorted(run_dir.glob("evaluations/*/*/episodes.jsonl"))]:
        records = [{**json.loads(line), "run": ""} for line in path.read_text().splitlines()]
        found[str(path.relative_to(run_dir))] = json.dumps(records)
    return found


def rows(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module", params=[DQN, PPO], ids=["dqn", "ppo"])
def whole(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A run that was never stopped, and its overrides."""
    return request.param, train(tmp_path_factory.mktemp("whole"), request.param)


def stop_at(monkeypatch: pytest.MonkeyPatch, env_steps: int) -> None:
    """Sends this process SIGTERM once, when a session shows this many env steps."""
    sent: list[int] = []
    show = Progress.show

    def showing(self: Progress, status: Status) -> None:
        if status.env_steps >= env_steps and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, status)

    monkeypatch.setattr(Progress, "show", showing)
    monkeypatch.setattr("trainers.progress.SHOW_EVERY_SECONDS", 0.0)


def test_equal_seeds_give_equal_runs_and_other_seeds_others(whole: tuple[list[str], Path], tmp_path: Path) -> None:
    overrides, run_dir = whole
    assert digests(train(tmp_path / "again", overrides)) == digests(run_dir)
    other = digests(train(tmp_path / "other", [*overrides[:-1], "seed=2"]))
    assert other["weights.safetensors"] != digests(run_dir)["weights.safetensors"]


@pytest.mark.parametrize("env_steps", [260, 700])
def test_a_run_stopped_between_boundaries_resumes_to_the_same_bits(
    whole: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_steps: int
) -> None:
    overrides, run_dir = whole
    with monkeypatch.context() as context:
        stop_at(context, env_steps)
        stopped = train_until_stopped(tmp_path, overrides)
    counters = json.loads((newest_checkpoint(stopped) / "counters.json").read_text())
    assert env_steps <= counters["run"]["env_steps"] < env_steps + 300
    assert digests(stopped) != digests(run_dir)
    run_resume(stopped)
    assert digests(stopped) == digests(run_dir)


def test_a_damaged_checkpoint_is_passed_over_and_the_run_still_ends_the_same(
    whole: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, run_dir = whole
    with monkeypatch.context() as context:
        stop_at(context, 700)
        stopped = train_until_stopped(tmp_path, overrides)
    weights = newest_checkpoint(stopped) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    run_resume(stopped)
    assert "weights.safetensors" in capsys.readouterr().err
    assert digests(stopped) == digests(run_dir)


def test_resume_auto_goes_on_with_the_same_run_and_does_nothing_when_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*DQN, "resume=auto"]
    with monkeypatch.context() as context:
        stop_at(context, 260)
        stopped = train_until_stopped(tmp_path, overrides)
    assert train(tmp_path, overrides) == stopped
    finished = digests(stopped)
    assert train(tmp_path, overrides) == stopped
    assert digests(stopped) == finished
    assert train(tmp_path, [*DQN[:-1], "seed=9", "resume=auto"]) != stopped


def test_a_run_killed_before_its_first_checkpoint_starts_afresh(whole: tuple[list[str], Path], tmp_path: Path) -> None:
    overrides, run_dir = whole
    started = train(tmp_path, overrides)
    for checkpoint in started.glob("checkpoints/[0-9]*"):
        checkpoint.rename(tmp_path / checkpoint.name)
    run_resume(started)
    assert digests(started) == digests(run_dir)


def test_without_an_intact_checkpoint_nothing_is_started_over_silently(tmp_path: Path) -> None:
    started = train(tmp_path, DQN)
    for path in started.glob("checkpoints/[0-9]*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="no intact checkpoint"):
        run_resume(started)


def test_evaluating_does_not_disturb_training(whole: tuple[list[str], Path], tmp_path: Path) -> None:
    overrides, run_dir = whole
    quiet = train(tmp_path, [*overrides, "trainer.evaluate_every_env_steps=0", "trainer.evaluate_at_end=false"])
    assert digests(quiet)["weights.safetensors"] == digests(run_dir)["weights.safetensors"]
    assert digests(quiet)["episodes.jsonl"] == digests(run_dir)["episodes.jsonl"]


def test_episodes_cut_at_a_checkpoint_are_recorded_but_not_counted(
    whole: tuple[list[str], Path],
) -> None:
    _, run_dir = whole
    records = [json.loads(line) for line in (run_dir / "episodes.jsonl").read_text().splitlines()]
    stops = {record["stop_reason"] for record in records}
    assert stops == {"terminated", "cut"}
    counted = [record for record in records if record["stop_reason"] != "cut"]
    last = rows(run_dir)[-1]
    assert int(last["episodes"]) == len(counted)
    expected = [record["raw_return"] for record in counted[-100:]]
    assert float(last["train/return_mean"]) == pytest.approx(sum(expected) / len(expected))


def test_even_a_short_run_logs_enough_points_and_no_step_twice(tmp_path: Path) -> None:
    run_dir = train(tmp_path, [*DQN, "trainer.log_points=50"])
    steps = [int(row["env_steps"]) for row in rows(run_dir)]
    assert len(steps) >= 50
    assert steps == sorted(set(steps))
    assert steps[-1] == 1200


def test_updates_follow_the_replay_ratio_after_the_warm_up(tmp_path: Path) -> None:
    run_dir = train(tmp_path, DQN)
    config = compose_train_config(DQN)
    agent: Any = config.agent
    expected = round((1200 - agent.learning_starts) * agent.replay_ratio)
    assert int(rows(run_dir)[-1]["updates"]) == expected


def test_two_processes_cannot_share_a_run(tmp_path: Path) -> None:
    from sextant.run_dirs import only_process

    run_dir = train(tmp_path, DQN)
    with only_process(run_dir), pytest.raises(RunError, match="another process"):
        run_resume(run_dir)
