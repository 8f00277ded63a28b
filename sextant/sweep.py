"""``sextant train -m``: one run for each combination of the swept values, here or on a Ray cluster.

Every job's config is checked before the first one starts. Here each job is a fresh process, so that runs cannot touch
each other; any Hydra launcher plugin (``hydra/launcher=ray``) takes the same jobs elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sextant.checkout import CONFIGS, put_checkout_first, python_path
from sextant.config import TrainConfig, compose_train_config, validated
from sextant.local_jobs import LocalJobs
from sextant.overrides import compose, expand_sweep, is_hydra_key, normalised, parse
from sextant.refusal import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_OWN_KEYS = ("hydra", "experiment")


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides as typed, and the config they make."""

    overrides: tuple[str, ...]
    config: TrainConfig


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep and where they run.

    Attributes:
        jobs: the runs, in the order of the product of the swept values.
        launcher: name of the preset in ``hydra/launcher``.
        hydra_overrides: what was said about the launcher, ready for Hydra.
        jobs_at_once: processes side by side, for the local launcher; plugins have settings of their own.
    """

    jobs: tuple[Job, ...]
    launcher: str
    hydra_overrides: tuple[str, ...]
    jobs_at_once: int = 1


def plan_sweep(overrides: Sequence[str]) -> Sweep:
    """Reads a sweep off the command line and checks every job of it.

    Args:
        overrides: Hydra overrides, such as ``seed=0,1,2`` or ``hydra/launcher=ray``.

    Raises:
        ConfigError: if an override or any job's config is refused, or the launcher is not installed.
    """
    from omegaconf import OmegaConf

    parsed = parse(overrides)
    about_hydra = [override for override in parsed if is_hydra_key(override)]
    swept = [str(override.input_line) for override in parsed if not is_hydra_key(override)]
    jobs = []
    for job in expand_sweep(swept):
        try:
            jobs.append(Job(tuple(job), compose_train_config(job)))
        except ConfigError as error:
            raise ConfigError(f"job {len(jobs)} of the sweep ({' '.join(job)}): {error}") from error
    hydra_overrides = tuple(_forced(str(override.input_line)) for override in about_hydra)
    launcher = next((str(o.value()) for o in about_hydra if o.key_or_group == "hydra/launcher"), "local")
    try:
        composed = compose(hydra_overrides, with_hydra=True)
    except ConfigError as error:
        hint = "; it comes with the extra: pip install -c constraints.txt -e '.[ray]'" if "ray" in launcher else ""
        raise ConfigError(f"launcher {launcher!r}: {error}{hint}") from error
    settings = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    assert isinstance(settings, dict)
    return Sweep(tuple(jobs), launcher, hydra_overrides, _local_jobs_at_once(settings) if launcher == "local" else 1)


def run_sweep(overrides: Sequence[str]) -> int:
    """Runs every job of a sweep and reports on each.

    Returns:
        0 if all jobs finished, 1 if any failed.

    Raises:
        ConfigError: before anything starts, see :func:`plan_sweep`.
    """
    sweep = plan_sweep(overrides)
    print(f"sweep: {len(sweep.jobs)} jobs, launcher {sweep.launcher}", flush=True)
    if sweep.launcher == "local":
        outcomes = LocalJobs(sweep.jobs_at_once).run(
            [["train", *_local_overrides(job, sweep.jobs_at_once)] for job in sweep.jobs]
        )
    else:
        outcomes = _run_with_plugin(sweep)
    print("sweep finished")
    for number, (job, outcome) in enumerate(zip(sweep.jobs, outcomes, strict=True)):
        print(f"  job {number}  {outcome or 'ok':<10}  {' '.join(job.overrides)}")
    return 1 if any(outcomes) else 0


def run_job(composed: DictConfig) -> str:
    """Trains one job of a sweep; called by a launcher plugin, possibly on another machine.

    Args:
        composed: the job's config as Hydra composed it.

    Returns:
        the run directory.
    """
    put_checkout_first()
    from omegaconf import OmegaConf

    from sextant.train import run_train

    data = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(data, dict)
    given = {str(key): value for key, value in data.items() if key not in HYDRA_OWN_KEYS}
    return str(run_train(validated(TrainConfig, given)))


def _run_with_plugin(sweep: Sweep) -> list[str]:
    """Hands the jobs to a Hydra launcher plugin; gives what went wrong with each, empty where nothing did."""
    import hydra
    from hydra._internal.callbacks import Callbacks  # a launcher's context holds one; Hydra has no public maker
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.core.utils import JobStatus
    from hydra.types import HydraContext

    os.environ["PYTHONPATH"] = python_path()
    with (
        tempfile.TemporaryDirectory(prefix="sextant-sweep-") as scratch,
        hydra.initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"),
    ):
        no_outputs = ["hydra.mode=MULTIRUN", "hydra.output_subdir=null", f"hydra.sweep.dir={scratch}"]
        config = hydra.compose("train", [*sweep.hydra_overrides, *no_outputs], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        _start_ray(config)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks()),
            task_function=run_job,
            config=config,
        )
        jobs = [[*normalised(job.overrides), f"++runs_dir={job.config.runs_dir.resolve()}"] for job in sweep.jobs]
        returns = launcher.launch(jobs, initial_job_idx=0)
    outcomes = []
    for number, result in enumerate(returns):
        failed = result.status != JobStatus.COMPLETED
        outcomes.append("failed" if failed else "")
        print(f"[job {number}] {result._return_value}")  # the public property raises instead of telling
    return outcomes


def _start_ray(config: DictConfig) -> None:
    """Starts Ray on this machine, or connects to the cluster at ``hydra.launcher.ray.init.address`` (or RAY_ADDRESS).

    Does nothing for other launchers. The Ray launcher leaves a connection that is there alone; by itself, version 1.2.2
    always passes ``object_store_memory``, which Ray refuses for a cluster that runs already.

    Raises:
        ConnectionError: if no cluster answers.
    """
    from omegaconf import DictConfig, OmegaConf

    chosen = OmegaConf.select(config, "hydra.launcher.ray.init")
    if not isinstance(chosen, DictConfig):
        return
    import ray

    settings = {str(name): value for name, value in chosen.items()}
    address = settings.pop("address", None) or os.environ.get("RAY_ADDRESS") or "local"
    ray.init(address=address, **settings)


def _local_overrides(job: Job, at_once: int) -> list[str]:
    """Gives a job's overrides, with a fair share of threads where several jobs run side by side."""
    if at_once == 1 or job.config.threads != "auto":
        return [*job.overrides]
    from trainers.threads import available_cpus

    return [*job.overrides, f"threads={max(1, available_cpus() // at_once)}"]  # a measurement would be noise


def _local_jobs_at_once(settings: Mapping[Any, Any]) -> int:
    at_once = settings.get("n_jobs")
    unknown = sorted(set(settings) - {"n_jobs"})
    if unknown or not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
        wrong = f"unknown key hydra.launcher.{unknown[0]}" if unknown else f"hydra.launcher.n_jobs={at_once}"
        raise ConfigError(f"{wrong}: the local launcher has one key, hydra.launcher.n_jobs (int >= 1)")
    return at_once


def _forced(override: str) -> str:
    """Lets ``hydra.launcher.x.y=1`` add a key that the launcher's defaults do not list."""
    return override if override.startswith(("hydra/", "~")) else "++" + override.lstrip("+")
