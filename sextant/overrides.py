"""Hydra's half of the config: command-line overrides checked early, then composed into plain data.

Presets hold only what differs from the defaults in the config classes, so Hydra sees few of the keys that exist. Every
``key=value`` is therefore composed as a forced addition, and the config classes decide which keys there are.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from envs.base import nearest
from sextant.checkout import CONFIGS
from sextant.refusal import ConfigError
from sextant.schema import plain

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def groups() -> tuple[str, ...]:
    """Gives the names of the config groups, such as ``agent`` and ``env``."""
    return tuple(sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "hydra"))


def options(group: str) -> list[str]:
    """Gives the names of the presets in a group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def compose_data(overrides: Sequence[str]) -> dict[str, Any]:
    """Composes one config from the presets and the command line.

    Args:
        overrides: Hydra overrides, such as ``agent=dqn`` or ``agent.gamma=0.99``; no sweeps.

    Returns:
        plain data, as the presets and overrides give it: not validated, defaults not filled in.

    Raises:
        ConfigError: for an unreadable override, an unknown preset or a sweep.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        data = OmegaConf.to_container(compose(normalised(overrides)), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Lets Hydra compose ``configs/train.yaml`` with overrides that are already normalised."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with hydra.initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        try:
            return hydra.compose("train", overrides=list(overrides), return_hydra_config=with_hydra)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_first_line(error)) from error


def normalised(overrides: Sequence[str]) -> list[str]:
    """Checks each override by itself and writes it the way :func:`compose` needs it.

    Raises:
        ConfigError: naming the first override that cannot be used, and why.
    """
    return [_normalised(override) for override in parse(overrides)]


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Gives the overrides of each job of a sweep, as the product of all swept keys.

    Raises:
        ConfigError: if an override cannot be read.
    """
    return [list(job) for job in itertools.product(*(list(_choices(override)) for override in parse(overrides)))]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Reads override strings with Hydra's grammar.

    Raises:
        ConfigError: naming the override that is not ``key=value``.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(f"cannot read {text!r}: expected key=value, such as agent=dqn or seed=1") from error
    return parsed


def is_hydra_key(override: Override) -> bool:
    """Says whether an override is about Hydra itself (the launcher of a sweep), not about the run."""
    return override.key_or_group.split(".")[0].split("/")[0] == "hydra"


def _choices(override: Override) -> Iterator[str]:
    from hydra.core.override_parser.types import Glob

    if not override.is_sweep_override():
        yield str(override.input_line)
        return
    value: Any = override.value()  # Hydra's annotation leaves Glob out
    if isinstance(value, Glob):
        names = options(override.key_or_group) if override.key_or_group in groups() else []
        chosen = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in value.include)]
        strings = [name for name in chosen if not any(fnmatch.fnmatch(name, pattern) for pattern in value.exclude)]
        if not strings:
            raise ConfigError(f"{override.input_line} matches no preset of {override.key_or_group}")
    else:
        strings = [str(text) for text in override.sweep_string_iterator()]
    for text in strings:
        yield f"{override.get_key_element()}={text}"


def _normalised(override: Override) -> str:
    text, key = str(override.input_line), override.key_or_group
    if override.is_sweep_override():
        raise ConfigError(f"{text} lists several values: a sweep needs -m (`sextant train -m {text}`)")
    if is_hydra_key(override):
        raise ConfigError(f"{text} chooses how a sweep is launched: it needs -m (`sextant train -m seed=0,1,2 {text}`)")
    if key in groups():
        return _group_choice(override)
    if override.is_delete():
        return text
    return "++" + text.lstrip("+")


def _group_choice(override: Override) -> str:
    group, value = override.key_or_group, override.value()
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: a run needs its {group}; presets: {', '.join(options(group))}")
    if not isinstance(value, str) or value not in options(group):
        hint = nearest(plain(value), options(group))
        raise ConfigError(f"{group}={plain(value)} is not known: {hint} (presets: {', '.join(options(group))})")
    return str(override.input_line).lstrip("+")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
