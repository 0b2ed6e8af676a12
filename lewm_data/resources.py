"""What this process may still use of the machine: memory and processors, container limits respected."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import sys
from pathlib import Path

import psutil

_CGROUP_V2 = Path("/sys/fs/cgroup")
_CGROUP_V1 = Path("/sys/fs/cgroup/memory")
_CGROUP_V1_CPU = Path("/sys/fs/cgroup/cpu")


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping: the machine's, or less where a container's limit is tighter."""
    candidates = [int(psutil.virtual_memory().available)]
    for limit_file, usage_file, stat_file in (
        (_CGROUP_V2 / "memory.max", _CGROUP_V2 / "memory.current", _CGROUP_V2 / "memory.stat"),
        (
            _CGROUP_V1 / "memory.limit_in_bytes",
            _CGROUP_V1 / "memory.usage_in_bytes",
            _CGROUP_V1 / "memory.stat",
        ),
    ):
        limit, usage = _read_int(limit_file), _read_int(usage_file)
        if limit is not None and usage is not None:
            candidates.append(limit - usage + _reclaimable_bytes(stat_file))
    return max(0, min(candidates))


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
    """Processors' worth of time that the container may take; infinite without a limit."""
    try:
        limit, period = (_CGROUP_V2 / "cpu.max").read_text().split()
    except (OSError, ValueError):
        limit, period = (
            str(_read_int(_CGROUP_V1_CPU / f"cpu.cfs_{name}_us")) for name in ("quota", "period")
        )  # a quota of -1 is none
    if not (limit.isdecimal() and period.isdecimal() and int(period)):  # "max" is none
        return math.inf
    return int(limit) / int(period)


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
