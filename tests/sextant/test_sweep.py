"""Sweeps: every job checked first, each in a process of its own, failures told at the end."""

import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
from omegaconf import OmegaConf

from sextant import local_jobs, sweep
from sextant.checkout import CHECKOUT
from sextant.overrides import expand_sweep
from sextant.refusal import ConfigError
from sextant.sweep import plan_sweep, run_sweep


def test_expand_sweep_is_the_product():
    assert expand_sweep(["seed=0,1", "agent=dqn,ppo", "env.game=pong"]) == [
        ["seed=0", "agent=dqn", "env.game=pong"],
        ["seed=0", "agent=ppo", "env.game=pong"],
        ["seed=1", "agent=dqn", "env.game=pong"],
        ["seed=1", "agent=ppo", "env.game=pong"],
    ]


def test_expand_sweep_of_ranges_and_globs():
    assert expand_sweep(["seed=range(3)"]) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert expand_sweep(["agent=glob(sac*)"]) == [["agent=sac"], ["agent=sac_metaworld"]]


def test_glob_without_a_match():
    with pytest.raises(ConfigError, match="matches no preset of agent"):
        expand_sweep(["agent=glob(z*)"])


def test_lists_are_no_sweep():
    assert expand_sweep(["agent.network.hidden_widths=[64,64]"]) == [["agent.network.hidden_widths=[64,64]"]]


def test_plan_sweep_checks_every_job():
    plan = plan_sweep(["seed=0,1", "agent=dqn,double_dqn"])
    assert [(job.config.seed, job.config.agent.label) for job in plan.jobs] == [
        (0, "dqn"),
        (0, "double_dqn"),
        (1, "dqn"),
        (1, "double_dqn"),
    ]
    assert plan.launcher == "local"
    assert plan.jobs_at_once == 1


def test_plan_sweep_reads_the_launchers_keys():
    assert plan_sweep(["seed=0,1", "hydra.launcher.n_jobs=2"]).jobs_at_once == 2


@pytest.fixture
def fake_runs(monkeypatch, tmp_path):
    """Makes each job a tiny process that writes down its command line; seed=1 fails."""
    script = tmp_path / "job.py"
    script.write_text(
        "import pathlib, sys\n"
        "arguments = sys.argv[1:]\n"
        f"(pathlib.Path({str(tmp_path)!r}) / arguments[4]).write_text(' '.join(arguments))\n"
        "print('ran', arguments[4])\n"
        "sys.exit(7 if 'seed=1' in arguments else 0)\n"
    )
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$0" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(local_jobs, "sys", types.SimpleNamespace(executable=str(wrapper)))
    return tmp_path


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_run_sweep_runs_all_jobs_and_tells_which_failed(fake_runs, capfd, n_jobs, monkeypatch):
    monkeypatch.setattr("trainers.threads.available_cpus", lambda: 6)
    assert run_sweep(["seed=0,1,2", f"hydra.launcher.n_jobs={n_jobs}"]) == 1
    shown = capfd.readouterr().out
    assert sorted(path.name for path in fake_runs.glob("seed=*")) == ["seed=0", "seed=1", "seed=2"]
    assert "job 0  ok          seed=0" in shown
    assert "job 1  exit 7      seed=1" in shown
    assert "job 2  ok          seed=2" in shown
    if n_jobs == 2:
        assert "[job 2] ran seed=2" in shown
        assert (fake_runs / "seed=0").read_text().endswith("seed=0 threads=3")
    else:
        assert "threads=" not in (fake_runs / "seed=0").read_text()


def test_seeds_that_share_a_gpu_get_their_device_and_a_share_of_the_cpus(fake_runs, monkeypatch):
    monkeypatch.setattr("trainers.threads.available_cpus", lambda: 6)
    assert run_sweep(["seed=0,2,3,4", "device=cuda", "hydra.launcher.n_jobs=4"]) == 0
    for seed in (0, 2, 3, 4):
        assert (fake_runs / f"seed={seed}").read_text().endswith(f"train seed={seed} device=cuda threads=1")


def test_job_of_a_launcher_plugin_trains_the_validated_config(monkeypatch, tmp_path):
    from sextant.overrides import compose, normalised
    from sextant.sweep import run_job

    given = []

    def train(config):
        given.append(config)
        return tmp_path

    monkeypatch.setattr("sextant.train.run_train", train)
    composed = compose(normalised(["seed=4", "agent=double_dqn"]))
    assert run_job(composed) == str(tmp_path)
    assert given[0].seed == 4
    assert given[0].agent.double is True


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({"address": None, "num_cpus": 2}, {}, {"address": "local", "num_cpus": 2}),
        ({"address": "head:6379"}, {}, {"address": "head:6379"}),
        ({"address": None}, {"RAY_ADDRESS": "head:6379"}, {"address": "head:6379"}),
    ],
)
def test_ray_is_local_unless_an_address_is_given(monkeypatch, settings, environment, expected):
    given = []
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(init=lambda **settings: given.append(settings)))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sweep._start_ray(OmegaConf.create({"hydra": {"launcher": {"ray": {"init": settings}}}}))
    assert given == [expected]


def test_other_launchers_start_no_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail
    sweep._start_ray(OmegaConf.create({"hydra": {"launcher": {"n_jobs": 1}}}))


def test_sigterm_ends_the_running_jobs_and_starts_no_more(monkeypatch, tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr(local_jobs, "sys", types.SimpleNamespace(executable=str(wrapper)))

    def stop_once_started():
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_once_started)
    before = signal.getsignal(signal.SIGTERM)
    stopper.start()
    assert local_jobs.LocalJobs(1).run([["train", "seed=0"], ["train", "seed=1"]]) == [
        f"exit -{signal.SIGTERM:d}",
        "not started",
    ]
    stopper.join()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_sweep_on_a_local_ray(tmp_path):
    short = ["trainer.total_env_steps=1200", "trainer.checkpoint_every_env_steps=600", "threads=1"]
    short += ["trainer.evaluate_every_env_steps=0", "trainer.evaluate_at_end=false"]
    launcher = ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"]
    task = ["agent=dqn_classic", "env=classic", "seed=0,1", f"runs_dir={tmp_path}"]
    command = [sys.executable, "-m", "sextant", "train", "-m", *launcher, *task, *short]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name[:2] for path in tmp_path.glob("*-CartPole-v1/*")) == ["0-", "1-"]
