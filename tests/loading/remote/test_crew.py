from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lewm_data.loading.remote.crew import Crew
from lewm_data.resources import num_cpus


class Gauge:
    """The largest number of jobs that were in it at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *unused: object) -> None:
        with self._lock:
            self.now -= 1


def test_jobs_that_wait_overlap_up_to_the_limit():
    gauge, done = Gauge(), []
    with ThreadPoolExecutor(30) as pool:
        crew = Crew(pool, max_threads=12)

        def job(number: int) -> None:
            with crew.waiting(), gauge:
                time.sleep(0.05)
            done.append(number)

        crew.run([lambda number=number: job(number) for number in range(60)])
    assert sorted(done) == list(range(60))
    assert num_cpus() < gauge.peak <= 12


def test_jobs_that_do_not_wait_take_one_thread_for_each_processor():
    gauge = Gauge()
    with ThreadPoolExecutor(30) as pool:
        crew = Crew(pool, max_threads=12)

        def job() -> None:
            with gauge:
                time.sleep(0.001)

        crew.run([job] * 200)
    assert gauge.peak <= num_cpus()


def test_the_first_error_drops_the_remaining_jobs_and_no_thread_works_afterwards():
    done: list[int] = []
    gauge = Gauge()
    with ThreadPoolExecutor(8) as pool:
        crew = Crew(pool, max_threads=8)

        def job(number: int) -> None:
            with gauge, crew.waiting():
                time.sleep(0.002)
            if number == 10:
                raise ValueError("ten")
            done.append(number)

        with pytest.raises(ValueError, match="ten"):
            crew.run([lambda number=number: job(number) for number in range(1000)])
        assert gauge.now == 0
        assert len(done) < 100


def test_no_jobs_are_done_at_once():
    with ThreadPoolExecutor(1) as pool:
        Crew(pool, max_threads=1).run([])
