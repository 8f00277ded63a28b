"""Every script in ``examples/`` runs as its first lines say, in seconds, and prints what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sextant.checkout import CHECKOUT

EXAMPLES = sorted((CHECKOUT / "examples").glob("*.py"))
TESTED = {"train_from_python.py", "act_with_a_trained_agent.py", "prune_your_own_network.py"}


def run(name: str, *arguments: str) -> str:
    """Runs an example and gives what it printed."""
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What examples/train_from_python.py printed, and the run it left."""
    printed = run("train_from_python.py", str(tmp_path_factory.mktemp("runs")))
    return printed, Path(printed.splitlines()[-1].removeprefix("run directory: "))


def test_every_example_is_tested_and_short():
    assert {path.name for path in EXAMPLES} == TESTED
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 60 for path in EXAMPLES)


def test_training_from_python_leaves_random_play_behind(trained):
    printed, run_dir = trained
    returns = {int(steps): float(mean) for steps, mean in re.findall(r"(\d+) env steps: mean return ([\d.]+)", printed)}
    assert list(returns) == [1000, 2000, 3000]
    assert max(returns.values()) > 100
    assert (run_dir / "config.yaml").exists()


def test_acting_with_the_best_checkpoint_earns_what_training_saw(trained):
    printed = run("act_with_a_trained_agent.py", str(trained[1]))
    found = re.fullmatch(r"best checkpoint, (\d+) env steps: return (\d+)\n", printed)
    assert found is not None, printed
    assert int(found[2]) > 100


def test_acting_without_a_checkpoint_is_told(trained, tmp_path):
    (tmp_path / "config.yaml").write_text((trained[1] / "config.yaml").read_text())
    with pytest.raises(AssertionError, match="has no last checkpoint that is intact"):
        run("act_with_a_trained_agent.py", str(tmp_path), "last")


@pytest.mark.parametrize("method", ["magnitude", "rigl"])
def test_pruning_keeps_exactly_as_many_weights_as_asked_for(method):
    printed = run("prune_your_own_network.py", method)
    assert "2: 296 of 4096 weights kept, 296 of them not zero" in printed
    total = re.search(r"total: 424 of 4224 weights kept, sparsity 0.8996, loss ([\d.]+)", printed)
    assert total is not None, printed
    assert float(total[1]) < 0.05
