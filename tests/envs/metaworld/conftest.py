"""Goals are made once per test run, in a folder of the run's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

Act = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="session", autouse=True)
def _goal_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("SEXTANT_CACHE_DIR")
    os.environ["SEXTANT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SEXTANT_CACHE_DIR"]
    else:
        os.environ["SEXTANT_CACHE_DIR"] = before


@pytest.fixture
def expert() -> Callable[[str], Act]:
    """The package's scripted policy of a task, from our observations to legal actions; it must see the goal."""
    policies = pytest.importorskip("metaworld.policies")

    def make(task: str) -> Act:
        policy: Any = policies.ENV_POLICY_MAP[task]()

        def act(obs: np.ndarray) -> np.ndarray:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Constant.s. may be too high")  # it says that it will be clipped
                action = policy.get_action(obs[:39].astype(np.float64))
            return np.clip(action, -1, 1).astype(np.float32)

        return act

    return make
