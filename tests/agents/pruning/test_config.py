"""What is refused, what null stands for, and that configs survive a round trip."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from agents import DQNConfig
from agents.pruning import PruningConfig


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("magnitude", (0.2, 0.8, 1000, None)),
        ("rigl", (0.0, 0.8, 5000, 0.3)),
        ("set", (0.0, 0.8, 5000, 0.3)),
        ("static", (None, None, None, None)),
    ],
)
def test_null_stands_for_the_methods_default(method: Any, expected: tuple[Any, ...]) -> None:
    config = PruningConfig(method=method)
    assert (config.start, config.end, config.update_period, config.drop_fraction) == expected
    assert PruningConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": -0.1}, "greater than or equal to 0"),
        ({"method": "l0"}, "magnitude"),
        ({"start": 0.8}, "start=0.8 must lie below end=0.8"),
        ({"start": 0.5, "end": 0.4}, "start=0.5 must lie below end=0.4"),
        ({"drop_fraction": 0.3}, r"drop_fraction=0.3 has no effect with method=magnitude.*rigl\|set"),
        ({"method": "static", "end": 0.5}, "end=0.5 has no effect with method=static"),
        ({"method": "static", "update_period": 10}, "update_period=10 has no effect"),
        ({"include": ()}, "at least 1"),
        ({"sparsty": 0.9}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PruningConfig(**changes)


def test_agents_are_dense_unless_asked() -> None:
    assert DQNConfig().pruning is None
    assert DQNConfig(pruning=PruningConfig()).pruning == PruningConfig(sparsity=0.95, distribution="erk")


def test_the_config_is_cheap_to_import() -> None:
    code = "import sys, agents.pruning; assert not {'torch', 'numpy', 'tianshou'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
