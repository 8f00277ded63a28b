"""Who may import whom, read from the source of every file."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

from sextant.checkout import CHECKOUT, PACKAGES

MAY_IMPORT = {
    "envs": set(),
    "memory": set(),
    "agents": {"memory"},
    "trainers": {"agents", "memory", "envs"},
    "analysis": {"agents", "memory"},
    "studies": set(PACKAGES) - {"sextant"},
    "sextant": set(PACKAGES),
}
ONLY_IN = {
    "hydra": ("sextant/",),
    "omegaconf": ("sextant/",),
    "ale_py": ("envs/", "agents/scripted.py"),
    "metaworld": ("envs/", "agents/scripted.py"),
    "tianshou": ("agents/", "memory/", "envs/tianshou_vector.py", "trainers/"),
}
LIGHT = ("torch", "tianshou", "gymnasium", "ale_py", "metaworld", "numpy", "scipy", "tensorboard", "matplotlib")
FILES = sorted(path.relative_to(CHECKOUT) for name in PACKAGES for path in (CHECKOUT / name).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Gives the top-level name of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse((CHECKOUT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            assert node.module is not None
            yield node.module.split(".")[0]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_follow_the_rules(file):
    package, names = file.parts[0], set(imported(file))
    ours = names & set(PACKAGES) - {package}
    assert ours <= MAY_IMPORT[package], f"{file} imports {sorted(ours - MAY_IMPORT[package])}"
    for library, places in ONLY_IN.items():
        assert library not in names or file.as_posix().startswith(places), f"{file} imports {library}"


def test_every_library_imported_is_declared():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    declared = {_normalised(re.split(r"[\[<>=]", requirement)[0]) for requirement in requirements}
    distributions = packages_distributions()
    for file in FILES:
        for name in set(imported(file)) - set(PACKAGES) - sys.stdlib_module_names:
            owners = {_normalised(owner) for owner in distributions.get(name, [name])}
            assert owners & declared, f"{file} imports {name}, which pyproject.toml does not ask for"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
