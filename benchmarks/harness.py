"""Time contenders fairly: warm-up, interleaved rounds, medians with their spread.

Nothing here knows what it measures. Clocks are parameters, so that tests can check the arithmetic.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from lewm_data.resources import num_cpus

type Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One timed round of one contender.

    Attributes:
        windows: Windows that arrived in the counted time.
        seconds: The counted time.
        cpu_seconds: Processor time of the process and its children in that time.
        first_batch_seconds: From creating the iterator (which starts workers) to its first batch.
        memory_bytes: Memory of these processes, the larger of two looks: at the start and at the end of the counted
            time. Shared memory counts once, the page cache not at all.
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
    """Median, minimum and maximum of a few values."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Takes one value or more."""
        return cls(median=statistics.median(values), min=min(values), max=max(values))


def measure_round(
    batches: Callable[[], Iterator[int]],
    *,
    seconds: float,
    warmup_seconds: float,
    multiple: int,
    skip: int | None = None,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock | None = None,
    memory: Callable[[], int] | None = None,
) -> Round:
    """Times an endless iterator from one arrival to another.

    Parallel workers deliver in bursts. Counting batches in multiples puts both ends of the counted time at the same
    point of a burst. The warm-up uses up what the loader read ahead.

    Args:
        batches: Makes an endless iterator over the number of windows in each batch.
        seconds: Counts for at least this long.
        warmup_seconds: Waits at least this long after the first batch.
        multiple: Batches that may be ready or in work at once; the number of counted batches is a multiple of it.
        skip: Batches that are not counted; by default twice ``multiple``. With 1, 0 seconds and a cold page cache,
            exactly ``multiple`` batches after the first are timed, before a warm-up could read the file into memory.
        clock: Wall time in seconds.
        cpu_clock: Processor time in seconds; by default that of this process and its children.
        memory: Bytes in use; by default those of this process and its children.
    """
    cpu_clock = cpu_clock or tree_cpu_seconds
    memory = memory or tree_memory_bytes
    asked = clock()
    iterator = batches()
    next(iterator)
    first = clock()
    num_batches = 1
    while num_batches < (2 * multiple if skip is None else skip) or clock() - first < warmup_seconds:
        next(iterator)
        num_batches += 1
    memory_bytes, cpu = memory(), cpu_clock()
    # Without a warm-up, time spent looking at memory belongs to the round: workers go on meanwhile.
    begun = first if skip == 1 and not warmup_seconds else clock()
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


def interleave[T](cases: Sequence[T], num_rounds: int) -> list[list[T]]:
    """The cases in each round; every other round runs backwards, so that no case always follows the same neighbor."""
    return [list(cases) if number % 2 == 0 else list(reversed(cases)) for number in range(num_rounds)]


def interleaved[T, M](
    cases: Sequence[T], num_rounds: int, measure: Callable[[T], M], show: Callable[[M], str] = str
) -> dict[T, list[M]]:
    """Measures every case once per round, in interleaved rounds, and logs each measurement.

    Returns:
        Case to its measurements, round by round. ``show`` formats them for the log.
    """
    done: dict[T, list[M]] = {case: [] for case in cases}
    for number, order in enumerate(interleave(cases, num_rounds)):
        for case in order:
            done[case].append(measure(case))
            log(f"round {number + 1} of {num_rounds}, {case}: {show(done[case][-1])}")
    return done


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """One contender's rate over another's, round by round, so that a busy moment cancels out."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def log(words: str) -> None:
    """Prints progress to stderr."""
    print(words, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """The machine, its load and the date."""
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
    """Versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def tree_cpu_seconds() -> float:
    """Processor seconds of this process and its children."""
    total = sum(psutil.Process().cpu_times()[:2])
    for process in psutil.Process().children(recursive=True):
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return float(total)


def tree_memory_bytes() -> int:
    """Memory of this process and its children, each shared page divided among its users, without the page cache.

    Reads ``/proc/<pid>/smaps_rollup`` on Linux; 0 elsewhere.
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


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
