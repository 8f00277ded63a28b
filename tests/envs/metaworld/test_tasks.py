"""The static tables are the installed package's."""

from __future__ import annotations

import pytest

from envs.metaworld.tasks import (
    ALL_TASKS,
    BENCHMARKS,
    GOALS_PER_TASK,
    HORIZON,
    split_goal_seed,
    split_overlap,
    split_tasks,
)

metaworld = pytest.importorskip("metaworld")
env_dict = pytest.importorskip("metaworld.env_dict")


def test_all_tasks_are_the_packages_in_its_order() -> None:
    assert tuple(env_dict.ALL_V3_ENVIRONMENTS) == ALL_TASKS
    assert sorted(env_dict.ENV_CLS_MAP) == sorted(ALL_TASKS)


@pytest.mark.parametrize("benchmark", ["MT10", "MT25", "MT50"])
def test_multi_task_lists_are_in_one_hot_order(benchmark: str) -> None:
    assert BENCHMARKS[benchmark] == {"train": tuple(getattr(env_dict, f"{benchmark}_V3")), "test": ()}


@pytest.mark.parametrize("benchmark", ["ML10", "ML25", "ML45"])
def test_meta_learning_splits(benchmark: str) -> None:
    package = getattr(env_dict, f"{benchmark}_V3")
    assert BENCHMARKS[benchmark] == {"train": tuple(package["train"]), "test": tuple(package["test"])}


def test_horizon_and_goal_count_are_the_packages() -> None:
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    assert SawyerXYZEnv.max_path_length == HORIZON
    assert metaworld._N_GOALS == GOALS_PER_TASK


def test_basketball_is_in_both_splits_of_ml25_only() -> None:
    assert {benchmark: split_overlap(benchmark) for benchmark in BENCHMARKS} == {
        "MT10": (), "MT25": (), "MT50": (), "ML10": (), "ML25": ("basketball-v3",), "ML45": (),
    }  # fmt: skip


def test_splits_of_the_one_task_benchmarks() -> None:
    assert split_tasks("ML1", "push-v3", "test") == ("push-v3",)
    assert split_tasks("MT1", "push-v3", "test") == ()
    assert (split_goal_seed("ML1", 7, "train"), split_goal_seed("ML1", 7, "test")) == (7, 8)
    assert (split_goal_seed("ML10", 7, "train"), split_goal_seed("ML10", 7, "test")) == (7, 7)
