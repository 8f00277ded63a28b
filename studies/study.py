"""What a study is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arm:
    """One of the settings compared.

    Attributes:
        name: label in tables and plots, and folder of its runs: no spaces or commas.
        overrides: of ``sextant train``, or of ``sextant adapt`` where there is a base; on top of the stage's.
        base: arm of an earlier stage whose run, of the same seed, is adapted; None trains from the start.
    """

    name: str
    overrides: tuple[str, ...] = ()
    base: str | None = None


@dataclass(frozen=True)
class Stage:
    """Runs that others build on: data are collected, then arms trained.

    In overrides, ``{data}`` stands for the folder of the datasets, and ``{run:ARM}`` for that arm's run of an earlier
    stage: of the same seed, or where that stage has no such seed, and where data are collected, of its first one.

    Attributes:
        arms: what is trained.
        common: overrides of all arms without a base.
        datasets: by name, the keys of ``sextant collect``; they lie in ``{data}/NAME``.
        seeds: each arm is trained once per seed; None for those of the scale.
    """

    arms: tuple[Arm, ...] = ()
    common: tuple[str, ...] = ()
    datasets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Scale:
    """A size of a study.

    Attributes:
        takes: how long, and on what.
        common: overrides of all arms without a base.
        arms: what is compared.
        seeds: each arm is trained once per seed.
        datasets: collected before the arms are trained; see :class:`Stage`.
        before: stages that come first, and are not compared.
        probe_episodes: of each probe (unit: episodes); None for what the probe or its protocol says.
    """

    takes: str
    common: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    datasets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: tuple[Stage, ...] = ()
    probe_episodes: int | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in their order, that of the compared arms last."""
        return (*self.before, Stage(self.arms, self.common, self.datasets))

    def seed_of(self, arm: str, seed: int) -> int:
        """Gives the seed of the arm's run that a run of this seed builds on.

        Raises:
            KeyError: if no stage has such an arm.
        """
        for stage in self.stages:
            if any(each.name == arm for each in stage.arms):
                seeds = stage.seeds or self.seeds
                return seed if seed in seeds else seeds[0]
        raise KeyError(f"no stage has an arm {arm!r}")

    def runs(self, stage: Stage | None = None) -> Iterator[tuple[Arm, int, list[str]]]:
        """Gives arm, seed and overrides of every run, seed by seed, so that a study cut short compares what it has.

        Args:
            stage: whose runs; None for the compared ones.
        """
        stage = stage or self.stages[-1]
        for seed in stage.seeds or self.seeds:
            for arm in stage.arms:
                common = stage.common if arm.base is None else ()
                yield arm, seed, [*common, *arm.overrides, f"seed={seed}"]


@dataclass(frozen=True)
class Probe:
    """A question put to trained agents: how they score when evaluated otherwise than they were trained.

    Attributes:
        name: heading of its column.
        arguments: keys of ``sextant evaluate``.
        arms: which ones are asked, of any stage; empty for all that are compared. An arm that a scale lacks is not.
        groups: of tasks, by name: a column each; empty for one column over all tasks.
    """

    name: str
    arguments: tuple[str, ...]
    arms: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Transfer:
    """Groups of tasks trained one after the other: what is left of the earlier ones in the end.

    Attributes:
        name: of the line in the table.
        probe: name of the probe whose groups, in their order, were trained on.
        own: for each group, the arm that was trained on it last.
        final: for each group, the arm that plays it in the end; the same arm for every group where one network does.
    """

    name: str
    probe: str
    own: tuple[str, ...]
    final: tuple[str, ...]


@dataclass(frozen=True)
class MetricsTable:
    """A table of what the runs measured last, by arm, as means over seeds.

    Attributes:
        file: name of its CSV, without the ending.
        title: heading on the page.
        rows: heading of its first column: what the metrics' names are.
        prefixes: of the columns of ``metrics.csv`` that enter it; names are shown without them.
    """

    file: str
    title: str
    rows: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A question, the runs that answer it, and what the answer may not be taken for.

    Attributes:
        name: as on the command line.
        title: heading of the page.
        question: what the runs shall tell.
        reading: how to read the result; what the paper claimed, at which scale, and what was not tried here.
        scales: by name: ``smoke``, ``cpu`` or ``gpu``.
        metric: of the comparison (see ``sextant compare``); None chooses by env.
        tables: of metrics, printed below the comparison.
        probes: evaluations of the finished runs, printed below the comparison.
        transfers: of arms that are probed, printed below the probes.
        references: for a group of tasks, the arm whose score there counts as 1 and random play's as 0; its probe is
            asked with ``random_baseline=true``. Printed below the probes.
        target_share: of the best score during training, in (0, 1]: the page tells scores during training, and how soon
            each arm had that share; None for neither.
    """

    name: str
    title: str
    question: str
    reading: str
    scales: Mapping[str, Scale] = field(default_factory=dict)
    metric: str | None = None
    tables: tuple[MetricsTable, ...] = ()
    probes: tuple[Probe, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    target_share: float | None = None
