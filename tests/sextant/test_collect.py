"""``sextant collect``: equal data whoever plays it, going on where it stopped, and refusals before anything starts."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agents.interface import to_env_action
from memory.trajectory_reading import TrajectoryFile, read_directory
from sextant import collect_workers
from sextant.checkout import CHECKOUT
from sextant.collect import run_collect
from sextant.collect_config import CollectConfig, read_collect_config
from sextant.collect_plan import make_plan
from sextant.config import ConfigError, compose_train_config, save_run_config
from sextant.evaluate import build_acting_agent
from sextant.run_dirs import RunInterrupted
from trainers.checkpointing import CheckpointStore

CARTPOLE = (
    "agent=dqn",
    "env=classic",
    "agent.network.kind=mlp",
    "agent.replay.capacity=240",
    "threads=1",
    "device=cpu",
)
REACH = ("env=metaworld", "env.task=reach-v3", "stop_at_success=true")
COPY = ("env=memory_tasks", "env.task=copy", "env.min_corridor=3", "env.max_corridor=9", "policy=optimal")


def collect(*arguments: str) -> tuple[list[TrajectoryFile], str]:
    console = Console(file=io.StringIO(), width=160)
    directory = run_collect(read_collect_config(arguments), console=console)
    assert isinstance(console.file, io.StringIO)
    return read_directory(directory), console.file.getvalue()


def digests(files: list[TrajectoryFile]) -> list[str]:
    return [file.digest for file in files]


def make_run(root: Path, overrides: tuple[str, ...] = CARTPOLE) -> Path:
    """Gives a run directory with one checkpoint of fresh weights, and a replay of the last 30 of 60 steps of 8 envs."""
    config = compose_train_config([*overrides, "seed=5"])
    run_dir = root / f"dqn-{config.env.env_id}" / "5-20260101-000000"
    run_dir.mkdir(parents=True)
    save_run_config(config, run_dir)
    env_config: Any = config.env
    agent_config: Any = config.agent
    agent = build_acting_agent(config, env_config.evaluation_protocol(), "cpu")
    env = env_config.make_training_env()
    replay = agent_config.replay.build(
        env.single_observation_space, env.single_action_space, 8, np.random.default_rng(0), lambda line: None
    )
    obs, _ = env.reset(seed=1)
    for _ in range(60):
        action = agent.random_action(8)
        obs_next, reward, terminated, truncated, info = env.step(to_env_action(action, env.single_action_space))
        replay.add_step(
            obs=obs,
            act=action,
            rew=reward.astype(np.float64),
            terminated=terminated,
            truncated=truncated,
            obs_next=obs_next,
            episode_over=info["episode_over"],
        )
        obs = obs_next
        if (over := np.flatnonzero(info["episode_over"])).size:
            obs[over] = env.reset(over)[0]
    env.close()
    arrays, counters = replay.state()
    CheckpointStore(run_dir / "checkpoints").save(
        index=1,
        env_steps=1000,
        weights=agent.weights(),
        optimizer={},
        counters={"replay": counters},
        arrays={f"replay/{name}": array for name, array in arrays.items()},
        replay_chunk=replay.new_data(None),
        replay_counts=replay.num_added,
        replay_slots=replay.ring.slots,
    )
    return run_dir


def test_an_expert_acts_on_the_goal_that_is_not_stored(tmp_path: Path) -> None:
    shown, _ = collect(*REACH, "episodes=2", f"out={tmp_path / 'shown'}")
    hidden, _ = collect(*REACH, "episodes=2", "store_goal=hidden", f"out={tmp_path / 'hidden'}")
    (shown_file,), (hidden_file,) = shown, hidden
    assert shown_file.obs[:, 36:39].any(axis=1).all() and not hidden_file.obs[:, 36:39].any()
    assert np.array_equal(shown_file.obs[:, :36], hidden_file.obs[:, :36])
    assert np.array_equal(shown_file.action, hidden_file.action)
    assert (shown_file.facts.goal_visible, hidden_file.facts.goal_visible) == (True, False)
    assert (shown_file.facts.protocol_id, hidden_file.facts.protocol_id) == ("mw-train-1", "mw-train-1+goal_visible")
    assert shown_file.successes_E.tolist() == [1, 1]


def test_stopping_at_success_is_no_termination(tmp_path: Path) -> None:
    (file,), printed = collect(*REACH, "episodes=2", f"out={tmp_path / 'data'}")
    episode = file.episode(0)
    assert episode.success is not None and episode.success.tolist() == [False] * (episode.length - 1) + [True]
    assert (episode.terminated, episode.truncated, episode.source) == (False, False, "expert")
    assert 20 < episode.length < 100  # docs/protocols.md: some 47 steps
    assert "2 episodes" in printed and "success 100%" in printed


def test_noise_and_goals_take_turns_and_the_noisy_action_is_stored(tmp_path: Path) -> None:
    data = ("episodes=6", "noise=[0,2.0]", "env.max_episode_steps=20", "seed=3")
    (file,), _ = collect(*REACH, *data, f"out={tmp_path / 'data'}")
    episodes = [file.episode(index) for index in range(6)]
    assert [episode.noise for episode in episodes] == [0, 2, 0, 2, 0, 2]
    assert [episode.goal_index for episode in episodes] == [0, 0, 1, 1, 2, 2]  # every goal with every noise
    assert len({episode.seed for episode in episodes}) == 6
    quiet, noisy = episodes[0].action, episodes[1].action
    assert not np.array_equal(quiet[0], noisy[0]) and np.array_equal(episodes[0].obs[0], episodes[1].obs[0])
    assert np.abs(noisy).max() == 1.0 and (np.abs(noisy) == 1.0).mean() > 0.3  # clipped
    assert not np.array_equal(episodes[1].obs[5], episodes[0].obs[5])  # and executed


def test_processes_play_the_same_data(tmp_path: Path) -> None:
    """Spawned processes import everything anew, so this is the one test that starts some."""
    reach = ("env=metaworld", "env.task=reach-v3", "env.max_episode_steps=3", "episodes=20", "noise=[0.1]", "seed=1")
    here, _ = collect(*reach, f"out={tmp_path / 'here'}")
    there, _ = collect(*reach, "workers=2", f"out={tmp_path / 'there'}")
    assert here[0].num_episodes == 20 and digests(here) == digests(there)


def test_going_on_makes_the_data_of_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, _ = collect(*COPY, "episodes=30", f"out={tmp_path / 'once'}")
    played = collect_workers.play_here

    def interrupted(*arguments: Any) -> Any:
        for number, each in enumerate(played(*arguments)):
            if number == 13:
                raise KeyboardInterrupt
            yield each

    out = f"out={tmp_path / 'data'}"
    monkeypatch.setattr(collect_workers, "play_here", interrupted)
    with pytest.raises(RunInterrupted):
        collect(*COPY, "episodes=20", out)
    monkeypatch.setattr(collect_workers, "play_here", played)
    some, printed = collect(*COPY, "episodes=20", out)
    assert "are there already" in printed
    assert [file.num_episodes for file in some] == [20]
    more, _ = collect(*COPY, "episodes=30", out)
    assert digests(more) == digests(at_once)
    again, printed = collect(*COPY, "episodes=30", out)
    assert digests(again) == digests(at_once) and "0 are missing" in printed


def test_known_optimal_actions_earn_the_known_return(tmp_path: Path) -> None:
    (file,), _ = collect(*COPY, "episodes=20", f"out={tmp_path / 'best'}")
    assert file.returns_E.tolist() == pytest.approx([1.0] * 20)
    assert file.facts.action_kind == "discrete"
    (mixed,), _ = collect(*COPY, "episodes=20", "epsilon=1.0", f"out={tmp_path / 'mixed'}")
    assert mixed.returns_E.mean() < 0.7


def test_random_actions(tmp_path: Path) -> None:
    (file,), _ = collect("env=classic", "policy=random", "episodes=30", f"out={tmp_path / 'data'}")
    assert 0.4 < file.action.mean() < 0.6 and set(file.action.tolist()) == {0, 1}
    assert np.array_equal(file.returns_E, file.lengths_E)
    assert 15 < file.lengths_E.mean() < 35  # CartPole falls after some 22 random steps
    assert np.isnan(file.successes_E).all()  # CartPole knows none
    assert file.arrays["terminated"].all() and not file.arrays["truncated"].any()


def test_pixels_are_kept_as_single_frames(tmp_path: Path) -> None:
    (file,), _ = collect(
        "env=classic", "env.id=pixel-catch-v0", "policy=random", "episodes=2", "num_envs=1", f"out={tmp_path / 'data'}"
    )
    assert file.facts.observation_kind == "frames" and file.obs.shape[1:] == file.facts.obs_shape[1:]
    assert file.facts.obs_shape[0] > 1 and file.obs.dtype == np.uint8


def test_a_run_plays_its_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    options = ("policy=run", f"run={run}", "episodes=6", "epsilon=0.3")
    (file,), _ = collect(*options, "num_envs=3", f"out={tmp_path / 'data'}")
    assert file.num_episodes == 6
    assert file.episode(0).source == "run:dqn-CartPole-v1/5-20260101-000000@1000"
    assert file.facts.protocol_id == "classic-eval-1" and file.facts.extra["checkpoint"] == "last"
    explored, _ = collect(*options, "explore=true", f"out={tmp_path / 'explored'}")
    assert digests(explored) != [file.digest]


def test_a_whole_replay_becomes_episodes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (file,), printed = collect("policy=replay", f"run={run}", f"out={tmp_path / 'data'}")
    assert 0 < file.num_steps < 240 and file.episode(0).source == "replay:dqn-CartPole-v1/5-20260101-000000"
    assert f"{240 - file.num_steps} of 240 transitions are left out" in printed
    again, _ = collect("policy=replay", f"run={run}", f"out={tmp_path / 'data'}")
    assert digests(again) == [file.digest]


def test_other_data_in_the_folder_is_refused(tmp_path: Path) -> None:
    out = f"out={tmp_path / 'data'}"
    collect(*COPY, "episodes=2", out)
    for changes, message in (
        (("seed=1",), r"holds other data of copy.*\n  seed: 0 there, 1 here"),
        (("epsilon=0.1",), r"extra\.epsilon: null there, 0\.1 here"),
        (("env.num_symbols=3",), "protocol_hash: "),
    ):
        with pytest.raises(ConfigError, match=message):
            collect(*COPY, "episodes=2", *changes, out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["env=metaworld"], "missing key out: expected path"),
        (["out=x"], "policy=expert needs env=metaworld"),
        (["out=x", "env=classic"], "policy=expert needs env=metaworld, got env=classic"),
        (["out=x", "env=classic", "policy=optimal"], "policy=optimal needs env=memory_tasks, got env=classic"),
        (["out=x", "policy=run"], "policy=run needs run=runs/X"),
        (["out=x", "policy=run", "run=y", "env=classic"], "leave out env=classic"),
        (["out=x", "env=metaworld", "run=y"], "run means nothing with policy=expert"),
        (["out=x", "policy=replay", "run=y", "workers=2"], "workers means nothing with policy=replay"),
        (["out=x", "env=metaworld", "nois=[1]"], r"unknown key nois=\[1\]: did you mean noise\?"),
        (["out=x", "env=metaworld", "noise=[-1]"], r"noise=\[-1\.0\]: standard deviations"),
        (["out=x", "env=metaworld", "noise=[]"], "noise=.* is not allowed"),
        (["out=x", "env=metaworld", "policy=expret"], "policy=expret is not allowed: expected expert|run"),
        (["out=x", "env=metaworld", "env.task=reech-v3"], "did you mean 'reach-v3'"),
        (["out=x", "env=metaworldd"], "env=metaworldd is not known"),
        (["out=x", "env=metaworld", "workers=0"], "workers=0 is not allowed: expected int >= 1"),
        (["out=x", "env=classic", "policy=random", "store_goal=hidden"], "only Meta-World shows goals"),
        (["out=x", "env=classic", "policy=random", "split=test"], "only Meta-World benchmarks have splits"),
        (["out=x", "env=classic", "policy=random", "first_goal=3"], "first_goal=3: only Meta-World has goals"),
        (
            ["out=x", "env=metaworld", "env.benchmark=MT10", "env.one_hot=true", "store_goal=hidden"],
            "leave out env.one_hot",
        ),
    ],
)
def test_what_cannot_be_collected_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_collect_config(arguments)


def test_what_only_the_env_can_refuse(tmp_path: Path) -> None:
    out = f"out={tmp_path / 'data'}"
    with pytest.raises(ConfigError, match=r"noise=\[0\.1\]: .* has discrete actions, use epsilon"):
        collect(*COPY, "noise=[0.1]", out)
    with pytest.raises(ConfigError, match="split=test: MT10 has no such side"):
        collect("env=metaworld", "env.benchmark=MT10", "split=test", out)
    with pytest.raises(ConfigError, match="first_goal=50: reach-v3 has goals 0 to 49"):
        collect("env=metaworld", "first_goal=50", out)
    with pytest.raises(ConfigError, match="is not a run directory"):
        collect("policy=run", f"run={tmp_path / 'none'}", out)
    assert not (tmp_path / "data").exists()


def test_nothing_heavy_is_imported_for_a_refusal() -> None:
    code = (
        "import sys; from sextant.cli import main; status = main(sys.argv[1:]); "
        "print(status, sorted({'torch', 'gymnasium', 'tianshou', 'metaworld', 'h5py', 'numpy'} & set(sys.modules)))"
    )
    arguments = ["collect", "env=metaworld", "env.task=reech-v3", "out=x"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    assert done.stdout.split("\n")[-2] == "2 []"


def config(**changes: Any) -> CollectConfig:
    return read_collect_config(
        [f"{name}={value}" for name, value in ({"out": "x", "env": "metaworld"} | changes).items()]
    )


def test_held_out_tasks_and_goals() -> None:
    train = make_plan(config(**{"env.benchmark": "ML10"}))
    test = make_plan(config(**{"env.benchmark": "ML10", "split": "test"}))
    assert (len(train.tasks), len(test.tasks)) == (10, 5) and not set(train.tasks) & set(test.tasks)
    assert train.hides_goal and test.hides_goal  # as ML benchmarks do; the expert sees it all the same
    visible = make_plan(config(**{"env.benchmark": "ML10", "store_goal": "visible"}))
    assert not visible.hides_goal
    specs = test.specs(test.tasks[0])
    assert [spec.goal_index for spec in specs] == [*range(50), *range(50)]
    later = make_plan(config(**{"env.benchmark": "ML10", "split": "test", "first_goal": "48", "noise": "[0,1]"}))
    assert [spec.goal_index for spec in later.specs(test.tasks[0])][:6] == [48, 48, 49, 49, 0, 0]
    assert [spec.seed for spec in later.specs(test.tasks[0])] == [spec.seed for spec in specs]


def test_more_episodes_continue_the_same_list() -> None:
    short, long = make_plan(config(episodes=5)), make_plan(config(episodes=50))
    assert long.specs("reach-v3")[:5] == short.specs("reach-v3")
    units = long.units({"reach-v3": [0, 1, *range(10, 20)]})
    assert [unit.numbers[0] for unit in units] == [0, 20, 30, 40]
    assert units[0].missing == tuple(range(2, 10))
