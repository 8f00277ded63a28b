"""Offline runs from the command line's side: CQL on the replay of a tiny run, and on trajectories; refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from memory.trajectories import Episode
from memory.trajectory_facts import TrajectoryFacts
from memory.trajectory_store import TrajectoryWriter, consolidate
from sextant.checkout import CHECKOUT
from sextant.cli import main
from sextant.compare_runs import group_settings
from sextant.config import compose_train_config, load_run_config
from sextant.evaluate import build_acting_agent, run_evaluate
from sextant.export import run_export
from sextant.export_sparse import sparse_metadata
from sextant.run_dirs import RunInterrupted
from sextant.train import run_resume, run_train
from trainers.progress import OfflineStatus, Progress

ONLINE = [
    "agent=dqn_classic",
    "env=classic",
    "env.num_envs=4",
    "agent.learning_starts=200",
    "agent.replay.capacity=2000",
    "trainer.total_env_steps=400",
    "trainer.checkpoint_every_env_steps=400",
    "trainer.evaluation_episodes=1",
    "threads=1",
]
LENGTH = [
    "trainer=offline",
    "trainer.total_gradient_steps=160",
    "trainer.checkpoint_every_gradient_steps=80",
    "trainer.evaluate_every_gradient_steps=40",
    "trainer.evaluation_episodes=2",
    "trainer.log_points=50",
    "threads=1",
    "seed=1",
]
CQL = ["agent=cql", "agent.network.kind=mlp", "agent.target_update_period=50", "env=classic", *LENGTH]
DT = [
    "agent=decision_transformer",
    "agent.context_length=4",
    "agent.width=16",
    "agent.num_layers=1",
    "agent.batch_size=8",
    "agent.warmup_steps=10",
    "env=classic",
    *LENGTH,
]


def train(folder: Path, overrides: list[str]) -> Path:
    return run_train(compose_train_config([*overrides, f"runs_dir={folder}"]))


def rows(run_dir: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with open(run_dir / name, newline="") as stream:
        return list(csv.DictReader(stream))


def newest_checkpoint(run_dir: Path) -> Path:
    return sorted(run_dir.glob("checkpoints/[0-9]*[0-9]"))[-1]


def digests(run_dir: Path) -> dict[str, str]:
    newest = newest_checkpoint(run_dir)
    files = [newest / "weights.safetensors", newest / "optimizer.pt", newest / "arrays.safetensors"]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [*files, run_dir / "metrics.csv"]}
    counters = json.loads((newest / "counters.json").read_text())
    found["counters"] = json.dumps({**counters, "log": None})
    for path in sorted(run_dir.glob("evaluations/*/*/episodes.jsonl")):
        found[str(path.relative_to(run_dir))] = json.dumps(
            [{**json.loads(line), "run": ""} for line in path.read_text().splitlines()]
        )
    return found


def cartpole_episode(seed: int) -> Episode:
    env, rng = gymnasium.make("CartPole-v1"), np.random.default_rng(seed)
    obs, actions, rewards = [env.reset(seed=seed)[0]], [], []
    over = terminated = truncated = False
    while not over:
        actions.append(int(rng.integers(2)))
        after, reward, terminated, truncated, _ = env.step(actions[-1])
        obs.append(after)
        rewards.append(reward)
        over = terminated or truncated
    env.close()
    return Episode(
        obs=np.array(obs, np.float32),
        action=np.array(actions, np.int64),
        reward=np.array(rewards, np.float32),
        terminated=terminated,
        truncated=truncated,
        success=None,
        task="CartPole-v1",
        seed=seed,
        source="random",
    )


def write_trajectories(folder: Path, num_actions: int = 2) -> Path:
    facts = TrajectoryFacts(
        env_id="CartPole-v1",
        suite="classic",
        task="CartPole-v1",
        observation_kind="vector",
        obs_shape=(4,),
        obs_dtype="float32",
        action_kind="discrete",
        num_actions=num_actions,
    )
    with TrajectoryWriter(folder, facts) as writer:
        writer.add(*(cartpole_episode(seed) for seed in range(12)))
    consolidate(folder, "CartPole-v1")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished online run with a replay of 400 transitions."""
    return train(tmp_path_factory.mktemp("source"), ONLINE)


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 CartPole episodes."""
    return write_trajectories(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=["cql on a replay", "cql on trajectories", "decision transformer"])
def whole(
    request: Any, source: Path, trajectories: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """An offline run that was never stopped, and its overrides."""
    data = source if request.param == "cql on a replay" else trajectories
    overrides = [*(DT if request.param == "decision transformer" else CQL), f"trainer.data=[{data}]"]
    return overrides, train(tmp_path_factory.mktemp("whole"), overrides)


@pytest.fixture
def cql_run(source: Path, tmp_path: Path) -> Path:
    return train(tmp_path, [*CQL, f"trainer.data=[{source}]", "trainer.total_gradient_steps=50"])


def stop_at(monkeypatch: pytest.MonkeyPatch, gradient_steps: int, *, crash: bool = False) -> None:
    """Stops the session once, when it shows this many gradient steps: by SIGTERM, or without a save by a crash."""
    sent: list[int] = []
    show = Progress.show

    def showing(self: Progress, status: Any) -> None:
        assert isinstance(status, OfflineStatus)
        if status.gradient_steps >= gradient_steps and not sent:
            sent.append(1)
            if crash:
                raise ZeroDivisionError
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, status)

    monkeypatch.setattr(Progress, "show", showing)
    monkeypatch.setattr("trainers.progress.SHOW_EVERY_SECONDS", 0.0)


def train_until_stopped(folder: Path, overrides: list[str], error: type[BaseException]) -> Path:
    with pytest.raises(error):
        train(folder, overrides)
    return next(folder.glob("*/*/config.yaml")).parent


def test_a_run_leaves_what_an_online_run_does_counted_in_gradient_steps(whole: tuple[list[str], Path]) -> None:
    _, run_dir = whole
    table = rows(run_dir)
    assert next(iter(table[0])) == "gradient_steps" and "env_steps" not in table[0]
    steps = [int(row["gradient_steps"]) for row in table]
    assert steps == sorted({*range(3, 161, 3), *range(40, 161, 40)})
    evaluated = [row for row in table if row["eval/return_mean"]]
    assert [int(row["gradient_steps"]) for row in evaluated] == [40, 80, 120, 160]
    assert float(table[-1]["agent/loss"]) > 0
    snapshot = json.loads((newest_checkpoint(run_dir) / "counters.json").read_text())["run"]
    assert snapshot["env_steps"] == snapshot["updates"] == 160
    assert snapshot["best_score"] == max(float(row["eval/return_mean"]) for row in evaluated)
    assert sorted(path.name for path in run_dir.glob("checkpoints/[0-9]*[0-9]")) == ["000000", "000001"]
    assert len(list(run_dir.glob("evaluations/*/training-*"))) == 4
    board = EventAccumulator(str(run_dir))
    board.Reload()
    scalars = board.Tags()["scalars"]
    assert [event.step for event in board.Scalars("eval/return_mean")] == [40, 80, 120, 160]
    assert {"agent/loss", "speed/sampling_share", "final/gradient_steps", "final/best_score"} <= set(scalars)
    assert not {"final/env_steps", "final/updates"} & set(scalars)
    assert "_hparams_/session_start_info" in board.summary_metadata


def test_timing_says_where_the_time_went(whole: tuple[list[str], Path]) -> None:
    overrides, run_dir = whole
    table = rows(run_dir, "timing.csv")
    item = "transitions_per_second" if "agent=cql" in overrides else "env_steps_per_second"
    assert item in table[0]
    shares = ("sampling_share", "learner_share", "evaluation_share", "saving_share", "other_share")
    for row in table:
        assert sum(float(row[name]) for name in shares) == pytest.approx(1.0, abs=1e-6)
    assert sum(float(row["sampling_share"]) for row in table) > 0
    assert sum(float(row["learner_share"]) for row in table) > 0
    evaluating = [int(row["gradient_steps"]) for row in table if float(row["evaluation_share"]) > 0]
    assert evaluating == [40, 80, 120, 160]


def test_provenance_names_the_data_by_digest(whole: tuple[list[str], Path], source: Path, trajectories: Path) -> None:
    overrides, run_dir = whole
    data = json.loads((run_dir / "provenance.json").read_text())["starts"][0]["data"]
    assert len(data) == 1
    (name, digest), *_ = data.items()
    if f"trainer.data=[{source}]" in overrides:
        checkpoint = newest_checkpoint(source)
        assert name.endswith(f"/checkpoints/{checkpoint.name}")
        assert digest == hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
    else:
        assert name.endswith("CartPole-v1.h5") and len(digest) == 64
    assert (run_dir / "data.json").exists() == ("agent=decision_transformer" in overrides)


def test_equal_seeds_give_equal_runs_and_other_seeds_others(whole: tuple[list[str], Path], tmp_path: Path) -> None:
    overrides, run_dir = whole
    assert digests(train(tmp_path / "again", overrides)) == digests(run_dir)
    other = train(tmp_path / "other", [*overrides, "seed=2"])
    assert digests(other)["weights.safetensors"] != digests(run_dir)["weights.safetensors"]


@pytest.mark.parametrize("gradient_steps", [29, 120, 131])
def test_a_run_stopped_between_boundaries_resumes_to_the_same_bits(
    whole: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient_steps: int
) -> None:
    overrides, run_dir = whole
    with monkeypatch.context() as context:
        stop_at(context, gradient_steps)
        stopped = train_until_stopped(tmp_path, overrides, RunInterrupted)
    counters = json.loads((newest_checkpoint(stopped) / "counters.json").read_text())
    assert gradient_steps <= counters["run"]["env_steps"] < gradient_steps + 8
    assert digests(stopped) != digests(run_dir)
    run_resume(stopped)
    got, expected = digests(stopped), digests(run_dir)
    for each in (got, expected):  # the saves differ in number
        counters = json.loads(each.pop("counters"))
        assert counters["run"]["env_steps"] == 160
    assert got == expected


def test_a_run_that_crashed_goes_back_to_its_last_boundary_and_ends_the_same(
    whole: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, run_dir = whole
    with monkeypatch.context() as context:
        stop_at(context, 106, crash=True)
        stopped = train_until_stopped(tmp_path, overrides, ZeroDivisionError)
    assert json.loads((newest_checkpoint(stopped) / "counters.json").read_text())["run"]["env_steps"] == 80
    assert int(rows(stopped)[-1]["gradient_steps"]) == 105
    run_resume(stopped)
    assert digests(stopped) == digests(run_dir)


@pytest.mark.slow
def test_a_killed_run_ends_like_one_never_stopped(whole: tuple[list[str], Path], tmp_path: Path) -> None:
    overrides, run_dir = whole
    command = [sys.executable, "-m", "sextant", "train", *overrides, f"runs_dir={tmp_path}"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("*/*/checkpoints/000000")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = next(tmp_path.glob("*/*/config.yaml")).parent
    assert len(rows(killed)) < len(rows(run_dir))
    run_resume(killed)
    assert digests(killed) == digests(run_dir)


def test_resume_auto_goes_on_with_the_same_run_and_does_nothing_when_it_is_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*CQL, f"trainer.data=[{source}]", "resume=auto"]
    with monkeypatch.context() as context:
        stop_at(context, 60)
        stopped = train_until_stopped(tmp_path, overrides, RunInterrupted)
    assert train(tmp_path, overrides) == stopped
    assert train(tmp_path, overrides) == stopped
    assert "nothing to do: the run has its 160 gradient steps" in capsys.readouterr().err


def test_a_run_is_not_resumed_on_other_data(
    trajectories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "copy"
    shutil.copytree(trajectories, data)
    with monkeypatch.context() as context:
        stop_at(context, 60)
        stopped = train_until_stopped(tmp_path / "runs", [*CQL, f"trainer.data=[{data}]"], RunInterrupted)
    (data / "CartPole-v1.h5").unlink()
    with TrajectoryWriter(data, _facts(trajectories)) as writer:
        writer.add(cartpole_episode(99))
    consolidate(data, "CartPole-v1")
    assert main(["resume", str(stopped)]) == 2
    assert "the data is not what this run was started on: 0/CartPole-v1.h5 differs" in capsys.readouterr().err


def _facts(trajectories: Path) -> TrajectoryFacts:
    from memory.trajectory_reading import read_directory

    return read_directory(trajectories)[0].facts


def test_a_run_whose_source_has_moved_on_is_not_resumed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "dqn" / "0-20260101-000000"
    shutil.copytree(source, copy)
    with monkeypatch.context() as context:
        stop_at(context, 60)
        stopped = train_until_stopped(tmp_path / "runs", [*CQL, f"trainer.data=[{copy}]"], RunInterrupted)
    newest = newest_checkpoint(copy)
    newest.rename(newest.with_name("000007"))
    assert main(["resume", str(stopped)]) == 2
    assert f"no longer has checkpoint {newest.name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["agent=cql", "agent.network.kind=mlp"], "agent=cql learns from data, not from playing: use trainer=offline"),
        (["agent=dqn_classic", "trainer=offline", "trainer.data=[x]"], "which trainer=offline does not"),
        (["agent=cql", "agent.network.kind=mlp", "trainer=offline"], "trainer.data=[] names nothing to learn from"),
        ([*CQL, "trainer.data=[no/such]"], "trainer.data: no/such does not exist"),
        ([*CQL, "trainer.data=[x]", "trainer.total_env_steps=5"], "only there with trainer=online"),
        ([*CQL, "trainer.data=[x]", "trainer.top_fraction=0"], "trainer.top_fraction=0"),
        ([*CQL, "trainer.data=[x]", "trainer.checkpoint_every_gradient_steps=70"], "must be a multiple"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contradictions_are_refused_before_anything_starts(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if "env=classic" in arguments else ["env=classic"]
    assert main(["train", *arguments, *given, f"runs_dir={tmp_path}"]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def refused(arguments: list[str], runs: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["train", *arguments, f"runs_dir={runs}"]) == 2
    assert not list(runs.glob("*"))
    return capsys.readouterr().err


def test_data_of_other_spaces_is_refused_naming_both(
    source: Path, trajectories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [*CQL, "env.id=Acrobot-v1"]
    shown = refused([*other, f"trainer.data=[{source}]"], tmp_path, capsys)
    assert "was played in CartPole-v1" in shown and "but Acrobot-v1 has observations Box(" in shown
    shown = refused([*other, f"trainer.data=[{trajectories}]"], tmp_path, capsys)
    assert "(CartPole-v1) has observations 4 and 2 actions, but Acrobot-v1 has observations 6 and 3 actions" in shown


def test_data_of_the_wrong_kind_is_refused(
    source: Path, trajectories: Path, cql_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert "learns from trajectories" in refused([*DT, f"trainer.data=[{source}]"], runs, capsys)
    assert "from one run directory alone" in refused([*CQL, f"trainer.data=[{source},{trajectories}]"], runs, capsys)
    assert "choose trajectories" in refused([*CQL, f"trainer.data=[{source}]", "trainer.tasks=[x]"], runs, capsys)
    assert "agent=cql, which keeps no replay" in refused([*CQL, f"trainer.data=[{cql_run}]"], runs, capsys)
    shown = refused([*CQL, f"trainer.data=[{trajectories}]", "trainer.tasks=[CartPol]"], runs, capsys)
    assert "no episodes of 'CartPol' in these files; did you mean 'CartPole-v1'?" in shown
    damaged = tmp_path / "damaged"
    shutil.copytree(trajectories, damaged)
    content = bytearray((damaged / "CartPole-v1.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "CartPole-v1.h5").write_bytes(content)
    assert str(damaged / "CartPole-v1.h5") in refused([*CQL, f"trainer.data=[{damaged}]"], runs, capsys)


def test_torchrun_is_refused_where_only_one_process_can_train(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", *ONLINE, f"runs_dir={tmp_path}"]) == 1
    assert "trainer=online runs in one process, but torchrun started 2" in capsys.readouterr().err


def test_evaluate_builds_the_agent_of_a_run_and_reads_its_checkpoints(whole: tuple[list[str], Path]) -> None:
    overrides, run_dir = whole
    results = run_evaluate(run_dir, checkpoint="both", num_episodes=2, random_baseline=False)
    assert [result.policy for result in results] == ["last", "best"]
    assert results[0].env_steps == 160
    if "agent=decision_transformer" in overrides:
        config = load_run_config(run_dir)
        with pytest.raises(ValueError, match="cannot be built without a summary of its data"):
            build_acting_agent(config, config.env.evaluation_protocol(), "cpu")
        (run_dir / "data.json").rename(run_dir / "data.away")
        with pytest.raises(ValueError, match=r"data\.json is missing"):
            build_acting_agent(config, config.env.evaluation_protocol(), "cpu", run_dir=run_dir)
        (run_dir / "data.away").rename(run_dir / "data.json")


def test_export_names_the_checkpoint_by_gradient_steps(cql_run: Path) -> None:
    exported = run_export(cql_run, sparse=True)
    facts = sparse_metadata(exported.directory / "network.sparse.safetensors")
    assert facts["gradient_steps"] == "50" and "env_steps" not in facts


def test_runs_are_compared_by_length_and_data(source: Path) -> None:
    config = compose_train_config([*CQL, f"trainer.data=[{source}]"])
    settings = group_settings(config.model_dump(mode="json"))
    assert settings["trainer.total_gradient_steps"] == 160
    assert f"replay of {source.parent.name} (" in str(settings["trainer.data"])
    online = group_settings(compose_train_config(ONLINE).model_dump(mode="json"))
    assert [key for key in online if key.startswith("trainer.")] == ["trainer.total_env_steps"]


def test_threads_are_measured_without_moving_the_stream_of_batches(source: Path, tmp_path: Path) -> None:
    overrides = [*CQL, f"trainer.data=[{source}]", "trainer.total_gradient_steps=50"]
    fixed = train(tmp_path / "fixed", overrides)
    measured = train(tmp_path / "measured", [*overrides, "threads=auto"])
    threads = load_run_config(measured).threads
    assert isinstance(threads, int)
    if threads == 1:
        assert digests(measured) == digests(fixed)
    states = [json.loads((newest_checkpoint(each) / "counters.json").read_text())["data"] for each in (fixed, measured)]
    assert states[0] == states[1]
