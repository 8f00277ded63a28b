"""Kills training runs with SIGKILL at random moments, resumes them, and compares the end with runs never stopped.

Run from the checkout: ``python tests/kill_and_resume.py --kills 20``. Every case trains once without a stop; then again
with the kills, each at a random moment of what is left; weights, optimizer, replay, metrics.csv, episodes.jsonl and
every evaluation record must come out equal bit for bit. ``tests/trainers/test_kill_and_resume.py`` runs a short form.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES: dict[str, list[str]] = {
    "dqn-atari": [
        "agent=dqn",
        "env=atari",
        "env.game=breakout",
        "env.num_envs=4",
        "env.max_frames=2000",
        "agent.learning_starts=400",
        "agent.replay.capacity=1200",
        "trainer.total_env_steps=3000",
        "trainer.checkpoint_every_env_steps=500",
        "trainer.evaluate_every_env_steps=1000",
        "trainer.evaluation_episodes=1",
        "threads=1",
        "seed=3",
    ],
    "sac-metaworld": [
        "agent=sac",
        "env=metaworld",
        "env.task=reach-v3",
        "env.num_envs=2",
        "agent.learning_starts=300",
        "trainer.total_env_steps=2400",
        "trainer.checkpoint_every_env_steps=400",
        "trainer.evaluate_every_env_steps=1200",
        "trainer.evaluation_episodes=1",
        "threads=1",
        "seed=4",
    ],
    "ppo-cartpole": [
        "agent=ppo_classic",
        "env=classic",
        "trainer.total_env_steps=20000",
        "trainer.checkpoint_every_env_steps=4000",
        "trainer.evaluate_every_env_steps=8000",
        "trainer.evaluation_episodes=2",
        "threads=1",
        "seed=5",
    ],
    "dqn-cartpole": [
        "agent=dqn_classic",
        "env=classic",
        "trainer.total_env_steps=6000",
        "trainer.checkpoint_every_env_steps=1000",
        "trainer.evaluate_every_env_steps=3000",
        "trainer.evaluation_episodes=2",
        "threads=1",
        "seed=6",
    ],
}


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Starts ``sextant`` with these arguments, silent."""
    return subprocess.Popen(
        [sys.executable, "-m", "sextant", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )


def wait(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{errors.decode()[-3000:]}")


def run_dir_in(folder: Path) -> Path | None:
    """Gives the one run directory below a folder once its config is written."""
    found = list(folder.glob("*/*/config.yaml"))
    return found[0].parent if found else None


def train_without_stop(case: str, folder: Path) -> tuple[Path, float, float]:
    """Trains once; gives the run directory, and the seconds before and after its config was written."""
    began = time.monotonic()
    process = start(["train", *CASES[case], f"runs_dir={folder}"])
    while run_dir_in(folder) is None and process.poll() is None:
        time.sleep(0.02)
    ready = time.monotonic()
    wait(process)
    run_dir = run_dir_in(folder)
    assert run_dir is not None
    return run_dir, ready - began, time.monotonic() - ready


def train_with_kills(
    case: str, folder: Path, kills: int, starting: float, training: float, rng: random.Random
) -> tuple[Path, list[str]]:
    """Trains to the end with at most ``kills`` SIGKILLs at random moments; gives the run and what each kill met."""
    met: list[str] = []
    while True:
        run_dir = run_dir_in(folder)
        process = start(["train", *CASES[case], f"runs_dir={folder}"] if run_dir is None else ["resume", str(run_dir)])
        # As long as a start, and a share of the training small enough for several kills in one run.
        deadline = time.monotonic() + rng.uniform(0.3, 1.0) * starting + rng.uniform(0.0, 0.5) * training
        while process.poll() is None and (len(met) >= kills or time.monotonic() < deadline):
            time.sleep(0.005)
        if process.poll() is not None:
            wait(process)
            finished = run_dir_in(folder)
            assert finished is not None
            return finished, met
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        run_dir = run_dir_in(folder)
        checkpoints = sorted(path.name for path in run_dir.glob("checkpoints/[0-9]*")) if run_dir else []
        met.append(f"newest checkpoint {checkpoints[-1]}" if checkpoints else "before the first checkpoint")


def digests(run_dir: Path) -> dict[str, str]:
    """Hashes everything of a run that must not depend on how often it was stopped."""
    found = {}
    newest = sorted(run_dir.glob("checkpoints/[0-9]*[0-9]"))[-1]
    for name in ("weights.safetensors", "optimizer.pt", "arrays.safetensors"):
        found[name] = hashlib.sha256((newest / name).read_bytes()).hexdigest()
    counters = json.loads((newest / "counters.json").read_text())
    counters.pop("log")  # byte positions depend on the length of the run's name, timing rows on the clock
    found["counters.json"] = hashlib.sha256(json.dumps(counters, sort_keys=True).encode()).hexdigest()
    found["metrics.csv"] = hashlib.sha256((run_dir / "metrics.csv").read_bytes()).hexdigest()
    for path in [run_dir / "episodes.jsonl", *sorted(run_dir.glob("evaluations/*/*/episodes.jsonl"))]:
        records = [{**json.loads(line), "run": ""} for line in path.read_text().splitlines()]
        found[str(path.relative_to(run_dir))] = hashlib.sha256(json.dumps(records).encode()).hexdigest()
    return found


def main() -> int:
    """Runs the proof; the exit code is the number of cases that differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases", nargs="+", choices=sorted(CASES), default=["dqn-atari", "sac-metaworld", "ppo-cartpole"]
    )
    parser.add_argument("--kills", type=int, default=20, help="kills over all cases together")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    different = 0
    for position, case in enumerate(options.cases):
        kills = options.kills // len(options.cases) + (position < options.kills % len(options.cases))
        with tempfile.TemporaryDirectory() as folder:
            reference, starting, training = train_without_stop(case, Path(folder) / "whole")
            expected = digests(reference)
            met: list[str] = []
            runs = 0
            differing: set[str] = set()
            while len(met) < kills:
                runs += 1
                left = kills - len(met)
                killed, new = train_with_kills(case, Path(folder) / f"killed{runs}", left, starting, training, rng)
                met += new
                got = digests(killed)
                differing |= {name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)}
        different += bool(differing)
        verdict = f"DIFFERENT in {sorted(differing)}" if differing else f"equal in {len(expected)} files"
        print(f"{case}: {len(met)} kills in {runs} runs of {training:.0f} s, {verdict}", flush=True)
        for line in met:
            print(f"  killed, {line}", flush=True)
    return different


if __name__ == "__main__":
    sys.exit(main())
