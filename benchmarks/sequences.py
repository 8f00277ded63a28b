"""Sequence models: training, sampling and acting of DT, RMDT and DT-Mem, and DT-Mem beside its authors' release.

    python -m benchmarks.sequences --release PATH --out docs/results/benchmarks

Three games, each with its contestants in processes of their own, in turns of equal seconds:

- ``train``: gradient steps of d128/L3 models, K = 20, on made-up data of Meta-World's shape, sampling included.
- ``act``: one batched ``act()`` for ten envs, early and late in an episode.
- ``release``: forward and gradient step of a d512/L4 model on 156 tokens, ours and the authors'. PATH is a checkout of
  luciferkonn/DT_Mem, the folder that holds ``src/model.py``; without it the authors are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.contestants.sequence_parts import CONTEXT, LARGE_TOKENS, NUM_ENVS, TOKENS_PER_STEP
from benchmarks.tables import Cell, Goal, Result
from benchmarks.turns import Contestant, median_ratio

GAMES = ("train", "act", "release")
MODELS = {
    "dt": "DT",
    "dt_mem": "DT-Mem, chunk 5",
    "dt_mem_chunk_1": "DT-Mem, chunk 1",
    "rmdt": "RMDT",
}
LARGE_MODELS = {"dt_mem": "DT-Mem d512/L4, chunk 4", "dt_mem_chunk_1": "DT-Mem d512/L4, chunk 1"}
RELEASE = "the authors' DT-Mem d512/L4"
EARLY, LATE = 10, 500
"""Env steps of an episode before the action that is timed."""
UPDATES = 10_000
COLUMNS = (
    "what",
    "contestant",
    "parameters",
    "tokens/s",
    "actions/s",
    "ms each",
    "rate over the reference",
    "minutes for 10,000 updates",
    "share of sampling",
    "cores used",
)


@dataclass(frozen=True)
class Player:
    """A contestant and what is to be known of it.

    Attributes:
        contestant: takes turns; its unit is the tokens (actions) of one tick.
        key: its model, as in MODELS or LARGE_MODELS; "release" for the authors'.
        what: one update, act() or forward, and of what.
        notes: file that it writes numbers to.
    """

    contestant: Contestant
    key: str
    what: str
    notes: Path

    @property
    def rates(self) -> list[float]:
        """Tokens (actions) per second of each turn."""
        return self.contestant.rates

    @property
    def seconds_each(self) -> float:
        """Median seconds of one update, act() or forward."""
        return self.contestant.unit / median(self.rates)

    def noted(self, name: str) -> list[float]:
        """Gives the numbers that the contestant noted under a name."""
        lines = map(json.loads, self.notes.read_text(encoding="utf-8").splitlines())
        return [line[name] for line in lines if name in line]

    @property
    def sampling_share(self) -> float:
        """Median share of a gradient step that sampling takes."""
        return median(a / b for a, b in zip(self.noted("sampling"), self.noted("update"), strict=True))


class Roster:
    """Makes the contestants of a game.

    Args:
        options: of the command line.
        folder: for their notes.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.count = 0

    def players(self, game: str) -> list[Player]:
        """Gives the contestants of a game, none of them started."""
        makers = {"train": self._train, "act": self._act, "release": self._release}
        return list(makers[game]())

    def _train(self) -> Iterator[Player]:
        batch_size = self.options.batch_size
        for segments in self.options.segments:
            what = f"update, {segments} segment{'s' if segments > 1 else ''}"
            tokens = batch_size * segments * CONTEXT * TOKENS_PER_STEP
            for key, name in MODELS.items():
                sizes = ["--segments", str(segments), "--batch-size", str(batch_size)]
                yield self._player(name, key, what, ["sextant_sequences", "train", "--memory", key, *sizes], tokens)

    def _act(self) -> Iterator[Player]:
        for key in ("dt", "dt_mem"):
            for step in (EARLY, LATE):
                arguments = ["sextant_sequences", "act", "--memory", key, "--step", str(step)]
                yield self._player(MODELS[key], key, f"act() at step {step}", arguments, NUM_ENVS)

    def _release(self) -> Iterator[Player]:
        batch_size = self.options.release_batch_size
        for phase in ("forward", "update"):
            sizes = ["--phase", phase, "--batch-size", str(batch_size)]
            if self.options.release is not None:
                theirs = ["dt_mem_release", "--release", str(self.options.release.resolve()), *sizes]
                yield self._player(RELEASE, "release", phase, theirs, LARGE_TOKENS * batch_size)
            for key, name in LARGE_MODELS.items():
                ours = ["sextant_sequences", "large", "--memory", key, *sizes]
                yield self._player(name, key, phase, ours, LARGE_TOKENS * batch_size)

    def _player(self, name: str, key: str, what: str, arguments: Sequence[str], unit: int) -> Player:
        self.count += 1
        notes = self.folder / f"{self.count}.jsonl"
        module, *rest = arguments
        threads = self.options.threads
        command = ["-m", f"benchmarks.contestants.{module}", *rest, "--threads", str(threads), "--notes", str(notes)]
        return Player(Contestant(name, command, threads, unit), key, what, notes)


def started(players: Sequence[Player], stack: ExitStack) -> tuple[list[Player], str | None]:
    """Starts everybody; the authors' release is left out if it does not run here.

    Returns:
        who is ready, and why the release is not, or None.
    """
    ready, reason = [], None
    for player in players:
        print(f"warming up: {player.contestant.name}, {player.what}", file=sys.stderr)
        try:
            stack.enter_context(player.contestant).wait_until_ready()
        except RuntimeError as error:
            if player.key != "release":
                raise
            reason = str(error).strip().splitlines()[-1]
            print(f"{RELEASE} is left out, it does not run here: {error}", file=sys.stderr)
        else:
            ready.append(player)
    return ready, reason


def play_evenly(players: Sequence[Player], *, rounds: int, seconds: float) -> None:
    """Lets everybody take turns of about equal time, at least one tick; the order is reversed every other round."""
    ticks = {}
    for player in players:
        contestant = player.contestant
        contestant.take_turn(contestant.unit)
        ticks[id(player)] = max(1, round(seconds * contestant.rates[-1] / contestant.unit))
        contestant.rates.clear()
        contestant.cpu_shares.clear()
    for index in range(rounds + 1):
        for player in players if index % 2 else reversed(players):
            player.contestant.take_turn(ticks[id(player)] * player.contestant.unit, counts=index > 0)
        print(f"round {index} of {rounds} done", file=sys.stderr)


def reference(player: Player, players: Sequence[Player]) -> Player | None:
    """Gives whom a contestant is compared with: DT, itself early in the episode, or the release; None if absent."""
    if player.what.startswith("act()"):
        return _find(players, player.key, f"act() at step {EARLY}")
    return _find(players, "dt" if player.key in MODELS and "segment" in player.what else "release", player.what)


def _find(players: Sequence[Player], key: str, what: str) -> Player | None:
    return next((player for player in players if (player.key, player.what) == (key, what)), None)


def row(player: Player, players: Sequence[Player]) -> list[Cell]:
    """Gives a contestant's line of the table."""
    trains, acts = "segment" in player.what, player.what.startswith("act()")
    other, rate = reference(player, players), median(player.rates)
    return [
        player.what,
        player.contestant.name,
        int(player.noted("parameters")[0]),
        None if acts else rate,
        rate if acts else None,
        1_000 * player.seconds_each,
        None if other is None else median_ratio(player.rates, other.rates),
        UPDATES * player.seconds_each / 60 if trains else None,
        player.sampling_share if trains else None,
        median(player.contestant.cpu_shares),
    ]


def goals(players: Sequence[Player]) -> Iterator[Goal]:
    """Compares what was measured with what was promised; promises about absent contestants are left out."""
    for player in players:
        other, name = reference(player, players), player.contestant.name
        if player.what == "update, 1 segment" and player.key in ("dt", "dt_mem"):
            yield Goal(f"{name}: minutes for 10,000 updates", UPDATES * player.seconds_each / 60, 30.0, at_least=False)
            yield Goal(f"{name}: share of sampling in an update", player.sampling_share, 0.05, at_least=False)
        if other is None or other is player:
            continue
        ratio = median_ratio(player.rates, other.rates)
        if "segment" in player.what and player.key == "dt_mem":
            yield Goal(f"{name}, {player.what}: tokens/s over those of DT", ratio, 0.67)
        if player.what == f"act() at step {LATE}":
            text = f"{name}: change of the time of an action from step {EARLY} to step {LATE}"
            yield Goal(text, abs(1 / ratio - 1), 0.20, at_least=False)
        if other.key == "release" and player.key == "dt_mem":
            yield Goal(f"{name}, {player.what}: tokens/s over those of the authors' release", ratio, 10.0)


def result(players: Sequence[Player], settings: dict[str, Cell]) -> Result:
    """Makes the table."""
    return Result(
        benchmark="sequences",
        question="How fast do sequence models train, sample and act, and DT-Mem beside its authors' release?",
        settings=settings,
        columns=COLUMNS,
        rows=[row(player, players) for player in players],
        goals=list(goals(players)),
        samples={f"{player.contestant.name}, {player.what}": player.rates for player in players},
    )


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, help="checkout of luciferkonn/DT_Mem; left out without it")
    parser.add_argument("--only", nargs="+", default=list(GAMES), choices=GAMES, help="games to play (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="of each contestant")
    parser.add_argument("--segments", type=int, nargs="+", default=[1, 3], help="segments of a training row")
    parser.add_argument("--batch-size", type=int, default=32, help="rows of an update in `train`")
    parser.add_argument("--release-batch-size", type=int, default=1, help="rows of a pass in `release`")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each contestant that count")
    parser.add_argument("--release-rounds", type=int, default=5, help="the same, in `release`")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--out", type=Path, help="folder for sequences.json")
    options = parser.parse_args(arguments)
    if options.release is not None and not (options.release / "src" / "model.py").is_file():
        parser.error(f"--release {options.release}: holds no src/model.py; expected a checkout of luciferkonn/DT_Mem")
    return options


def main() -> None:
    """Plays the games and publishes the result."""
    options = options_of()
    played: list[Player] = []
    theirs = "took part" if options.release is not None else "left out: no --release"
    with tempfile.TemporaryDirectory(prefix="sextant-benchmark-") as folder:
        roster = Roster(options, Path(folder))
        for game in options.only:
            with ExitStack() as stack:
                players, reason = started(roster.players(game), stack)
                rounds = options.release_rounds if game == "release" else options.rounds
                play_evenly(players, rounds=rounds, seconds=options.seconds)
            theirs = theirs if reason is None else f"left out: {reason}"
            played += players
        settings: dict[str, Cell] = {
            "threads": options.threads,
            "batch": options.batch_size,
            "K": CONTEXT,
            "rounds": options.rounds,
            "seconds per turn": options.seconds,
            "envs": NUM_ENVS,
            "release's batch": options.release_batch_size,
            "release's rounds": options.release_rounds,
            "authors' release": theirs if "release" in options.only else None,
        }
        result(played, settings).publish(options.out)
    if "release" in options.only and theirs != "took part":
        print(f"\n{RELEASE}: {theirs}", file=sys.stderr)


if __name__ == "__main__":
    main()
