"""Which games there are, read from the ROM files that ale-py ships, without importing it (it takes a while)."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from pathlib import Path

from envs.base import nearest

# ale-py ships these ROMs for its multi-player interface only: loading one in a single-player emulator ends the process
# (its registration.py leaves the same four out).
MULTI_PLAYER_ONLY = frozenset({"combat", "joust", "maze_craze", "warlords"})


@functools.lru_cache(maxsize=1)
def game_names() -> tuple[str, ...]:
    """Gives every single-player game by its short name (``ms_pacman``), in alphabetical order.

    Raises:
        ModuleNotFoundError: if ale-py is not installed.
    """
    spec = importlib.util.find_spec("ale_py")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("Atari games need the package ale-py, which is not installed: pip install ale-py")
    folder = Path(os.environ.get("ALE_ROMS_DIR") or Path(spec.origin).parent / "roms")  # ale-py's own rule
    return tuple(sorted({path.stem for path in folder.glob("*.bin")} - MULTI_PLAYER_ONLY))


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def normalise_game(name: str) -> str:
    """Gives the short name of a game; accepts ``MsPacman``, ``Ms. Pacman`` and ``ALE/MsPacman-v5`` too.

    Raises:
        ValueError: if ale-py ships no such game; the message has the nearest names.
    """
    by_key = {_key(game): game for game in game_names()}
    bare = re.sub(r"-v5$", "", name.removeprefix("ALE/"))
    if (game := by_key.get(_key(bare))) is not None:
        return game
    family = re.sub(r"(NoFrameskip|Deterministic|-ram.*)?(-v\d+)?$", "", bare)
    if (game := by_key.get(_key(family))) is not None:
        raise ValueError(f"unknown game {name!r}: the game is {game!r}, its rules come from `protocol`, not from an id")
    raise ValueError(f"unknown game {name!r}: {nearest(bare, game_names())}")
