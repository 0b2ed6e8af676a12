"""The harness, with clocks that we hold in our hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.harness import (
    Round,
    Spread,
    interleave,
    markdown,
    measure_cold,
    measure_round,
    ratios,
)


class FakeClock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _batches(clock: FakeClock, arrivals: list[float]) -> Iterator[int]:
    """Batches of 10 windows; each takes the next number of seconds to arrive, the last number for ever."""
    number = 0
    while True:
        clock.now += arrivals[min(number, len(arrivals) - 1)]
        number += 1
        yield 10


def _measure(arrivals: list[float], *, seconds: float = 4, warmup_seconds: float = 0, multiple: int = 1) -> Round:
    clock = FakeClock()
    return measure_round(
        lambda: _batches(clock, arrivals),
        seconds=seconds,
        warmup_seconds=warmup_seconds,
        multiple=multiple,
        clock=clock,
        cpu_clock=lambda: 2 * clock.now,
        memory=lambda: 7,
    )


def test_a_steady_loader_is_measured_exactly() -> None:
    done = _measure([5.0, 0.5])
    assert done.first_batch_seconds == 5.0
    assert (done.windows, done.seconds) == (80, 4.0)
    assert done.windows_per_second == 20
    assert done.cpu_seconds == 8.0
    assert done.cpu_seconds_per_1000 == 100
    assert done.memory_bytes == 7


def test_what_was_read_ahead_is_not_counted() -> None:
    """Eight batches come at once, because they were ready; then one a second."""
    done = _measure([3.0, *[0.0] * 7, 1.0], multiple=4)
    assert done.windows_per_second == 10


def test_the_warmup_lasts_as_long_as_asked() -> None:
    """The loader is slow for ten seconds, then fast."""
    done = _measure([1.0, *[1.0] * 10, 0.25], warmup_seconds=10)
    assert done.windows_per_second == 40


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.5, 9.0])
def test_bursts_of_many_workers_do_not_bias_the_rate(seconds: float) -> None:
    """Four workers deliver together every two seconds: 20 windows a second, wherever the counting stops."""
    clock = FakeClock()

    def bursts() -> Iterator[int]:
        while True:
            clock.now += 2
            for _ in range(4):
                yield 10

    done = measure_round(
        bursts, seconds=seconds, warmup_seconds=0, multiple=4, clock=clock, cpu_clock=clock, memory=lambda: 0
    )
    assert done.windows_per_second == 20


def test_rounds_run_forwards_and_backwards() -> None:
    assert interleave(["a", "b", "c"], 3) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_ratios_are_taken_round_by_round() -> None:
    """The machine halves its speed in the second round; the ratio does not change."""
    spread = ratios([20.0, 10.0, 20.0], [2.0, 1.0, 2.0])
    assert (spread.median, spread.min, spread.max) == (10, 10, 10)


def test_ratios_of_different_numbers_of_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 2.0], [1.0])


def test_a_spread_says_median_least_and_greatest() -> None:
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 (1.00 to 3.00)"


def test_a_table_is_markdown() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def _measure_cold(arrivals: list[float], *, multiple: int) -> Round:
    clock = FakeClock()
    return measure_cold(
        lambda: _batches(clock, arrivals),
        multiple=multiple,
        clock=clock,
        cpu_clock=lambda: 2 * clock.now,
        memory=lambda: 7,
    )


def test_a_cold_round_begins_with_the_first_batch() -> None:
    """Five seconds to start the workers, then a batch a second, and for ever faster once the file is read."""
    done = _measure_cold([5.0, 1.0, 1.0, 1.0, 0.01], multiple=3)
    assert done.first_batch_seconds == 5.0
    assert (done.windows, done.seconds) == (30, 3.0)
    assert done.cpu_seconds == 6.0


def test_bursts_do_not_flatter_a_cold_round() -> None:
    """Four workers deliver together every two seconds: the three that came with the first are made up for."""
    assert _measure_cold([2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0], multiple=4).windows_per_second == 20


def test_the_greater_memory_counts() -> None:
    """A loader that gives memory back before the round is over has had it all the same."""
    clock = FakeClock()
    sizes = iter([9, 5])
    done = measure_round(
        lambda: _batches(clock, [1.0]),
        seconds=1,
        warmup_seconds=0,
        multiple=1,
        clock=clock,
        cpu_clock=clock,
        memory=lambda: next(sizes),
    )
    assert done.memory_bytes == 9
