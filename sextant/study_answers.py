"""What the probes of a study were answered, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sextant.table_text import spread
from studies import Probe, Study, Transfer


@dataclass(frozen=True)
class Answer:
    """How one run scored under one probe, over all of its tasks or over a group of them.

    Attributes:
        arm: name of the arm.
        seed: of the run.
        probe: heading of the column: name of the probe, and of the group of tasks where there are several.
        return_mean: mean raw return over the episodes.
        success_rate: share of them that succeeded; None where the env does not tell.
        random_return: mean raw return of random play in the same episodes; None where it was not asked for.
    """

    arm: str
    seed: int
    probe: str
    return_mean: float
    success_rate: float | None
    random_return: float | None = None

    @property
    def score(self) -> float:
        """The success rate, or where the env does not tell it, the return."""
        return self.return_mean if self.success_rate is None else self.success_rate


def column(probe: Probe, group: str) -> str:
    """Gives the heading of a group's column."""
    return f"{probe.name}: {group}" if probe.name else group


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
        *(f"| {arm} | " + " | ".join(spread(cells.get((arm, each), ())) for each in columns) + " |" for arm in arms),
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
            f"| {transfer.name} | {' | '.join(cells)} | {spread(changes)} | {spread([fmean(row) for row in final])} |"
        )
    return "\n".join(lines) + "\n"


def normalised_markdown(study: Study, answers: Sequence[Answer]) -> str:
    """Gives a Markdown section: scores by group between random play's, 0, and a reference's, 1; and their mean.

    Args:
        study: names the references.
        answers: to its probes, those of the references with random play's return.
    """
    given = {answer.arm: answer for answer in answers if answer.random_return is not None}
    scale = {group: given[arm] for group, arm in study.references.items() if arm in given}
    lines = [
        "## Beside the reference",
        "",
        "Mean raw return minus random play's, as a share of what the reference has: "
        + "; ".join(
            f"{group}: {each.arm} {each.score:.3g}, random {each.random_return:.3g}" for group, each in scale.items()
        )
        + ". Means over seeds [least, most].",
        "",
        "| arm | " + " | ".join(scale) + " | mean |",
        "|---|" + "--:|" * (len(scale) + 1),
    ]
    for probe in study.probes:
        ones = {column(probe, group): scale[group] for group in probe.groups if group in scale}
        for arm in dict.fromkeys(answer.arm for answer in answers if answer.probe in ones):
            shares = _shares([answer for answer in answers if answer.arm == arm], ones)
            cells = [spread([row[place] for row in shares]) for place in range(len(ones))]
            label = f"{arm}, {probe.name}" if probe.name else arm
            lines.append(f"| {label} | {' | '.join(cells)} | {spread([fmean(row) for row in shares])} |")
    return "\n".join(lines) + "\n"


def _shares(answers: Sequence[Answer], ones: Mapping[str, Answer]) -> list[list[float]]:
    """Gives a row for each seed: its score under each probe of `ones`, where 0 is random play and 1 what stands there.

    Raises:
        KeyError: if a seed was not asked one of them.
    """
    scores = {(answer.seed, answer.probe): answer.score for answer in answers}
    zeros = {probe: one.random_return or 0.0 for probe, one in ones.items()}
    return [
        [(scores[seed, probe] - zeros[probe]) / (one.score - zeros[probe]) for probe, one in ones.items()]
        for seed in dict.fromkeys(answer.seed for answer in answers)
    ]
