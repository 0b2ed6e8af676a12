"""Timing with fake clocks, the page cache, and the memory and processor time of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import (
    Round,
    interleave,
    interleaved,
    measure_round,
    ratios,
    tree_cpu_seconds,
    tree_memory_bytes,
)
from benchmarks.pagecache import cached_share, drop, warm


class FakeClock:
    """Stands still until ``now`` is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _batches(clock: FakeClock, arrivals: list[float]) -> Iterator[int]:
    """Batches of 10 windows; each takes the next number of seconds to arrive, and the last number forever."""
    number = 0
    while True:
        clock.now += arrivals[min(number, len(arrivals) - 1)]
        number += 1
        yield 10


def _measure(arrivals: list[float], *, seconds: float = 4, **options: Any) -> Round:
    clock, sizes = FakeClock(), iter([9, 5])
    return measure_round(
        lambda: _batches(clock, arrivals),
        **{"seconds": seconds, "warmup_seconds": 0, "multiple": 1, **options},
        clock=clock,
        cpu_clock=lambda: 2 * clock.now,
        memory=lambda: next(sizes),
    )


def test_a_steady_loader_is_measured_exactly() -> None:
    done = _measure([5.0, 0.5])
    assert done.first_batch_seconds == 5.0
    assert (done.windows, done.seconds) == (80, 4.0)
    assert done.windows_per_second == 20
    assert done.cpu_seconds == 8.0
    assert done.cpu_seconds_per_1000 == 100
    assert done.memory_bytes == 9, "the larger of both looks"


def test_batches_read_ahead_are_not_counted() -> None:
    """Eight batches are ready at once; then one arrives per second."""
    assert _measure([3.0, *[0.0] * 7, 1.0], multiple=4).windows_per_second == 10


def test_the_warmup_lasts_as_long_as_asked() -> None:
    """The loader is slow for ten seconds, then fast."""
    assert _measure([1.0, *[1.0] * 10, 0.25], warmup_seconds=10).windows_per_second == 40


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.5, 9.0])
def test_bursts_of_many_workers_do_not_bias_the_rate(seconds: float) -> None:
    """Four workers deliver together every two seconds: 20 windows per second, wherever the counting stops."""
    bursts = [2.0, 0.0, 0.0, 0.0] * 20
    assert _measure(bursts, seconds=seconds, multiple=4).windows_per_second == 20


def test_a_cold_round_starts_with_the_first_batch() -> None:
    """Five seconds to start the workers, then a batch per second, and faster once the file is read."""
    done = _measure([5.0, 1.0, 1.0, 1.0, 0.01], seconds=0, multiple=3, skip=1)
    assert done.first_batch_seconds == 5.0
    assert (done.windows, done.seconds) == (30, 3.0)
    assert done.cpu_seconds == 6.0


def test_bursts_do_not_bias_a_cold_round() -> None:
    """Four workers deliver together every two seconds; three batches arrive together with the first."""
    assert _measure([2.0, 0.0, 0.0, 0.0] * 3, seconds=0, multiple=4, skip=1).windows_per_second == 20


def test_cases_are_measured_forward_and_backward(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    done = interleaved(["a", "b"], 3, lambda case: order.append(case) or len(order), lambda found: f"{found} ms")  # type: ignore[func-returns-value]
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert done == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert "round 2 of 3, b: 3 ms" in capsys.readouterr().err
    assert interleave("abc", 2) == [["a", "b", "c"], ["c", "b", "a"]]


def test_ratios_are_taken_round_by_round() -> None:
    """The machine halves its speed in the second round; the ratio does not change."""
    spread = ratios([20.0, 10.0, 20.0], [2.0, 1.0, 2.0])
    assert (spread.median, spread.min, spread.max) == (10, 10, 10)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 2.0], [1.0])


def test_memory_of_child_processes_counts() -> None:
    before = tree_memory_bytes()
    assert before > 1 << 20
    code = "held = bytearray(50 << 20); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert tree_memory_bytes() - before > 45 << 20
        child.stdin.close()


def test_processor_time_of_this_process_counts() -> None:
    before, began = tree_cpu_seconds(), time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert tree_cpu_seconds() - before > 0.05


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of a megabyte each and an empty one, in folders."""
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tofile(tmp_path / name)
    (tmp_path / "empty").touch()
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot empty its page cache file by file")
def test_files_enter_and_leave_the_page_cache(folder: Path) -> None:
    warm(folder)
    assert cached_share(folder) == cached_share(folder / "a") == 1
    drop(folder)
    if cached_share(folder) == 1:
        pytest.skip("this file system is in memory itself")
    assert cached_share(folder) == 0
    warm(folder / "a")
    assert cached_share(folder) == 0.5


def test_a_system_without_posix_fadvise_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    with pytest.raises(OSError, match="no posix_fadvise"):
        drop(folder)
