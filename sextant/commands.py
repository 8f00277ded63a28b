"""What each command of ``sextant`` does with its parsed arguments, and what its ``--help`` lists.

Each imports what it needs when it is called, after its arguments were found to be valid.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def train(options: argparse.Namespace) -> int:
    """Trains an agent, or with ``-m`` one per combination of swept values."""
    if options.multirun:
        from sextant.sweep import run_sweep

        return run_sweep(options.overrides)
    from sextant.config import compose_train_config

    config = compose_train_config(options.overrides)
    from sextant.train import run_train

    run_train(config)
    return 0


def resume(options: argparse.Namespace) -> int:
    """Goes on with a run from its last good checkpoint."""
    from sextant.config import load_run_config

    load_run_config(options.run_dir)
    from sextant.train import run_resume

    run_resume(options.run_dir)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Rolls out a trained agent under a protocol."""
    from sextant.evaluate_config import read_evaluate_config

    config = read_evaluate_config(options.overrides)
    from sextant.evaluate import run_evaluate

    run_evaluate(config.run, **{key: value for key, value in config if key != "run"})
    return 0


def collect(options: argparse.Namespace) -> int:
    """Makes a dataset of episodes, or goes on with it."""
    from sextant.collect_config import read_collect_config

    config = read_collect_config(options.overrides)
    from sextant.collect import run_collect

    run_collect(config)
    return 0


def adapt(options: argparse.Namespace) -> int:
    """Goes on training part of a sequence model on new data."""
    from sextant.adapt_config import read_adapt_config

    config = read_adapt_config(options.overrides)
    from sextant.adapt import run_adapt

    run_adapt(config)
    return 0


def data_describe(options: argparse.Namespace) -> int:
    """Prints what a dataset holds."""
    from sextant.data import describe

    describe(options.directory, verify=options.verify)
    return 0


def data_export(options: argparse.Namespace) -> int:
    """Writes a dataset as a Minari dataset."""
    from sextant.data import run_export

    run_export(options.directory, options.minari)
    return 0


def data_import(options: argparse.Namespace) -> int:
    """Turns a Minari dataset of this machine into one of ours."""
    from sextant.data import run_import

    run_import(options.minari, options.overrides)
    return 0


def export(options: argparse.Namespace) -> int:
    """Writes a trained network to use elsewhere."""
    from sextant.export_config import read_export_config

    config = read_export_config(options.overrides)
    from sextant.export import run_export

    run_export(config.run, checkpoint=config.checkpoint, out=config.out, sparse=options.sparse, onnx=options.onnx)
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compares runs: table, plots and intervals."""
    from sextant.compare import run_compare

    run_compare(
        options.runs,
        metric=options.metric,
        checkpoint=options.checkpoint,
        protocol=options.protocol,
        allow_mixed=options.allow_mixed,
        out=options.out,
    )
    return 0


def study_list(options: argparse.Namespace) -> int:
    """Prints every study with its question and scales."""
    from sextant.study import list_text

    print(list_text())
    return 0


def study(options: argparse.Namespace) -> int:
    """Runs what is missing of a study, and writes its page."""
    from sextant.study import read_study_config, run_study

    name, *arguments = options.overrides or [""]
    run_study(name, read_study_config(arguments))
    return 0


def board(options: argparse.Namespace) -> int:
    """Starts TensorBoard on runs."""
    from sextant.board import run_board

    return run_board(options.runs, port=options.port, host=options.host)


def doctor(options: argparse.Namespace) -> int:
    """Prints versions, known-bad combinations, threads, memory and devices."""
    from sextant.doctor import run_doctor

    return run_doctor()


def env_list(options: argparse.Namespace) -> int:
    """Prints games, tasks, benchmarks and protocols."""
    from sextant.describe import env_list_text

    print(env_list_text())
    return 0


def env_describe(options: argparse.Namespace) -> int:
    """Prints the protocols of an env, fully resolved, and the replay's size."""
    from sextant.config import compose_train_config
    from sextant.describe import env_text

    print(env_text(compose_train_config(options.overrides, lenient=True)))
    return 0


def config_show(options: argparse.Namespace) -> int:
    """Prints every key of a config with value, type, range and description."""
    from sextant.config import compose_train_config, config_yaml
    from sextant.help import config_text

    config = compose_train_config(options.overrides, lenient=True)
    print(config_yaml(config) if options.yaml else config_text(config))
    return 0


def train_keys(overrides: Sequence[str]) -> str:
    """Gives the presets, and every key of the config that these overrides choose."""
    from sextant.config import compose_train_config
    from sextant.help import config_text, groups_text

    keys = config_text(compose_train_config(overrides, lenient=True))
    return f"presets (group=preset):\n{groups_text()}\n\nkeys, with their values for these presets:\n{keys}"


def evaluate_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant evaluate``."""
    from sextant.evaluate_config import EvaluateConfig
    from sextant.help import keys_text

    return f"keys:\n{keys_text(EvaluateConfig, {})}"


def collect_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant collect``, those of the chosen env among them."""
    from sextant.collect_config import CollectConfig, collect_data
    from sextant.help import keys_text

    return f"keys:\n{keys_text(CollectConfig, collect_data(overrides))}"


def adapt_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant adapt``."""
    from sextant.adapt_config import AdaptConfig, adapt_data
    from sextant.help import keys_text

    return f"keys (those of a run, such as agent.batch_size, too):\n{keys_text(AdaptConfig, adapt_data(overrides))}"


def study_keys(overrides: Sequence[str]) -> str:
    """Gives every study and every key of ``sextant study run``."""
    from sextant.help import keys_text
    from sextant.study import StudyConfig, list_text

    return f"studies:\n{list_text()}\n\nkeys:\n{keys_text(StudyConfig, {})}"


def export_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant export``."""
    from sextant.export_config import ExportConfig
    from sextant.help import keys_text

    return f"keys:\n{keys_text(ExportConfig, {})}"
