import dataclasses

import pytest

from sextant.doctor import MIN_FREE_DISK_BYTES, run_doctor, storage_problems
from sextant.machine import this_machine
from sextant.versions import KNOWN_BAD, known_problems

GOOD = {
    "tianshou": "2.0.1",
    "gymnasium": "1.4.0",
    "ale-py": "0.12.1",
    "metaworld": "3.1.1",
    "mujoco": "3.3.0",
    "torch": "2.13.0+cpu",
    "numpy": "2.4.6",
}


def test_tested_set_has_no_known_problem():
    assert known_problems(GOOD) == []


@pytest.mark.parametrize(
    ("package", "version", "reason"),
    [
        ("tianshou", "2.0.0", "tested against 2.0.1"),
        ("gymnasium", "0.29.1", "needs 1.0 or newer"),
        ("ale-py", "0.8.1", "needs 0.12 or newer"),
        ("metaworld", "2.0.0", "Metaworld issue 538"),
        ("metaworld", "3.0.0", "button-press"),
        ("mujoco", "3.3.1", "metaworld 3.1 pins mujoco 3.3.0"),
        ("torch", "2.5.1+cu124", "weights_only"),
    ],
)
def test_known_bad_version_is_named_with_its_reason(package, version, reason):
    problems = known_problems(GOOD | {package: version})
    assert len(problems) == 1
    assert problems[0].startswith(f"{package} {version}: ")
    assert reason in problems[0]


def test_another_mujoco_is_fine_without_metaworld():
    assert known_problems({"mujoco": "3.4.0"}) == []


def test_missing_package_is_a_problem_and_envpool_is_not():
    assert known_problems({"torch": "missing", "envpool": "missing"}) == [
        "torch is not installed: pip install -c constraints.txt -e ."
    ]


def test_every_rule_has_a_reason():
    assert all(bad.reason for bad in KNOWN_BAD)


def test_full_disk_is_a_problem(tmp_path):
    machine = dataclasses.replace(this_machine(tmp_path), disk_free_bytes=MIN_FREE_DISK_BYTES - 1)
    assert "GiB of disk are free" in storage_problems(machine, tmp_path)[0]


def test_unwritable_runs_folder_is_a_problem(tmp_path):
    machine = dataclasses.replace(this_machine(tmp_path), disk_free_bytes=MIN_FREE_DISK_BYTES)
    file = tmp_path / "runs"
    file.write_text("")  # not even root can make a file inside a file
    assert f"{file} cannot be written" in storage_problems(machine, file)[0]


def test_doctor_reports_and_ends_with_0_here(tmp_path, capsys):
    assert run_doctor(tmp_path) == 0
    shown = capsys.readouterr().out
    for expected in ("torch        ", "cpus", "OMP_NUM_THREADS", "memory", "disk", "gpu", "Problems\n  none"):
        assert expected in shown


def test_doctor_ends_with_1_on_a_problem(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sextant.doctor.shadowed_packages", lambda: {"agents": "/elsewhere/agents/__init__.py"})
    assert run_doctor(tmp_path) == 1
    assert "package 'agents' is /elsewhere/agents/__init__.py" in capsys.readouterr().out
