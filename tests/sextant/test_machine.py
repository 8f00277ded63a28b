import pytest

from sextant import machine
from sextant.machine import this_machine


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


def test_without_limits(cgroup):
    found = this_machine()
    assert found.cpus >= 1
    assert found.cpu_quota is None
    assert 0 < found.memory_available_bytes <= found.memory_bytes
    assert found.disk_free_bytes > 0


def test_container_limits_are_seen(cgroup):
    (cgroup / "cpu.max").write_text("150000 100000\n")
    (cgroup / "memory.max").write_text("5000\n")
    (cgroup / "memory.current").write_text("2000\n")
    found = this_machine()
    assert found.cpu_quota == 1.5
    assert found.memory_available_bytes == 3000


def test_older_container_limits_are_seen(cgroup):
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    (cgroup / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert this_machine().cpu_quota == 0.5


def test_unlimited_container(cgroup):
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert this_machine().cpu_quota is None


def test_disk_of_a_folder_not_made_yet(tmp_path):
    assert this_machine(tmp_path / "a" / "b").disk_free_bytes > 0
