"""Sequence models evaluated otherwise than configured: other returns asked for, other uses of the memory."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sextant.acting_variants import Variant, variants
from sextant.cli import main
from sextant.collect import run_collect
from sextant.collect_config import read_collect_config
from sextant.config import compose_train_config
from sextant.evaluate import run_evaluate
from sextant.refusal import ConfigError
from sextant.train import run_train
from trainers.evaluation_files import load_evaluations

MAZE = ["env=memory_tasks", "env.task=t_maze", "env.min_corridor=2", "env.max_corridor=4"]
SMALL = ["agent.context_length=3", "agent.width=8", "agent.num_layers=1", "agent.batch_size=4", "agent.warmup_steps=2"]
LENGTH = ["trainer.total_gradient_steps=4", "trainer.checkpoint_every_gradient_steps=4", "threads=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with a memory and one that is asked for no return, both hardly trained."""
    folder = tmp_path_factory.mktemp("variants")
    data = folder / "data"
    run_collect(read_collect_config([*MAZE, "policy=optimal", "episodes=6", f"out={data}"]))
    offline = ["trainer=offline", f"trainer.data=[{data}]", "trainer.evaluation_episodes=2", f"runs_dir={folder}"]
    shared = [*MAZE, *SMALL, *LENGTH, *offline]
    memory = ["agent=dt_mem", "agent.memory.num_slots=4", "agent.memory.chunk=3"]
    agents = {"memory": memory, "cloned": ["agent=behaviour_cloning"]}
    return {name: run_train(compose_train_config([*shared, *agent])) for name, agent in agents.items()}


def test_names_are_words() -> None:
    assert [way.suffix for way in variants(None, None)] == [""]
    assert [way.suffix for way in variants(None, (-1.5, 0.0, 1e6))] == ["_target_m1p5", "_target_0", "_target_1e06"]
    assert Variant("reset", 2.0).suffix == "_reset_target_2"


def test_each_return_is_an_evaluation_of_its_own_and_two_make_a_plot(runs: dict[str, Path]) -> None:
    run = runs["memory"]
    asked = ["target_returns=[0,1]", "num_episodes=4", "random_baseline=false"]
    assert main(["evaluate", f"run={run}", *asked]) == 0
    policies = {each.policy: each for each in load_evaluations(run)}
    assert {"last_target_0", "last_target_1"} <= policies.keys()
    folder = policies["last_target_1"].path.parent
    with (folder / "target_sweep-last-000000004.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["target_return"]) for row in rows] == [0.0, 1.0]
    assert float(rows[1]["return_mean"]) == policies["last_target_1"].summary["return_mean"]
    assert (folder / "target_sweep-last-000000004.png").stat().st_size > 5_000


@pytest.mark.parametrize("use", ["carried", "reset", "zeroed_read", "shuffled"])
def test_the_memory_can_be_used_otherwise(runs: dict[str, Path], use: str) -> None:
    (result,) = run_evaluate(runs["memory"], memory_use=use, num_episodes=4, num_envs=2, random_baseline=False)
    assert result.policy == f"last_{use}" and result.unit == "gradient steps"
    assert result.directory.name == f"last_{use}-000000004"


def test_what_an_agent_cannot_do_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory_use=reset: this run's agent has no memory"):
        run_evaluate(runs["cloned"], memory_use="reset", num_episodes=2)
    with pytest.raises(ConfigError, match="condition_on_return=false"):
        run_evaluate(runs["cloned"], target_returns=(1.0,), num_episodes=2)
    dqn = ["agent=dqn_classic", "env=classic", "env.id=identity-v0", "agent.learning_starts=10", "threads=1"]
    short = ["trainer.total_env_steps=32", "trainer.checkpoint_every_env_steps=32", f"runs_dir={tmp_path}"]
    run = run_train(compose_train_config([*dqn, "agent.replay.capacity=64", *short]))
    with pytest.raises(ConfigError, match="for Decision Transformers; this run's agent is a DQNAgent"):
        run_evaluate(run, target_returns=(1.0,), num_episodes=2)
