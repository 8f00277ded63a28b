"""The packages that run are the checkout's own: their names are common words that others use too."""

import importlib
import subprocess
import sys
import tomllib

import pytest

from sextant.checkout import CHECKOUT, PACKAGES, put_checkout_first, shadowed_packages, shadowing_message


@pytest.mark.parametrize("name", PACKAGES)
def test_package_comes_from_the_checkout(name):
    origin = importlib.import_module(name).__file__
    assert origin == str(CHECKOUT / name / "__init__.py"), f"{name!r} was taken by {origin}"


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_typed_and_shipped(name):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert (CHECKOUT / name / "py.typed").exists()
    assert name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_no_module_is_named_after_one_of_the_standard_library():
    modules = {path.stem for name in PACKAGES for path in (CHECKOUT / name).rglob("*.py")} - {"__init__", "__main__"}
    assert not modules & sys.stdlib_module_names - {"statistics"}, "statistics lives in analysis/, never imported bare"


def test_tests_are_no_packages():
    assert not list((CHECKOUT / "tests").rglob("__init__.py"))


def test_put_checkout_first(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(CHECKOUT), "/more"])
    put_checkout_first()
    assert sys.path == [str(CHECKOUT), "/elsewhere", "/more"]


@pytest.fixture
def impostor(tmp_path):
    """A folder with a package of another distribution that took the name ``agents``."""
    package = tmp_path / "agents"
    package.mkdir()
    (package / "__init__.py").write_text("")
    return tmp_path


def test_shadowed_package_is_named_with_its_path(impostor):
    script = "\n".join(
        [
            "import sys",
            f"sys.path[:0] = [{str(impostor)!r}, {str(CHECKOUT)!r}]",
            "from sextant.checkout import shadowed_packages",
            "print(shadowed_packages())",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=impostor)
    assert str(impostor / "agents" / "__init__.py") in done.stdout


def test_command_line_wins_over_a_shadowing_package(impostor):
    script = (
        f"import sys; sys.path[:0] = [{str(impostor)!r}, {str(CHECKOUT)!r}]; from sextant.cli import main; main([])"
    )
    script += "; import agents; print(agents.__file__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=impostor)
    assert str(CHECKOUT / "agents" / "__init__.py") in done.stdout


def test_nothing_is_shadowed_here():
    assert shadowed_packages() == {}


def test_shadowing_message_names_package_and_path():
    message = shadowing_message({"agents": "/elsewhere/agents/__init__.py"})
    assert "'agents' is /elsewhere/agents/__init__.py" in message
