"""Prints every key of a config with its value, type, range and description."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from sextant.overrides import groups, options
from sextant.schema import Key, as_mapping, keys, plain

INDENT = "      "


def config_text(config: BaseModel, width: int | None = None) -> str:
    """Gives all keys of a config as text, group by group.

    Args:
        config: the config whose values are shown.
        width: columns of the text (default: the terminal's, at most 120).
    """
    return keys_text(type(config), as_mapping(config), width)


def keys_text(model: type[BaseModel], data: Mapping[str, Any], width: int | None = None) -> str:
    """Gives all keys of a config class as text, with the values in ``data`` or their defaults."""
    columns = width or min(120, shutil.get_terminal_size((100, 24)).columns)
    return "\n".join(line for key in keys(model, data) for line in _lines(key, columns))


def groups_text() -> str:
    """Gives the config groups and the presets in each, one line a group."""
    return "\n".join(f"  {group + '=':<12}{', '.join(options(group))}" for group in groups() if options(group))


def _lines(key: Key, columns: int) -> Iterator[str]:
    if key.is_group:
        yield ""
        yield f"{key.path}: {key.description or key.allowed}"
        return
    changed = "" if key.default is ... or key.value == key.default else f", default {plain(key.default)}"
    value = "(must be given)" if key.value is ... else plain(key.value)
    yield f"  {key.path}={value}  [{key.allowed}{changed}]"
    yield from textwrap.wrap(key.description, columns, initial_indent=INDENT, subsequent_indent=INDENT)
