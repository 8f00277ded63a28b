"""What is true of every episode in a trajectory file: env, protocol, spaces, and where the data came from.

Light: standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

FORMAT_VERSION = 1
ObservationKind = Literal["vector", "frames", "image"]
ActionKind = Literal["discrete", "continuous"]

_OBS_DTYPES = {"vector": ("float32", "float16"), "frames": ("uint8",), "image": ("uint8", "float32")}
_PROVENANCE = ("versions", "code_version", "seed", "extra")
_OTHERS = "other_sources"


class DatasetError(ValueError):
    """A trajectory file or folder that is damaged, incomplete or of another format; the message names it."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryFacts:
    """The attributes of a trajectory file.

    Attributes:
        env_id: id of the env as registered.
        suite: family of envs ("atari", "metaworld", ...).
        task: name of the one task of the file.
        protocol_id: name of the evaluation protocol whose env settings were used.
        protocol_hash: its hash.
        observation_kind: "vector"; "frames" (stacks of which single frames are stored); "image" (stored whole).
        obs_shape: of one observation as the agent sees it: (O,), (S, H, W) for frames, (C, H, W) for images.
        obs_dtype: of the stored observations; agents see float32 where it is float16.
        action_kind: "discrete" (int64 indices) or "continuous" (float32 in [-1, 1]).
        num_actions: of discrete actions, else None.
        action_size: entries A of a continuous action, else None.
        goal_visible: whether the stored observations show the goal.
        reward_clip: whether the collecting agent trained on clipped rewards; the stored ones never are.
        versions: of the packages that touch the data.
        code_version: of this repository.
        seed: of the collection.
        extra: anything else, as JSON.
        format_version: of the file layout.
    Raises:
        ValueError: naming the field, its value and what is allowed.
    """

    env_id: str
    suite: str
    task: str
    observation_kind: ObservationKind
    obs_shape: tuple[int, ...]
    obs_dtype: str
    action_kind: ActionKind
    num_actions: int | None = None
    action_size: int | None = None
    protocol_id: str = ""
    protocol_hash: str = ""
    goal_visible: bool = True
    reward_clip: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    code_version: str = ""
    seed: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _one_of("format_version", self.format_version, (FORMAT_VERSION,))
        _one_of("observation_kind", self.observation_kind, get_args(ObservationKind))
        _one_of("action_kind", self.action_kind, get_args(ActionKind))
        _one_of("obs_dtype", self.obs_dtype, _OBS_DTYPES[self.observation_kind])
        for name in ("env_id", "suite", "task"):
            _require(name, getattr(self, name), bool(getattr(self, name)), "a name")
        dims = 1 if self.observation_kind == "vector" else 3
        good = isinstance(self.obs_shape, tuple) and len(self.obs_shape) == dims and all(n >= 1 for n in self.obs_shape)
        _require("obs_shape", self.obs_shape, good, f"a tuple of {dims} sizes >= 1 for {self.observation_kind}")
        discrete = self.action_kind == "discrete"
        for name, wanted in (("num_actions", discrete), ("action_size", not discrete)):
            value = getattr(self, name)
            expected = f"{'an int >= 1' if wanted else 'None'} for {self.action_kind} actions"
            _require(name, value, (value is not None and value >= 1) if wanted else value is None, expected)
        for name in ("versions", "extra"):
            value = getattr(self, name)
            _require(name, value, _survives_json(value), "a dict of JSON values")

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one stored observation: without the stack for frames, else :attr:`obs_shape`."""
        return self.obs_shape[1:] if self.observation_kind == "frames" else self.obs_shape

    @property
    def stack_num(self) -> int:
        """Frames of a stack, 1 where observations are stored as they are."""
        return self.obs_shape[0] if self.observation_kind == "frames" else 1

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one stored action: empty for discrete actions."""
        return () if self.action_size is None else (self.action_size,)

    def to_json(self) -> dict[str, Any]:
        """Gives plain lists, dicts, numbers and strings; :meth:`from_json` gives back equal facts."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrajectoryFacts:
        """Reads what :meth:`to_json` gave.

        Raises:
            ValueError: for missing or unknown keys, another format version, or values that are not allowed.
        """
        if "format_version" in data:
            _one_of("format_version", data["format_version"], (FORMAT_VERSION,))
        names = {entry.name for entry in fields(cls)}
        if set(data) != names:
            missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
            raise ValueError(f"facts: missing {missing}, unknown {unknown}")
        return cls(**{**data, "obs_shape": tuple(data["obs_shape"])})


def merge_facts(many: Sequence[TrajectoryFacts]) -> TrajectoryFacts:
    """Gives the facts of files put together: the first's, with other versions and seeds under ``extra``.

    Args:
        many: one or more; those that equal others count once.
    Raises:
        ValueError: if they differ in anything but versions, code version, seed and extra.
    """
    first = many[0]
    sources: list[dict[str, Any]] = []
    for facts in many:
        for name in (entry.name for entry in fields(facts) if entry.name not in _PROVENANCE):
            if getattr(facts, name) != getattr(first, name):
                raise ValueError(f"{name} is {getattr(facts, name)!r} here and {getattr(first, name)!r} there")
        values = {name: getattr(facts, name) for name in _PROVENANCE}
        values["extra"] = {key: value for key, value in facts.extra.items() if key != _OTHERS}
        sources += [source for source in (values, *facts.extra.get(_OTHERS, ())) if source not in sources]
    extra = {**sources[0]["extra"], **({_OTHERS: sources[1:]} if len(sources) > 1 else {})}
    return replace(first, extra=extra)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"facts.{name}: got {value!r}, expected {expected}")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    _require(name, value, value in allowed, "one of " + ", ".join(map(repr, allowed)))


def _survives_json(value: object) -> bool:
    try:
        return isinstance(value, dict) and json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False
