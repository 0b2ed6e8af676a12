"""Memory, processors and open files that this process may use, with the limits of containers and jobs."""

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
"""A progress callback: what is being done, how much of it is done, and the total."""

MAX_WORKERS = 16
"""Most threads or processes that read one file."""

_CGROUP_V2 = Path("/sys/fs/cgroup")
_CGROUP_V1 = Path("/sys/fs/cgroup/memory")
_CGROUP_V1_CPU = Path("/sys/fs/cgroup/cpu")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_SPARE_FILES = 64


def silent(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def available_memory_bytes() -> int:
    """Memory available without swapping: the machine's, or less if the job or container allows less."""
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
    """Raises this process's limit on open files, as far as the system allows, to make room for more of them.

    Args:
        num_files: Files that the process is about to open in addition.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = psutil.Process().num_fds() + num_files + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and wanted > soft:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def cache_folder() -> Path:
    """This user's folder for files that can be recreated: ``$XDG_CACHE_HOME/lewm_data``, or ``~/.cache/lewm_data``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lewm_data"


def resident_memory_bytes() -> int:
    """Current resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far.

    Prefers Linux's ``VmHWM``, because ``getrusage`` includes the parent's memory at the time of the fork.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def leave_real_time() -> None:
    """Gives this thread its ordinary priority back, which the SVT-AV1 encoder takes from it.

    Run by root on Linux, that encoder moves the thread that opens it to the real-time class for good. Every thread and
    process that starts later inherits this, and on a small machine a few of them starve all others.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def return_free_memory() -> None:
    """Returns freed memory to the system; glibc keeps it otherwise.

    A video decoder frees its frames in the arenas of several threads. Without this call, opening the next file took
    8 MB more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def num_cpus() -> int:
    """Processors that this process may use, from its CPU affinity and the container's quota of CPU time."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _cpu_quota())))


def _cpu_quota() -> float:
    """The CPU quota of the job or container, in processors; infinite without a limit."""
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
    """The quota in processors. ``max``, -1 and a missing value mean no limit."""
    if not (limit.isdecimal() and period.isdecimal() and int(period)):
        return math.inf
    return int(limit) / int(period)


def _groups(root: Path, controller: str) -> list[Path]:
    """The control groups of this process, from its own up to the root.

    A container sees its own group as the root. The group of a Slurm or systemd job lies further down.

    Args:
        root: Mount point of the hierarchy.
        controller: Name of the cgroup v1 controller; empty for v2.
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
    """Page cache that the kernel frees under pressure. A container counts it as used."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    stats = dict(line.split()[:2] for line in lines if " " in line)
    return int(stats.get("inactive_file", stats.get("total_inactive_file", 0)))
