"""The ``sextant`` command: reads the command line, checks it, and only then imports what the command needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sextant.checkout import put_checkout_first, shadowed_packages, shadowing_message

USAGE_ERROR, FAILURE = 2, 1
INTERRUPTED = 130  # as shells report a program that Ctrl-C ended

EXAMPLES = """\
examples:
  sextant train agent=dqn env=atari env.game=pong seed=0
  sextant train -m seed=0,1,2 agent=dqn,double_dqn env.game=breakout
  sextant resume runs/dqn-pong/0-20260101-120000
  sextant evaluate run=runs/dqn-pong/0-20260101-120000 protocol=dopamine checkpoint=best
  sextant collect env=metaworld env.benchmark=MT10 policy=expert episodes=100 stop_at_success=true out=data/mt10
  sextant data describe data/mt10
  sextant adapt run=runs/dt_mem-ML10/0-20260101-120000 data=[data/ml10_test] episodes_per_task=5 per_task=true
  sextant board runs
"""


def entry_point() -> None:
    """Runs the command line and exits with its status."""
    status = main(sys.argv[1:])
    if "RANK" in os.environ:
        from trainers.distributed import end_process, torchrun_size

        if torchrun_size() > 1:
            end_process(status)
    sys.exit(status)


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        exit status: 0 done, 1 failed, 2 refused before anything started, 130 stopped with a checkpoint.
    """
    put_checkout_first()
    options = parse(arguments)
    if options.command is None:
        build_parser().print_help()
        return USAGE_ERROR
    if options.run is not _doctor and (taken := shadowed_packages()):
        return _refused(shadowing_message(taken))
    return _guarded(options.run, options)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads a command line, its ``key=value`` arguments as typed into ``overrides``; wrong ones end the program.

    Args:
        arguments: the command line without the program's name.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if hasattr(options, "overrides"):
        options.overrides += [argument for argument in rest if not argument.startswith("-")]
        rest = [argument for argument in rest if argument.startswith("-")]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def build_parser() -> argparse.ArgumentParser:
    """Gives the parser of all commands; each sets ``run`` to the function that carries it out."""
    parser = argparse.ArgumentParser(
        prog="sextant",
        description="Trains, evaluates and compares reinforcement-learning agents on Atari and Meta-World.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command")

    train = _config_command(commands, "train", "train an agent; writes a run directory", _train)
    train.add_argument("-m", "--multirun", action="store_true", help="one run per combination of swept values")

    resume = commands.add_parser("resume", help="go on with a run from its last good checkpoint")
    resume.add_argument("run_dir", type=Path, help="the run directory")
    resume.set_defaults(run=_resume)

    _config_command(commands, "evaluate", "roll out a trained agent under a named protocol", _evaluate, _evaluate_keys)

    _config_command(commands, "collect", "make a dataset of episodes, or go on with it", _collect, _collect_keys)
    _add_data_commands(commands)

    _config_command(commands, "adapt", "go on training part of a sequence model on new data", _adapt, _adapt_keys)

    export = _config_command(commands, "export", "write a trained network to use elsewhere", _export, _export_keys)
    export.add_argument("--sparse", action="store_true", help="the weights without their zeros, as safetensors")
    export.add_argument("--onnx", action="store_true", help="the network as ONNX, checked against PyTorch")

    compare = commands.add_parser("compare", help="table and plot of several runs, with intervals")
    compare.add_argument("runs", nargs="+", type=Path, help="run directories")
    compare.add_argument(
        "--allow-mixed", action="store_true", help="compare results of different protocols all the same"
    )
    compare.add_argument("--metric", help="return, human_normalised, success, success_last or length (default: by env)")
    compare.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which policy (default: last)")
    compare.add_argument("--protocol", help="id of the protocol; needed where a run was evaluated under several")
    compare.add_argument("--out", type=Path, help="folder for table and plots (default: comparisons/GROUPS)")
    compare.set_defaults(run=_compare)

    board = commands.add_parser("board", help="TensorBoard on the runs")
    board.add_argument("runs", nargs="*", type=Path, default=[Path("runs")], help="run directories or folders of them")
    board.add_argument("--port", type=int, default=6006, help="port (default: 6006)")
    board.add_argument("--host", default="localhost", help="address to listen at (default: localhost)")
    board.set_defaults(run=_board)

    doctor = commands.add_parser("doctor", help="versions, known-bad combinations, threads, memory, devices")
    doctor.set_defaults(run=_doctor)

    about_studies = commands.add_parser("study", help="re-run the runs of a claim; table, plots and page")
    study = about_studies.add_subparsers(dest="what", required=True)
    study_list = study.add_parser("list", help="every study with its question and scales")
    study_list.set_defaults(run=_study_list)
    _config_command(study, "run", "run what is missing of a study (its name, then keys)", _study, _study_keys)

    env = commands.add_parser("env", help="what there is to act in").add_subparsers(dest="what", required=True)
    env_list = env.add_parser("list", help="games, tasks, benchmarks and protocols")
    env_list.set_defaults(run=_env_list)
    _config_command(env, "describe", "the fully resolved protocols of an env, and the replay's size", _env_describe)

    config = commands.add_parser("config", help="the keys of a config").add_subparsers(dest="what", required=True)
    show = _config_command(config, "show", "every key with value, type, range and description", _config_show)
    show.add_argument("--yaml", action="store_true", help="only the resolved config, as YAML")
    return parser


def _add_data_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``sextant data describe|export|import``."""
    data = commands.add_parser("data", help="look at datasets; to and from Minari").add_subparsers(
        dest="what", required=True
    )
    describe = data.add_parser("describe", help="counts, returns, lengths, successes and facts of a dataset")
    describe.add_argument("directory", type=Path, help="folder of a dataset, or one of its files")
    describe.add_argument("--verify", action="store_true", help="read every file and compare its digest")
    describe.set_defaults(run=_data_describe)
    export = data.add_parser("export", help="write a dataset as a Minari dataset")
    export.add_argument("directory", type=Path, help="folder of a dataset, or one of its files")
    export.add_argument(
        "--minari", required=True, metavar="ID", help="id of the Minari dataset, such as mt10/expert-v0"
    )
    export.set_defaults(run=_data_export)
    importing = data.add_parser("import", help="turn a Minari dataset of this machine into one of ours")
    importing.add_argument("--minari", required=True, metavar="ID", help="id of the Minari dataset")
    importing.add_argument("overrides", nargs="*", metavar="out=DIR", help="folder of the new dataset")
    importing.set_defaults(run=_data_import)


def _config_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    key_help: Callable[[Sequence[str]], str] | None = None,
) -> argparse.ArgumentParser:
    """Adds a command that takes ``key=value`` arguments, and whose ``--help`` lists the keys."""
    command = commands.add_parser(name, help=summary, add_help=False)
    command.add_argument("overrides", nargs="*", metavar="key=value", help="keys and their values, listed below")
    command.add_argument("-h", "--help", action="store_true", dest="wants_help", help="this text and every key")
    command.set_defaults(run=run, usage=command.format_help, key_help=key_help or _train_keys)
    return command


def _guarded(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Runs a command; what a person can mend is told in one message, without a traceback."""
    from memory.config import ReplayTooLarge
    from memory.trajectory_facts import DatasetError
    from sextant.refusal import ConfigError
    from sextant.run_dirs import RunError, RunInterrupted

    try:
        if getattr(options, "wants_help", False):
            print(options.usage())
            print(options.key_help(options.overrides))
            return 0
        return run(options)
    except ConfigError as error:
        return _refused(str(error))
    except RunInterrupted:
        return INTERRUPTED
    except (ReplayTooLarge, RunError, DatasetError) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except KeyboardInterrupt:
        return _failed("stopped")


def _train(options: argparse.Namespace) -> int:
    if options.multirun:
        from sextant.sweep import run_sweep

        return run_sweep(options.overrides)
    from sextant.config import compose_train_config

    config = compose_train_config(options.overrides)
    from sextant.train import run_train

    run_train(config)
    return 0


def _resume(options: argparse.Namespace) -> int:
    from sextant.config import load_run_config

    load_run_config(options.run_dir)
    from sextant.train import run_resume

    run_resume(options.run_dir)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from sextant.evaluate_config import read_evaluate_config

    config = read_evaluate_config(options.overrides)
    from sextant.evaluate import run_evaluate

    run_evaluate(config.run, **{key: value for key, value in config if key != "run"})
    return 0


def _collect(options: argparse.Namespace) -> int:
    from sextant.collect_config import read_collect_config

    config = read_collect_config(options.overrides)
    from sextant.collect import run_collect

    run_collect(config)
    return 0


def _adapt(options: argparse.Namespace) -> int:
    from sextant.adapt_config import read_adapt_config

    config = read_adapt_config(options.overrides)
    from sextant.adapt import run_adapt

    run_adapt(config)
    return 0


def _data_describe(options: argparse.Namespace) -> int:
    from sextant.data import describe

    describe(options.directory, verify=options.verify)
    return 0


def _data_export(options: argparse.Namespace) -> int:
    from sextant.data import run_export

    run_export(options.directory, options.minari)
    return 0


def _data_import(options: argparse.Namespace) -> int:
    from sextant.data import run_import

    run_import(options.minari, options.overrides)
    return 0


def _export(options: argparse.Namespace) -> int:
    from sextant.export_config import read_export_config

    config = read_export_config(options.overrides)
    from sextant.export import run_export

    run_export(config.run, checkpoint=config.checkpoint, out=config.out, sparse=options.sparse, onnx=options.onnx)
    return 0


def _compare(options: argparse.Namespace) -> int:
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


def _study_list(options: argparse.Namespace) -> int:
    from sextant.study import list_text

    print(list_text())
    return 0


def _study(options: argparse.Namespace) -> int:
    from sextant.study import read_study_config, run_study

    name, *arguments = options.overrides or [""]
    run_study(name, read_study_config(arguments))
    return 0


def _board(options: argparse.Namespace) -> int:
    from sextant.board import run_board

    return run_board(options.runs, port=options.port, host=options.host)


def _doctor(options: argparse.Namespace) -> int:
    from sextant.doctor import run_doctor

    return run_doctor()


def _env_list(options: argparse.Namespace) -> int:
    from sextant.describe import env_list_text

    print(env_list_text())
    return 0


def _env_describe(options: argparse.Namespace) -> int:
    from sextant.config import compose_train_config
    from sextant.describe import env_text

    print(env_text(compose_train_config(options.overrides, lenient=True)))
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from sextant.config import compose_train_config, config_yaml
    from sextant.help import config_text

    config = compose_train_config(options.overrides, lenient=True)
    print(config_yaml(config) if options.yaml else config_text(config))
    return 0


def _train_keys(overrides: Sequence[str]) -> str:
    """Gives the presets, and every key of the config that these overrides choose."""
    from sextant.config import compose_train_config
    from sextant.help import config_text, groups_text

    keys = config_text(compose_train_config(overrides, lenient=True))
    return f"presets (group=preset):\n{groups_text()}\n\nkeys, with their values for these presets:\n{keys}"


def _evaluate_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant evaluate``."""
    from sextant.evaluate_config import EvaluateConfig
    from sextant.help import keys_text

    return f"keys:\n{keys_text(EvaluateConfig, {})}"


def _collect_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant collect``, those of the chosen env among them."""
    from sextant.collect_config import CollectConfig, collect_data
    from sextant.help import keys_text

    return f"keys:\n{keys_text(CollectConfig, collect_data(overrides))}"


def _adapt_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant adapt``."""
    from sextant.adapt_config import AdaptConfig, adapt_data
    from sextant.help import keys_text

    return f"keys (those of a run, such as agent.batch_size, too):\n{keys_text(AdaptConfig, adapt_data(overrides))}"


def _study_keys(overrides: Sequence[str]) -> str:
    """Gives every study and every key of ``sextant study run``."""
    from sextant.help import keys_text
    from sextant.study import StudyConfig, list_text

    return f"studies:\n{list_text()}\n\nkeys:\n{keys_text(StudyConfig, {})}"


def _export_keys(overrides: Sequence[str]) -> str:
    """Gives every key of ``sextant export``."""
    from sextant.export_config import ExportConfig
    from sextant.help import keys_text

    return f"keys:\n{keys_text(ExportConfig, {})}"


def _refused(message: str) -> int:
    print(f"sextant: {message}", file=sys.stderr)
    return USAGE_ERROR


def _failed(message: str) -> int:
    print(f"sextant: {message}", file=sys.stderr)
    return FAILURE
