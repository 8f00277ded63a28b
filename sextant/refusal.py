"""Turns a pydantic error into the message a person needs: which key, which value, what is allowed, what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sextant.schema import Key, as_mapping, keys, member_for, models_of, nearest_key, owners, plain, tags_of


class ConfigError(ValueError):
    """A config or command line that cannot be run; the message says why in a person's words."""


def refuse_missing(key: str, paths: Iterable[str | Path]) -> None:
    """Does nothing if all of these exist. Raises ConfigError naming the key and the first path that does not."""
    for path in paths:
        if not Path(path).exists():
            raise ConfigError(f"{key}: {path} does not exist (looked for it from {Path.cwd()})")


def refusal(model: type[BaseModel], data: Mapping[str, Any], error: ValidationError) -> ConfigError:
    """Gives one error that lists every refused key of ``data``, each once.

    Args:
        model: top-level config class that refused.
        data: what was given to it, as plain data.
        error: pydantic's account of it.
    """
    known = {key.path: key for key in keys(model, data)}
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        path = _path(model, data, detail["loc"])
        if detail["type"] == "extra_forbidden":
            shown = f"{path}={_value_at(data, path)}"
            lines.setdefault(path, f"unknown key {shown}: {_suggestion(path, known, owners(model, data, path))}")
        else:
            lines.setdefault(path, _line(path, detail["type"], detail["msg"], data, known))
    return ConfigError("\n".join(lines.values()))


def _path(model: type[BaseModel], data: Mapping[str, Any], location: Iterable[int | str]) -> str:
    """Gives the dotted config key of an error's location, without pydantic's union tags."""
    parts: list[str] = []
    current: type[BaseModel] | None = model
    inside_union = False
    for part in location:
        if current is None or isinstance(part, int):  # an element or alternative of a plain value
            break
        if inside_union and part in (*tags_of(current), current.__name__):
            inside_union = False
            continue
        parts.append(part)
        field = current.model_fields.get(part)
        if field is None:
            break
        value = as_mapping(data).get(part)
        current, data = member_for(field, value), as_mapping(value)
        inside_union = len(models_of(field)) > 0
    return ".".join(parts)


def _line(path: str, kind: str, message: str, data: Mapping[str, Any], known: Mapping[str, Key]) -> str:
    shown = f"{path}={_value_at(data, path)}"
    if kind == "missing":
        return f"missing key {path}: {_allowed(known.get(path))}"
    if kind in ("value_error", "assertion_error"):
        reason = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        is_group = path not in known or known[path].is_group
        return (f"{path}: {reason}" if path else reason) if is_group else f"{shown}: {reason}"
    return f"{shown} is not allowed: {_allowed(known.get(path))}"


def _allowed(key: Key | None) -> str:
    if key is None:
        return "see `sextant train --help`"
    return f"expected {key.allowed}" + (f" ({key.description})" if key.description else "")


def _suggestion(path: str, known: Mapping[str, Key], elsewhere: list[str]) -> str:
    if elsewhere:
        return f"only there with {' or '.join(elsewhere)}"
    close = nearest_key(path, known)
    if close is not None:
        return f"did you mean {close}?"
    parent = path.rpartition(".")[0]
    siblings = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == parent]
    return f"the keys {'of ' + parent if parent else 'at the top'} are {', '.join(siblings)}"


def _value_at(data: Mapping[str, Any], path: str) -> str:
    value: Any = data
    for part in path.split("."):
        value = as_mapping(value).get(part)
    return plain(value)
