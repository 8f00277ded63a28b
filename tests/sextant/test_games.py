"""Several games from the command line's side: one model of MinAtar games, evaluated in each, compared and adapted."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from envs.several import GamesConfig
from sextant.adapt import adapted_config, env_of_task, run_adapt
from sextant.adapt_config import read_adapt_config
from sextant.cli import main
from sextant.compare import run_compare
from sextant.config import ConfigError, compose_train_config, load_run_config
from sextant.evaluate import build_acting_agent, full_summary, run_evaluate
from sextant.train import run_resume, run_train
from sextant.training_evaluation import per_task_metrics, score_of
from trainers.checkpointing import CheckpointStore
from trainers.episodes import EpisodeRecord
from trainers.evaluation_files import load_evaluations

TRAINED, HELD_OUT = ("breakout", "freeway"), "asterix"
RUN = [
    "agent=multi_game_dt",
    "agent.width=16",
    "agent.num_heads=2",
    "agent.num_layers=1",
    "agent.batch_size=4",
    "agent.warmup_steps=2",
    "env=games",
    "env.suite=minatar",
    "env.games=[breakout,freeway]",
    "env.max_episode_steps=12",
    "env.evaluation_episodes=3",
    "trainer=offline",
    "trainer.total_gradient_steps=4",
    "trainer.checkpoint_every_gradient_steps=2",
    "trainer.evaluation_episodes=null",
    "trainer.evaluation_envs=2",
    "threads=1",
    "device=cpu",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random play of three games, a folder each."""
    folder = tmp_path_factory.mktemp("data")
    for game in (*TRAINED, HELD_OUT):
        rules = ["env=minatar", f"env.game={game}", "env.all_channels=true", "env.full_action_space=true"]
        play = ["policy=random", "episodes=4", "env.max_episode_steps=30", f"out={folder / game}"]
        assert main(["collect", *rules, *play]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model as it is by default, and one that may play any action."""
    files = f"trainer.data=[{','.join(str(data / game) for game in TRAINED)}]"
    found = {}
    for name, keys in {"restricted": [], "free": ["agent.acting.restrict_actions=false"]}.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = run_train(compose_train_config([*RUN, *keys, files, f"runs_dir={folder}"]))
    return found


def agent_of(run: Path) -> Any:
    config = load_run_config(run)
    agent = build_acting_agent(config, config.env.evaluation_protocol(), "cpu", run_dir=run)
    snapshot = CheckpointStore(run / "checkpoints", read_only=True).load_latest()
    assert snapshot is not None
    agent.load_weights(snapshot.weights, acting_only=True)
    return agent


def test_training_evaluates_in_every_game(runs: dict[str, Path]) -> None:
    evaluation = load_evaluations(runs["restricted"])[-1]
    assert runs["restricted"].parent.name == "multi_game_dt-minatar-games"
    assert [record.task for record in evaluation.records] == ["minatar-breakout"] * 3 + ["minatar-freeway"] * 3
    assert evaluation.protocol["env_name"] == "minatar-games" and len(evaluation.protocol["rules"]) == 2
    assert {record.protocol_hash for record in evaluation.records} == {evaluation.protocol_hash}
    with open(runs["restricted"] / "metrics.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["eval/return_mean"]]
    by_game = evaluation.summary["tasks"]
    for game, part in by_game.items():
        assert float(rows[-1][f"eval/return/{game}"]) == part["return_mean"]
    assert float(rows[-1]["eval/return_mean"]) == np.mean([part["return_mean"] for part in by_game.values()])


def test_evaluate_plays_every_game_and_random_play_too(runs: dict[str, Path]) -> None:
    console = Console(file=io.StringIO(), width=200)
    checkpoint, chance = run_evaluate(runs["restricted"], num_episodes=4, num_envs=3, console=console)
    assert [part["episodes"] for part in checkpoint.summary["tasks"].values()] == [2, 2]
    assert checkpoint.summary["tasks"].keys() == chance.summary["tasks"].keys()
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "minatar-games" in printed and "minatar-breakout" in printed and "minatar-freeway" in printed


def test_films_are_of_the_games_in_turn(runs: dict[str, Path]) -> None:
    run_evaluate(runs["free"], num_episodes=2, videos=2, random_baseline=False, console=Console(file=io.StringIO()))
    films = sorted(path.name for path in (runs["free"] / "videos").glob("*.mp4"))
    assert len(films) == 2 and "minatar-breakout" in films[0] and "minatar-freeway" in films[1]


def test_runs_are_compared_game_by_game(runs: dict[str, Path], tmp_path: Path) -> None:
    comparison = run_compare(list(runs.values()), out=tmp_path, console=Console(file=io.StringIO()))
    assert comparison.metric == "return"
    games = ["minatar-games/minatar-breakout", "minatar-games/minatar-freeway"]
    assert [row.task for row in comparison.rows] == games * 2
    assert len({row.group for row in comparison.rows}) == 2


def test_each_game_has_its_own_actions_unless_told_otherwise(runs: dict[str, Path]) -> None:
    own = agent_of(runs["restricted"]).policy.allowed_ZA
    assert own.tolist() == [
        [True, True, False, True, False, False],  # breakout: no-op, left, right
        [True, False, True, False, True, False],  # freeway: no-op, up, down
        [True] * 6,  # games that are not in the data
    ]
    assert bool(agent_of(runs["free"]).policy.allowed_ZA.all())


def test_what_is_executed_is_what_the_agent_remembers(runs: dict[str, Path]) -> None:
    agent, obs = agent_of(runs["restricted"]), np.zeros((64, 10, 10, 10), np.uint8)
    state = agent.begin_episodes(agent.initial_state(64), range(64), ["minatar-breakout", "minatar-freeway"] * 32)
    played = []
    for _ in range(3):
        action, state = agent.act(obs, state, explore=True)
        assert state.last_action.tolist() == action.tolist()
        played.append(action)
    assert set(np.concatenate([each[::2] for each in played])) == {0, 1, 3}
    assert set(np.concatenate([each[1::2] for each in played])) == {0, 2, 4}
    seen = agent.act(obs, state)[1].previous_action
    assert {tuple(row) for row in seen[::2, 1:].tolist()} <= {
        (a, b, c) for a in (0, 1, 3) for b in (0, 1, 3) for c in (0, 1, 3)
    }


def test_a_resumed_run_keeps_its_table(runs: dict[str, Path]) -> None:
    run_resume(runs["restricted"])
    assert not agent_of(runs["restricted"]).policy.allowed_ZA[0, 2]


def test_adapting_to_a_held_out_game_plays_it_alone(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    keys = [
        "method=full",
        f"data=[{data / HELD_OUT}]",
        "per_task=true",
        "total_gradient_steps=2",
        f"runs_dir={tmp_path}",
    ]
    config = read_adapt_config([f"run={runs['restricted']}", *keys, "evaluation_episodes=2"])
    (run,) = run_adapt(config, console=Console(file=io.StringIO()))
    adapted = load_run_config(run)
    base: Any = load_run_config(runs["restricted"]).env
    assert adapted.env == base.game_config(HELD_OUT) and run.parent.name.endswith("minatar-asterix")
    assert {record.task for record in load_evaluations(run)[-1].records} == {"minatar-asterix"}
    allowed = agent_of(run).policy.allowed_ZA
    assert allowed.shape[0] == 4 and allowed[0].tolist() == [True] * 5 + [False]  # asterix: all but fire
    assert allowed[1].tolist() == [True, True, False, True, False, False], "breakout keeps its own"


def test_one_task_of_the_games_narrows_the_env() -> None:
    config = GamesConfig(suite="minatar", games=("breakout", "freeway"), max_episode_steps=9, sticky_prob=0.0)
    narrowed = env_of_task(config.model_dump(mode="json"), "minatar-freeway")
    assert narrowed == config.game_config("freeway").model_dump(mode="json")
    assert (narrowed["max_episode_steps"], narrowed["sticky_prob"], narrowed["all_channels"]) == (9, 0.0, True)
    with pytest.raises(ConfigError, match=r"reach-v3 is not a game that env\.suite=minatar has: unknown MinAtar game"):
        env_of_task(config.model_dump(mode="json"), "reach-v3")


def test_several_tasks_keep_the_games(runs: dict[str, Path], data: Path) -> None:
    base = load_run_config(runs["free"])
    config = read_adapt_config([f"run={runs['free']}", "method=full", f"data=[{data}]", "total_gradient_steps=2"])
    assert adapted_config(config, base, "0" * 64, None).env == base.env


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "agent=dqn_minatar", "env=games", "env.suite=minatar"], "env=games is for evaluation alone"),
        (["train", "env=games"], "use trainer=offline .* or env=atari env.game=asterix to play one"),
        (
            ["train", "agent=cql", "agent.network.kind=mlp", *RUN[6:12], "trainer.data=[x]"],
            "agent.network.kind=minatar_cnn",
        ),
        (
            ["collect", "env=games", "policy=random", "out=x"],
            "collect each game by itself, with env=atari env.game=NAME ",
        ),
        (["env", "describe", "env=games", "env.games=[pong]"], r"env.games=\[pong\] is not allowed.*at least two"),
        (["env", "describe", "env=games", "env.games=[pogn,asterix]"], "unknown game 'pogn'"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown, re.DOTALL), shown
    assert list(tmp_path.iterdir()) == []


def test_data_of_other_shapes_is_refused(data: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    assert main(["collect", "env=minatar", "policy=random", "episodes=1", f"out={narrow}"]) == 0
    with pytest.raises(ConfigError, match=r"has observations 4x10x10 and 3 actions, but minatar-games has .*10x10x10"):
        run_train(compose_train_config([*RUN, f"trainer.data=[{narrow}]", f"runs_dir={tmp_path}"]))


def test_describe_shows_rules_and_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "describe", "env=games", "env.suite=minatar", "env.games=[seaquest,freeway]"]) == 0
    shown = capsys.readouterr().out
    assert "Box(0, 255, (10, 10, 10), uint8)" in shown and "Discrete(6)" in shown
    assert "- minatar-seaquest" in shown and "hash:" in shown and "replay" not in shown
    assert main(["config", "show", "env=games"]) == 0
    assert "env.games=[asterix,breakout,space_invaders]" in capsys.readouterr().out
    assert main(["env", "list"]) == 0
    assert "env=games" in capsys.readouterr().out


def records(**returns: float) -> list[EpisodeRecord]:
    shared: dict[str, Any] = {"run": "r", "seed": 0, "checkpoint_step": 0, "protocol_id": "p", "protocol_hash": "h"}
    return [
        EpisodeRecord(**shared, env_id="e", task=task, raw_return=value, length=1, stop_reason="terminated")
        for task, value in returns.items()
    ]


def test_checkpoints_are_ranked_by_scores_that_add_up() -> None:
    protocol = GamesConfig(suite="atari", games=("pong", "breakout")).evaluation_protocol()
    summary = full_summary(records(pong=14.6, breakout=1.7), protocol)  # a human, and random play
    assert score_of(summary) == summary["human_normalised"] == 0.5
    assert per_task_metrics(summary) == {"eval/return/pong": 14.6, "eval/return/breakout": 1.7}
    alone = full_summary(records(pong=14.6), protocol)
    assert score_of(alone) == 14.6 and per_task_metrics(alone) == {}
    without = full_summary(records(pong=14.6, minatar=2.0), protocol)
    assert score_of(without) == pytest.approx(8.3)
    assert score_of({"success_rate": 0.25, "return_mean": 9.0}) == 0.25
