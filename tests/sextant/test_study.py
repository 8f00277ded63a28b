"""Studies: every one composes, a small one runs to its page, and the same command goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.compare import RunScore
from sextant.adapt_config import read_adapt_config
from sextant.cli import main
from sextant.refusal import ConfigError
from sextant.study import StudyConfig, read_study_config, run_study
from sextant.study_answers import Answer, answers_markdown, normalised_markdown, transfers_markdown
from sextant.study_learning import Evaluated, learning_markdown, seconds_until
from sextant.study_probes import write_probes
from sextant.study_sizes import write_sizes
from sextant.study_stages import Stages
from sextant.study_tables import cells_markdown, last_values, tabulate
from sextant.table_text import records_csv
from studies import STUDIES, Arm, MetricsTable, Probe, Scale, Stage, Study, Transfer

TINY = Study(
    name="tiny",
    title="A tiny study",
    question="Is it quick?",
    reading="It says nothing about learning.",
    scales={
        "smoke": Scale(
            takes="seconds",
            common=(
                "agent=dqn_classic",
                "env=classic",
                "env.id=identity-v0",
                "agent.learning_starts=50",
                "agent.replay.capacity=1000",
                "trainer.total_env_steps=200",
                "trainer.checkpoint_every_env_steps=200",
                "trainer.evaluate_every_env_steps=100",
                "threads=1",
            ),
            arms=(
                Arm("slow", ("agent.learning_rate=1e-4", "agent.pruning.sparsity=0.9")),
                Arm("fast", ("agent.learning_rate=1e-2",)),
            ),
            seeds=(0,),
        )
    },
    tables=(
        MetricsTable("layers", "Sparsity", "layer", ("agent/sparsity/",)),
        MetricsTable("diagnostics", "Diagnostics", "diagnostic", ("diagnostics/",)),
        MetricsTable("nothing", "Nothing", "nothing", ("no/such/",)),
    ),
    target_share=0.5,
)


NAMES = [(study.name, scale) for study in STUDIES.values() for scale in study.scales]


@pytest.mark.parametrize(("name", "scale_name"), NAMES)
def test_every_run_of_every_study_composes(name: str, scale_name: str, tmp_path: Path) -> None:
    assert {"smoke", "cpu"} <= STUDIES[name].scales.keys()
    scale = STUDIES[name].scales[scale_name]
    Stages(scale, tmp_path, 1).check()
    earlier: set[str] = set()
    for stage in scale.stages:
        runs = list(scale.runs(stage))
        assert len({(arm.base, *overrides) for arm, _, overrides in runs}) == len(runs)
        assert all(arm.base is None or arm.base in earlier for arm in stage.arms)
        for arm, seed, overrides in runs:
            assert overrides[-1] == f"seed={seed}" and set(arm.overrides) <= set(overrides)
            if arm.base is not None:
                assert (
                    read_adapt_config(["run=x", *(each.replace("{data}", "data") for each in overrides)]).seed == seed
                )
        names = [arm.name for arm in stage.arms]
        assert len(set(names) | earlier) == len(names) + len(earlier)
        earlier |= set(names)
    probed = {arm for probe in STUDIES[name].probes for arm in probe.arms}
    every = {arm.name for each in STUDIES[name].scales.values() for stage in each.stages for arm in stage.arms}
    assert probed <= every
    named = {arm for transfer in STUDIES[name].transfers for arm in (*transfer.own, *transfer.final)}
    assert named <= probed


def test_a_study_runs_to_its_page_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(STUDIES, "tiny", TINY)
    config = StudyConfig(runs_dir=tmp_path, jobs=2)
    out = run_study("tiny", config)
    page = (out / "README.md").read_text()
    assert "sextant study run tiny scale=smoke" in page and "`agent.learning_rate=1e-2`" in page
    assert TINY.question in page and TINY.reading in page and "torch 2" in page
    with (out / "table.csv").open() as file:
        assert [(row["group"], row["seeds"]) for row in csv.DictReader(file)] == [("slow", "1"), ("fast", "1")]
    assert {"scores.png", "curves.png", "table.md", "runs.csv"} <= {path.name for path in out.iterdir()}
    with (out / "layers.csv").open() as file:
        layers = {(row["arm"], row["metric"]): row for row in csv.DictReader(file)}
    assert {arm for arm, _ in layers} == {"slow"}, "a dense arm has no sparsity"
    assert float(layers["slow", "total"]["mean"]) == pytest.approx(0.9, abs=0.002)
    assert "## Sparsity" in page and "| layers.0 |" in page and "## Nothing" not in page
    with (out / "diagnostics.csv").open() as file:
        found = [(row["arm"], row["metric"]) for row in csv.DictReader(file)]
    assert {("slow", "parameter_norm"), ("fast", "parameter_norm"), ("fast", "effective_rank")} <= set(found)
    with (out / "learning.csv").open() as file:
        learned = [(row["arm"], row["steps"], float(row["seconds"]) > 0) for row in csv.DictReader(file)]
    assert learned == [(arm, steps, True) for arm in ("slow", "fast") for steps in ("104", "200")]  # of 8 envs
    assert (
        page.index("## Learning speed")
        < page.index("## Sparsity")
        < page.index("## Diagnostics")
        < page.index("## How to read it")
    )
    assert not (out / "nothing.csv").exists()
    runs = sorted(tmp_path.glob("tiny-smoke/*/*/*/metrics.csv"))
    times = [path.stat().st_mtime_ns for path in runs]
    assert len(runs) == 2
    capfd.readouterr()
    run_study("tiny", config)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("tiny-smoke/*/*/*/metrics.csv"))] == times


def test_tables_hold_the_last_values_of_each_run_and_their_means(tmp_path: Path) -> None:
    files = {
        "a0": "env_steps,x/one,x/two,y/one\n10,1.0,,7\n20,3.0,5.0,8\n30,,,9\n",
        "a1": "env_steps,x/one\n10,5.0\n",
        "b0": "env_steps,y/one\n10,4.0\n",
    }
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(text)
    assert last_values(tmp_path / "a0" / "metrics.csv", ("x/",)) == {"one": 3.0, "two": 5.0}
    assert last_values(tmp_path / "none" / "metrics.csv", ("x/",)) == {}
    table = MetricsTable("xs", "The xs", "x", ("x/",))
    runs = {"a": [tmp_path / "a0", tmp_path / "a1"], "b": [tmp_path / "b0"]}
    cells = tabulate(table, runs)
    assert [tuple(vars(cell).values()) for cell in cells] == [
        ("a", "one", 4.0, 3.0, 5.0, 2),
        ("a", "two", 5.0, 5.0, 5.0, 1),
    ]
    assert records_csv(cells).splitlines() == [
        "arm,metric,mean,least,most,seeds", "a,one,4.0,3.0,5.0,2", "a,two,5.0,5.0,5.0,1"
    ]  # fmt: skip
    both = tabulate(MetricsTable("ys", "The ys", "y", ("y/",)), runs)
    lines = cells_markdown(table, both).splitlines()
    assert lines[-3:] == ["| x | a | b |", "|---|--:|--:|", "| one | 9 | 4 |"]
    assert (
        cells_markdown(table, cells)
        .splitlines()[2]
        .startswith("What each run measured last, mean over seeds (1 or 2 per arm)")
    )


def test_runs_of_earlier_stages_are_probed_once_each_seed_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke = TINY.scales["smoke"]
    slow, fast = smoke.arms
    scale = replace(
        smoke, arms=(fast,), seeds=(0, 1), before=(Stage((slow,), smoke.common, seeds=(0,)),), probe_episodes=2
    )
    assert [seed for _, seed, _ in scale.runs(scale.before[0])] == [0]
    assert [seed for _, seed, _ in scale.runs()] == [0, 1]
    assert (scale.seed_of("slow", 1), scale.seed_of("fast", 1)) == (0, 1)
    with pytest.raises(KeyError, match="other"):
        scale.seed_of("other", 0)
    probes = (Probe("played", ()), Probe("asked", ("seed=5", "num_episodes=3", "random_baseline=true"), ("slow",)))
    study = replace(TINY, scales={"smoke": scale}, probes=probes, tables=())
    monkeypatch.setitem(STUDIES, "tiny", study)
    out = run_study("tiny", StudyConfig(runs_dir=tmp_path, jobs=2))
    with (out / "probes.csv").open() as file:
        rows = {(row["arm"], row["seed"], row["probe"], row["random_return"] != "") for row in csv.DictReader(file)}
    assert rows == {("fast", "0", "played", False), ("fast", "1", "played", False), ("slow", "0", "asked", True)}
    with (out / "table.csv").open() as file:
        assert [(row["group"], row["episodes_most"]) for row in csv.DictReader(file)] == [("fast", "2")]
    played = sorted(tmp_path.glob("tiny-smoke/*/*/*/evaluations/*/last-*/summary.json"))
    assert len(played) == 3
    before = [path.stat().st_mtime_ns for path in played]
    write_probes(study, Stages(scale, tmp_path / "tiny-smoke", 1), out)
    assert [path.stat().st_mtime_ns for path in played] == before
    assert not (out / "sizes.csv").exists()


def test_what_is_kept_of_earlier_groups_is_told() -> None:
    probe = Probe("", (), ("a1", "a2", "b2"), {"first": ("x",), "second": ("y", "z")})
    given = {"a1": [(0.75, 0.25), (0.5, 0.25)], "a2": [(0.25, 1.0), (0.5, 1.0)], "b2": [(0.75, 0.5), (0.5, 0.5)]}
    answers = [
        Answer(arm, seed, group, return_mean=7.0, success_rate=score)
        for arm, seeds in given.items()
        for seed, pair in enumerate(seeds)
        for group, score in zip(probe.groups, pair, strict=True)
    ]
    on, apart = Transfer("on", "", ("a1", "a2"), ("a2", "a2")), Transfer("apart", "", ("a1", "b2"), ("a1", "b2"))
    lines = transfers_markdown([on, apart], [probe], answers).splitlines()
    assert lines[-4] == "| | first | second | backward transfer | mean in the end |"
    assert lines[-2:] == [
        "| on | 0.625 -> 0.375 | 1 -> 1 | -0.25 [-0.5, 0] | 0.688 [0.625, 0.75] |",
        "| apart | 0.625 -> 0.625 | 0.5 -> 0.5 | 0 [0, 0] | 0.562 [0.5, 0.625] |",
    ]
    table = answers_markdown(answers).splitlines()
    assert table[4] == "| arm | first | second |" and table[-1] == "| b2 | 0.625 [0.5, 0.75] | 0.5 [0.5, 0.5] |"


def test_scores_are_set_beside_a_reference_and_random_play() -> None:
    probes = (Probe("own", (), ("ref-x", "ref-y")), Probe("", (), ("m",), {"x": ("x",), "y": ("y",)}))
    study = replace(TINY, probes=probes, references={"x": "ref-x", "y": "ref-y", "z": "of another scale"})
    answers = [Answer("ref-x", 0, "own", 6.0, None, 2.0), Answer("ref-y", 0, "own", 1.0, None, 0.0)]
    for seed, (x, y) in enumerate([(4.0, 1.0), (2.0, 0.5)]):
        answers += [Answer("m", seed, "x", x, None), Answer("m", seed, "y", y, None)]
    lines = normalised_markdown(study, answers).splitlines()
    assert "x: ref-x 6, random 2; y: ref-y 1, random 0" in lines[2]
    assert lines[-1] == "| m | 0.25 [0, 0.5] | 0.75 [0.5, 1] | 0.5 [0.25, 0.75] |"


def test_sizes_stand_beside_scores_where_they_differ(tmp_path: Path) -> None:
    for name in ("adapted", "new", "old"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapted" / "adaptation.json").write_text(json.dumps({"trainable": 1536, "total": 12_288}))
    starts = [{"parameters": 20_000}, {"parameters": 20_000}]
    (tmp_path / "new" / "provenance.json").write_text(json.dumps({"starts": starts}))
    scores = [
        RunScore("LoRA", run, seed, task, score, 10, 60)
        for run, seed, task, score in (("a", 0, "x", 0.2), ("a", 0, "y", 0.6), ("b", 1, "x", 0.5), ("b", 1, "y", 0.7))
    ] + [RunScore("DT", "c", 0, "x", 1.0, 10, 60)]
    runs = {"LoRA": [tmp_path / "adapted"], "DT": [tmp_path / "new"], "unknown": [tmp_path / "old"]}
    assert write_sizes(runs, scores, tmp_path).splitlines()[-2:] == [
        "| LoRA | 12,288 | 1,536 | 12.50% | 0.5 [0.4, 0.6] |",
        "| DT | 20,000 | 20,000 | 100.00% | 1 [1, 1] |",
    ]
    with (tmp_path / "sizes.csv").open() as file:
        assert [(row["arm"], row["total"], row["trained"]) for row in csv.DictReader(file)] == [
            ("LoRA", "12288", "1536"), ("DT", "20000", "20000")
        ]  # fmt: skip
    assert write_sizes({"DT": [tmp_path / "new"]}, scores, tmp_path) == "" and not (tmp_path / "sizes.csv").exists()


def test_learning_speed_is_told_in_updates_and_in_seconds(tmp_path: Path) -> None:
    timing = tmp_path / "timing.csv"
    timing.write_text("gradient_steps,gradient_steps_per_second,learner_share\n0,0,0\n10,5,1\n30,10,1\n40,1,1\n")
    assert seconds_until(timing, (5, 10, 20, 30, 40)) == [1, 2, 3, 4, 14]
    found = [
        *(Evaluated("slow", 0, steps, steps / 2, score) for steps, score in ((10, 0.1), (20, 0.6), (30, 0.79))),
        *(Evaluated("fast", 0, steps, steps * 3, score) for steps, score in ((10, 0.9), (20, 0.5), (30, 1.0))),
        *(Evaluated("fast", 1, steps, steps * 5, score) for steps, score in ((10, 0.2), (20, 1.0), (30, 1.0))),
    ]
    text = learning_markdown(found, 0.8, "gradient steps")
    assert "The best is 1 (fast, 30)" in text and "80% of it" in text
    assert text.splitlines()[-2:] == [
        "| slow | 0.1 | 0.6 | 0.79 | 0 of 1 |  |  |",
        "| fast | 0.55 | 0.75 | 1 | 2 of 2 | 15 [10, 20] | 65 [30, 100] |",
    ]


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(TINY.scales["smoke"], arms=(Arm("good"), Arm("bad", ("agent.lerning_rate=1",))))
    monkeypatch.setitem(STUDIES, "tiny", replace(TINY, scales={"smoke": wrong}))
    with pytest.raises(ConfigError, match="lerning_rate"):
        run_study("tiny", StudyConfig(runs_dir=tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'precision'"):
        run_study("precison", StudyConfig(runs_dir=tmp_path))
    with pytest.raises(ConfigError, match="scale=gpu: study tiny has smoke"):
        run_study("tiny", StudyConfig(runs_dir=tmp_path, scale="gpu"))
    with pytest.raises(ConfigError, match="scale"):
        read_study_config(["scale=large"])
    with pytest.raises(ConfigError, match="key=value"):
        read_study_config(["smoke"])
    assert list(tmp_path.iterdir()) == []


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list"]) == 0
    assert "precision: Does a convolutional DQN" in capsys.readouterr().out
    assert main(["study", "run", "--help"]) == 0
    assert "runs_dir" in capsys.readouterr().out
    assert main(["study", "run"]) == 2
