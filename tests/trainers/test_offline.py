"""The parts of offline training: rhythm, clock, data as a replay, Tianshou's seams, and several processes."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from pydantic import ValidationError
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.trainer import OfflineTrainer

from memory.trajectories import Episode
from memory.trajectory_data import TrajectoryData
from memory.trajectory_facts import TrajectoryFacts
from memory.trajectory_reading import TrajectoryFile, read_directory
from memory.trajectory_store import TrajectoryWriter, consolidate
from trainers.distributed import ALONE, torchrun_size
from trainers.offline_config import OfflineTrainerConfig
from trainers.offline_data import _lanes, replay_of_trajectories, transitions_of
from trainers.speed import PhaseClock
from trainers.tianshou_runs import OfflineRun

CHECKOUT = Path(__file__).parents[2]
SPACES = (gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32), gymnasium.spaces.Discrete(2))
LENGTHS = (5, 3, 9, 2, 4)


# ---------------------------------------------------------------------- rhythm


def test_boundaries_are_the_multiples_of_both_periods_and_the_end() -> None:
    config = OfflineTrainerConfig(
        total_gradient_steps=230, checkpoint_every_gradient_steps=100, evaluate_every_gradient_steps=50
    )
    met, step = [], 0
    while step < 230:
        met.append(step := config.next_boundary(step))
    assert met == [50, 100, 150, 200, 230]
    assert config.model_copy(update={"evaluate_every_gradient_steps": 0}).next_boundary(0) == 100


def test_log_points_are_multiples_of_their_period() -> None:
    config = OfflineTrainerConfig(total_gradient_steps=1000, log_points=50)
    assert [config.next_point(step) for step in (0, 19, 20, 21)] == [20, 20, 40, 40]
    assert OfflineTrainerConfig(total_gradient_steps=10).next_point(3) == 4


def test_periods_that_do_not_nest_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"evaluate_every_gradient_steps=30 and checkpoint_every.*=100"):
        OfflineTrainerConfig(checkpoint_every_gradient_steps=100, evaluate_every_gradient_steps=30)


def test_a_phase_within_another_counts_for_the_inner_one_only() -> None:
    clock = PhaseClock()
    start = clock.mark(10)
    with clock.during("learner"):
        time.sleep(0.02)
        with clock.during("sampling"):
            time.sleep(0.04)
    with clock.during("evaluation"):
        time.sleep(0.04)
    assert 0.02 <= clock.seconds["learner"] < 0.035 and 0.04 <= clock.seconds["sampling"] < 0.055
    reading = clock.read(start, 20)
    shares = [value for name, value in reading.items() if name.endswith("_share")]
    assert sum(shares) == pytest.approx(1.0) and reading["saving_share"] == 0.0
    training = clock.seconds["learner"] + clock.seconds["sampling"]
    assert reading["gradient_steps_per_second"] == pytest.approx(10 / training, rel=0.1)


def test_every_method_we_override_still_exists_in_tianshou() -> None:
    assert issubclass(OfflineRun, OfflineTrainer)
    assert OfflineRun._training_step is not OfflineTrainer._training_step
    result = OfflineTrainer._TrainingStepResult(training_stats=TrainingStats(), env_step_advancement=7)
    assert result.get_env_step_advancement() == 7


class CountingAgent:
    """Notes how many gradient steps each call takes, and on what."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.algorithm = self
        self.policy = type("Policy", (), {"is_within_training_step": False})()

    def process_buffer(self, buffer: Any) -> Any:
        return buffer

    def update(self, source: Any, batch_size: int, count: int) -> None:
        assert source == "source" and batch_size == 4 and self.policy.is_within_training_step
        self.calls.append(count)


@pytest.mark.parametrize(
    ("start", "joint_steps", "goals", "expected"),
    [(0, 1, [3], [1, 1, 1]), (0, 8, [20], [8, 8, 4]), (0, 8, [10, 20], [8, 2, 6, 4]), (10, 8, [20], [6, 4])],
)
def test_calls_end_at_multiples_of_the_joint_steps_wherever_a_run_was_stopped(
    start: int, joint_steps: int, goals: list[int], expected: list[int]
) -> None:
    from types import SimpleNamespace

    from trainers.tianshou_runs import Hooks

    agent: Any = CountingAgent()
    done: list[int] = []
    dataset: Any = SimpleNamespace(source="source", batch_size=4, joint_steps=joint_steps)
    run = OfflineRun(agent, dataset, Hooks(lambda: False, done.append), PhaseClock(), gradient_step=start)
    for goal in goals:
        run.run_to(goal)
    assert agent.calls == done == expected
    assert run._env_step == 4 * sum(expected)


# ---------------------------------------------------------------------- trajectories as a replay


def episode(number: int, length: int) -> Episode:
    obs = np.array([[number, step, 0] for step in range(length + 1)], np.float32)
    return Episode(
        obs=obs,
        action=(np.arange(length) % 2).astype(np.int64),
        reward=np.array([10 * number + step for step in range(length)], np.float32),
        terminated=number in (0, 2),
        truncated=number == 1,
        success=None,
        task="line",
        seed=number,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[TrajectoryFile]:
    folder = tmp_path_factory.mktemp("line")
    facts = TrajectoryFacts(
        env_id="line-v0",
        suite="tests",
        task="line",
        observation_kind="vector",
        obs_shape=(3,),
        obs_dtype="float32",
        action_kind="discrete",
        num_actions=2,
    )
    with TrajectoryWriter(folder, facts) as writer:
        writer.add(*(episode(number, length) for number, length in enumerate(LENGTHS)))
    consolidate(folder, "line")
    return read_directory(folder)


def test_a_replay_holds_every_transition_of_the_trajectories_once(files: list[TrajectoryFile]) -> None:
    replay = replay_of_trajectories(TrajectoryData(files), SPACES, np.random.default_rng(0), lambda line: None)
    batch: Any = replay.sample(0)[0]
    assert len(batch.rew) == sum(LENGTHS)
    order = np.lexsort((batch.obs[:, 1], batch.obs[:, 0]))
    number, step = batch.obs[order, 0], batch.obs[order, 1]
    np.testing.assert_array_equal(number, np.repeat(np.arange(5), LENGTHS))
    np.testing.assert_array_equal(batch.rew[order], 10 * number + step)
    np.testing.assert_array_equal(batch.act[order], step % 2)
    np.testing.assert_array_equal(batch.obs_next[order], np.stack([number, step + 1, 0 * step], 1))
    last = step == np.array(LENGTHS)[number.astype(int)] - 1
    np.testing.assert_array_equal(batch.terminated[order], last & np.isin(number, (0, 2)))
    np.testing.assert_array_equal(batch.truncated[order], last & ~np.isin(number, (0, 2)))
    assert replay.num_breaks_E.sum() == 0


def test_only_the_chosen_episodes_enter_the_replay_with_their_own_ends(files: list[TrajectoryFile]) -> None:
    data = TrajectoryData(files, top_fraction=0.4)
    replay = replay_of_trajectories(data, SPACES, np.random.default_rng(0), lambda line: None)
    batch: Any = replay.sample(0)[0]
    assert set(batch.obs[:, 0]) == {2.0, 4.0}  # the highest sums of rewards
    assert batch.terminated.sum() == 1 and batch.obs[batch.terminated, 0].tolist() == [2.0]


def test_lanes_are_filled_evenly_and_hold_each_episode_once() -> None:
    lanes = _lanes(np.array([9, 1, 5, 4, 1]), 2)
    assert sorted(np.concatenate(lanes).tolist()) == [0, 1, 2, 3, 4]
    assert sorted(int(np.array([9, 1, 5, 4, 1])[lane].sum()) for lane in lanes) == [10, 10]


def test_the_stream_of_transitions_goes_on_from_its_state(files: list[TrajectoryFile]) -> None:
    rng = np.random.default_rng(0)
    replay = replay_of_trajectories(TrajectoryData(files), SPACES, rng, lambda line: None)
    dataset = transitions_of(replay, rng, batch_size=4)
    state = dataset.state()
    first = [dataset.source.sample(4)[1].tolist() for _ in range(3)]
    assert len({tuple(each) for each in first}) > 1
    dataset.load(*state)
    assert [dataset.source.sample(4)[1].tolist() for _ in range(3)] == first
    with pytest.raises(ValueError, match="the data has 23 transitions, the checkpoint's had 22"):
        dataset.load({}, {**state[1], "transitions": 22})


# ---------------------------------------------------------------------- several processes


def test_a_process_by_itself_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert torchrun_size() == 1
    assert ALONE.is_main and ALONE.any(True) and not ALONE.any(False) and ALONE.share("x") == "x"
    array = np.arange(3)
    assert ALONE.gather(array)[0] is array


ARGUMENTS = [
    "agent=dt_mem",
    "agent.context_length=4",
    "agent.num_segments=2",
    "agent.width=16",
    "agent.num_layers=1",
    "agent.num_heads=1",
    "agent.batch_size=8",
    "agent.warmup_steps=5",
    "agent.metrics_period=5",
    "agent.memory.num_slots=4",
    "agent.memory.num_heads=1",
    "agent.memory.chunk=2",
    "env=classic",
    "trainer=offline",
    "trainer.checkpoint_every_gradient_steps=20",
    "trainer.evaluation_episodes=1",
    "trainer.log_points=50",
    "threads=1",
]


def start(arguments: list[str], size: int) -> list[subprocess.Popen[bytes]]:
    """Starts the processes of a command as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "sextant", *arguments],
            cwd=CHECKOUT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]


def wait(processes: list[subprocess.Popen[bytes]], status: int = 0) -> str:
    """Waits for processes that must end with this status; gives what the first one said."""
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), errors
    return errors[0]


def run_dir_in(folder: Path) -> Path:
    found = list(folder.glob("*/*/config.yaml"))
    assert len(found) == 1
    return found[0].parent


def table(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cartpole")
    facts = TrajectoryFacts(
        env_id="CartPole-v1",
        suite="classic",
        task="CartPole-v1",
        observation_kind="vector",
        obs_shape=(4,),
        obs_dtype="float32",
        action_kind="discrete",
        num_actions=2,
    )
    rng = np.random.default_rng(0)
    with TrajectoryWriter(folder, facts) as writer:
        for seed, length in enumerate(rng.integers(9, 30, 10).tolist()):
            writer.add(
                Episode(
                    obs=rng.normal(size=(length + 1, 4)).astype(np.float32),
                    action=rng.integers(0, 2, length),
                    reward=np.ones(length, np.float32),
                    terminated=True,
                    truncated=False,
                    success=None,
                    task="CartPole-v1",
                    seed=seed,
                )
            )
    consolidate(folder, "CartPole-v1")
    return folder


@pytest.mark.slow
def test_two_processes_lose_what_one_does_with_the_whole_batch(cartpole: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        *ARGUMENTS,
        f"trainer.data=[{cartpole}]",
        "agent.dropout=0",
        "trainer.total_gradient_steps=40",
    ]
    alone = start([*arguments, f"runs_dir={tmp_path / 'one'}"], 1)
    said = wait(start([*arguments, f"runs_dir={tmp_path / 'two'}"], 2))
    wait(alone)
    one, two = run_dir_in(tmp_path / "one"), run_dir_in(tmp_path / "two")
    assert "finished" in said
    assert [row["gradient_steps"] for row in table(one)] == [row["gradient_steps"] for row in table(two)]
    losses = ("agent/loss", "agent/action_loss", "agent/action_accuracy", "agent/grad_norm", "agent/learning_rate")
    for row_one, row_two in zip(table(one), table(two), strict=True):
        for name in losses:
            alike = float(row_two[name] or 0) == pytest.approx(float(row_one[name] or 0), rel=1e-3, abs=1e-6)
            assert alike, f"{name} at {row_one['gradient_steps']}: {row_one[name]} and {row_two[name]}"
    assert float(table(one)[-1]["agent/loss"]) < float(table(one)[6]["agent/loss"])


def digests(run_dir: Path) -> dict[str, str]:
    newest = sorted(run_dir.glob("checkpoints/[0-9]*[0-9]"))[-1]
    paths = [newest / "weights.safetensors", newest / "optimizer.pt", newest / "arrays.safetensors"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [*paths, run_dir / "metrics.csv"]}


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_to_the_same_bits(cartpole: Path, tmp_path: Path) -> None:
    arguments = ["train", *ARGUMENTS, f"trainer.data=[{cartpole}]", "trainer.total_gradient_steps=300"]
    wait(start([*arguments, f"runs_dir={tmp_path / 'whole'}"], 2))
    processes = start([*arguments, f"runs_dir={tmp_path / 'stopped'}"], 2)
    while not list((tmp_path / "stopped").glob("*/*/checkpoints/000002")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)  # one is told; both stop
    wait(processes, status=130)
    stopped = run_dir_in(tmp_path / "stopped")
    assert int(table(stopped)[-1]["gradient_steps"]) < 300
    wait(start(["resume", str(stopped)], 2))
    assert digests(stopped) == digests(run_dir_in(tmp_path / "whole"))
