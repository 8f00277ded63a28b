"""Names, rules, protocols and known returns of the memory tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from envs.memory_tasks.config import RULES_OF_TASK, TASKS, MemoryTasksConfig, MemoryTasksProtocol
from envs.memory_tasks.known import known_returns, random_t_maze_return


def config(**settings: Any) -> MemoryTasksConfig:
    return MemoryTasksConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "tmaze"}, r"unknown memory task 'tmaze', did you mean 't_maze'"),
        ({"task": "identity", "max_corridor": 100}, r"max_corridor=100 means nothing to task=identity, .*num_symbols"),
        ({"task": "t_maze", "num_symbols": 3}, r"num_symbols=3 means nothing to task=t_maze, .*max_wasted_steps"),
        ({"task": "copy", "distractor_reward": 0.5}, r"distractor_reward=0.5 means nothing to task=copy"),
        ({"task": "t_maze", "max_corridor": 10}, r"min_corridor=30 is more than max_corridor=10"),
        ({"task": "t_maze", "min_corridor": 0}, r"greater than or equal to 1"),
        ({"task": "key_to_door", "distractor_reward": -1.0}, r"greater than or equal to 0"),
        ({"task": "copy", "delay": 3}, r"delay"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"task": "t_maze", "min_corridor": 5, "max_corridor": 9, "max_wasted_steps": 2}, 12),
        ({"task": "key_to_door", "min_corridor": 5, "max_corridor": 9}, 13),
        ({"task": "copy", "min_corridor": 5, "max_corridor": 9, "sequence_length": 3}, 15),
        ({"task": "identity"}, 16),
    ],
)
def test_longest_episode(settings: dict[str, Any], steps: int) -> None:
    assert config(**settings).training_protocol().max_episode_steps == steps


@pytest.mark.parametrize("task", TASKS)
def test_a_protocol_holds_the_rules_of_its_task_and_no_others(task: Any) -> None:
    protocol = config(task=task).evaluation_protocol()
    assert protocol.id == "memory-eval-1"
    assert protocol.env_name == protocol.task == config(task=task).env_id == task
    rules = protocol.model_dump(include={rule for rules in RULES_OF_TASK.values() for rule in rules})
    assert {rule for rule, value in rules.items() if value is not None} == set(RULES_OF_TASK[task])
    assert protocol.versions == {} and protocol.frames_per_step == 1


def test_changed_rules_show_in_id_and_hash() -> None:
    usual, other = config(), config(min_corridor=10, max_corridor=10, evaluation_episodes=20)
    assert other.training_protocol().id == "memory-train-1+max_corridor+min_corridor"
    assert other.evaluation_protocol().id == "memory-eval-1+max_corridor+min_corridor+num_episodes"
    assert usual.evaluation_protocol().hash != other.evaluation_protocol().hash
    assert usual.evaluation_protocol("memory-eval-1") == usual.evaluation_protocol()
    assert (usual.id, other.id, config(task="identity").id) == ("t_maze-30-90", "t_maze-10-10", "identity")
    with pytest.raises(ValueError, match=r"unknown protocol 'mw-eval-1' for t_maze, valid names: memory-eval-1"):
        usual.evaluation_protocol("mw-eval-1")


def test_evaluation_asks_for_every_cue_and_colour_equally_often() -> None:
    specs = config(evaluation_episodes=6).evaluation_protocol().episodes(0)
    assert [spec.goal_index for spec in specs] == [0, 1, 0, 1, 0, 1]
    assert len({spec.seed for spec in specs}) == 6
    assert {spec.task for spec in specs} == {"t_maze"}
    colours = config(task="key_to_door", num_symbols=3).evaluation_protocol().episodes(0)
    assert [spec.goal_index for spec in colours[:7]] == [0, 1, 2, 0, 1, 2, 0]
    assert {spec.goal_index for spec in config(task="copy").evaluation_protocol().episodes(0)} == {None}


def test_random_play_in_the_t_maze_by_hand() -> None:
    assert random_t_maze_return(1, 0) == pytest.approx(1 / 16)  # forward, then the right turn
    # with a step to waste: forward at once and two tries at the junction, (1 - 1/4) / 2, or forward late and one try
    assert random_t_maze_return(1, 1) == pytest.approx(1 / 4 * 3 / 8 + 3 / 16 * 1 / 4)
    assert random_t_maze_return(3, 500) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "returns"),
    [
        ({"task": "key_to_door"}, (1.0, 1 / 4, 1 / 36)),
        ({"task": "key_to_door", "num_symbols": 1}, (1.0, 1.0, 1 / 9)),
        ({"task": "copy", "num_symbols": 5}, (1.0, 0.2, 0.2)),
        ({"task": "identity"}, (1.0, 1.0, 0.25)),
    ],
)
def test_known_returns(settings: dict[str, Any], returns: tuple[float, float, float]) -> None:
    known = known_returns(config(**settings).training_protocol())
    assert (known["optimal"], known["memoryless"], known["random"]) == pytest.approx(returns)


def test_known_returns_are_means_over_the_corridors() -> None:
    protocol = config(min_corridor=1, max_corridor=2, max_wasted_steps=4).training_protocol()
    mean = (random_t_maze_return(1, 4) + random_t_maze_return(2, 4)) / 2
    assert known_returns(protocol) == {"optimal": 1.0, "memoryless": 0.5, "random": pytest.approx(mean)}


@pytest.mark.parametrize("task", TASKS)
def test_describe_is_complete_and_plain(task: Any) -> None:
    described = json.loads(json.dumps(config(task=task).describe()))
    assert described["env_id"] == task and described["known_returns"]["optimal"] == 1.0
    fields = {key: value for key, value in described["evaluation"].items() if key in MemoryTasksProtocol.model_fields}
    assert MemoryTasksProtocol.model_validate(fields).hash == described["evaluation"]["hash"]
