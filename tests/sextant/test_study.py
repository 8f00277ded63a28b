"""Studies: every one composes, a small one runs to its page, and the same command goes on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from sextant.cli import main
from sextant.config import compose_train_config
from sextant.refusal import ConfigError
from sextant.study import StudyConfig, read_study_config, run_study
from studies import STUDIES, Arm, Scale, Study

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
                "threads=1",
            ),
            arms=(Arm("slow", ("agent.learning_rate=1e-4",)), Arm("fast", ("agent.learning_rate=1e-2",))),
            seeds=(0,),
        )
    },
)


@pytest.mark.parametrize(
    ("study", "scale"), [(study, scale) for study in STUDIES.values() for scale in study.scales], ids=str
)
def test_every_run_of_every_study_composes(study: Study, scale: str) -> None:
    runs = list(study.scales[scale].runs())
    assert len({tuple(overrides) for _, _, overrides in runs}) == len(runs)
    for arm, seed, overrides in runs:
        config = compose_train_config([each for each in overrides if each != "device=cuda"])
        assert config.seed == seed and all(override in overrides for override in arm.overrides)
    assert {"smoke", "cpu"} <= study.scales.keys()


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
    runs = sorted(tmp_path.glob("tiny-smoke/*/*/*/metrics.csv"))
    times = [path.stat().st_mtime_ns for path in runs]
    assert len(runs) == 2
    capfd.readouterr()
    run_study("tiny", config)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("tiny-smoke/*/*/*/metrics.csv"))] == times


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
