"""Atari DQN in the learning phase: Sextant's whole loop beside the bare update, CleanRL and Stable-Baselines3.

Everyone trains the same network (Nature CNN, VALID padding) at batch 32 and one update per four env steps, each in a
process of its own, in turns. Sextant and the peers run every number of threads asked for; the better one counts.

    python -m benchmarks.learn_dqn --cleanrl PATH --out docs/results/benchmarks

PATH is a folder that holds ``cleanrl/dqn_atari.py``: ``pip install --no-deps --ignore-requires-python --target PATH
cleanrl==1.2.0``, or a checkout of CleanRL. Stable-Baselines3 and OpenCV come with the extra ``bench``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.tables import Cell, Goal, Result
from benchmarks.turns import Contestant, median_ratio, play

LEARNING_STARTS = 1_000
BARE_ENV_STEPS = 4
"""Env steps that one update stands for at replay ratio 0.25."""
TUNED = ("--channels-last", "--fused", "--keep-memory")
BARE = {
    "fp32": {"bare update, fp32": (), "bare update, fp32, tuned": TUNED},
    "bf16": {"bare update, bf16": ("--bf16",), "bare update, bf16, tuned": ("--bf16", *TUNED)},
}
PRODUCTS: dict[str, tuple[str, ...]] = {
    "matrix products alone, fp32": (),
    "matrix products alone, bf16": ("--bf16",),
}
"""An update's multiplications as one product: about the most that these cores can do, whatever the library."""
SEXTANT: dict[str, dict[str, tuple[str, ...]]] = {
    "fp32": {"Sextant, fp32, 8 envs": (), "Sextant, fp32, 16 envs": ("--num-envs", "16")},
    "bf16": {
        "Sextant, bf16, 8 envs": ("agent.precision=bf16",),
        "Sextant, bf16, 16 envs": ("--num-envs", "16", "agent.precision=bf16"),
    },
}
SPARSE = ("agent.pruning.sparsity=0.95", "agent.pruning.start=0", "agent.pruning.end=1e-6")
"""Pruned to the end within the first 25 gradient steps, and from then on multiplied by masks after every step."""
PRUNED: dict[str, tuple[str, ...]] = {
    "Sextant, fp32, 16 envs": SPARSE,
    "Sextant, bf16, 16 envs": ("agent.precision=bf16", *SPARSE),
}
"""By the name of the contestant that is the same but dense."""


def contestants(game: str, cleanrl: Path | None, threads: Sequence[int]) -> Iterator[Contestant]:
    """Gives everyone who takes part, once per number of threads."""
    for count in threads:
        shared = ["--threads", str(count)]
        playing = [*shared, "--game", game, "--learning-starts", str(LEARNING_STARTS)]

        def contestant(
            name: str, module: str, arguments: Sequence[str], unit: int = 1, count: int = count
        ) -> Contestant:
            return Contestant(name, ["-m", f"benchmarks.contestants.{module}", *arguments], count, unit)

        for name, flags in PRODUCTS.items():
            yield contestant(name, "matrix_products", [*shared, *flags], unit=BARE_ENV_STEPS)
        for variants in BARE.values():
            for name, flags in variants.items():
                yield contestant(name, "bare_learner", [*shared, *flags], unit=BARE_ENV_STEPS)
        for variants in SEXTANT.values():
            for name, overrides in variants.items():
                yield contestant(name, "sextant_dqn", [*playing, *overrides])
        for name, overrides in PRUNED.items():
            yield contestant(f"{name}, pruned", "sextant_dqn", [*playing, "--num-envs", "16", *overrides])
        if cleanrl is not None:
            yield contestant("CleanRL", "cleanrl_dqn", [*playing, "--cleanrl", str(cleanrl.resolve())])
        if importlib.util.find_spec("stable_baselines3") is not None:
            yield contestant("SB3, 1 env", "sb3_dqn", playing)
            yield contestant("SB3, 8 envs", "sb3_dqn", [*playing, "--num-envs", "8"])
            yield contestant("SB3, 16 envs", "sb3_dqn", [*playing, "--num-envs", "16"])


def best_of_threads(group: Sequence[Contestant]) -> dict[str, Contestant]:
    """Gives for every name the contestant with the number of threads that served it best."""
    best: dict[str, Contestant] = {}
    for contestant in group:
        rival = best.get(contestant.name)
        if rival is None or median(contestant.rates) > median(rival.rates):
            best[contestant.name] = contestant
    return best


def fastest(best: dict[str, Contestant], names: Sequence[str]) -> Contestant | None:
    """Gives the fastest of these contestants, or None if none took part."""
    present = [best[name] for name in names if name in best]
    return max(present, key=lambda contestant: median(contestant.rates), default=None)


def goals(best: dict[str, Contestant], peer: Contestant | None) -> Iterator[Goal]:
    """Compares the loop with the bare update of the same precision, and with the better peer."""
    for precision, times_peer in (("fp32", 2.1), ("bf16", 3.0)):
        ours, bare = fastest(best, [*SEXTANT[precision]]), fastest(best, [*BARE[precision]])
        assert ours is not None and bare is not None
        share = median_ratio(ours.rates, bare.rates)
        yield Goal(f"{ours.name}: updates/s of the whole loop over those of the best bare update", share, 0.85)
        if peer is not None:
            yield Goal(
                f"{ours.name}: env steps/s over those of {peer.name}", median_ratio(ours.rates, peer.rates), times_peer
            )
    for name in sorted(PRUNED.keys() & best.keys()):
        if f"{name}, pruned" not in best:
            continue
        cost = 1.0 - median_ratio(best[f"{name}, pruned"].rates, best[name].rates)
        yield Goal(f"{name}: share of training time that pruning costs", cost, 0.03, at_least=False)


def result(group: Sequence[Contestant], settings: dict[str, Cell]) -> Result:
    """Makes the table of a finished game."""
    best = best_of_threads(group)
    peer = fastest(best, ["CleanRL", "SB3, 1 env", "SB3, 8 envs", "SB3, 16 envs"])
    rows: list[list[Cell]] = []
    for contestant in group:
        rate, cores = median(contestant.rates), median(contestant.cpu_shares)
        rows.append(
            [
                contestant.name,
                contestant.threads,
                "yes" if best[contestant.name] is contestant else "",
                rate,
                rate / BARE_ENV_STEPS,
                None if peer is None else median_ratio(contestant.rates, peer.rates),
                1000 * cores / rate * BARE_ENV_STEPS,
                cores,
            ]
        )
    return Result(
        benchmark="learn_dqn",
        question="How fast does Atari DQN train, beside the bare update and beside other libraries?",
        settings=settings,
        columns=[
            "contestant",
            "threads",
            "its best",
            "env steps/s",
            "updates/s",
            "times the better peer",
            "CPU ms per update",
            "cores used",
        ],
        rows=rows,
        goals=list(goals(best, peer)),
        samples={f"{contestant.name}, {contestant.threads} threads": contestant.rates for contestant in group},
    )


def main() -> None:
    """Runs the game and publishes its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="Pong", help="as in <game>NoFrameskip-v4 (default: Pong)")
    parser.add_argument("--cleanrl", type=Path, help="folder that holds cleanrl/dqn_atari.py; left out without it")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to try")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant that count")
    parser.add_argument("--env-steps", type=int, default=240, help="length of a turn (unit: env steps)")
    parser.add_argument("--only", nargs="+", help="parts of names: leave the other contestants out")
    parser.add_argument("--out", type=Path, help="folder for learn_dqn.json")
    options = parser.parse_args()
    group = [
        contestant
        for contestant in contestants(options.game, options.cleanrl, options.threads)
        if not options.only or any(part in contestant.name for part in options.only)
    ]
    with ExitStack() as stack:
        for contestant in group:
            print(f"warming up: {contestant.name}, {contestant.threads} threads", file=sys.stderr)
            stack.enter_context(contestant).wait_until_ready()
        play(group, rounds=options.rounds, env_steps=options.env_steps)
    settings: dict[str, Cell] = {
        "game": options.game,
        "batch": 32,
        "replay ratio": 0.25,
        "rounds": options.rounds,
        "env steps per turn": options.env_steps,
    }
    result(group, settings).publish(options.out)


if __name__ == "__main__":
    main()
