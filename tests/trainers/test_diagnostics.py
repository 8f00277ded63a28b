"""Diagnostics of a run: they leave the training as it is, come when they are due, and are written down."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sextant.config import compose_train_config
from sextant.run_dirs import RunInterrupted
from sextant.train import run_resume, run_train
from trainers.config import TrainerConfig
from trainers.progress import Progress, Status
from trainers.run_log import RunLog

COMMON = [
    "env=classic",
    "env.num_envs=4",
    "trainer.total_env_steps=600",
    "trainer.checkpoint_every_env_steps=300",
    "trainer.evaluate_every_env_steps=0",
    "trainer.evaluate_at_end=false",
    "threads=1",
    "seed=1",
]
DQN = [*COMMON, "agent=dqn_classic", "agent.learning_starts=100", "agent.replay.capacity=500"]
PIXELS = [
    *COMMON,
    "agent=dqn",
    "agent.network.padding=valid",
    "agent.replay.capacity=200",
    "agent.learning_starts=60",
    "env.id=pixel-catch-v0",
    "trainer.total_env_steps=80",
    "trainer.checkpoint_every_env_steps=40",
    "trainer.diagnostics_every_env_steps=40",
]
NEVER = "trainer.diagnostics_every_env_steps=0"


def train(folder: Path, overrides: list[str]) -> Path:
    return run_train(compose_train_config([*overrides, f"runs_dir={folder}"]))


def rows(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def diagnosed(run_dir: Path) -> list[int]:
    return [int(row["env_steps"]) for row in rows(run_dir) if row.get("diagnostics/parameter_norm")]


def outcome(run_dir: Path) -> dict[str, Any]:
    """Everything a run ends with but its diagnostics."""
    newest = sorted(run_dir.glob("checkpoints/[0-9]*[0-9]"))[-1]
    found: dict[str, Any] = {
        name: hashlib.sha256((newest / name).read_bytes()).hexdigest()
        for name in ("weights.safetensors", "optimizer.pt", "arrays.safetensors")
    }
    counters = json.loads((newest / "counters.json").read_text())
    found["counters"] = {name: counters[name] for name in ("run", "agent", "replay", "rng")}
    lines = (run_dir / "episodes.jsonl").read_text().splitlines()
    found["episodes"] = [{**json.loads(line), "run": ""} for line in lines]
    found["rows"] = [{k: v for k, v in row.items() if not k.startswith("diagnostics/")} for row in rows(run_dir)]
    return found


@pytest.mark.parametrize("overrides", [DQN, [*DQN, "agent.replay.prioritised=true"]], ids=["uniform", "prioritised"])
def test_training_is_the_same_to_the_bit_with_and_without(tmp_path: Path, overrides: list[str]) -> None:
    overrides = [*overrides, "trainer.log_points=50"]
    often = train(tmp_path / "often", [*overrides, "trainer.diagnostics_every_env_steps=1"])
    never = train(tmp_path / "never", [*overrides, NEVER])
    assert len(diagnosed(often)) >= 50 and diagnosed(never) == []
    assert not any(name.startswith("diagnostics/") for name in rows(never)[0])
    assert outcome(often) == outcome(never)


@pytest.mark.parametrize("env_steps", [130, 390])
def test_a_stopped_and_resumed_run_has_the_same_diagnostics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_steps: int
) -> None:
    overrides = [*DQN, "trainer.diagnostics_every_env_steps=70"]
    whole = train(tmp_path / "whole", overrides)
    sent: list[int] = []
    show = Progress.show

    def stopping(self: Progress, status: Status) -> None:
        if status.env_steps >= env_steps and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, status)

    with monkeypatch.context() as context:
        context.setattr(Progress, "show", stopping)
        context.setattr("trainers.progress.SHOW_EVERY_SECONDS", 0.0)
        with pytest.raises(RunInterrupted):
            train(tmp_path / "stopped", overrides)
    stopped = next((tmp_path / "stopped").glob("*/*/config.yaml")).parent
    assert len(diagnosed(stopped)) < len(diagnosed(whole)) == 9
    run_resume(stopped)
    assert (stopped / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert outcome(stopped) == outcome(whole)


def test_a_short_run_is_measured_at_its_end_by_default(tmp_path: Path) -> None:
    assert diagnosed(train(tmp_path, DQN)) == [600]


def test_they_come_at_the_first_log_point_after_each_multiple_of_the_period(tmp_path: Path) -> None:
    steps = diagnosed(train(tmp_path, [*DQN, "trainer.diagnostics_every_env_steps=30"]))
    assert len(steps) == 20 and steps[-1] == 600
    for multiple, step in zip(range(30, 601, 30), steps, strict=True):
        assert multiple <= step < multiple + 4  # the first vector step at or after it


def test_a_period_of_their_own_is_kept_to_the_log_points(tmp_path: Path) -> None:
    sparse = train(tmp_path, [*DQN, "trainer.diagnostics_every_env_steps=250", "trainer.log_points=50"])
    assert diagnosed(sparse) == [252, 504, 600]


def test_the_default_period_is_a_twentieth_of_the_run_and_not_short() -> None:
    assert TrainerConfig(total_env_steps=1_000_000).diagnostics_period == 50_000
    assert TrainerConfig(total_env_steps=50_000).diagnostics_period == 5_000
    assert TrainerConfig(diagnostics_every_env_steps=0).diagnostics_period == 0


def test_pixel_runs_put_curves_and_the_first_filters_on_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = train(tmp_path, PIXELS)
    events = EventAccumulator(str(run_dir))
    events.Reload()
    assert {"diagnostics/dormant_share_0.1", "diagnostics/effective_rank"} <= set(events.Tags()["scalars"])
    images = events.Images("diagnostics/first_filters")
    assert [image.step for image in images] == diagnosed(run_dir) == [40, 80]
    assert (images[0].width, images[0].height) == (500, 500)
    assert images[0].encoded_image_string != images[1].encoded_image_string
    last = rows(run_dir)[-1]
    assert 0 <= float(last["diagnostics/dormant_share_0.1"]) <= 1
    assert 1 <= float(last["diagnostics/effective_rank"]) <= 512


def test_agents_without_action_values_have_none(tmp_path: Path) -> None:
    run_dir = train(tmp_path, [*COMMON, "agent=ppo_classic", "agent.rollout_steps=64"])
    assert not any(name.startswith("diagnostics/") for row in rows(run_dir) for name in row)


def test_an_image_is_logged_with_its_pixels(tmp_path: Path) -> None:
    import io

    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    log = RunLog(tmp_path)
    log.image("some/image", image, 7)
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    [event] = events.Images("some/image")
    assert event.step == 7
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), image)
