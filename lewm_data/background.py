"""Threads that work ahead of their consumer: they decode video for a conversion and read batches for a loader."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from lewm_data.errors import ResourceError

_CLOSED = "the prefetcher was closed while it was being iterated over"


class Prefetcher[T](Iterator[T]):
    """Maps a function over items in background threads, and yields the results in order.

    The threads stop after the last item, after ``close``, and soon after the prefetcher is garbage-collected.
    Collection can happen anywhere, even while Python's threading module holds its own lock. A collected prefetcher
    therefore signals its threads and does not wait for them.

    Attributes:
        workers: The threads. They outlive the prefetcher by the items that they are working on.

    Example:
        >>> from contextlib import closing
        >>> with closing(Prefetcher(range(4), lambda number: number**2, max_in_flight=2)) as squares:
        ...     list(squares)
        [0, 1, 4, 9]
    """

    def __init__(
        self,
        items: Iterable[Any],
        function: Callable[[Any], T] = lambda item: item,
        *,
        max_in_flight: int,
        size_of: Callable[[Any], int] = lambda item: 1,
        num_threads: int = 1,
        start_thread: Callable[[], None] = lambda: None,
        name: str = "lewm_data-background",
    ) -> None:
        """Starts the threads.

        Args:
            items: Iterated over in the threads, by one of them at a time. A generator is closed in its thread.
            function: Called with each item, by any of the threads. Without it, the items are the results.
            max_in_flight: Total size of the items that may be in progress, or finished and not yet taken. A single
                larger item passes alone.
            size_of: Size of an item, in the unit of ``max_in_flight``. By default each item counts as one.
            num_threads: Number of threads.
            start_thread: Called first in each thread.
            name: Prefix of the threads' names.

        Raises:
            ResourceError: The system cannot start this many threads.
        """
        # The threads know `workers` only: a reference to `self` would keep an abandoned prefetcher alive for ever.
        self.workers = Workers(iter(items), function, max_in_flight, size_of, start_thread)
        self._early: dict[int, _Outcome] = {}
        self._num_taken = 0
        self._is_over = False
        weakref.finalize(self, self.workers.stop).atexit = False
        self.workers.start(num_threads, name)

    def __next__(self) -> T:
        """Waits for the next result.

        Raises:
            Exception: What the function raised for this item, or what the items or ``start_thread`` raised. The
                iteration is over then.
            RuntimeError: The prefetcher was closed.
        """
        if self._is_over:
            raise StopIteration
        while self._num_taken not in self._early:
            if self.workers.is_stopped:
                raise RuntimeError(_CLOSED)
            number, outcome = self.workers.finished.get()
            self._early[self._num_taken if number is None else number] = outcome
        outcome = self._early.pop(self._num_taken)
        self._num_taken += 1
        self.workers.freed.put(outcome.size)
        if outcome.error is None:
            result: T = outcome.result
            return result
        self._is_over = True
        self.workers.stop()
        try:
            raise outcome.error
        finally:
            del outcome  # the error's traceback holds this frame, which must not hold the error

    def close(self) -> None:
        """Stops the threads, each after the item it is working on, and waits for them. Safe to call twice."""
        self.workers.close()
        self._early.clear()


class _Outcome(NamedTuple):
    """What became of an item; ``StopIteration`` stands for the end of the items."""

    size: int = 0
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Workers:
    """The threads of a prefetcher and what they share.

    Threads and consumer talk through ``SimpleQueue``: its ``put`` takes no lock that a finalizer could wait for.
    """

    items: Iterator[Any]
    function: Callable[[Any], Any]
    max_in_flight: int
    size_of: Callable[[Any], int]
    start_thread: Callable[[], None]
    is_stopped: bool = False
    in_flight: int = 0
    num_begun: int = 0
    taking: threading.Lock = field(default_factory=threading.Lock)
    """Held while a thread takes an item and waits until it may begin; guards ``in_flight`` and ``num_begun``."""
    finished: SimpleQueue[tuple[int | None, _Outcome]] = field(default_factory=SimpleQueue)
    """Item numbers and their outcomes. The number None concerns the whole and takes the next turn."""
    freed: SimpleQueue[int] = field(default_factory=SimpleQueue)
    """Sizes of the items that the consumer took."""
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def are_alive(self) -> bool:
        """Whether any thread is still running."""
        return any(thread.is_alive() for thread in self.threads)

    def start(self, num_threads: int, name: str) -> None:
        """Starts the threads; see ``Prefetcher``."""
        for number in range(num_threads):
            thread = threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self.close()
                raise ResourceError(
                    f"the system started {number} of {num_threads} background threads, and no more ({error}). Lower "
                    "num_workers, or raise the limit on processes (ulimit -u)."
                ) from error
            self.threads.append(thread)

    def stop(self) -> None:
        """Lets the threads end; waits for nothing, so that finalizers may call it."""
        self.is_stopped = True
        self.freed.put(0)
        self.finished.put((None, _Outcome(error=RuntimeError(_CLOSED))))

    def close(self) -> None:
        """Stops the threads and waits for them."""
        self.stop()
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        """The work of one thread."""
        try:
            self.start_thread()
        except BaseException as error:  # noqa: BLE001  # raised by the consumer
            self.finished.put((None, _Outcome(error=error)))
            return
        while (begun := self._begin()) is not None:
            number, size, item = begun
            try:
                outcome = _Outcome(size, self.function(item))
            except StopIteration as error:  # it would end the iteration silently
                outcome = _Outcome(size, error=RuntimeError(f"{self.function} raised {error!r}"))
            except BaseException as error:  # noqa: BLE001  # raised by the consumer
                outcome = _Outcome(size, error=error)
            self.finished.put((number, outcome))
            del begun, item, outcome  # a thread that waits must not keep a batch alive

    def _begin(self) -> tuple[int, int, Any] | None:
        """Takes an item and waits until it may be worked on. Returns its number, its size and itself, or None."""
        with self.taking:
            if self.is_stopped:
                self._clear()
                return None
            try:
                item = next(self.items)
                size = self.size_of(item)
            except BaseException as error:  # noqa: BLE001  # raised by the consumer, after the items before it
                self.finished.put((self.num_begun, _Outcome(error=error)))
                self.items = iter(())
                self.num_begun += 1
                return None
            while self.in_flight and self.in_flight + size > self.max_in_flight:
                self.in_flight -= self.freed.get()
                if self.is_stopped:
                    self._clear()
                    return None
            self.in_flight += size
            self.num_begun += 1
            return self.num_begun - 1, size, item

    def _clear(self) -> None:
        """Drops the items, and results that will not be used."""
        close = getattr(self.items, "close", None)
        if close is not None:
            close()
        self.items = iter(())
        with contextlib.suppress(Empty):
            while True:
                self.finished.get_nowait()
        self.stop()  # a consumer in another thread may still be waiting
