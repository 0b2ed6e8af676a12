"""How to time loaders so that others believe it: warm-up, interleaved rounds, medians with their spread.

Nothing here knows what is measured. Clocks are passed in, so the arithmetic is tested with a clock that lies.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import tree_cpu_seconds, tree_memory_bytes
from lewm_data.resources import num_cpus

type Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round of one contender gave.

    Attributes:
        windows: Windows that arrived in the counted time.
        seconds: The counted time.
        cpu_seconds: Processor time in it, of the process and all below it.
        first_batch_seconds: From asking for an iterator to its first batch; workers start in it.
        memory_bytes: Most memory of these processes, looked at when the counting began and when it ended; shared
            memory counted once, page cache not at all.
    """

    windows: int
    seconds: float
    cpu_seconds: float
    first_batch_seconds: float
    memory_bytes: int

    @property
    def windows_per_second(self) -> float:
        """The rate."""
        return self.windows / self.seconds

    @property
    def cpu_seconds_per_1000(self) -> float:
        """Processor seconds for a thousand windows."""
        return 1000 * self.cpu_seconds / self.windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Median, least and greatest of a few values."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Takes one value or more."""
        return cls(median=statistics.median(values), min=min(values), max=max(values))

    def __str__(self) -> str:
        return f"{self.median:,.2f} ({self.min:,.2f} to {self.max:,.2f})"


def measure_round(
    batches: Callable[[], Iterator[int]],
    *,
    seconds: float,
    warmup_seconds: float,
    multiple: int,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock | None = None,
    memory: Callable[[], int] | None = None,
) -> Round:
    """Times an endless iterator from one arrival to another.

    Workers that run side by side deliver in bursts, so both ends of the counted time lie the same number of
    bursts apart: batches are counted in multiples. What was read ahead is used up in the warm-up.

    Args:
        batches: Makes an endless iterator over the number of windows in each batch.
        seconds: Count for at least so long.
        warmup_seconds: Let at least so long pass after the first batch.
        multiple: Batches that may be ready or in work at once. Twice as many are not counted, and what is
            counted is a multiple of it.
        clock: Seconds of wall time.
        cpu_clock: Seconds of processor time; None asks the kernel about this process and those below it.
        memory: Bytes in use; None asks the kernel.

    Returns:
        The round.
    """
    cpu_clock = cpu_clock or tree_cpu_seconds
    memory = memory or tree_memory_bytes
    asked = clock()
    iterator = batches()
    next(iterator)
    first = clock()
    num_batches = 1
    while num_batches < 2 * multiple or clock() - first < warmup_seconds:
        next(iterator)
        num_batches += 1
    memory_bytes = memory()
    cpu = cpu_clock()
    begun = clock()
    num_batches = windows = 0
    while True:
        windows += next(iterator)
        num_batches += 1
        elapsed = clock() - begun
        if elapsed >= seconds and num_batches % multiple == 0:
            break
    return Round(
        windows=windows,
        seconds=elapsed,
        cpu_seconds=cpu_clock() - cpu,
        first_batch_seconds=first - asked,
        memory_bytes=max(memory_bytes, memory()),
    )


def measure_cold(
    batches: Callable[[], Iterator[int]],
    *,
    multiple: int,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock | None = None,
    memory: Callable[[], int] | None = None,
) -> Round:
    """Times the batches after the first, while what they need still lies on the disk.

    A warm-up would read the file into the page cache. So as many batches are counted as may be in work at once: workers
    that deliver in bursts have then delivered once each, wherever in a burst the first batch came.

    Args:
        batches: As for ``measure_round``.
        multiple: Batches that may be ready or in work at once, and that are counted.
        clock: Seconds of wall time.
        cpu_clock: Seconds of processor time; None asks the kernel about this process and those below it.
        memory: Bytes in use; None asks the kernel.

    Returns:
        The round.
    """
    cpu_clock = cpu_clock or tree_cpu_seconds
    memory = memory or tree_memory_bytes
    asked = clock()
    iterator = batches()
    next(iterator)
    first, cpu = clock(), cpu_clock()
    windows = sum(next(iterator) for _ in range(multiple))
    return Round(
        windows=windows,
        seconds=clock() - first,
        cpu_seconds=cpu_clock() - cpu,
        first_batch_seconds=first - asked,
        memory_bytes=memory(),
    )


def interleave(names: Sequence[str], num_rounds: int) -> list[list[str]]:
    """The order of rounds: everybody once in each, and nobody always after the same neighbour.

    Args:
        names: The contenders.
        num_rounds: Rounds.

    Returns:
        For each round all names; every other round runs backwards.
    """
    return [list(names) if number % 2 == 0 else list(reversed(names)) for number in range(num_rounds)]


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """One contender's rate over another's, round by round: what a busy moment does to both cancels out."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def machine() -> dict[str, Any]:
    """The machine, in words and numbers."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": name,
        "cpus": num_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def versions(*names: str) -> dict[str, str]:
    """Versions of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
