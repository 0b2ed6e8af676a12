"""Batches in the sampler's order: threads that fill whole batches in recycled memory, or torch's worker processes.

Threads are the default: reading and decoding release the interpreter's lock, and nothing crosses a process
boundary. Processes are for slow Python transforms inside the dataset.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lewm_data.errors import UsageError
from lewm_data.loading.dataset import Batch, WindowDataset, empty, whole_batch
from lewm_data.loading.sampler import WindowSampler

WorkerType = Literal["thread", "process"]

_SMALL_BYTES = 1 << 20


class BufferPool:
    """Memory for batches, used again once nobody looks at it.

    A fresh 154 MB batch costs more in page faults than in copying. Each tensor handed out views an array of
    its own; when the last tensor that shares its storage dies, that array dies with it, and a finaliser puts
    the memory back.
    """

    def __init__(self, batch_size: int, *, most_idle: int) -> None:
        """Makes an empty pool.

        Args:
            batch_size: Windows in a full batch; smaller batches use the front of a full one's memory.
            most_idle: Buffers of one shape that are kept while unused.
        """
        self._batch_size = batch_size
        self._most_idle = most_idle
        self._idle: dict[Any, SimpleQueue[NDArray[Any]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """An uninitialised tensor; an ``Allocator``."""
        full_shape = (max(self._batch_size, shape[0]), *shape[1:])
        if np.prod(full_shape) * dtype.itemsize < _SMALL_BYTES:
            return empty(shape, dtype)
        # SimpleQueue's put may run at any instant of any thread, as finalisers do; a lock there could
        # deadlock.
        idle = self._idle.setdefault((full_shape, dtype), SimpleQueue())
        try:
            memory = idle.get_nowait()
        except Empty:
            memory = np.empty(full_shape, dtype)
        view = memory[: shape[0]]
        weakref.finalize(view, _give_back, idle, self._most_idle, memory).atexit = False
        return torch.from_numpy(view)


def _give_back(idle: SimpleQueue[NDArray[Any]], most_idle: int, memory: NDArray[Any]) -> None:
    if idle.qsize() < most_idle:
        idle.put(memory)


def empty_pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An uninitialised tensor in page-locked memory, which torch's allocator recycles once the GPU has read it."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)


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


class WindowLoader:
    """Iterates over batches of windows; an iteration is one epoch, or the rest of one after resuming.

    The batches and their order depend on the sampler only, whatever the kind and number of workers. A tensor
    is never overwritten while anything refers to it.

    Attributes:
        dataset: Where batches come from.
        sampler: Where in which order the loader stands. Lightning sets its epoch.
        num_workers: Threads or processes; 0 reads in the caller's thread.
        worker_type: ``thread`` or ``process``.
        dataloader: The torch DataLoader behind it when ``worker_type`` is ``process``, else None.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        sampler: WindowSampler,
        *,
        num_workers: int = 2,
        worker_type: WorkerType = "thread",
        num_ahead: int | None = None,
        pin_memory: bool | None = None,
        multiprocessing_context: str | None = None,
    ) -> None:
        """Prepares a loader; no thread or process starts before the first batch is asked for.

        Args:
            dataset: Where batches come from.
            sampler: Which windows, in which order, from where on.
            num_workers: Threads or processes; 0 reads in the caller's thread.
            worker_type: ``thread`` or ``process``.
            num_ahead: Batches that may be ready or in work beyond the one that is used; None is one more than
                the workers.
            pin_memory: Use page-locked memory; None does where there is a CUDA device.
            multiprocessing_context: ``fork``, ``spawn`` or ``forkserver``; None is Python's default.

        Raises:
            UsageError: A number is out of range, or ``worker_type`` is neither.
        """
        if worker_type not in ("thread", "process"):
            raise UsageError(f"worker_type is {worker_type!r}, but must be thread or process.")
        if num_workers < 0:
            raise UsageError(f"num_workers is {num_workers}, but must be 0 or more.")
        if num_ahead is not None and num_ahead < 1:
            raise UsageError(f"num_ahead is {num_ahead}, but must be 1 or more.")
        self.dataset = dataset
        self.sampler = sampler
        self.batch_sampler = sampler  # Lightning looks for both
        self.num_workers = num_workers
        self.worker_type = worker_type
        self._num_ahead = num_workers + 1 if num_ahead is None else num_ahead
        self._pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._pool = BufferPool(sampler.order.batch_size, most_idle=self._num_ahead + 2)
        self._pipelines: weakref.WeakSet[ThreadPipeline[Batch]] = weakref.WeakSet()
        self.dataloader: DataLoader[Batch] | None = None
        if worker_type == "process":
            self.dataloader = DataLoader(
                dataset,
                batch_sampler=sampler,  # type: ignore[arg-type]  # arrays of numbers serve as lists of them
                collate_fn=whole_batch,
                num_workers=num_workers,
                pin_memory=self._pin_memory,
                persistent_workers=num_workers > 0,
                prefetch_factor=max(1, -(-self._num_ahead // num_workers)) if num_workers else None,
                multiprocessing_context=multiprocessing_context if num_workers else None,
                generator=torch.Generator(),  # torch draws a seed from it; the global one stays untouched
            )

    def __len__(self) -> int:
        """Batches in a whole epoch, also after resuming in the middle of one."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Goes through an epoch; which one is decided when the first batch is asked for.

        Yields:
            Batches as ``lewm_data.schema`` has them, on the CPU.

        Raises:
            DamagedChunkError: A stored frame cannot be read as it was written; names its episode and step.
        """
        self.sampler.begin()
        if self.dataloader is not None:
            for batch in self.dataloader:
                self.sampler.advance()
                yield batch
            return
        order, epoch, position = self.sampler.order, self.sampler.epoch, self.sampler.position
        num_batches = order.num_batches(position)

        def read(number: int) -> Batch:
            return self._read(order.batch(epoch, position + number * order.global_batch_size))

        if self.num_workers == 0:
            for number in range(num_batches):
                batch = read(number)
                self.sampler.advance()
                yield batch
            return
        pipeline = ThreadPipeline(
            read,
            num_batches,
            num_threads=self.num_workers,
            num_ahead=self._num_ahead,
            start_thread=_follow_cuda_device(self._pin_memory),
        )
        self._pipelines.add(pipeline)
        try:
            for _ in range(num_batches):
                batch = pipeline.take()
                self.sampler.advance()
                yield batch
                del batch  # else this frame would keep its memory from being used for the next
        finally:
            pipeline.close()

    def close(self) -> None:
        """Stops all threads and processes of unfinished iterations."""
        for pipeline in list(self._pipelines):
            pipeline.close()
        workers = getattr(self.dataloader, "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()
            self.dataloader._iterator = None  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position: where the next batch comes from."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where ``state_dict`` was taken, also with another kind or number of workers."""
        self.sampler.load_state_dict(state)

    def _read(self, windows: NDArray[np.int64]) -> Batch:
        try:
            return self.dataset.read(windows, empty_pinned if self._pin_memory else self._pool.empty)
        except Exception as error:
            episodes, starts = self.dataset.windows.locate(windows[:1])
            error.add_note(
                f"While reading a batch of {len(windows)} windows of {self.dataset.store.path}, the first of them "
                f"from episode {episodes[0]}, step {starts[0]}."
            )
            raise


def _follow_cuda_device(pin_memory: bool) -> Callable[[], None]:
    """Lets a thread pin memory for this thread's GPU: a new thread would open a context on GPU 0."""
    if not (pin_memory and torch.cuda.is_available()):
        return lambda: None
    device = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(device)
