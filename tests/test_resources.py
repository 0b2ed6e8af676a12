"""What a container leaves to a process, from the files in which the kernel says so."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lewm_data import resources


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the kernel's."""
    monkeypatch.setattr(resources, "_CGROUP_V2", tmp_path)
    monkeypatch.setattr(resources, "_CGROUP_V1", tmp_path / "memory")
    monkeypatch.setattr(resources, "_CGROUP_V1_CPU", tmp_path / "cpu")
    monkeypatch.setattr(resources, "_OWN_CGROUPS", tmp_path / "own")
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


def test_the_limits_of_a_job_count_wherever_its_group_lies(cgroup: Path) -> None:
    """As under Slurm and ``systemd-run``: the root of the hierarchy has no limit, and a parent may have the tighter."""
    (cgroup / "own").write_text("0::/system.slice/slurmstepd.scope/job_7/step_0\n")
    job = cgroup / "system.slice" / "slurmstepd.scope" / "job_7"
    (job / "step_0").mkdir(parents=True)
    (job / "memory.max").write_text(str(100 << 20))
    (job / "memory.current").write_text(str(90 << 20))
    (job / "step_0" / "memory.max").write_text("max")
    (job / "step_0" / "cpu.max").write_text("200000 100000")
    assert resources.available_memory_bytes() == 10 << 20
    assert resources.num_cpus() == 2


def test_so_do_those_of_the_older_kind(cgroup: Path) -> None:
    (cgroup / "own").write_text("7:memory:/slurm/job_7\n4:cpu,cpuacct:/slurm/job_7\n")
    for controller in ("memory", "cpu"):
        (cgroup / controller / "slurm" / "job_7").mkdir(parents=True)
    memory, cpu = cgroup / "memory" / "slurm" / "job_7", cgroup / "cpu" / "slurm" / "job_7"
    (memory / "memory.limit_in_bytes").write_text(str(100 << 20))
    (memory / "memory.usage_in_bytes").write_text(str(70 << 20))
    (cpu / "cpu.cfs_quota_us").write_text("300000")
    (cpu / "cpu.cfs_period_us").write_text("100000")
    assert resources.available_memory_bytes() == 30 << 20
    assert resources.num_cpus() == 3


def test_a_group_that_is_not_shown_here_is_that_of_the_container(cgroup: Path) -> None:
    (cgroup / "own").write_text("0::/docker/0123\n")
    (cgroup / "cpu.max").write_text("400000 100000")
    assert resources.num_cpus() == 4


def test_the_limit_on_open_files_is_raised_where_it_would_not_do() -> None:
    code = """
import resource
from lewm_data.resources import allow_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
for wanted in (10, 150, 10_000):
    allow_open_files(wanted)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    limits = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    few, some, most = map(int, limits)
    assert few == 100
    assert 214 <= some < 300
    assert most == 300


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may enter that class")
def test_a_thread_in_the_real_time_class_gets_its_ordinary_priority_back() -> None:
    found = []

    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        resources.leave_real_time()
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [os.SCHED_OTHER]
