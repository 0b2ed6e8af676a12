"""Batches in the sampler's order: threads that fill whole batches in recycled memory, or torch's worker processes.

Threads are the default: reading and decoding release the interpreter's lock, and nothing crosses a process
boundary. Processes are for slow Python transforms inside the dataset.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lewm_data.errors import UsageError
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.buffer_pool import BufferPool, empty_pinned
from lewm_data.loading.process_loader import ProcessBatches
from lewm_data.loading.sampler import WindowSampler
from lewm_data.loading.thread_pipeline import ThreadPipeline

WorkerType = Literal["thread", "process"]


class WindowLoader:
    """Iterates over batches of windows; an iteration is one epoch, or the rest of one after resuming.

    The batches and their order depend on the sampler only, whatever the kind and number of workers. A tensor
    is never overwritten while anything refers to it.

    Attributes:
        dataset: Where batches come from.
        batch_sampler: Where in which order the loader stands. Lightning sets its epoch.
        num_workers: Threads or processes; 0 reads in the caller's thread.
        worker_type: ``thread`` or ``process``.
    """

    def __init__(
        self,
        dataset: BatchDataset,
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
        self.batch_sampler = sampler  # the name under which Lightning looks for it
        self.num_workers = num_workers
        self.worker_type = worker_type
        self._num_ahead = num_workers + 1 if num_ahead is None else num_ahead
        self._pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._pool = BufferPool(sampler.order.batch_size, most_idle=self._num_ahead + 2)
        self._pipelines: weakref.WeakSet[ThreadPipeline[Batch]] = weakref.WeakSet()
        self._processes: ProcessBatches | None = None
        if worker_type == "process":
            self._processes = ProcessBatches(
                dataset,
                sampler,
                num_workers=num_workers,
                num_ahead=self._num_ahead,
                pin_memory=self._pin_memory,
                multiprocessing_context=multiprocessing_context,
            )

    @property
    def dataloader(self) -> DataLoader[Any] | None:
        """The torch DataLoader that runs the worker processes; None with threads."""
        return None if self._processes is None else self._processes.dataloader

    def __len__(self) -> int:
        """Batches in a whole epoch, also after resuming in the middle of one."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Goes through an epoch; which one is decided when the first batch is asked for.

        Yields:
            Batches as ``lewm_data.format.schema`` has them, on the CPU.

        Raises:
            DamagedChunkError: A stored frame cannot be read as it was written; names its episode and step.
        """
        self.batch_sampler.begin()
        if self._processes is not None:
            for batch in self._processes.batches():
                self.batch_sampler.advance()
                yield batch
                del batch  # else this frame would keep its memory from being used for the next
            return
        order, epoch, position = self.batch_sampler.order, self.batch_sampler.epoch, self.batch_sampler.position
        num_batches = order.num_batches(position)

        def read(number: int) -> Batch:
            return self._read(order.batch(epoch, position + number * order.global_batch_size))

        if self.num_workers == 0:
            for number in range(num_batches):
                batch = read(number)
                self.batch_sampler.advance()
                yield batch
                del batch
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
                self.batch_sampler.advance()
                yield batch
                del batch
        finally:
            pipeline.close()

    def close(self) -> None:
        """Stops all threads and processes of unfinished iterations."""
        for pipeline in list(self._pipelines):
            pipeline.close()
        if self._processes is not None:
            self._processes.close()

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position: where the next batch comes from."""
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where ``state_dict`` was taken, also with another kind or number of workers."""
        self.batch_sampler.load_state_dict(state)

    def _read(self, windows: NDArray[np.int64]) -> Batch:
        with self.dataset.add_batch_context(windows):
            return self.dataset.read(windows, empty_pinned if self._pin_memory else self._pool.empty)


def _follow_cuda_device(pin_memory: bool) -> Callable[[], None]:
    """Lets a thread pin memory for this thread's GPU: a new thread would open a context on GPU 0."""
    if not (pin_memory and torch.cuda.is_available()):
        return lambda: None
    device = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(device)
