"""Several seeds on one device: as processes side by side, and as one batch of networks.

    python -m benchmarks.seeds --device cuda --processes 1 2 4 8 --out docs/results/benchmarks

Every seed is a DQN that makes updates of batch 32 from a replay of made-up frames, as `benchmarks.updates` does. The
numbers of processes take turns; those of a group work at the same time, and a group is as fast as its updates together
in the time of its slowest process. "Batched" is plain PyTorch in one process, without a replay: an upper bound of what
training seeds as a batch would give. Made without a GPU at hand; on CPUs it measures the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.tables import Cell, Result
from benchmarks.turns import Contestant, median_ratio
from benchmarks.updates import NETWORKS, STEPS

Group = Sequence[Contestant]
Rates = dict[str, list[float]]


def total_rate(group: Group, updates: int) -> float:
    """Lets a group work at the same time; gives its updates per second, all processes together.

    Args:
        group: one process per seed, or one for all.
        updates: of each process, all of its seeds together.
    """
    for contestant in group:
        contestant.start_turn(updates)
    turns = [contestant.finish_turn() for contestant in group]
    return sum(count for count, _, _ in turns) / max(seconds for _, seconds, _ in turns)


def measure(groups: dict[str, Group], rounds: int, updates: dict[str, int]) -> Rates:
    """Lets the groups take turns, in an order that is reversed every round; a first round does not count."""
    rates: Rates = {name: [] for name in groups}
    for index in range(rounds + 1):
        for name in list(groups) if index % 2 else reversed(list(groups)):
            rate = total_rate(groups[name], updates[name])
            if index:
                rates[name].append(rate)
        print(f"round {index} of {rounds} done", file=sys.stderr)
    return rates


def table(rates: Rates, seeds: dict[str, int]) -> list[list[Cell]]:
    """Gives a row for each group: seeds, updates/s of all and of each, and how often the rate of a single process."""
    [single, *_] = rates
    return [
        [name, seeds[name], median(values), median(values) / seeds[name], median_ratio(values, rates[single])]
        for name, values in rates.items()
    ]


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8], help="1 is always among them")
    parser.add_argument("--batched", type=int, nargs="*", default=[2, 4, 8], help="seeds of each batch")
    parser.add_argument("--network", default="Nature", choices=list(NETWORKS))
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--cuda-graph", action="store_true", help="replay the updates of processes from CUDA graphs")
    parser.add_argument("--updates", type=int, default=200, help="of each seed in each turn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--out", type=Path, help="folder for seeds.json")
    options = parser.parse_args(arguments)
    if min([*options.processes, *options.batched, options.updates, options.rounds]) < 1:
        parser.error("numbers of processes, seeds, updates and rounds must be at least 1")
    if options.cuda_graph and options.device != "cuda":
        parser.error(f"--cuda-graph needs --device cuda, not {options.device}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and publishes."""
    options = options_of(arguments)
    tick = max(STEPS, options.updates // 4 // STEPS * STEPS)
    command = ["-m", "benchmarks.contestants.seed_learner", "--network", options.network, "--tick", str(tick)]
    command += ["--precision", options.precision, "--device", options.device]
    graph = ["--cuda-graph"] if options.cuda_graph else []
    counts = sorted({1, *options.processes})
    with ExitStack() as stack:
        processes = [
            stack.enter_context(Contestant(f"seed {seed}", [*command, *graph], options.threads, unit=tick))
            for seed in range(counts[-1])
        ]
        batches = {
            f"batched, {seeds} seeds": stack.enter_context(
                Contestant(f"{seeds} seeds", [*command, "--batched", str(seeds)], options.threads, unit=tick * seeds)
            )
            for seeds in options.batched
        }
        for contestant in (*processes, *batches.values()):
            contestant.wait_until_ready()
        groups: dict[str, Group] = {
            f"{count} processes" if count > 1 else "1 process": processes[:count] for count in counts
        }
        seeds = {name: len(group) for name, group in groups.items()}
        seeds |= dict(zip(batches, options.batched, strict=True))
        groups |= {name: [contestant] for name, contestant in batches.items()}
        updates = {name: options.updates * seeds[name] // len(group) for name, group in groups.items()}
        rates = measure(groups, options.rounds, updates)
    Result(
        benchmark="seeds",
        question="How many updates do several seeds on one device make together?",
        settings={
            "network": options.network,
            "precision": options.precision,
            "device": options.device,
            "CUDA graphs": options.cuda_graph,
            "threads of each process": options.threads,
            "updates of each seed per turn": options.updates,
            "rounds": options.rounds,
        },
        columns=["contestant", "seeds", "updates/s of all", "updates/s of each seed", "times one process"],
        rows=table(rates, seeds),
        samples=rates,
    ).publish(options.out)


if __name__ == "__main__":
    main()
