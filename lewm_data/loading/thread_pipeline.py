"""Threads that compute results ahead of their use, and hand them out in order."""

from __future__ import annotations

import threading
from collections.abc import Callable


class ThreadPipeline[T]:
    """Results of a function of 0, 1, 2, ..., computed by threads ahead of their use, handed out in order."""

    def __init__(
        self,
        function: Callable[[int], T],
        num_results: int,
        *,
        num_threads: int,
        num_ahead: int,
        start_thread: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the threads.

        Args:
            function: Called once for each number in [0, num_results), from any of the threads.
            num_results: How many results there are.
            num_threads: Threads.
            num_ahead: Results that may be finished or in work, and not yet taken.
            start_thread: Called first in each thread.
        """
        self._function = function
        self._num_results = num_results
        self._num_ahead = num_ahead
        self._start_thread = start_thread
        self._changed = threading.Condition()
        self._done: dict[int, tuple[T | None, BaseException | None]] = {}
        self._num_begun = 0
        self._num_taken = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lewm_data-loader-{number}", daemon=True)
            for number in range(min(num_threads, num_results))
        ]
        for thread in self._threads:
            thread.start()

    def take(self) -> T:
        """The next result; waits for it.

        Raises:
            BaseException: Whatever the function raised for it.
        """
        with self._changed:
            number = self._num_taken
            self._changed.wait_for(lambda: number in self._done or self._closed)
            if self._closed:
                raise RuntimeError("the loader was closed while it was being iterated over")
            result, error = self._done.pop(number)
            self._num_taken += 1
            self._changed.notify_all()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """Stops the threads, each after what it is at, and waits for them. May be called twice."""
        with self._changed:
            self._closed = True
            self._done.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        self._start_thread()
        while (number := self._next()) is not None:
            outcome: tuple[T | None, BaseException | None]
            try:
                outcome = self._function(number), None
            except BaseException as error:  # noqa: BLE001  # carried to whoever takes this result
                outcome = None, error
            with self._changed:
                if not self._closed:
                    self._done[number] = outcome
                self._changed.notify_all()
            del outcome  # a waiting thread must not keep a batch alive

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or self._num_begun == self._num_results
                    or self._num_begun < self._num_taken + self._num_ahead
                )
            )
            if self._closed or self._num_begun == self._num_results:
                return None
            self._num_begun += 1
            return self._num_begun - 1
