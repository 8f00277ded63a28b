"""The counters that go from one log point and checkpoint to the next."""

from __future__ import annotations

import json

from trainers.run_state import RECENT_EPISODES, RunState


def test_the_training_return_is_over_the_latest_episodes() -> None:
    state = RunState()
    for index in range(RECENT_EPISODES + 5):
        state.count_episode(float(index), 2, success=index % 2 == 0)
    metrics = state.training_metrics()
    assert state.episodes == RECENT_EPISODES + 5
    assert metrics["train/return_mean"] == 5 + (RECENT_EPISODES - 1) / 2
    assert metrics["train/success_rate"] == 0.5
    assert RunState().training_metrics() == {}


def test_the_best_score_keeps_its_env_steps() -> None:
    state = RunState()
    improved = []
    for env_steps, score in ((10, 1.0), (20, 3.0), (30, 2.0)):
        state.env_steps = env_steps
        improved.append(state.score(score))
    assert improved == [True, True, False]
    assert (state.last_score, state.best_score, state.best_env_steps) == (2.0, 3.0, 20)


def test_the_state_survives_json_exactly() -> None:
    state = RunState(env_steps=3, recent_returns=[0.1 + 0.2], recent_lengths=[7])
    assert RunState.from_json(json.loads(json.dumps(state.to_json()))) == state
