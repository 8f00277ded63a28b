"""The command line: refusals in one message and status 2, help on every key, nothing heavy imported for either."""

import os
import subprocess
import sys
from typing import Any

import pytest

from sextant.checkout import CHECKOUT
from sextant.cli import main
from sextant.config import compose_train_config

HEAVY = ("torch", "tianshou", "gymnasium", "ale_py", "metaworld", "mujoco", "tensorboard", "matplotlib", "scipy")


def run(*arguments, python=()):
    return subprocess.run(
        [sys.executable, *python, "-m", "sextant", *arguments],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=os.environ | {"COLUMNS": "100"},
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["agent.lerning_rate=1"], "unknown key agent.lerning_rate=1: did you mean agent.learning_rate?"),
        (["+agent.lerning_rate=1"], "unknown key agent.lerning_rate=1: did you mean agent.learning_rate?"),
        (["game=pong"], "unknown key game=pong: did you mean env.game?"),
        (["xyzzy=1"], "unknown key xyzzy=1: the keys at the top are"),
        (["agent.network.width=3"], "only there with agent.network.kind=impala_cnn"),
        (["agent.clip=0.2"], "unknown key agent.clip=0.2: only there with agent=ppo"),
        (["agent.gamma=fast"], "agent.gamma=fast is not allowed: expected float >= 0, <= 1 (Discount"),
        (["agent.gamma=2"], "agent.gamma=2 is not allowed: expected float >= 0, <= 1 (Discount"),
        (["agent.double=1"], "agent.double=1 is not allowed: expected true|false"),
        (["seed=-1"], "seed=-1 is not allowed: expected int >= 0"),
        (["seed=true"], "seed=true is not allowed: expected int >= 0"),
        (["seed=1.5"], "seed=1.5 is not allowed: expected int >= 0"),
        (["seed=1,2"], "seed=1,2 lists several values: a sweep needs -m"),
        (["seed"], "cannot read 'seed': expected key=value"),
        (["threads=0"], "threads=0: expected auto or int >= 1"),
        (["device=gpu"], "device=gpu is not allowed: expected auto|cpu|cuda"),
        (
            ["agent.cuda_graph=true", "agent=dqn", "device=cpu"],
            "agent.cuda_graph=true needs device=cuda, not device=cpu",
        ),
        (["agent=dqnn"], "agent=dqnn is not known: did you mean 'dqn'"),
        (["trainer=x"], "trainer=x is not known: valid names: offline, online"),
        (["~agent"], "a run needs its agent"),
        (["env.game=pongg"], "env.game=pongg: unknown game 'pongg': did you mean 'pong'"),
        (["agent=sac", "env=metaworld", "env.task=reech-v3"], "unknown task 'reech-v3', did you mean 'reach-v3'"),
        (["env=classic", "env.id=CartPol-v1"], "unknown environment 'CartPol-v1', did you mean 'CartPole-v"),
        (["agent=dqn", "env=metaworld"], "agent=dqn acts in discrete action spaces, but reach-v3 has box actions"),
        (["agent=sac"], "agent=sac acts in box action spaces, but pong has discrete actions"),
        (["agent=dqn", "env=classic"], "agent.network.kind=nature_cnn reads images, but CartPole-v1 gives vectors"),
        (["trainer.total_env_steps=100"], "agent.learning_starts=20000 is not before the run's end"),
        (["trainer.evaluate_every_env_steps=30000"], "the longer period must be a multiple of the shorter one"),
        (["hydra/launcher=ray"], "it needs -m"),
        (["-m", "seed=0,1", "agent=dqn,sac"], "job 1 of the sweep (seed=0 agent=sac): agent=sac acts in box"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: the local launcher has one key"),
        (
            ["-m", "seed=0,1", "hydra.launcher.jobs=2"],
            "unknown key hydra.launcher.jobs: the local launcher has one key",
        ),
        (["-m", "seed=0,1", "hydra/launcher=roy"], "launcher 'roy'"),
    ],
    ids=" ".join,
)
def test_refused_config_is_one_message_and_status_2(arguments, expected, capsys):
    assert main(["train", *arguments]) == 2
    shown = capsys.readouterr()
    assert expected in shown.err
    assert shown.err.startswith("sextant: ")
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_whole_numbers_may_be_written_as_floats(capsys):
    assert main(["config", "show", "--yaml", "trainer.total_env_steps=1e6", "agent.gamma=1"]) == 0
    shown = capsys.readouterr().out
    assert "total_env_steps: 1000000\n" in shown
    assert "gamma: 1.0\n" in shown


@pytest.mark.parametrize(("typed", "expected"), [("/data/x", ["/data/x"]), ("[a,b]", ["a", "b"])])
def test_the_data_of_an_offline_run_may_be_one_path(typed, expected):
    offline = ["agent=cql", "env.game=pong", "trainer=offline"]
    config = compose_train_config([*offline, f"trainer.data={typed}"])
    assert config.model_dump(mode="json")["trainer"]["data"] == expected


def test_refusal_imports_nothing_heavy():
    done = run("train", "agent.lerning_rate=1", python=("-X", "importtime"))
    assert done.returncode == 2
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & set(HEAVY)


def test_help_imports_hardly_anything():
    done = run("--help", python=("-X", "importtime"))
    assert done.returncode == 0
    assert "sextant train agent=dqn" in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {*HEAVY, "hydra", "pydantic", "numpy"}


def test_command_without_command_shows_help(capsys):
    assert main([]) == 2
    assert "evaluate" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--bogus"], ["env"], ["env", "lst"]], ids=" ".join)
def test_unknown_command_or_option(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: sextant" in capsys.readouterr().err


def test_train_help_lists_presets_and_every_key(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "double_dqn, dqn" in shown and "sac_metaworld" in shown
    assert "agent.learning_rate=6.25e-05  [float > 0, <= 1]" in shown
    assert "Adam's step size." in shown


def test_train_help_follows_the_chosen_agent(capsys):
    assert main(["train", "agent=sac", "env=metaworld", "-h"]) == 0
    assert "agent.actor_learning_rate=0.0003" in capsys.readouterr().out


def test_config_show_marks_what_was_changed(capsys):
    assert main(["config", "show", "agent=dqn", "agent.gamma=0.9"]) == 0
    assert "agent.gamma=0.9  [float >= 0, <= 1, default 0.99]" in capsys.readouterr().out


def test_overrides_may_stand_on_both_sides_of_an_option(capsys):
    assert main(["config", "show", "seed=3", "--yaml", "agent=ppo"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 3" in shown
    assert "name: ppo" in shown


def test_resume_of_no_run_is_refused(tmp_path, capsys):
    assert main(["resume", str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run directory" in capsys.readouterr().err


def test_resume_of_a_config_of_another_version_is_refused(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(
        "agent: {name: dqn, lerning_rate: 1}\nenv: {name: atari, game: pong}\ntrainer: {}\n"
    )
    assert main(["resume", str(tmp_path)]) == 2
    assert "did you mean agent.learning_rate?" in capsys.readouterr().err


def test_board_on_nothing_is_refused(tmp_path, capsys):
    assert main(["board", str(tmp_path / "none")]) == 2
    assert "is not a folder of runs" in capsys.readouterr().err


def test_a_full_disk_is_told_without_a_traceback(monkeypatch, capsys):
    def full(config):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("sextant.train.run_train", full)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "sextant: runs/x: No space left on device\n"


def test_train_hands_the_checked_config_over(monkeypatch):
    given: list[Any] = []
    monkeypatch.setattr("sextant.train.run_train", given.append)
    assert main(["train", "agent=double_dqn", "env.game=MsPacman", "seed=7"]) == 0
    assert given[0].agent.double is True
    assert given[0].env.game == "ms_pacman"
    assert given[0].seed == 7


def test_env_list(capsys):
    assert main(["env", "list"]) == 0
    shown = capsys.readouterr().out
    assert "ms_pacman" in shown
    assert "reach-v3" in shown
    assert "MT10" in shown
    assert "dopamine" in shown


def test_env_describe(capsys):
    assert main(["env", "describe", "env=atari", "env.game=pong"]) == 0
    shown = capsys.readouterr().out
    assert "sticky_prob: 0.25" in shown
    assert "predicted_bytes" in shown
    assert "Discrete(6)" in shown


def test_env_describe_of_an_env_that_the_agent_does_not_fit(capsys):
    assert main(["env", "describe", "env=memory_tasks"]) == 0
    shown = capsys.readouterr().out
    assert "Discrete(4)" in shown
    assert "predicted_bytes" not in shown


def test_evaluate_hands_its_keys_over(monkeypatch, tmp_path):
    given: list[Any] = []
    monkeypatch.setattr("sextant.evaluate.run_evaluate", lambda run, **keys: given.append((run, keys)))
    run = tmp_path / "a run=1"
    assert main(["evaluate", f"run={run}", "protocol=dopamine", "checkpoint=both", "videos=2"]) == 0
    assert given[0][0] == run
    assert given[0][1] == {
        "protocol": "dopamine",
        "checkpoint": "both",
        "num_episodes": None,
        "num_envs": None,
        "seed": 0,
        "random_baseline": True,
        "videos": 2,
        "memory_use": None,
        "target_returns": None,
        "device": None,
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "missing key run: expected path"),
        (["run=x", "checkpont=best"], "unknown key checkpont=best: did you mean checkpoint?"),
        (["run=x", "checkpoint=newest"], "checkpoint=newest is not allowed: expected last|best|both"),
        (["run=x", "num_episodes=0"], "num_episodes=0 is not allowed: expected int >= 1 or null"),
        (["runs/x"], "cannot read 'runs/x': expected key=value, such as run=runs/X"),
        (["run=nowhere/x"], "nowhere/x"),
    ],
    ids=" ".join,
)
def test_refused_evaluation(arguments, expected, capsys):
    assert main(["evaluate", *arguments]) == 2
    shown = capsys.readouterr()
    assert expected in shown.err
    assert "Traceback" not in shown.err


def test_evaluate_help_lists_its_keys(capsys):
    assert main(["evaluate", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "run=(must be given)  [path]" in shown
    assert "checkpoint=last  [last|best|both]" in shown
