"""The seams of Tianshou's online trainers that ours rest on."""

from __future__ import annotations

import pytest
from tianshou.trainer import OffPolicyTrainer, OnlineTrainer, OnPolicyTrainer

from trainers.config import env_steps_per_training_step
from trainers.tianshou_runs import OffPolicyRun, OnPolicyRun


@pytest.mark.parametrize(
    ("replay_ratio", "num_envs", "expected"),
    [(0.25, 8, 8), (0.25, 1, 4), (0.25, 6, 12), (1.0, 3, 3), (2.0, 1, 1), (0.125, 4, 8)],
)
def test_a_round_of_updates_is_a_whole_number_of_gradient_steps(
    replay_ratio: float, num_envs: int, expected: int
) -> None:
    assert env_steps_per_training_step(replay_ratio, num_envs) == expected


def test_a_replay_ratio_that_never_makes_a_whole_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"replay_ratio=0\.0031.*num_envs=8"):
        env_steps_per_training_step(0.0031, 8)


@pytest.mark.parametrize(
    ("ours", "theirs", "methods"),
    [
        (OffPolicyRun, OffPolicyTrainer, ["_training_step", "_update_step"]),
        (
            OnPolicyRun,
            OnPolicyTrainer,
            ["_training_step", "_update_step", "_update_moving_avg_stats_and_log_update_data"],
        ),
    ],
)
def test_every_method_we_override_still_exists_in_tianshou(ours: type, theirs: type, methods: list[str]) -> None:
    assert issubclass(ours, theirs) and issubclass(theirs, OnlineTrainer)
    for method in methods:
        assert getattr(ours, method) is not getattr(theirs, method)
        assert callable(getattr(theirs, method))
