"""As many threads as it takes to keep the processors busy while other threads wait for the store.

Every waiting thread costs: it takes Python's lock back for each piece that arrives. A near store needs a few threads, a
far one as many as it may have requests. On two cores and loopback, 64 threads took 60 % more processor time than one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from lewm_data.resources import num_cpus


class Crew:
    """Runs the jobs of one batch."""

    def __init__(self, pool: ThreadPoolExecutor, *, max_threads: int) -> None:
        """Creates a crew without threads.

        Args:
            pool: Where its threads come from. Several crews may share it.
            max_threads: Largest number of threads.
        """
        self._pool = pool
        self._max_threads = max_threads
        self._num_working = num_cpus()
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads: list[Future[None]] = []
        self._num_waiting = 0

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Runs jobs in any order, and returns when no thread works on them any more.

        Args:
            jobs: What to do. Each calls ``waiting`` where it waits.

        Raises:
            Exception: The first error of a job. The jobs that have not started are dropped.
        """
        self._jobs.extend(jobs)
        error: BaseException | None = None
        try:
            with self._lock:
                for _ in range(min(self._num_working, len(jobs))):
                    self._start()
            error = next(filter(None, map(Future.exception, self._threads)), None)  # the list grows meanwhile
        finally:
            self._jobs.clear()
            wait([thread for thread in self._threads if not thread.cancel()])
            self._threads.clear()
        if error is not None:
            try:
                raise error
            finally:
                del error  # a cycle through its traceback would keep the reader and its threads alive

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it, a thread waits for the store: another one starts where too few would work."""
        with self._lock:
            self._num_waiting += 1
            num_working = len(self._threads) - self._num_waiting
            if self._jobs and num_working < self._num_working and len(self._threads) < self._max_threads:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                self._num_waiting -= 1

    def _start(self) -> None:
        self._threads.append(self._pool.submit(self._work))

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException:
                self._jobs.clear()
                raise
