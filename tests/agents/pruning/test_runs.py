"""Pruning through the whole program: the command line, the length of a run, a stopped and resumed session."""

import csv
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agents.pruning import PruningConfig
from sextant.config import compose_train_config
from sextant.learner import total_gradient_steps
from sextant.refusal import ConfigError
from sextant.run_dirs import RunInterrupted
from sextant.train import run_resume, run_train
from trainers.progress import Progress, Status

COMMON = [
    "env=classic", "env.num_envs=4", "agent.pruning.sparsity=0.8",
    "trainer.checkpoint_every_env_steps=300", "trainer.evaluate_every_env_steps=300", "trainer.evaluation_episodes=1",
    "threads=1",
]  # fmt: skip
RUNS = {
    "dqn": [*COMMON, "agent=dqn_classic", "agent.learning_starts=201", "agent.replay.capacity=2000",
            "trainer.total_env_steps=1003"],
    "ppo": [*COMMON, "agent=ppo_classic", "agent.rollout_steps=24", "agent.minibatch_size=36",
            "trainer.total_env_steps=1003"],
}  # fmt: skip


def rows(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def train(folder: Path, overrides: list[str]) -> Path:
    return run_train(compose_train_config([*overrides, f"runs_dir={folder}"]))


@pytest.mark.parametrize("agent", RUNS)
def test_the_length_of_a_run_is_known_exactly_and_a_stopped_run_resumes_to_the_same_bits(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", RUNS[agent])
    config = compose_train_config(RUNS[agent])
    assert int(float(rows(whole)[-1]["updates"])) == total_gradient_steps(config.agent, 4, 1003)

    sent: list[int] = []
    show = Progress.show

    def showing(self: Progress, status: Status) -> None:
        if status.env_steps >= 500 and not sent:  # in mid-schedule, between two checkpoints
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, status)

    with monkeypatch.context() as context:
        context.setattr(Progress, "show", showing)
        context.setattr("trainers.progress.SHOW_EVERY_SECONDS", 0.0)
        with pytest.raises(RunInterrupted):
            train(tmp_path / "stopped", RUNS[agent])
    stopped = next((tmp_path / "stopped").glob("*/*/config.yaml")).parent
    run_resume(stopped)
    ends = [sorted(path.glob("checkpoints/[0-9]*[0-9]"))[-1] for path in (whole, stopped)]
    for name in ("weights.safetensors", "optimizer.pt"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes()
    final = load_file(ends[0] / "weights.safetensors")
    zeros = sum(int((tensor == 0).sum()) for name, tensor in final.items() if tensor.ndim > 1 and "old" not in name)
    sizes = sum(tensor.numel() for name, tensor in final.items() if tensor.ndim > 1 and "old" not in name)
    assert zeros / sizes == pytest.approx(0.8, abs=0.01)
    assert float(rows(stopped)[-1]["agent/sparsity/total"]) == pytest.approx(0.8, abs=0.01)


def test_any_agent_is_pruned_from_the_command_line_and_presets_can_be_undone() -> None:
    sac = compose_train_config(["agent=sac", "env=metaworld", "agent.pruning.sparsity=0.9"])
    assert sac.agent.pruning == PruningConfig(sparsity=0.9)
    assert compose_train_config(["agent.pruning={}"]).agent.pruning == PruningConfig()
    assert compose_train_config(["agent.pruning.method=rigl"]).agent.pruning == PruningConfig(method="rigl")
    preset = compose_train_config(["agent=pruned_dqn"]).agent
    assert preset.pruning == PruningConfig(sparsity=0.95, distribution="erk") and preset.name == "dqn"
    assert preset.network.kind == "impala_cnn" and preset.network.width == 3
    assert compose_train_config(["agent=pruned_dqn", "agent.pruning=null"]).agent.pruning is None


def test_pruned_rainbow_is_rainbow_on_the_papers_network() -> None:
    rainbow, pruned = (
        compose_train_config([f"agent={name}"]).agent.model_dump() for name in ("rainbow", "pruned_rainbow")
    )
    assert (pruned["network"]["kind"], pruned["network"]["width"]) == ("impala_cnn", 3)
    assert PruningConfig(**pruned["pruning"]) == PruningConfig(sparsity=0.95, distribution="erk")
    differing = {key for key in rainbow if rainbow[key] != pruned[key]}
    assert rainbow.keys() == pruned.keys() and differing == {"network", "pruning"}


def test_bad_settings_are_refused_with_their_name() -> None:
    with pytest.raises(ConfigError, match=r"agent\.pruning\.sparsity"):
        compose_train_config(["agent.pruning.sparsity=1.5"])
    with pytest.raises(ConfigError, match="has no effect with method=static"):
        compose_train_config(["agent.pruning.method=static", "agent.pruning.end=0.5"])


def test_the_papers_run_has_its_gradient_steps() -> None:
    agent = compose_train_config(["agent=pruned_dqn"]).agent
    assert total_gradient_steps(agent, 8, 10_000_000) == 2_495_000  # 2.5M less the warm-up's 20,000 / 4
