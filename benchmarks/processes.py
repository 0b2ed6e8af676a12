"""What this process and all below it use: processor time and memory."""

from __future__ import annotations

from pathlib import Path

import psutil


def tree_cpu_seconds() -> float:
    """Processor seconds of this process and of all that live below it."""
    total = sum(psutil.Process().cpu_times()[:2])
    for process in psutil.Process().children(recursive=True):
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return float(total)


def tree_memory_bytes() -> int:
    """Memory of this process and those below it, each shared page divided among its users; no page cache.

    From ``/proc/<pid>/smaps_rollup`` of Linux; 0 elsewhere.
    """
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes = dict(line.split()[:2] for line in lines if line.endswith("kB"))
        total += 1024 * sum(int(sizes.get(name, 0)) for name in ("Pss_Anon:", "Pss_Shmem:"))
    return total
