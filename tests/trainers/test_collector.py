"""What the collector reports about training episodes."""

from __future__ import annotations

import numpy as np
import pytest

from agents import SACConfig
from envs.metaworld.config import MetaworldConfig
from memory.config import ReplayConfig
from trainers.collector import FinishedEpisode, OnlineCollector


@pytest.mark.parametrize("workers", ["sync", "async"])
def test_episodes_of_a_benchmark_name_their_task_and_goal(workers: str) -> None:
    config = MetaworldConfig.model_validate({"benchmark": "MT10", "task": None, "num_envs": 3, "workers": workers})
    venv = config.make_training_env(log=lambda line: None)
    try:
        spaces = (venv.single_observation_space, venv.single_action_space)
        agent = SACConfig().build(*spaces, device="cpu", seed=np.random.SeedSequence(0))
        replay = ReplayConfig(capacity=100).build(
            *spaces, num_envs=3, rng=np.random.default_rng(0), log=lambda line: None
        )
        seen: list[FinishedEpisode] = []
        collector = OnlineCollector(agent, venv, replay, on_episode=seen.append)
        expected: list[tuple[int, int]] = []
        for seeds in ([5, 6, 7], [18, 6, 7]):
            collector.begin_interval(seeds)
            _, _, _, _, info = venv.step(np.zeros((3, 4), np.float32))
            expected += zip(info["task_index"].astype(int), info["goal_index"].astype(int), strict=True)
            collector.start_episodes(seeds)
            collector.collect(n_step=6, random=True)
        collector.begin_interval([1, 2, 3])
    finally:
        venv.close()
    assert [(episode.task_index, episode.goal_index) for episode in seen] == expected
    assert [task for task, _ in expected] == [5, 6, 7, 8, 9, 0]
    assert {episode.stop for episode in seen} == {"cut"} and {episode.length for episode in seen} == {2}
