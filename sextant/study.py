"""``sextant study``: runs every arm and seed of a study, compares them, and writes the page of its results."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from envs.base import Strict, nearest
from sextant.config import validated
from sextant.key_values import split_key_values
from sextant.provenance import read_starts
from sextant.refusal import ConfigError
from sextant.study_stages import Stages
from studies import STUDIES, Arm, Scale, Stage, Study

PICTURES = {"scores.png": "scores", "curves.png": "learning curves"}
"""Plots of a comparison, with what they show."""


class StudyConfig(Strict):
    """The keys of ``sextant study run NAME``."""

    scale: Literal["smoke", "cpu", "gpu"] = Field("smoke", description="Size: smoke (a minute or two), cpu or gpu.")
    jobs: int = Field(1, ge=1, description="Runs side by side on this machine (unit: processes).")
    runs_dir: Path = Field(Path("runs/studies"), description="Where the runs go: runs_dir/STUDY-SCALE/ARM (path).")
    out: Path | None = Field(
        None, description="Folder for tables, plots and page (path); null: runs_dir/STUDY-SCALE/results."
    )


def read_study_config(arguments: Sequence[str]) -> StudyConfig:
    """Reads ``key=value`` arguments.

    Raises:
        ConfigError: for an unknown key, or a value that is not allowed.
    """
    given = split_key_values(arguments, "scale=cpu")
    data: dict[str, Any] = {key: int(value) if value.isdecimal() else value for key, value in given.items()}
    return validated(StudyConfig, data)


def list_text() -> str:
    """Gives every study with its question and scales."""
    lines = []
    for study in STUDIES.values():
        lines += [f"{study.name}: {study.question}"]
        lines += [f"  scale={name}: {_size(scale)}; {scale.takes}" for name, scale in study.scales.items()]
    return "\n".join(lines)


def run_study(name: str, config: StudyConfig) -> Path:
    """Runs what is missing of a study, compares all its runs, and writes the results.

    A run that was stopped goes on from its last checkpoint and one that is done is kept, so the same command given
    again finishes a study that was cut short.

    Args:
        name: of the study.
        config: scale, and where things go.

    Returns:
        the folder of the results.

    Raises:
        ConfigError: for an unknown study or scale, or if any run's config is refused; before anything starts.
        RunError: if a run failed or was stopped.
    """
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}, {nearest(name, STUDIES)}")
    study = STUDIES[name]
    if config.scale not in study.scales:
        raise ConfigError(f"scale={config.scale}: study {name} has {' | '.join(study.scales)}")
    scale = study.scales[config.scale]
    folder = config.runs_dir / f"{name}-{config.scale}"
    stages = Stages(scale, folder, config.jobs)
    stages.check()
    print(f"study {name}, scale {config.scale}: {_size(scale)}; {scale.takes}", flush=True)
    stages.run()
    from sextant.compare import run_compare
    from sextant.compare_runs import find_runs
    from sextant.study_learning import write_learning
    from sextant.study_probes import write_probes
    from sextant.study_sizes import write_sizes
    from sextant.study_tables import write_tables

    out = config.out or folder / "results"
    arms = {folder / arm.name: arm.name for arm in scale.arms}
    probed = write_probes(study, stages, out)  # first: where a probe plays more episodes, these are compared
    comparison = run_compare(list(arms), metric=study.metric, out=out, names=arms)
    starts = sorted(_starts(folder), key=lambda start: str(start["time"]))
    from trainers.run_log import write_atomically

    runs = {arm.name: find_runs([folder / arm.name]) for arm in scale.arms}
    sections = [probed, write_sizes(runs, comparison.scores, out)]
    if study.target_share is not None:
        sections.append(write_learning(runs, study.target_share, comparison.unit, out))
    tables = "\n".join(filter(None, [*sections, write_tables(study.tables, runs, out)]))
    table = (out / "table.md").read_text("utf-8")
    pictures = [name for name in PICTURES if (out / name).exists()]
    write_atomically(out / "README.md", page(study, config.scale, table, starts, tables, pictures))
    print(f"results: {out / 'README.md'}")
    return out


def _starts(folder: Path) -> Iterator[dict[str, Any]]:
    """Gives the provenance of every start of every run in a study's folder."""
    for path in folder.glob("*/*/*/provenance.json"):
        yield from read_starts(path.parent)


def page(
    study: Study,
    scale_name: str,
    table: str,
    starts: Sequence[Mapping[str, Any]],
    tables: str = "",
    pictures: Collection[str] = tuple(PICTURES),
) -> str:
    """Gives the page of a study's results.

    Args:
        study: what was asked.
        scale_name: what was run.
        table: of the comparison, Markdown.
        starts: provenance of every start of its runs, the last one last.
        tables: of probes, sizes, learning speed and metrics, Markdown.
        pictures: files of `PICTURES` to show (there are no curves where nothing was evaluated twice).
    """
    scale = study.scales[scale_name]
    provenance = starts[-1]
    commits = [
        f"{each['git']['commit'] or 'unknown'}{' with changes' if each['git']['dirty'] else ''}" for each in starts
    ]
    versions = ", ".join(
        f"{name} {version}" for name, version in provenance["versions"].items() if version != "missing"
    )
    common = " ".join(f"`{override}`" for override in scale.common)
    arms = [f"| {arm.name} | {_settings(arm)} |" for arm in scale.arms]
    earlier = [line for stage in scale.stages for line in _stage_lines(stage, compared=stage.arms is scale.arms)]
    return "\n".join(
        [
            f"# {study.title}",
            "",
            study.question,
            "",
            "```",
            f"sextant study run {study.name} scale={scale_name}",
            "```",
            "",
            f"{_size(scale)}; {scale.takes}." + (f" Shared settings: {common}." if common else ""),
            "",
            *earlier,
            "| arm | its settings |",
            "|---|---|",
            *arms,
            "",
            *table.replace("# ", "## ", 1).rstrip().split("\n"),
            "",
            *(line for name in pictures for line in (f"![{PICTURES[name]}]({name})", "")),
            *([*tables.rstrip().split("\n"), ""] if tables else ()),
            "## How to read it",
            "",
            study.reading,
            "",
            "## Made with",
            "",
            f"Commit {', '.join(dict.fromkeys(commits))}. Python {provenance['python']}, {versions}.",
            "",
        ]
    )


def _size(scale: Scale) -> str:
    return f"{len(scale.arms)} arms x {len(scale.seeds)} seeds"


def _settings(arm: Arm) -> str:
    adapted = [] if arm.base is None else [f"`sextant adapt` of {arm.base}:"]
    return " ".join([*adapted, *(f"`{override}`" for override in arm.overrides)])


def _stage_lines(stage: Stage, *, compared: bool) -> list[str]:
    """Gives a line for each dataset of a stage, and for each arm that is not compared but built on."""
    lines = [
        f"- data `{name}`: `sextant collect {' '.join(keys)} out=data/{name}`" for name, keys in stage.datasets.items()
    ]
    shared = " ".join(f"`{override}`" for override in stage.common)
    seeds = "" if stage.seeds is None else f" (seed {', '.join(map(str, stage.seeds))} alone)"
    lines += [] if compared else [f"- first, {arm.name}{seeds}: {shared} {_settings(arm)}" for arm in stage.arms]
    return [*lines, ""] if lines else []
