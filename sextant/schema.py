"""What a config class says about its keys: their types, ranges, defaults and descriptions, and nearest names.

Works on any pydantic model; a field whose type is a union of models is followed into the member that its data names.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PLAIN_NAMES = {int: "int", float: "float", bool: "true|false", str: "text", Path: "path", types.NoneType: "null"}
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("multiple_of", "multiple of"))
CLOSE = 0.7  # difflib ratio from which on two names are taken for the same one, mistyped
_TAGS = ("name", "kind")  # fields by which a union of config classes is told apart


@dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
        path: dotted path, as typed on the command line.
        allowed: type and range in words.
        value: value in the config at hand (the default where the config does not set it).
        default: default of the class; ``...`` where the key must be given.
        description: what it means, with unit and source.
        is_group: whether it only holds further keys.
    """

    path: str
    allowed: str
    value: Any
    default: Any
    description: str
    is_group: bool


def keys(model: type[BaseModel], data: Mapping[str, Any], prefix: str = "") -> Iterator[Key]:
    """Gives every key of ``model``, plain keys before groups, following unions into the member that ``data`` names."""
    fields = sorted(model.model_fields.items(), key=lambda item: bool(models_of(item[1])))
    for name, field in fields:
        default = default_of(field)
        value = data.get(name, default)
        member = member_for(field, value)
        path = prefix + name
        yield Key(path, allowed_text(field), value, default, field.description or "", member is not None)
        if member is not None:
            yield from keys(member, as_mapping(value), path + ".")


def completed(model: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in what a partly given group leaves out, from the default that its parent class has for it.

    So ``agent.replay.prioritised=true`` changes that one key of the agent's own default replay, instead of replacing
    that replay by one made of ``ReplayConfig``'s defaults. Groups not given at all are left to the config class.
    """
    full = dict(data)
    for name, field in model.model_fields.items():
        given = data.get(name)
        if not isinstance(given, Mapping):
            continue
        default = default_of(field)
        if isinstance(default, BaseModel) and all(
            given.get(tag, getattr(default, tag, None)) == getattr(default, tag, None) for tag in _TAGS
        ):
            given = _merged(default.model_dump(mode="json"), given)
        member = member_for(field, given)
        full[name] = given if member is None else completed(member, given)
    return full


def default_of(field: FieldInfo) -> Any:
    """Gives the default of a field; ``...`` where it must be given."""
    return ... if field.is_required() else field.get_default(call_default_factory=True, validated_data={})


def plain(value: Any) -> str:
    """Writes a value the way it is typed on the command line."""
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(plain(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {plain(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Gives the fields of a model or mapping by name; empty for anything else."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    return value if isinstance(value, Mapping) else {}


def member_for(field: FieldInfo, value: Any) -> type[BaseModel] | None:
    """Gives the config class that ``value`` of this field belongs to, or None if it is a plain value."""
    if isinstance(value, BaseModel):
        return type(value)
    members = models_of(field)
    if not isinstance(value, Mapping) or len(members) == 1:
        return members[0] if isinstance(value, Mapping) else None
    given = {value.get(tag) for tag in _TAGS}
    return next((member for member in members if given & set(tags_of(member))), None)


def models_of(field: FieldInfo) -> list[type[BaseModel]]:
    """Gives the config classes that a field may hold: none for a plain value, several for a union."""
    return [member for member in _union_members(field.annotation) if _is_model(member)]


def tag_field(model: type[BaseModel]) -> str:
    """Gives the name of the class's discriminator field, ``name`` or ``kind``; empty where it has none."""
    return next((tag for tag in _TAGS if tag in model.model_fields), "")


def tags_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Gives the values of the class's discriminator; empty where it has none."""
    tag = tag_field(model)
    return typing.get_args(model.model_fields[tag].annotation) if tag else ()


def allowed_text(field: FieldInfo) -> str:
    """Says which values a field takes, for example ``int >= 1 or null``."""
    return _annotation_text(field.annotation, field.metadata)


def nearest_key(path: str, candidates: Iterable[str]) -> str | None:
    """Gives the candidate closest to a mistyped key, or None when none is close.

    The last component has to be alike, the rest decides between equals: ``lerning_rate`` finds ``agent.learning_rate``.
    """

    def closeness(candidate: str) -> tuple[float, float]:
        return _alike(path.rpartition(".")[2], candidate.rpartition(".")[2]), _alike(path, candidate)

    best = max(candidates, key=closeness, default=None)
    return best if best is not None and closeness(best)[0] >= CLOSE else None


def owners(model: type[BaseModel], data: Mapping[str, Any], path: str) -> list[str]:
    """Gives the choices under which a key would exist: ``agent.network.kind=impala_cnn`` for ``agent.network.width``.

    Args:
        model: top-level config class.
        data: its plain data.
        path: dotted path of a key that the chosen config classes do not have.
    """
    current: type[BaseModel] | None = model
    choice, members = "", list[type[BaseModel]]()
    *parents, last = path.split(".")
    for depth, part in enumerate(parents):
        field = None if current is None else current.model_fields.get(part)
        if field is None:
            return []
        data = as_mapping(data.get(part, default_of(field)))
        current, members = member_for(field, data), models_of(field)
        choice = ".".join(parents[: depth + 1])
    having = [member for member in members if member is not current and last in member.model_fields]
    return [f"{choice}{'' if len(parents) == 1 else '.' + tag_field(member)}={tags_of(member)[0]}" for member in having]


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _union_members(annotation: Any) -> list[Any]:
    """Gives the alternatives of an annotation, looking through ``Annotated``."""
    if typing.get_origin(annotation) is Annotated:
        return _union_members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _union_members(part)]
    return [annotation]


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            another = any(tag in value and value[tag] != old.get(tag) for tag in _TAGS)
            merged[name] = value if another else _merged(old, value)
        else:
            merged[name] = value
    return merged


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _annotation_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _annotation_text(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        parts = [_annotation_text(part, metadata if part is not types.NoneType else ()) for part in arguments]
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin in (tuple, list):
        inner = " or ".join(dict.fromkeys(_annotation_text(part) for part in arguments if part is not Ellipsis))
        return f"list of {inner}" + _bounds_text(metadata)
    if _is_model(annotation):
        return "|".join(tags_of(annotation)) or "keys"
    return _PLAIN_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation))) + _bounds_text(metadata)


def _bounds_text(metadata: Iterable[Any]) -> str:
    bounds = []
    for item in metadata:
        for name, sign in _BOUNDS:
            if (bound := getattr(item, name, None)) is not None:
                bounds.append(f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}")
        if (pattern := getattr(item, "pattern", None)) is not None:
            bounds.append(f"matching {pattern}")
    return " " + ", ".join(bounds) if bounds else ""
