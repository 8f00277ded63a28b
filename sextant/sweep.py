"""``sextant train -m``: one run for each combination of the swept values, here or on a Ray cluster.

Every job's config is checked before the first one starts. Here each job is a fresh process, so that runs cannot touch
each other; any Hydra launcher plugin (``hydra/launcher=ray``) takes the same jobs elsewhere.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sextant.checkout import CHECKOUT, put_checkout_first
from sextant.config import TrainConfig, compose_train_config, validated
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
    outcomes = _run_here(sweep) if sweep.launcher == "local" else _run_with_plugin(sweep)
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

    from sextant.checkout import CONFIGS

    os.environ["PYTHONPATH"] = _python_path()
    with (
        tempfile.TemporaryDirectory(prefix="sextant-sweep-") as scratch,
        hydra.initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"),
    ):
        no_outputs = ["hydra.mode=MULTIRUN", "hydra.output_subdir=null", f"hydra.sweep.dir={scratch}"]
        config = hydra.compose("train", [*sweep.hydra_overrides, *no_outputs], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        _join_ray_cluster(config)
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


def _join_ray_cluster(config: DictConfig) -> None:
    """Connects to the Ray cluster at ``hydra.launcher.ray.init.address``, if one is given.

    The launcher would do so itself, but version 1.2.2 always passes ``object_store_memory``, which Ray refuses for a
    cluster that runs already; it leaves a connection that is there alone.

    Raises:
        ConnectionError: if no cluster answers.
    """
    from omegaconf import DictConfig, OmegaConf

    settings = OmegaConf.to_container(OmegaConf.select(config, "hydra.launcher.ray.init", default=DictConfig({})))
    assert isinstance(settings, dict)
    if settings.get("address") is not None:
        import ray

        ray.init(**{str(name): value for name, value in settings.items()})


def _run_here(sweep: Sweep) -> list[str]:
    """Runs each job in a process of its own; gives what went wrong with each, empty where nothing did."""
    stopped = threading.Event()
    with ThreadPoolExecutor(max_workers=sweep.jobs_at_once) as pool:
        futures = [
            pool.submit(_run_process, number, job, sweep.jobs_at_once, stopped) for number, job in enumerate(sweep.jobs)
        ]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:  # the jobs got the signal too: they write a checkpoint and end
            stopped.set()
            return [future.result() for future in futures]


def _local_jobs_at_once(settings: Mapping[Any, Any]) -> int:
    at_once = settings.get("n_jobs")
    unknown = sorted(set(settings) - {"n_jobs"})
    if unknown or not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
        wrong = f"unknown key hydra.launcher.{unknown[0]}" if unknown else f"hydra.launcher.n_jobs={at_once}"
        raise ConfigError(f"{wrong}: the local launcher has one key, hydra.launcher.n_jobs (int >= 1)")
    return at_once


def _run_process(number: int, job: Job, at_once: int, stopped: threading.Event) -> str:
    if stopped.is_set():
        return "not started"
    overrides = [*job.overrides]
    if at_once > 1 and job.config.threads == "auto":  # measured beside other jobs, the choice would be noise
        overrides.append(f"threads={max(1, (os.cpu_count() or 1) // at_once)}")
    print(f"[job {number}] sextant train {shlex.join(overrides)}", flush=True)
    command = [sys.executable, "-m", "sextant", "train", *overrides]
    environment = os.environ | {"PYTHONPATH": _python_path()}
    if at_once == 1:
        status = subprocess.run(command, env=environment, check=False).returncode
        return "" if status == 0 else f"exit {status}"
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        _print_lines(number, process.stdout or ())
    return "" if process.returncode == 0 else f"exit {process.returncode}"


def _print_lines(number: int, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"[job {number}] {line}", end="", flush=True)


def _python_path() -> str:
    """Gives a ``PYTHONPATH`` that has the checkout first, for processes started from here."""
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join([str(CHECKOUT), *(entry for entry in inherited if Path(entry) != CHECKOUT)])


def _forced(override: str) -> str:
    """Lets ``hydra.launcher.x.y=1`` add a key that the launcher's defaults do not list."""
    return override if override.startswith(("hydra/", "~")) else "++" + override.lstrip("+")
