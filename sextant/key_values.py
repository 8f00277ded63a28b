"""Plain ``key=value`` arguments, of the commands whose keys are no Hydra overrides."""

from __future__ import annotations

from collections.abc import Sequence

from sextant.refusal import ConfigError


def split_key_values(arguments: Sequence[str], example: str) -> dict[str, str]:
    """Gives the values by key, as typed; of a key given twice the last.

    Args:
        arguments: such as ``run=runs/X``.
        example: shown where one cannot be read.

    Raises:
        ConfigError: naming the argument that has no ``=``.
    """
    found = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"cannot read {argument!r}: expected key=value, such as {example}")
        found[key] = value
    return found
