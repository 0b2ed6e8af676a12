"""What this process may still use of the machine: memory and processors, container limits respected."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

Progress = Callable[[str, int, int], None]
"""Called with what is being read, how many files are done, and how many there are."""


_CGROUP_V2 = Path("/sys/fs/cgroup")
_CGROUP_V1 = Path("/sys/fs/cgroup/memory")
_CGROUP_V1_CPU = Path("/sys/fs/cgroup/cpu")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_SPARE_FILES = 64


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping: the machine's, or less where a job or container has less."""
    candidates = [int(psutil.virtual_memory().available)]
    names = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for folders, (limit_name, usage_name) in zip(
        (_groups(_CGROUP_V2, ""), _groups(_CGROUP_V1, "memory")), names, strict=True
    ):
        for folder in folders:
            limit, usage = _read_int(folder / limit_name), _read_int(folder / usage_name)
            if limit is not None and usage is not None:
                candidates.append(limit - usage + _reclaimable_bytes(folder / "memory.stat"))
    return max(0, min(candidates))


def allow_open_files(num_files: int) -> None:
    """Raises this process's own limit on open files, as far as it may, where so many more would not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = psutil.Process().num_fds() + num_files + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and wanted > soft:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def resident_memory_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes() -> int:
    """Most resident memory that this process has had.

    Linux's ``VmHWM`` is asked first: ``getrusage`` counts what the parent had when it started this process.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def return_free_memory() -> None:
    """Gives memory that was freed back to the system, where the C library (glibc) keeps it otherwise.

    A video decoder frees its frames in several threads' arenas; without this, opening the next file took 8 MB more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def num_cpus() -> int:
    """Processors that this process may use: those it may run on, or fewer where a container has a quota of time."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _cpu_quota())))


def _cpu_quota() -> float:
    """Processors' worth of time that the job or container may take; infinite without a limit."""
    quotas = [math.inf]
    for folder in _groups(_CGROUP_V2, ""):
        with contextlib.suppress(OSError, ValueError):
            limit, period = (folder / "cpu.max").read_text().split()
            quotas.append(_ratio(limit, period))
    for folder in _groups(_CGROUP_V1_CPU, "cpu"):
        limit, period = (str(_read_int(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        quotas.append(_ratio(limit, period))
    return min(quotas)


def _ratio(limit: str, period: str) -> float:
    """A quota of ``max``, of -1, or none at all is no limit."""
    if not (limit.isdecimal() and period.isdecimal() and int(period)):
        return math.inf
    return int(limit) / int(period)


def _groups(root: Path, controller: str) -> list[Path]:
    """The control groups that this process is in, from its own to the root.

    A container sees its own as the root; a Slurm or systemd job's lies further down.

    Args:
        root: Where a hierarchy is mounted.
        controller: Of cgroup v1; empty for v2.
    """
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return [root]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = root / path.strip("/")
            return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return [root]


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _reclaimable_bytes(path: Path) -> int:
    """Page cache that the kernel gives back under pressure; it counts as used in a container."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    stats = dict(line.split()[:2] for line in lines if " " in line)
    return int(stats.get("inactive_file", stats.get("total_inactive_file", 0)))
