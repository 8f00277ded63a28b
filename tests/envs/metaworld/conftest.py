"""Goals are made once per test run, in a folder of the run's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _goal_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("SEXTANT_CACHE_DIR")
    os.environ["SEXTANT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SEXTANT_CACHE_DIR"]
    else:
        os.environ["SEXTANT_CACHE_DIR"] = before
