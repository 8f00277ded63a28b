"""The probes of a study: its finished runs evaluated otherwise than they were trained, as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sextant.local_jobs import LocalJobs
from sextant.run_dirs import RunError
from studies import Probe, Study, Transfer

if TYPE_CHECKING:
    from sextant.study_stages import Stages


@dataclass(frozen=True)
class Answer:
    """How one run scored under one probe, over all of its tasks or over a group of them.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        probe: heading of the column: name of the probe, and of the group of tasks where there are several.
        return_mean: mean raw return over the episodes.
        success_rate: share of them that succeeded; None where the env does not tell.
    """

    arm: str
    seed: int
    probe: str
    return_mean: float
    success_rate: float | None

    @property
    def score(self) -> float:
        """The success rate, or where the env does not tell it, the return."""
        return self.return_mean if self.success_rate is None else self.success_rate


@dataclass(frozen=True)
class Question:
    """A probe put to one run, over that many episodes; None for as many as the probe or its protocol says."""

    arm: str
    seed: int
    run: Path
    probe: Probe
    num_episodes: int | None = None

    @property
    def keys(self) -> list[str]:
        """Keys of ``sextant evaluate``."""
        episodes = [] if self.num_episodes is None else [f"num_episodes={self.num_episodes}"]
        return [f"run={self.run}", "random_baseline=false", *self.probe.arguments, *episodes]

    @property
    def job(self) -> list[str]:
        """The command that answers it."""
        return ["evaluate", *self.keys]

    def summary(self) -> dict[str, Any] | None:
        """Gives what an evaluation of the finished run wrote under this probe; None where there is none yet.

        Raises:
            ConfigError: if the probe does not fit the run.
        """
        from sextant.acting_variants import Variant
        from sextant.config import load_run_config
        from sextant.evaluate_config import read_evaluate_config
        from trainers.evaluation_files import load_evaluations

        asked = read_evaluate_config(self.keys)
        env: Any = load_run_config(self.run).env
        protocol = env.evaluation_protocol(asked.protocol)
        policy = f"{asked.checkpoint}{Variant(asked.memory_use, *(asked.target_returns or ())).suffix}"
        wanted = (policy, protocol.hash, asked.seed, asked.num_episodes or protocol.num_episodes)
        evaluations = load_evaluations(self.run)
        newest = max((each.env_steps for each in evaluations), default=0)
        for each in evaluations:
            found = (each.policy, each.protocol_hash, each.seed, len(each.records))
            if found == wanted and (asked.checkpoint == "best" or each.env_steps == newest):
                return each.summary
        return None

    def answers(self) -> list[Answer]:
        """Gives the answers, one for each group of the probe. Only after its command ran.

        Raises:
            RunError: if the evaluation is not there.
            KeyError: if a group names a task that was not played.
        """
        summary = self.summary()
        if summary is None:
            raise RunError(f"{self.run} has no evaluation by `sextant {' '.join(self.job)}`")
        if not self.probe.groups:
            rate = summary.get("success_rate")
            return [Answer(self.arm, self.seed, self.probe.name, summary["return_mean"], rate)]
        made = []
        for group, tasks in self.probe.groups.items():
            parts = [summary["tasks"][task] for task in tasks]
            rates = [part["success_rate"] for part in parts if "success_rate" in part]
            returns = fmean(part["return_mean"] for part in parts)
            name = column(self.probe, group)
            made.append(Answer(self.arm, self.seed, name, returns, fmean(rates) if rates else None))
        return made


def column(probe: Probe, group: str) -> str:
    """Gives the heading of a group's column."""
    return f"{probe.name}: {group}" if probe.name else group


def questions(probes: Iterable[Probe], stages: Stages) -> list[Question]:
    """Gives every probe of every run it is meant for, arm by arm."""
    scale = stages.scale
    compared = {arm.name for arm in scale.arms}
    return [
        Question(arm.name, seed, stages.run_of(arm.name, seed), probe, scale.probe_episodes)
        for stage in scale.stages
        for arm in stage.arms
        for probe in probes
        if arm.name in (probe.arms or compared)
        for seed in stage.seeds or scale.seeds
    ]


def ask(probes: Iterable[Probe], stages: Stages) -> list[Answer]:
    """Evaluates the runs under the probes, those that were not yet, side by side as the study's jobs are.

    Raises:
        ConfigError: if a probe does not fit a run.
        RunError: if an evaluation failed or was stopped; the same call goes on.
    """
    asked = questions(probes, stages)
    missing = [question.job for question in asked if question.summary() is None]
    outcomes = LocalJobs(stages.jobs).run(missing)
    if wrong := [f"  job {number}: {outcome}" for number, outcome in enumerate(outcomes) if outcome]:
        failed = f"{len(wrong)} of {len(missing)} evaluations did not finish; the same command goes on"
        raise RunError("\n".join([failed, *wrong]))
    return [answer for question in asked for answer in question.answers()]


def answers_csv(answers: Sequence[Answer]) -> str:
    """Gives one line per run and column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Answer.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(answer) for answer in answers)
    return text.getvalue()


def answers_markdown(answers: Sequence[Answer]) -> str:
    """Gives means over seeds as a Markdown section: a line per arm, a column per probe and group."""
    arms = list(dict.fromkeys(answer.arm for answer in answers))
    columns = list(dict.fromkeys(answer.probe for answer in answers))
    succeeds = all(answer.success_rate is not None for answer in answers)
    cells: dict[tuple[str, str], list[float]] = {}
    for answer in answers:
        cells.setdefault((answer.arm, answer.probe), []).append(answer.score)
    lines = [
        "## Probes",
        "",
        f"{'Success rate' if succeeds else 'Mean raw return'} of the finished runs, evaluated as the column says: mean "
        "over seeds [least, most]; single runs are in `probes.csv`.",
        "",
        "| arm | " + " | ".join(columns) + " |",
        "|---|" + "--:|" * len(columns),
        *(f"| {arm} | " + " | ".join(_spread(cells.get((arm, each), ())) for each in columns) + " |" for arm in arms),
    ]
    return "\n".join(lines) + "\n"


def transfers_markdown(transfers: Sequence[Transfer], probes: Sequence[Probe], answers: Sequence[Answer]) -> str:
    """Gives a Markdown section: a line per sequence of groups, with its backward transfer over seeds.

    Args:
        transfers: of the study.
        probes: of the study; they name the groups.
        answers: to these probes.

    Raises:
        KeyError: if an arm was not asked.
    """
    from analysis.transfer import backward_transfer

    groups = {probe.name: list(probe.groups) for probe in probes}
    by_name = {probe.name: probe for probe in probes}
    scores = {(answer.arm, answer.seed, answer.probe): answer.score for answer in answers}
    names = list(dict.fromkeys(group for transfer in transfers for group in groups[transfer.probe]))
    lines = [
        "## What is kept",
        "",
        "Score on a group of tasks right after training on it -> in the end, and backward transfer (Lopez-Paz and "
        "Ranzato 2017): the mean change of all groups but the last. Means over seeds, of backward transfer [least, "
        "most] too.",
        "",
        "| | " + " | ".join(names) + " | backward transfer | mean in the end |",
        "|---|" + "--:|" * (len(names) + 2),
    ]
    for transfer in transfers:
        columns = [column(by_name[transfer.probe], group) for group in groups[transfer.probe]]
        seeds = sorted({answer.seed for answer in answers if answer.arm == transfer.own[0]})
        own = [[scores[arm, seed, each] for arm, each in zip(transfer.own, columns, strict=True)] for seed in seeds]
        final = [[scores[arm, seed, each] for arm, each in zip(transfer.final, columns, strict=True)] for seed in seeds]
        cells = [
            f"{fmean(row[place] for row in own):.3g} -> {fmean(row[place] for row in final):.3g}"
            for place in range(len(columns))
        ]
        changes = [backward_transfer(*pair) for pair in zip(own, final, strict=True)]
        lines.append(
            f"| {transfer.name} | {' | '.join(cells)} | {_spread(changes)} | {_spread([fmean(row) for row in final])} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3g} [{min(values):.3g}, {max(values):.3g}]" if values else ""


def write_probes(study: Study, stages: Stages, out: Path) -> str:
    """Asks, writes ``probes.csv`` and gives the Markdown sections; nothing where there are no probes.

    Args:
        study: whose probes, and what they tell of transfer.
        stages: its runs, all finished.
        out: folder of the results.
    """
    from trainers.run_log import write_atomically

    answers = ask(study.probes, stages)
    if not answers:
        return ""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "probes.csv", answers_csv(answers))
    sections = [answers_markdown(answers)]
    asked: Mapping[str, set[str]] = {probe.name: set(probe.groups) for probe in study.probes}
    arms = {answer.arm for answer in answers}
    told = [each for each in study.transfers if asked[each.probe] and {*each.own, *each.final} <= arms]
    if told:
        sections.append(transfers_markdown(told, study.probes, answers))
    return "\n".join(sections)
