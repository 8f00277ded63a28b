"""The ``sextant`` command: reads the command line, checks it, and only then imports what the command needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sextant import commands
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
    if options.run is not commands.doctor and (taken := shadowed_packages()):
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
    parsers = parser.add_subparsers(dest="command", metavar="command")

    train = _config_command(parsers, "train", "train an agent; writes a run directory", commands.train)
    train.add_argument("-m", "--multirun", action="store_true", help="one run per combination of swept values")

    resume = parsers.add_parser("resume", help="go on with a run from its last good checkpoint")
    resume.add_argument("run_dir", type=Path, help="the run directory")
    resume.set_defaults(run=commands.resume)

    _config_command(
        parsers,
        "evaluate",
        "roll out a trained agent under a named protocol",
        commands.evaluate,
        commands.evaluate_keys,
    )

    _config_command(
        parsers, "collect", "make a dataset of episodes, or go on with it", commands.collect, commands.collect_keys
    )
    _add_data_commands(parsers)

    _config_command(
        parsers, "adapt", "go on training part of a sequence model on new data", commands.adapt, commands.adapt_keys
    )

    export = _config_command(
        parsers, "export", "write a trained network to use elsewhere", commands.export, commands.export_keys
    )
    export.add_argument("--sparse", action="store_true", help="the weights without their zeros, as safetensors")
    export.add_argument("--onnx", action="store_true", help="the network as ONNX, checked against PyTorch")

    compare = parsers.add_parser("compare", help="table and plot of several runs, with intervals")
    compare.add_argument("runs", nargs="+", type=Path, help="run directories")
    compare.add_argument(
        "--allow-mixed", action="store_true", help="compare results of different protocols all the same"
    )
    compare.add_argument("--metric", help="return, human_normalised, success, success_last or length (default: by env)")
    compare.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which policy (default: last)")
    compare.add_argument("--protocol", help="id of the protocol; needed where a run was evaluated under several")
    compare.add_argument("--out", type=Path, help="folder for table and plots (default: comparisons/GROUPS)")
    compare.set_defaults(run=commands.compare)

    board = parsers.add_parser("board", help="TensorBoard on the runs")
    board.add_argument("runs", nargs="*", type=Path, default=[Path("runs")], help="run directories or folders of them")
    board.add_argument("--port", type=int, default=6006, help="port (default: 6006)")
    board.add_argument("--host", default="localhost", help="address to listen at (default: localhost)")
    board.set_defaults(run=commands.board)

    doctor = parsers.add_parser("doctor", help="versions, known-bad combinations, threads, memory, devices")
    doctor.set_defaults(run=commands.doctor)

    about_studies = parsers.add_parser("study", help="re-run the runs of a claim; table, plots and page")
    study = about_studies.add_subparsers(dest="what", required=True)
    study_list = study.add_parser("list", help="every study with its question and scales")
    study_list.set_defaults(run=commands.study_list)
    _config_command(
        study, "run", "run what is missing of a study (its name, then keys)", commands.study, commands.study_keys
    )

    env = parsers.add_parser("env", help="what there is to act in").add_subparsers(dest="what", required=True)
    env_list = env.add_parser("list", help="games, tasks, benchmarks and protocols")
    env_list.set_defaults(run=commands.env_list)
    _config_command(
        env, "describe", "the fully resolved protocols of an env, and the replay's size", commands.env_describe
    )

    config = parsers.add_parser("config", help="the keys of a config").add_subparsers(dest="what", required=True)
    show = _config_command(config, "show", "every key with value, type, range and description", commands.config_show)
    show.add_argument("--yaml", action="store_true", help="only the resolved config, as YAML")
    return parser


def _add_data_commands(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``sextant data describe|export|import``."""
    data = parsers.add_parser("data", help="look at datasets; to and from Minari").add_subparsers(
        dest="what", required=True
    )
    describe = data.add_parser("describe", help="counts, returns, lengths, successes and facts of a dataset")
    describe.add_argument("directory", type=Path, help="folder of a dataset, or one of its files")
    describe.add_argument("--verify", action="store_true", help="read every file and compare its digest")
    describe.set_defaults(run=commands.data_describe)
    export = data.add_parser("export", help="write a dataset as a Minari dataset")
    export.add_argument("directory", type=Path, help="folder of a dataset, or one of its files")
    export.add_argument(
        "--minari", required=True, metavar="ID", help="id of the Minari dataset, such as mt10/expert-v0"
    )
    export.set_defaults(run=commands.data_export)
    importing = data.add_parser("import", help="turn a Minari dataset of this machine into one of ours")
    importing.add_argument("--minari", required=True, metavar="ID", help="id of the Minari dataset")
    importing.add_argument("overrides", nargs="*", metavar="out=DIR", help="folder of the new dataset")
    importing.set_defaults(run=commands.data_import)


def _config_command(
    parsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    key_help: Callable[[Sequence[str]], str] | None = None,
) -> argparse.ArgumentParser:
    """Adds a command that takes ``key=value`` arguments, and whose ``--help`` lists the keys."""
    command = parsers.add_parser(name, help=summary, add_help=False)
    command.add_argument("overrides", nargs="*", metavar="key=value", help="keys and their values, listed below")
    command.add_argument("-h", "--help", action="store_true", dest="wants_help", help="this text and every key")
    command.set_defaults(run=run, usage=command.format_help, key_help=key_help or commands.train_keys)
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


def _refused(message: str) -> int:
    print(f"sextant: {message}", file=sys.stderr)
    return USAGE_ERROR


def _failed(message: str) -> int:
    print(f"sextant: {message}", file=sys.stderr)
    return FAILURE
