"""What a container leaves to a process, from the files in which the kernel says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lewm_data import resources


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the kernel's."""
    monkeypatch.setattr(resources, "_CGROUP_V2", tmp_path)
    monkeypatch.setattr(resources, "_CGROUP_V1", tmp_path / "memory")
    monkeypatch.setattr(resources, "_CGROUP_V1_CPU", tmp_path / "cpu")
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda pid: set(range(128)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000", 128), ("1600000 100000", 16), ("150000 100000", 2), ("5000 100000", 1), ("99900000 100000", 128)],
)
def test_a_quota_of_processor_time_counts(cgroup: Path, text: str, cpus: int) -> None:
    (cgroup / "cpu.max").write_text(text + "\n")
    assert resources.num_cpus() == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 128), ("800000", 8)])
def test_so_does_one_of_the_older_kind(cgroup: Path, quota: str, cpus: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert resources.num_cpus() == cpus


def test_without_a_container_all_processors_are_there(cgroup: Path) -> None:
    assert resources.num_cpus() == 128


def test_a_limit_on_memory_counts_and_page_cache_does_not(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(str(100 << 20))
    (cgroup / "memory.current").write_text(str(90 << 20))
    (cgroup / "memory.stat").write_text(f"anon 5\ninactive_file {40 << 20}\n")
    assert resources.available_memory_bytes() == 50 << 20
    (cgroup / "memory.max").write_text("max")
    assert resources.available_memory_bytes() > 50 << 20
    assert math.isinf(resources._cpu_quota())
