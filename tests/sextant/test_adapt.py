"""``sextant adapt``: every method starts from the base to the bit, trains only what it says, and resumes to the bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents.decision_transformer.lora import fold_, lora_layers
from envs.memory_tasks.config import MemoryTasksConfig
from memory.data_summary import DataSummary
from memory.trajectories import Episode
from memory.trajectory_facts import TrajectoryFacts
from memory.trajectory_store import TrajectoryWriter, consolidate
from sextant.adapt import adapted_config, env_of_task, run_adapt
from sextant.adapt_config import read_adapt_config
from sextant.adapters_bank import load_bank, write_bank
from sextant.base_run import find_weights, merged_summary
from sextant.cli import main
from sextant.config import compose_train_config, load_run_config
from sextant.env_spaces import spaces_of_env
from sextant.evaluate import build_acting_agent, run_evaluate
from sextant.learner import build_agent
from sextant.offline_learner import load_data_summary
from sextant.train import run_resume, run_train
from sextant.training_evaluation import evaluation_scores
from trainers.offline import OfflineSession
from trainers.seeding import Seeds

ENV = MemoryTasksConfig(task="t_maze", min_corridor=3, max_corridor=5, max_wasted_steps=2)
WIDTH, SLOTS = 16, 4
BASE = [
    "agent=dt_mem",
    "agent.context_length=4",
    f"agent.width={WIDTH}",
    "agent.num_layers=1",
    "agent.batch_size=8",
    "agent.num_segments=2",
    "agent.warmup_steps=5",
    "agent.learning_rate=1e-3",
    f"agent.memory.num_slots={SLOTS}",
    "agent.memory.chunk=2",
    "env=memory_tasks",
    "env.min_corridor=3",
    "env.max_corridor=5",
    "env.max_wasted_steps=2",
    "trainer=offline",
    "trainer.total_gradient_steps=20",
    "trainer.checkpoint_every_gradient_steps=10",
    "trainer.evaluation_episodes=2",
    "trainer.evaluation_envs=2",
    "threads=1",
    "device=cpu",
    "seed=3",
]
SHORT = ("total_gradient_steps=12", "evaluate_every_gradient_steps=6", "evaluation_episodes=2", "learning_rate=1e-3")


def episode(task: str, number: int, extra: int) -> Episode:
    env = ENV.make_evaluation_env(ENV.evaluation_protocol(), 1)
    obs = [env.reset(seed=number)[0][0]]
    actions, rewards, done = [], [], False
    while not done:
        actions.append(int(env.optimal_actions()[0]))
        after, reward, terminated, truncated, _ = env.step(np.array(actions[-1:]))
        obs.append(after[0])
        rewards.append(float(reward[0]))
        done = bool(terminated[0] or truncated[0])
    env.close()
    return Episode(
        obs=np.array(obs, np.float32),
        action=np.array(actions, np.int64),
        reward=np.array(rewards, np.float32) * (1 + extra),
        terminated=bool(terminated[0]),
        truncated=bool(truncated[0]),
        success=None,
        task=task,
        seed=number,
    )


def write_data(folder: Path, returns: dict[str, int], num_episodes: int = 6) -> Path:
    """Writes optimal episodes of one env under several task names; their rewards are 1 + the number given."""
    for task, extra in returns.items():
        episodes = [episode(task, 1000 * extra + number, extra) for number in range(num_episodes)]
        facts = TrajectoryFacts(
            env_id="t_maze",
            suite="memory_tasks",
            task=task,
            observation_kind="vector",
            obs_shape=episodes[0].obs.shape[1:],
            obs_dtype="float32",
            action_kind="discrete",
            num_actions=4,
        )
        with TrajectoryWriter(folder, facts) as writer:
            writer.add(*episodes)
        consolidate(folder, task)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 gradient steps on the tasks t_maze and other."""
    root = tmp_path_factory.mktemp("base")
    data = write_data(root / "data", {"t_maze": 0, "other": 1})
    return run_train(compose_train_config([*BASE, f"trainer.data=[{data}]", f"runs_dir={root / 'runs'}"]))


@pytest.fixture(scope="module")
def new_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of a task the base knows and of one it does not."""
    return write_data(tmp_path_factory.mktemp("new"), {"new": 4, "t_maze": 2})


def adapt(base: Path, data: Path, folder: Path, *arguments: str) -> Path:
    given = [f"run={base}", f"data=[{data}]", f"runs_dir={folder}", *SHORT, "env.task=t_maze", *arguments]
    return run_adapt(read_adapt_config(given))[0]


def config_of(run_dir: Path) -> Any:
    return load_run_config(run_dir)


def adapted(*arguments: Any) -> Any:
    return adapted_config(*arguments)


def weights_at(run_dir: Path, folder: str = "[0-9]*[0-9]") -> dict[str, torch.Tensor]:
    return load_file(sorted(run_dir.glob(f"checkpoints/{folder}/weights.safetensors"))[-1])


def model_of(run_dir: Path, weights: dict[str, torch.Tensor] | None = None) -> Any:
    """Gives a run's agent with given weights, or those it starts with."""
    config = config_of(run_dir)
    agent = build_acting_agent(config, config.env.evaluation_protocol(), "cpu", run_dir=run_dir)
    if weights is not None:
        agent.load_weights(weights)
    return agent


def act_for(agent: Any, task: str, num_steps: int = 6) -> list[np.ndarray]:
    """Plays fixed observations; gives the logits of every step."""
    rng = np.random.default_rng(0)
    state = agent.begin_episodes(agent.initial_state(2), [0, 1], [task, task])
    found = []
    agent.model.heads.action.register_forward_hook(lambda _, __, output: found.append(output.detach().numpy().copy()))
    for _ in range(num_steps):
        obs = rng.normal(size=(2, *agent.observation_space.shape)).astype(np.float32)
        _, state = agent.act(obs, state)
        state = agent.receive_rewards(state, [0, 1], np.zeros(2, np.float32))
    return found


def start_weights(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> tuple[Path, Any]:
    """Adapts without a single gradient step; gives the run directory and the agent as it was when training began."""
    seen: list[Any] = []
    with monkeypatch.context() as context:

        def fit(session: OfflineSession, restored: Any = None) -> Any:
            seen.append(session.agent)
            raise ZeroDivisionError

        context.setattr(OfflineSession, "fit", fit)
        with pytest.raises(ZeroDivisionError):
            adapt(*arguments)
    return next(arguments[2].glob("*/*/config.yaml")).parent, seen[0]


METHODS = {
    "memory lora": (["method=lora"], ("memory.",)),
    "transformer lora": (["method=lora", "where=transformer", "rank=2"], ("backbone.",)),
    "lora everywhere": (["method=lora", "where=both", "also_heads=true"], ("memory.", "backbone.", "heads.")),
    "full": (["method=full"], ("memory.", "backbone.", "heads.", "embedding.")),
    "heads": (["method=heads"], ("heads.",)),
    "initial slots": (["method=initial_slots"], ("memory.",)),
    "adapters": (["method=adapters"], ("backbone.",)),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_starts_with_its_base_to_the_bit_and_trains_only_what_it_says(
    name: str, base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, parts = METHODS[name]
    _, agent = start_weights(monkeypatch, base, new_data, tmp_path / "start", *arguments)
    expected = act_for(model_of(base, weights_at(base)), "other")
    for got, want in zip(act_for(agent, "other"), expected, strict=True):
        np.testing.assert_array_equal(got, want)

    run_dir = adapt(base, new_data, tmp_path / "runs", *arguments)
    before, after = start_of(run_dir, agent), weights_at(run_dir)
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    report = json.loads((run_dir / "adaptation.json").read_text())
    trained = {f"policy.model.{key}" for key in report["trained_tensors"]}
    assert changed and changed <= trained
    assert {key.removeprefix("policy.model.").partition(".")[0] + "." for key in trained} == set(parts)
    sizes = {key: after[key].numel() for key in after}
    assert report["trainable"] == sum(sizes[key] for key in trained)
    assert report["trainable"] == sum(part["trainable"] for part in report["parts"].values())
    assert report["total"] == sum(part["total"] for part in report["parts"].values())


def start_of(run_dir: Path, agent: Any) -> dict[str, torch.Tensor]:
    """Gives the weights that the agent of an equal run began with."""
    assert config_of(run_dir).agent == agent.config
    return {name: tensor.clone() for name, tensor in agent.weights().items()}


def test_counts_are_those_of_the_formula(base: Path, new_data: Path, tmp_path: Path) -> None:
    run_dir = adapt(base, new_data, tmp_path, "rank=3", "also_initial_slots=true")
    report = json.loads((run_dir / "adaptation.json").read_text())
    assert report["trainable"] == 6 * 2 * 3 * WIDTH + SLOTS * WIDTH
    assert report["parts"]["memory"]["trainable"] == report["trainable"]
    assert (report["method"], report["rank"], report["base"]) == ("lora", 3, str(base))
    assert report["base_gradient_steps"] == 20
    assert report["new_tasks"] == ["new"] and report["known_tasks"] == ["t_maze", "other"]


def test_a_run_is_evaluated_before_its_first_step_and_shows_it(
    base: Path, new_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = adapt(base, new_data, tmp_path)
    assert list(evaluation_scores(run_dir)) == [0, 6, 12]
    assert len(list(run_dir.glob("evaluations/*/training-*"))) == 3
    shown = capsys.readouterr()
    assert "adaptation: lora on memory, rank 4, alpha 1" in shown.err and "after 20 gradient steps" in shown.err
    assert "returns to ask for are those of the new data for new" in shown.err
    assert str(run_dir) in shown.out and "before" in shown.out
    assert b"adaptation" in next(run_dir.glob("events.out.tfevents.*")).read_bytes()


def test_the_evaluation_before_the_first_step_changes_nothing_that_follows(
    base: Path, new_data: Path, tmp_path: Path
) -> None:
    one = adapt(base, new_data, tmp_path / "one")
    other = adapt(base, new_data, tmp_path / "other", "trainer.evaluate_at_start=false")
    assert evaluation_scores(one).keys() - evaluation_scores(other).keys() == {0}
    for name, tensor in weights_at(one).items():
        assert torch.equal(tensor, weights_at(other)[name]), name


def test_from_scratch_takes_nothing_of_the_base_but_its_shape(
    base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, agent = start_weights(monkeypatch, base, new_data, tmp_path, "method=scratch")
    config = config_of(run_dir)
    own = build_agent(
        config, spaces_of_env(config.env), Seeds(config.seed), device="cpu", data=load_data_summary(run_dir)
    )
    for name, tensor in own.weights().items():
        assert torch.equal(tensor, agent.weights()[name])
    assert load_data_summary(run_dir).tasks == ("new", "t_maze")
    assert load_data_summary(run_dir).obs_mean != load_data_summary(base).obs_mean
    report = json.loads((run_dir / "adaptation.json").read_text())
    assert report["trainable"] == report["total"] and "base_gradient_steps" not in report


def test_scales_and_known_returns_are_the_bases_and_new_returns_those_of_the_new_data(
    base: Path, new_data: Path, tmp_path: Path
) -> None:
    run_dir = adapt(base, new_data, tmp_path)
    known, merged = load_data_summary(base), load_data_summary(run_dir)
    assert merged.tasks == ("new", "t_maze", "other")
    assert (merged.obs_mean, merged.obs_std) == (known.obs_mean, known.obs_std)
    agent = model_of(run_dir, weights_at(run_dir))
    assert [agent.target_return(task) for task in ("t_maze", "other", "new")] == [1.0, 2.0, 5.0]
    assert (merged.num_episodes, list(merged.digests)) == (12, ["0/new.h5", "1/t_maze.h5"])


def test_summaries_are_merged_by_hand() -> None:
    def summary(task: str, value: float) -> DataSummary:
        return DataSummary((task,), (value,), (1.0,), int(value), {task: (value,) * 101}, value, 1, 2, {"f": "0"})

    merged = merged_summary(summary("a", 5.0), summary("b", 3.0))
    quantiles: dict[str, tuple[float, ...]] = {"a": (5.0,) * 101, "b": (3.0,) * 101}
    assert merged == DataSummary(("b", "a"), (5.0,), (1.0,), 5, quantiles, 5.0, 1, 2, {"f": "0"})
    again = merged_summary(summary("a", 5.0), summary("a", 3.0))
    assert again.return_quantiles == {"a": (5.0,) * 101} and again.tasks == ("a",)


def test_tables_by_task_keep_their_rows_when_the_tasks_move(
    base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = tmp_path / "base" / "0"
    shutil.copytree(base, marked)
    agent = model_of(marked, weights_at(marked))
    agent.restrict_actions("other", [0, 1])
    rewrite_best(marked, agent.weights())
    _, started = start_weights(monkeypatch, marked, new_data, tmp_path / "runs", "checkpoint=best")
    assert started.policy.allowed_ZA.tolist() == [[True] * 4, [True] * 4, [True, True, False, False], [True] * 4]


def rewrite_best(run_dir: Path, weights: dict[str, torch.Tensor]) -> None:
    from trainers.checkpointing import CheckpointStore

    CheckpointStore(run_dir / "checkpoints").save_best(99, weights, {"score": 1.0})


def test_the_first_episodes_of_each_task_are_the_demonstrations(base: Path, new_data: Path, tmp_path: Path) -> None:
    run_dir = adapt(base, new_data, tmp_path, "episodes_per_task=2", "tasks=[new]")
    assert load_data_summary(run_dir).num_episodes == 2
    start = json.loads((run_dir / "provenance.json").read_text())["starts"][0]["adaptation"]
    assert start["episodes_per_task"] == "the first 2 of each task, in the order of their files"
    assert start["tasks"] == ["new"] and len(start["base_digest"]) == 64
    lengths = [len(episode("new", 4000 + number, 4).reward) for number in range(2)]
    assert load_data_summary(run_dir).num_steps == sum(lengths)


@pytest.mark.parametrize("where", ["memory", "both"])
def test_a_stopped_run_resumes_without_its_base_to_the_same_bits(
    where: str, base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = adapt(base, new_data, tmp_path / "whole", f"where={where}")
    moved = tmp_path / "base"
    shutil.copytree(base, moved)
    stop_after(monkeypatch, 9)
    with pytest.raises(ZeroDivisionError):
        adapt(moved, new_data, tmp_path / "stopped", f"where={where}")
    monkeypatch.undo()
    shutil.rmtree(moved)
    stopped = next((tmp_path / "stopped").glob("*/*/config.yaml")).parent
    run_resume(stopped)
    assert contents(stopped) == contents(whole)
    results = run_evaluate(stopped, num_episodes=2, random_baseline=False)
    assert results[0].env_steps == 12


def stop_after(monkeypatch: pytest.MonkeyPatch, gradient_steps: int) -> None:
    """Makes the session crash after so many gradient steps."""
    after_update = OfflineSession._after_update

    def counting(session: OfflineSession, count: int) -> None:
        after_update(session, count)
        if session.state.env_steps >= gradient_steps:
            raise ZeroDivisionError

    monkeypatch.setattr(OfflineSession, "_after_update", counting)


def contents(run_dir: Path) -> dict[str, str]:
    newest = sorted(run_dir.glob("checkpoints/[0-9]*[0-9]"))[-1]
    paths = [*(newest / name for name in ("weights.safetensors", "optimizer.pt", "arrays.safetensors"))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [*paths, run_dir / "metrics.csv"]}


def test_until_the_first_checkpoint_the_base_must_be_there_and_unchanged(
    base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    stop_after(monkeypatch, 3)
    with pytest.raises(ZeroDivisionError):
        adapt(copy, new_data, tmp_path / "runs")
    monkeypatch.undo()
    stopped = next((tmp_path / "runs").glob("*/*/config.yaml")).parent
    shutil.copytree(stopped, tmp_path / "intact" / "0")
    weights = copy / "checkpoints" / sorted(path.parent.name for path in copy.glob("checkpoints/0*/manifest.json"))[-1]
    content = (weights / "weights.safetensors").read_bytes()
    (weights / "weights.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for folder in (copy / "checkpoints" / "best").iterdir():
        shutil.rmtree(folder)
    assert main(["resume", str(stopped)]) == 2
    assert "holds no weights with sha256" in capsys.readouterr().err
    shutil.rmtree(copy)
    assert main(["resume", str(stopped)]) == 2
    assert f"agent.adaptation.base={copy} holds no weights" in capsys.readouterr().err
    shutil.copytree(base, copy)
    run_resume(stopped)
    assert contents(stopped) == contents(adapt(base, new_data, tmp_path / "whole"))


def test_one_run_per_task_gives_one_adapter_per_task_and_a_bank_of_them(
    base: Path, new_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    arguments = [f"run={base}", f"data={new_data}", f"runs_dir={tmp_path}", *SHORT, "env.task=t_maze"]
    run_dirs = run_adapt(read_adapt_config([*arguments, "per_task=true", f"bank={path}"]))
    assert [config_of(each).trainer.tasks for each in run_dirs] == [("new",), ("t_maze",)]
    agent = model_of(base, weights_at(base))
    bank = load_bank(path, agent.model, base_digest=config_of(run_dirs[0]).agent.adaptation.base_digest)
    assert bank.tasks == ("new", "t_maze") and len(lora_layers(agent.model)) == 6
    for task, run_dir in zip(bank.tasks, run_dirs, strict=True):
        bank.switch(task)
        adapted = model_of(run_dir, weights_at(run_dir))
        for got, want in zip(act_for(agent, "other"), act_for(adapted, "other"), strict=True):
            np.testing.assert_array_equal(got, want)
        agent.model.heads.action._forward_hooks.clear()
    with pytest.raises(ValueError, match="belongs to weights with sha256"):
        load_bank(path, model_of(base).model, base_digest="0" * 64)
    with pytest.raises(ValueError, match="there are adapters of new already"):
        write_bank([run_dirs[0], run_dirs[0]], path)
    with pytest.raises(ValueError, match="holds no run of"):
        write_bank([base], path)
    (tmp_path / "text").write_text("no bank")
    with pytest.raises(ValueError, match="is no bank of adapters"):
        load_bank(tmp_path / "text", model_of(base).model)


def test_resume_auto_goes_on_with_the_runs_of_all_tasks(
    base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"run={base}", f"data=[{new_data}]", f"runs_dir={tmp_path}", *SHORT, "env.task=t_maze"]
    config = read_adapt_config([*given, "per_task=true", "resume=auto"])
    stop_after(monkeypatch, 9)
    with pytest.raises(ZeroDivisionError):
        run_adapt(config)
    monkeypatch.undo()
    run_dirs = run_adapt(config)
    assert len(set(run_dirs)) == 2 and run_adapt(config) == run_dirs
    assert capsys.readouterr().err.count("nothing to do: the run has its 12 gradient steps") == 2


def test_an_adapted_run_can_be_a_base(
    base: Path, new_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = adapt(base, new_data, tmp_path / "first", "learning_rate=0.05")
    expected = act_for(model_of(first, weights_at(first)), "new")
    assert not np.array_equal(expected[-1], act_for(model_of(base, weights_at(base)), "new")[-1])
    _, same = start_weights(monkeypatch, first, new_data, tmp_path / "same")
    for got, want in zip(act_for(same, "new"), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    _, full = start_weights(monkeypatch, first, new_data, tmp_path / "full", "method=full")
    assert not lora_layers(full.model)
    for got, want in zip(act_for(full, "new"), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    whole = model_of(first, weights_at(first))
    fold_(whole.model)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, full.model.state_dict()[name])


def test_adapters_get_a_width_where_the_base_has_none(base: Path, new_data: Path, tmp_path: Path) -> None:
    given = [f"run={base}", f"data=[{new_data}]", "method=adapters"]
    config = read_adapt_config(given)
    made = adapted(config, config_of(base), "0" * 64, None)
    assert made.agent.adapter == 16
    narrow = read_adapt_config([*given, "agent.adapter=2"])
    assert adapted(narrow, config_of(base), "0" * 64, None).agent.adapter == 2


def test_the_rest_of_the_config_is_the_bases_unless_it_is_changed(base: Path, new_data: Path) -> None:
    given = [f"run={base}", f"data=[{new_data}]", "total_gradient_steps=500"]
    own = config_of(base)
    made = adapted(read_adapt_config(given), own, "0" * 64, None)
    assert made.env == own.env and made.seed == own.seed and made.runs_dir == own.runs_dir
    assert (made.agent.learning_rate, made.agent.warmup_steps) == (1e-3, 50)
    assert (made.trainer.total_gradient_steps, made.trainer.checkpoint_every_gradient_steps) == (500, 100)
    changes = ["warmup_steps=0", "learning_rate=2e-4", "seed=9", "agent.batch_size=4", "env.max_corridor=9"]
    changed = adapted(read_adapt_config([*given, *changes]), own, "0" * 64, None)
    assert (changed.agent.learning_rate, changed.agent.warmup_steps, changed.agent.batch_size) == (2e-4, 0, 4)
    assert (changed.seed, changed.env.max_corridor) == (9, 9)


def test_a_run_on_one_task_plays_that_task() -> None:
    metaworld: dict[str, Any] = {"name": "metaworld", "benchmark": "ML10", "task": None, "goal_visible": None}
    narrowed = env_of_task({**metaworld, "evaluation_split": "test"}, "door-lock-v3")
    assert narrowed == {
        "name": "metaworld",
        "benchmark": "single",
        "task": "door-lock-v3",
        "goal_visible": False,
        "evaluation_split": None,
    }
    assert env_of_task({**metaworld, "benchmark": "MT10"}, "reach-v3")["goal_visible"] is True
    assert env_of_task({"name": "atari", "game": "pong"}, "breakout") == {"name": "atari", "game": "breakout"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "missing key run"),
        (["run=no/such", "data=[x]"], "no/such is not a run directory"),
        (["run={base}"], "missing key data"),
        (["run={base}", "data=[no/such]", "per_task=true"], "data: no/such does not exist"),
        (["run={base}", "data=[no/such]"], "trainer.data: no/such does not exist"),
        (["run={base}", "data=[x]", "metod=full"], "unknown key metod=full: did you mean method?"),
        (["run={base}", "data=[x]", "method=prefix"], "method=prefix is not allowed: expected lora|full|heads"),
        (["run={base}", "data=[x]", "method=full", "rank=8"], "rank=8 has no effect with method=full"),
        (["run={base}", "data=[x]", "bank=b"], "bank=b needs per_task=true and method=lora"),
        (["run={base}", "data=[x]", "trainer.data=[y]"], "trainer.data is set by this command: use data="),
        (["run={base}", "data=[x]", "agent.batch_sise=4"], "agent.batch_sise=4: did you mean agent.batch_size?"),
        (
            ["run={base}", "data={data}", "tasks=[nwe]"],
            "no episodes of 'nwe' in these files; did you mean 'new'?",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_told_in_one_message(
    arguments: list[str],
    expected: str,
    base: Path,
    new_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [each.format(base=base, data=new_data) for each in arguments]
    assert main(["adapt", *given, f"runs_dir={tmp_path}", "env.task=t_maze"]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_shapes_and_missing_parts_are_refused(
    base: Path, new_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"run={base}", f"data=[{new_data}]", f"runs_dir={tmp_path}", "env.task=t_maze"]
    assert main(["adapt", *given, "agent.width=8"]) == 1
    assert "in the base: expected" in capsys.readouterr().err
    assert main(["adapt", *given, "agent.adapter=4", "method=lora", "where=both", "agent.num_layers=2"]) == 1
    assert "the base lacks backbone." in capsys.readouterr().err
    assert main(["adapt", *given, "agent.reward_clip=true"]) == 2
    assert f"rewards were not clipped for {base}, and are in this data" in capsys.readouterr().err
    with pytest.raises(ValueError, match="base_digest is missing"):
        find_weights(base, None)
    assert not list(tmp_path.iterdir())


def test_agents_of_other_kinds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sextant.config import save_run_config

    save_run_config(compose_train_config(["agent=dqn_classic", "env=classic"]), tmp_path)
    assert main(["adapt", f"run={tmp_path}", "data=[x]"]) == 2
    assert "agent=dqn cannot be adapted, only decision_transformer can" in capsys.readouterr().err


def test_help_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "method=lora" in shown and "episodes_per_task=null" in shown and "per_task=false" in shown
