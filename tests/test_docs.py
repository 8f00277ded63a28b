"""What README and docs tell people to type is understood as it stands there, and what they link to is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sextant import cli, commands
from sextant.adapt_config import read_adapt_config
from sextant.checkout import CHECKOUT, PACKAGES
from sextant.collect_config import read_collect_config
from sextant.config import compose_train_config
from sextant.evaluate_config import read_evaluate_config
from sextant.export_config import read_export_config
from sextant.study import read_study_config
from sextant.sweep import plan_sweep
from studies import STUDIES

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
IN_BLOCK = re.compile(r"^ *(?:\w+=\S+ +)*(?:\S*/|torchrun .* -m )?sextant (.*)$", re.MULTILINE)
IN_TEXT = re.compile(r"`sextant ([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
TEMPLATE = re.compile(r"(?:^|[=\[])\.\.\.|\||<|\$|\[-|(?:^|=)[A-Z]+$|key=value")
"""Marks a word that stands for others, such as ``DIR``, ``videos=N``, ``scale=smoke|cpu`` or ``...``."""
STAND_INS = {"<preset>": "dqn_classic", "<offline preset>": "decision_transformer"}
"""What the placeholders of docs/adding_an_agent.md may stand for."""


def blocks(text: str, *languages: str) -> Iterator[str]:
    """Gives the code blocks in these languages, with continued lines joined."""
    for language, body in FENCE.findall(text):
        if language in languages:
            yield body.replace("\\\n", " ")


def documented_commands() -> Iterator[tuple[str, str]]:
    """Gives every command of every page, without the program's name, with the page's path."""
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), page.relative_to(CHECKOUT).as_posix()
        for block in blocks(text, "", "sh"):
            for command in IN_BLOCK.findall(block):
                for placeholder, stand_in in STAND_INS.items():
                    command = command.replace(placeholder, stand_in)
                yield name, command
        yield from ((name, command) for command in IN_TEXT.findall(FENCE.sub("", text)))


COMMANDS = sorted(set(documented_commands()))


def test_the_commands_are_found():
    assert len(COMMANDS) >= 120
    assert sum(page == "README.md" for page, _ in COMMANDS) >= 20
    assert {command.split()[0] for _, command in COMMANDS} >= {"train", "resume", "evaluate", "collect", "adapt"}


def train(options: Any) -> None:
    if options.multirun:
        about_ray = () if importlib.util.find_spec("hydra_plugins") else ("hydra/launcher=ray", "hydra.launcher.ray")
        plan_sweep([each for each in options.overrides if not each.startswith(about_ray)])
    else:
        compose_train_config(options.overrides)


def study(options: Any) -> None:
    assert options.overrides[0] in STUDIES
    read_study_config(options.overrides[1:])


READERS: dict[Callable[..., int], Callable[[Any], object]] = {
    commands.train: train,
    commands.study: study,
    commands.collect: lambda options: read_collect_config(options.overrides),
    commands.adapt: lambda options: read_adapt_config(options.overrides),
    commands.evaluate: lambda options: read_evaluate_config(options.overrides),
    commands.export: lambda options: read_export_config(options.overrides),
    commands.env_describe: lambda options: compose_train_config(options.overrides, lenient=True),
    commands.config_show: lambda options: compose_train_config(options.overrides, lenient=True),
}


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}" for page, command in COMMANDS])
def test_a_command_is_understood(page, command, capsys):
    words = shlex.split(command, comments=True)
    name = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
    if len(words) <= len(name) or any(map(TEMPLATE.search, words)):
        words = [*name, "--help"]  # a command's name, alone or with words that stand for its arguments
    try:
        options = cli.parse(words)
    except SystemExit as stop:
        assert stop.code == 0, capsys.readouterr().err
        return
    assert options.command is not None
    reader = READERS.get(options.run)
    if reader is not None and not options.wants_help:
        reader(options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_links_lead_to_files(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


def test_links_are_found():
    assert len(LINK.findall((CHECKOUT / "README.md").read_text(encoding="utf-8"))) >= 15


def test_what_python_examples_import_is_there():
    found = 0
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "python"):
            imports = [line for line in block.splitlines() if line.startswith("from ")]
            for node in ast.parse("\n".join(imports)).body:
                if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in PACKAGES:
                    module = importlib.import_module(str(node.module))
                    assert not [name.name for name in node.names if not hasattr(module, name.name)], page
                    found += 1
    assert found >= 3


def test_scripts_and_targets_that_pages_run_are_there():
    shell = "\n".join(block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"), "", "sh"))
    scripts = set(re.findall(r"\bpython ((?:\w+/)+\w+\.py)", shell))
    modules = {name for name in re.findall(r"\bpython -m ([\w.]+)", shell) if (CHECKOUT / name.split(".")[0]).is_dir()}
    assert scripts or modules
    assert not [script for script in scripts if not (CHECKOUT / script).exists()]
    assert not [module for module in modules if importlib.util.find_spec(module) is None]
    targets = set(re.findall(r"^make ([a-z-]+)", shell, re.MULTILINE))
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    assert {"train", "test"} <= targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
