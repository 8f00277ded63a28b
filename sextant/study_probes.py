"""The probes of a study: its finished runs evaluated otherwise than they were trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sextant.run_dirs import RunError
from sextant.study_answers import (
    Answer,
    answers_markdown,
    column,
    normalised_markdown,
    transfers_markdown,
)
from sextant.table_text import records_csv
from studies import Probe, Study

if TYPE_CHECKING:
    from sextant.study_stages import Stages


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

    def summary(self, policy: str | None = None) -> dict[str, Any] | None:
        """Gives what an evaluation of the finished run wrote under this probe; None where there is none yet.

        Args:
            policy: another one than the probe's, such as ``random``, in the same episodes.

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
        own = f"{asked.checkpoint}{Variant(asked.memory_use, *(asked.target_returns or ())).suffix}"
        wanted = (policy or own, protocol.hash, asked.seed, asked.num_episodes or protocol.num_episodes)
        evaluations = load_evaluations(self.run)
        any_step = policy is not None or asked.checkpoint == "best"
        newest = max((each.env_steps for each in evaluations), default=0)
        for each in evaluations:
            found = (each.policy, each.protocol_hash, each.seed, len(each.records))
            if found == wanted and (any_step or each.env_steps == newest):
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
            rate, random = summary.get("success_rate"), (self.summary("random") or {}).get("return_mean")
            return [Answer(self.arm, self.seed, self.probe.name, summary["return_mean"], rate, random)]
        made = []
        for group, tasks in self.probe.groups.items():
            parts = [summary["tasks"][task] for task in tasks]
            rates = [part["success_rate"] for part in parts if "success_rate" in part]
            returns = fmean(part["return_mean"] for part in parts)
            name = column(self.probe, group)
            made.append(Answer(self.arm, self.seed, name, returns, fmean(rates) if rates else None))
        return made


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
    stages.finish(missing, "evaluations")
    return [answer for question in asked for answer in question.answers()]


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
    write_atomically(out / "probes.csv", records_csv(answers))
    sections = [answers_markdown(answers)]
    asked: Mapping[str, set[str]] = {probe.name: set(probe.groups) for probe in study.probes}
    arms = {answer.arm for answer in answers}
    told = [each for each in study.transfers if asked[each.probe] and {*each.own, *each.final} <= arms]
    if told:
        sections.append(transfers_markdown(told, study.probes, answers))
    if set(study.references.values()) & {answer.arm for answer in answers}:
        sections.append(normalised_markdown(study, answers))
    return "\n".join(sections)
