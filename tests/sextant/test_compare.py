"""``sextant compare`` on made-up run directories: grouping, protocols that do not mix, tables and plots on disk."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sextant.compare import Comparison, run_compare
from sextant.compare_runs import find_runs, group_settings
from sextant.config import ConfigError, compose_train_config, save_run_config
from trainers.episodes import EpisodeRecord, summarise
from trainers.evaluation_files import write_evaluation

DQN = ("agent=dqn", "env=classic", "agent.network.kind=mlp")
PPO = ("agent=ppo", "env=classic", "agent.network.kind=mlp")


def make_run(
    root: Path,
    seed: int,
    returns: list[float],
    *,
    overrides: tuple[str, ...] = DQN,
    policy: str = "last",
    env_steps: int = 100,
    protocol: dict[str, Any] | None = None,
    success: list[bool] | None = None,
    name: str | None = None,
) -> Path:
    config = compose_train_config([*overrides, f"seed={seed}"])
    run_dir = root / f"{config.agent.name}-{config.env.env_id}" / (name or f"{seed}-20260101-000000")
    if not run_dir.exists():
        run_dir.mkdir(parents=True)
        save_run_config(config, run_dir)
        lines = [f"{step},{step / 10 + seed},{step / 5}" for step in range(0, 101, 20)]
        (run_dir / "metrics.csv").write_text("env_steps,eval/return_mean,train/return_mean\n" + "\n".join(lines) + "\n")
    any_config: Any = config.env
    rules = any_config.evaluation_protocol().model_copy(update=protocol or {})
    records = [
        EpisodeRecord(
            run=f"{run_dir.parent.name}/{run_dir.name}",
            seed=seed,
            checkpoint_step=env_steps,
            protocol_id=rules.id,
            protocol_hash=rules.hash,
            env_id=rules.env_name,
            task=rules.env_name,
            raw_return=value,
            length=10,
            success=None if success is None else success[index],
            success_last=None if success is None else success[index],
            first_success=3 if success is not None and success[index] else None,
            stop_reason="terminated",
        )
        for index, value in enumerate(returns)
    ]
    write_evaluation(run_dir, records, rules, policy=policy, env_steps=env_steps, seed=0, summary=summarise(records))
    return run_dir


def compare(paths: list[Path], out: Path, **options: Any) -> tuple[Comparison, str]:
    console = Console(file=io.StringIO(), width=200)
    comparison = run_compare(paths, out=out, num_resamples=200, console=console, **options)
    assert isinstance(console.file, io.StringIO)
    return comparison, console.file.getvalue()


def test_two_groups_of_three_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / "runs", seed, [seed, seed + 2.0])
        make_run(tmp_path / "runs", seed, [seed + 10.0], overrides=PPO)
    comparison, printed = compare([tmp_path / "runs"], tmp_path / "out")
    dqn, ppo = comparison.rows
    assert (dqn.group, dqn.task, dqn.num_seeds, dqn.mean, dqn.episodes) == ("dqn", "CartPole-v1", 3, 2.0, (2, 2))
    assert (ppo.group, ppo.mean) == ("ppo", 11.0)
    assert dqn.iqm_interval is not None and dqn.iqm_interval.over == "seeds"
    assert comparison.metric == "return"
    assert "P(ppo > dqn) = 1.00 [1, 1]; 95% over 3 seeds, few" in printed
    assert "different numbers of episodes" in printed
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"table.csv", "table.md", "runs.csv", "scores.png", "curves.png"}
    table = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    assert [(row["group"], row["mean"], row["seeds"]) for row in table] == [("dqn", "2.0", "3"), ("ppo", "11.0", "3")]
    runs = list(csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text())))
    assert [row["score"] for row in runs if row["group"] == "dqn"] == ["1.0", "2.0", "3.0"]
    assert "| dqn | CartPole-v1 | 3 | 2 | 100 |" in (tmp_path / "out" / "table.md").read_text()


def test_no_interval_below_three_seeds(tmp_path: Path) -> None:
    paths = [make_run(tmp_path, seed, [1.0 * seed] * 50) for seed in range(2)]
    comparison, printed = compare(paths, tmp_path / "out")
    assert comparison.rows[0].iqm_interval is None
    assert "no interval below 3 seeds, got 2" in printed
    assert "[" not in printed.split("table and plots")[0]


def test_settings_that_differ_make_groups_named_by_the_difference(tmp_path: Path) -> None:
    make_run(tmp_path, 0, [1.0])
    make_run(tmp_path, 0, [2.0], overrides=(*DQN, "agent.batch_size=64"), name="other")
    make_run(tmp_path, 1, [3.0], overrides=(*DQN, "trainer.keep_checkpoints=7", "device=cpu"))
    comparison, _ = compare([tmp_path], tmp_path / "out")
    groups = {row.group: row.num_seeds for row in comparison.rows}
    assert groups == {"dqn (agent.batch_size=32)": 2, "dqn (agent.batch_size=64)": 1}


def test_different_protocols_are_refused_by_name_of_hash_and_field(tmp_path: Path) -> None:
    one = make_run(tmp_path, 0, [1.0])
    two = make_run(tmp_path, 1, [2.0], protocol={"horizon": 400})
    with pytest.raises(ConfigError) as refused:
        compare([one, two], tmp_path / "out")
    hashes = [path.name.split("-")[-1] for run in (one, two) for path in (run / "evaluations").iterdir()]
    assert all(each in str(refused.value) for each in hashes)
    assert "horizon: 500 / 400" in str(refused.value)
    assert "--allow-mixed" in str(refused.value)
    assert not (tmp_path / "out").exists()
    comparison, printed = compare([one, two], tmp_path / "out", allow_mixed=True)
    assert comparison.rows[0].num_seeds == 2
    assert "MIXED PROTOCOLS" in printed
    assert "MIXED PROTOCOLS" in (tmp_path / "out" / "table.md").read_text()


def test_other_games_under_the_same_rules_go_together_and_are_normalised(tmp_path: Path) -> None:
    atari = ("agent=dqn", "env=atari")
    for seed in range(3):
        make_run(tmp_path, seed, [14.6], overrides=(*atari, "env.game=pong"))
        make_run(tmp_path, seed, [1.7], overrides=(*atari, "env.game=breakout"))
    comparison, _ = compare([tmp_path], tmp_path / "out")
    assert comparison.metric == "human_normalised"
    assert [(row.task, row.mean) for row in comparison.rows] == [("breakout", 0.0), ("pong", 1.0), ("all tasks", 0.5)]
    raw, printed = compare([tmp_path], tmp_path / "raw", metric="return")
    assert [row.task for row in raw.rows] == ["breakout", "pong"]
    assert "cannot be averaged" in printed
    make_run(tmp_path, 3, [1.7], overrides=(*atari, "env.game=qbert"), protocol={"sticky_prob": 0.0})
    with pytest.raises(ConfigError, match=r"sticky_prob: 0\.25 / 0\.0"):
        compare([tmp_path], tmp_path / "out")


def test_the_newest_last_checkpoint_is_taken_and_training_stands_in(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, [1.0], policy="training", env_steps=50)
    make_run(tmp_path, 0, [2.0], policy="training", env_steps=100)
    assert compare([run], tmp_path / "out")[0].rows[0].mean == 2.0
    make_run(tmp_path, 0, [3.0], policy="last", env_steps=100)
    assert compare([run], tmp_path / "out")[0].rows[0].mean == 3.0
    make_run(tmp_path, 0, [4.0], policy="training", env_steps=200)
    assert compare([run], tmp_path / "out")[0].rows[0].mean == 4.0
    with pytest.raises(
        ConfigError, match=r"no evaluation of its best checkpoint; run `sextant evaluate run=.* checkpoint=best`"
    ):
        compare([run], tmp_path / "out", checkpoint="best")
    make_run(tmp_path, 0, [9.0], policy="best", env_steps=50)
    assert compare([run], tmp_path / "out", checkpoint="best")[0].rows[0].mean == 9.0


def test_several_protocols_of_one_run_must_be_told_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, [1.0])
    make_run(tmp_path, 0, [5.0], protocol={"id": "classic-eval-1+horizon", "horizon": 400})
    with pytest.raises(ConfigError, match=r"evaluated under several protocols: classic-eval-1 \(.*--protocol"):
        compare([run], tmp_path / "out")
    assert compare([run], tmp_path / "out", protocol="classic-eval-1+horizon")[0].rows[0].mean == 5.0
    with pytest.raises(ConfigError, match=r"under dopamine; run `sextant evaluate .* protocol=dopamine`"):
        compare([run], tmp_path / "out", protocol="dopamine")


def test_success_is_the_metric_where_the_env_knows_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, [1.0, 2.0], success=[True, False])
    comparison, _ = compare([run], tmp_path / "out")
    assert (comparison.metric, comparison.rows[0].mean) == ("success", 0.5)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 0, [1.0])
    twin = make_run(tmp_path / "a", 0, [1.0], name="twin")
    with pytest.raises(ConfigError, match=r"same setting .* one sample, not two"):
        compare([run, twin], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--metric score is not allowed: expected return \| human_normalised"):
        compare([run], tmp_path / "out", metric="score")
    with pytest.raises(ConfigError, match="metric 'success': these episodes know no success"):
        compare([run], tmp_path / "out", metric="success")
    with pytest.raises(ConfigError, match="no reference scores for 'CartPole-v1'"):
        compare([run], tmp_path / "out", metric="human_normalised")
    with pytest.raises(ConfigError, match="is not a run directory"):
        find_runs([tmp_path / "empty"])
    assert find_runs([run, run.parent, tmp_path / "a"]) == [run, twin]
    deep = make_run(tmp_path / "a" / "experiment" / "of", 0, [1.0])
    (run / "checkpoints" / "copy").mkdir(parents=True)
    (run / "checkpoints" / "copy" / "config.yaml").write_text("")
    assert find_runs([tmp_path / "a"]) == [run, twin, deep], "at any depth, but not inside a run"


def test_runs_on_the_replays_of_different_seeds_are_one_setting(tmp_path: Path) -> None:
    sources = [make_run(tmp_path, seed, [1.0]) for seed in (0, 1)]
    wide = make_run(tmp_path, 0, [1.0], overrides=(*DQN, "agent.batch_size=8"), name="wide")

    def settings(data: Path | str) -> dict[str, Any]:
        return group_settings({"agent": {}, "env": {}, "trainer": {"data": [str(data)]}})

    assert settings(sources[0]) == settings(sources[1]) != settings(wide)
    assert settings("gone/dqn-pong/0-20260101-120000") == settings("gone/dqn-pong/1-20260101-130000-2")
    assert settings("data/a") != settings("data/b")


def test_settings_that_differ_in_many_keys_are_named_by_letters() -> None:
    from types import SimpleNamespace

    from sextant.compare_runs import group_labels

    def run(index: int, settings: dict[str, int]) -> Any:
        return SimpleNamespace(path=Path(str(index)), agent="dqn", settings=settings)

    many = [run(index, {f"agent.some_long_key_{key}": index // 2 for key in range(4)}) for index in range(4)]
    labels, legend = group_labels(many)
    assert [labels[Path(str(index))] for index in range(4)] == ["dqn A", "dqn A", "dqn B", "dqn B"]
    assert [line.partition(":")[0] for line in legend] == ["dqn A", "dqn B"]
    labels, legend = group_labels([run(0, {"agent.gamma": 0}), run(1, {"agent.gamma": 1})])
    assert (labels[Path("0")], legend) == ("dqn (agent.gamma=0)", [])


def test_a_page_of_many_groups_and_tasks_stays_readable(tmp_path: Path) -> None:
    for size in (8, 16, 32, 64, 128):
        for game in ("pong", "breakout"):
            settings = ("agent=dqn", "env=atari", f"env.game={game}", f"agent.batch_size={size}")
            for seed in range(3):
                make_run(tmp_path, seed, [14.6], overrides=settings, name=f"{seed}-{size}")
    comparison, _ = compare([tmp_path], tmp_path / "out")
    assert len(comparison.rows) == 15 and len(comparison.improvements) == 10
    page = (tmp_path / "out" / "table.md").read_text()
    groups = [f"dqn (agent.batch_size={size})" for size in (128, 16, 32, 64, 8)]
    assert page.count("| all tasks |") == 5 and "| dqn (agent.batch_size=8) | pong |" not in page
    assert "| pong | 1 | 1 | 1 | 1 | 1 |" in page
    assert f"| P(line > column) | {' | '.join(groups[:-1])} |" in page
    assert f"| {groups[1]} | 0.50 [0.5, 0.5] |  |  |  |" in page
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 15
