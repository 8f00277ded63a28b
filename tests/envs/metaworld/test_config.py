"""Names, contradictions, and the protocols that a config gives."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from envs.metaworld import goals as goals_module
from envs.metaworld.config import MetaworldConfig
from envs.metaworld.goals import GoalSet, load_goals
from envs.metaworld.protocol import MetaworldProtocol


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "reach"}, r"unknown task 'reach', did you mean 'reach-v3'"),
        ({"task": "reach-V3"}, r"did you mean 'reach-v3'"),
        ({"benchmark": "MT11"}, r"unknown benchmark 'MT11', did you mean 'MT1'"),
        ({"benchmark": "MT1"}, r"MT1 needs a task"),
        ({"benchmark": "ML1"}, r"ML1 needs a task"),
        ({"benchmark": "MT10", "task": "reach-v3"}, r"MT10 has its own tasks: leave out task='reach-v3'"),
        ({"reward_version": "v3"}, r"there is no reward 'v3'"),
        ({"one_hot": True}, r"single has no use for it"),
        ({"benchmark": "ML10", "one_hot": True}, r"ML10 has no use for it"),
        ({"benchmark": "MT10", "evaluation_split": "test"}, r"MT10 has no test split"),
        ({"max_episode_steps": 501}, r"max_episode_steps"),
        ({"evaluation_preset": "mw-eval-2"}, r"unknown Meta-World protocol 'mw-eval-2', did you mean 'mw-eval-1'"),
        ({"reward_func_version": "v2"}, r"reward_func_version"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaworldConfig.model_validate(settings)


def test_env_ids() -> None:
    assert MetaworldConfig().env_id == "reach-v3"
    assert MetaworldConfig(benchmark="ML1", task="push-v3").env_id == "ML1-push-v3"
    assert MetaworldConfig(benchmark="MT50").env_id == "MT50"


def test_a_config_costs_no_heavy_import() -> None:
    code = (
        "import sys; from envs.metaworld.config import MetaworldConfig as C; C(benchmark='ML45');"
        "print(sorted({'numpy', 'gymnasium', 'metaworld', 'torch', 'tianshou'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_ml1_trains_on_one_split_and_is_tested_on_the_other() -> None:
    """Defect 1: the package's ``Meta-World/ML1-train`` gives the test goals, and terminates on success."""
    config = MetaworldConfig(benchmark="ML1", task="reach-v3", goal_seed=5)
    training, evaluation = config.training_protocol(), config.evaluation_protocol()
    assert (training.split, evaluation.split) == ("train", "test")
    assert training.goals_hash == load_goals(("reach-v3",), 5).hash
    assert evaluation.goals_hash == load_goals(("reach-v3",), 6).hash
    assert not training.stop_at_success and not training.goal_visible
    on_training_goals = config.evaluation_protocol("mw-eval-1-train")
    assert (on_training_goals.split, on_training_goals.goals_hash) == ("train", training.goals_hash)


@pytest.mark.usefixtures("no_goals")
def test_meta_learning_benchmarks_are_evaluated_on_held_out_tasks() -> None:
    config = MetaworldConfig(benchmark="ML10", evaluation_goals=2)
    training, evaluation = config.training_protocol(), config.evaluation_protocol()
    assert (len(training.tasks), len(evaluation.tasks)) == (10, 5)
    assert not set(training.tasks) & set(evaluation.tasks)
    assert evaluation.id == "mw-eval-1+num_goals"


@pytest.fixture
def no_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goals that cost nothing, for tests about the lists of tasks."""
    empty = GoalSet(0, {"reach-v3": np.zeros((50, 6))})
    monkeypatch.setattr(goals_module, "load_goals", lambda *_: empty)


@pytest.mark.usefixtures("no_goals")
def test_ml25s_overlap_is_shown() -> None:
    described = MetaworldConfig(benchmark="ML25").describe()
    assert described["split_overlap"] == ["basketball-v3"]
    assert "basketball-v3" in described["warnings"][0]
    assert MetaworldConfig().describe()["warnings"] == []


@pytest.mark.usefixtures("no_goals")
def test_every_goal_of_every_task_once() -> None:
    """Defects 3 and 4: neither the first episodes to finish, nor goals drawn with replacement."""
    protocol = MetaworldConfig(benchmark="ML10").evaluation_protocol()
    specs = protocol.episodes(0)
    assert len(specs) == protocol.num_episodes == 250
    assert [(spec.task, spec.goal_index) for spec in specs] == [(t, g) for t in protocol.tasks for g in range(50)]
    assert [spec.index for spec in specs] == list(range(250))
    assert len({spec.seed for spec in specs}) == 250
    assert protocol.episodes(0) == specs != protocol.episodes(1)


def test_what_changes_a_score_changes_the_hash() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"task": "push-v3"},
        {"goal_seed": 43},
        {"goal_visible": False},
        {"reward_version": "v1"},
        {"max_episode_steps": 400},
        {"evaluation_goals": 10},
        {"evaluation_preset": "mw-eval-1-stop"},
        {"benchmark": "MT1", "task": "reach-v3"},
    ]
    protocols = [MetaworldConfig(**variant).evaluation_protocol() for variant in variants]
    assert len({protocol.hash for protocol in protocols}) == len(variants)
    assert [protocol.id for protocol in protocols[3:8]] == [
        "mw-eval-1+goal_visible", "mw-eval-1+reward_version", "mw-eval-1+horizon", "mw-eval-1+num_goals",
        "mw-eval-1-stop",
    ]  # fmt: skip
    assert set(protocols[0].versions) == {"metaworld", "mujoco", "gymnasium"}


def test_the_number_of_episodes_cannot_contradict_the_goals() -> None:
    protocol = MetaworldConfig().evaluation_protocol()
    with pytest.raises(ValueError, match=r"num_episodes is 7, but every goal is played once: 1 tasks x 50 goals"):
        MetaworldProtocol.model_validate(protocol.model_dump() | {"num_episodes": 7})
    assert MetaworldProtocol.model_validate_json(protocol.model_dump_json()).hash == protocol.hash
    assert protocol.describe()["success_when"] == {"reach-v3": "reach_dist <= 0.05"}
    assert (protocol.max_episode_steps, protocol.frames_per_step) == (500, 1)
