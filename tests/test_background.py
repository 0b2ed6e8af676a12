from __future__ import annotations

import gc
import threading
import time
from contextlib import closing

import pytest

from lewm_data import background
from lewm_data.background import Prefetcher
from lewm_data.errors import ResourceError


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lewm_data-background")]


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_no_more_is_in_flight_than_allowed():
    begun, release = [], threading.Event()

    def work(number):
        begun.append(number)
        release.wait(5)
        return number

    with closing(Prefetcher(range(100), work, num_threads=8, max_in_flight=3)) as results:
        time.sleep(0.2)
        assert sorted(begun) == [0, 1, 2]
        release.set()
        assert [next(results) for _ in range(10)] == list(range(10))
        time.sleep(0.2)
        assert len(begun) == 13
    results.close()


def test_sizes_count_in_the_unit_of_the_limit_and_a_larger_item_passes_alone():
    taken = []

    def items():
        for size in (4, 4, 4, 50, 1):
            taken.append(size)
            yield size

    with closing(Prefetcher(items(), max_in_flight=8, size_of=lambda size: size)) as results:
        time.sleep(0.2)
        assert taken == [4, 4, 4]  # the third is taken, and waits for room
        assert list(results) == [4, 4, 4, 50, 1]


@pytest.mark.parametrize("num_threads", [1, 4])
def test_results_come_in_order_even_when_late_ones_are_ready_first(num_threads):
    def work(number):
        time.sleep(0.02 * (number % 3 == 0))
        return number

    results = Prefetcher(range(30), work, num_threads=num_threads, max_in_flight=6)
    assert list(results) == list(range(30))
    assert list(results) == []
    wait_for(lambda: not threads())


def test_an_error_of_the_items_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("broken")

    results = Prefetcher(items(), max_in_flight=8)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert list(results) == []


def test_an_error_of_the_function_comes_in_its_items_turn_and_ends_the_iteration():
    results = Prefetcher([1, 0, 2], lambda number: 1 / number, num_threads=2, max_in_flight=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    wait_for(lambda: not threads())


def test_a_function_that_raises_stop_iteration_does_not_end_the_iteration_silently():
    with closing(Prefetcher([iter(())], next, max_in_flight=1)) as results, pytest.raises(RuntimeError, match="raised"):
        list(results)


def test_an_error_in_a_threads_start_reaches_the_consumer():
    def fail():
        raise OSError("no such device")

    with (
        closing(Prefetcher(range(9), num_threads=2, max_in_flight=2, start_thread=fail)) as results,
        pytest.raises(OSError, match="no such device"),
    ):
        next(results)
    assert threads() == []


def test_a_thread_that_cannot_be_started_leaves_no_other_waiting(monkeypatch):
    started = []

    class Thread(threading.Thread):
        def start(self):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    monkeypatch.setattr(background.threading, "Thread", Thread)
    with pytest.raises(ResourceError, match=r"started 2 of 5 background threads.*Lower num_workers"):
        Prefetcher(range(9), num_threads=5, max_in_flight=1)
    assert len(started) == 2
    assert not any(thread.is_alive() for thread in started)


def test_closing_closes_the_items_in_their_thread_and_leaves_no_thread():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    results = Prefetcher(items(), max_in_flight=2, name="decode")
    next(results)
    results.close()
    assert closed == ["decode-0"]
    with pytest.raises(RuntimeError, match="closed while it was being iterated"):
        next(results)


def test_closing_wakes_a_consumer_that_waits_in_another_thread():
    release, caught = threading.Event(), []
    results = Prefetcher(range(3), lambda _: release.wait(5), max_in_flight=1)

    def consume():
        try:
            next(results)
        except RuntimeError as error:
            caught.append(str(error))

    consumer = threading.Thread(target=consume)
    consumer.start()
    time.sleep(0.1)
    closing_thread = threading.Thread(target=results.close)
    closing_thread.start()
    consumer.join(5)
    release.set()
    closing_thread.join(5)
    assert caught == ["the prefetcher was closed while it was being iterated over"]


def test_collecting_an_abandoned_prefetcher_waits_for_nothing():
    release = threading.Event()

    def work(number):
        release.wait(10)
        return number

    results = Prefetcher(range(9), work, num_threads=2, max_in_flight=2)
    cycle = [results]
    cycle.append(cycle)
    del results, cycle
    finished = threading.Event()

    def collect():
        with threading._active_limbo_lock:  # as while any thread starts or ends
            gc.collect()
        finished.set()

    threading.Thread(target=collect, daemon=True).start()
    assert finished.wait(5)
    release.set()
    wait_for(lambda: not threads())
