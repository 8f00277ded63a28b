"""The stages of a study: data collected, then arms trained, each stage on what the ones before left behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sextant.collect_config import CollectConfig, read_collect_config
from sextant.config import compose_train_config
from sextant.local_jobs import LocalJobs
from sextant.run_dirs import RunError
from studies import Scale, Stage

RUN = re.compile(r"\{run:([^}]+)\}")


class Stages:
    """Runs the stages of one scale of a study in a folder.

    Args:
        scale: what is run.
        folder: where data and runs go: ``folder/data/DATASET`` and ``folder/ARM``.
        jobs: processes side by side.
    """

    def __init__(self, scale: Scale, folder: Path, jobs: int) -> None:
        self.scale, self.folder, self.jobs = scale, folder, jobs

    def check(self) -> None:
        """Composes every config that can be known before anything ran.

        Raises:
            ConfigError: for the first that is refused.
        """
        for stage in self.scale.stages:
            for name, arguments in stage.datasets.items():
                self._collect_config(name, arguments, self._anywhere)
            for arm, seed, overrides in self.scale.runs(stage):
                if arm.base is None:
                    compose_train_config(self._train(arm.name, [self._anywhere(each, seed) for each in overrides]))

    def run(self) -> None:
        """Runs what is missing, stage by stage.

        Raises:
            RunError: if a run failed or was stopped; the same call goes on.
            ConfigError: if a stage cannot use what an earlier one left.
        """
        from sextant.collect import run_collect

        for stage in self.scale.stages:
            for name, arguments in stage.datasets.items():
                run_collect(self._collect_config(name, arguments, self._filled))
            self.finish(list(self._jobs(stage)), "runs")

    def finish(self, jobs: Sequence[Sequence[str]], what: str) -> None:
        """Runs commands of ``sextant`` as the study's jobs.

        Args:
            jobs: of each the command and its arguments.
            what: they are, in the message: ``runs``.
        Raises:
            RunError: if one failed or was stopped.
        """
        outcomes = LocalJobs(self.jobs).run(jobs)
        if wrong := [f"  job {number}: {outcome}" for number, outcome in enumerate(outcomes) if outcome]:
            failed = f"{len(wrong)} of {len(jobs)} {what} did not finish; the same command goes on"
            raise RunError("\n".join([failed, *wrong]))

    def run_of(self, arm: str, seed: int) -> Path:
        """Gives the directory of the run of an arm that a run of this seed builds on.

        Raises:
            RunError: if there is none.
        """
        seed = self.scale.seed_of(arm, seed)
        found = sorted(path.parent for path in (self.folder / arm).glob(f"*/{seed}-*/config.yaml"))
        if not found:
            raise RunError(f"{self.folder / arm} holds no run of seed {seed}")
        return found[-1]

    def _jobs(self, stage: Stage) -> Iterator[list[str]]:
        for arm, seed, overrides in self.scale.runs(stage):
            filled = [self._filled(each, seed) for each in overrides]
            if arm.base is None:
                yield ["train", *self._train(arm.name, filled)]
            else:
                base = f"run={self.run_of(arm.base, seed)}"
                yield ["adapt", base, *filled, f"runs_dir={self.folder / arm.name}", "resume=auto"]

    def _train(self, arm: str, overrides: Sequence[str]) -> list[str]:
        return [*overrides, f"runs_dir={self.folder / arm}", "resume=auto", *thread_share(overrides, self.jobs)]

    def _collect_config(self, name: str, arguments: Sequence[str], fill: Callable[[str, int], str]) -> CollectConfig:
        filled = [fill(each, self.scale.seeds[0]) for each in arguments]
        return read_collect_config([*filled, f"out={self.folder / 'data' / name}"])

    def _filled(self, override: str, seed: int) -> str:
        """Replaces the placeholders by what is on the disk."""
        override = override.replace("{data}", str(self.folder / "data"))
        return RUN.sub(lambda match: str(self.run_of(match[1], seed)), override)

    def _anywhere(self, override: str, seed: int) -> str:
        """Replaces the placeholders by paths at which nothing need be yet."""
        override = override.replace("{data}", str(self.folder / "data"))
        return RUN.sub(lambda match: str(self.folder / match[1]), override)


def thread_share(overrides: Sequence[str], jobs: int) -> list[str]:
    """Gives runs side by side one thread each, where the study leaves the number open: measuring would be noise."""
    return ["threads=1"] if jobs > 1 and not any(override.startswith("threads=") for override in overrides) else []
