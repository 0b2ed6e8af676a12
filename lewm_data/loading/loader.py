"""Batches in the sampler's order, read ahead by threads into recycled memory, or by worker processes.

Threads are the default: reading and decoding release the interpreter's lock, and nothing crosses a process boundary.
Processes are for slow Python transforms inside the dataset.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Literal, get_args

import torch

from lewm_data.background import Prefetcher, Workers
from lewm_data.loading.batches import Batch, BatchDataset, BufferPool, empty_pinned
from lewm_data.loading.process_loader import ProcessBatches, WorkerGroup
from lewm_data.loading.sampler import Place, WindowSampler
from lewm_data.notation import check_choice, check_count

WorkerType = Literal["thread", "process"]


class WindowLoader:
    """Iterates over batches of windows. One iteration is an epoch, or the rest of one after resuming.

    The batches and their order depend on the sampler only, not on the kind or number of workers. A tensor is never
    overwritten while anything refers to it.

    Any number of iterations may run at once, and each is complete. The first of them moves the loader's position
    (``state_dict``); the others go through the same epoch and move nothing.

    Attributes:
        dataset: Where batches come from.
        batch_sampler: The loader's position. Lightning sets its epoch.
        num_workers: Number of threads or processes; 0 reads in the caller's thread.
        worker_type: ``thread`` or ``process``.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        sampler: WindowSampler,
        *,
        num_workers: int = 2,
        worker_type: WorkerType = "thread",
        prefetch: int | None = None,
        pin_memory: bool | None = None,
        multiprocessing_context: str | None = None,
    ) -> None:
        """Prepares a loader. Threads or processes start with the first batch of an iteration.

        Args:
            dataset: Where batches come from.
            sampler: Which windows, in which order, and from which position.
            num_workers: Number of threads or processes; 0 reads in the caller's thread.
            worker_type: ``thread`` or ``process``.
            prefetch: Number of batches that may be ready or in progress besides the one in use. None is one more than
                the workers.
            pin_memory: Use page-locked memory. None does so if there is a CUDA device.
            multiprocessing_context: ``fork``, ``spawn`` or ``forkserver``; None is Python's default.

        Raises:
            UsageError: A number is out of range, or ``worker_type`` is neither of the two.
        """
        check_choice("worker_type", worker_type, get_args(WorkerType))
        check_count("num_workers", num_workers, least=0)
        if prefetch is not None:
            check_count("prefetch", prefetch)
        self.dataset = dataset
        self.batch_sampler = sampler  # the name under which Lightning looks for it
        self.num_workers = num_workers
        self.worker_type = worker_type
        self._prefetch = num_workers + 1 if prefetch is None else prefetch
        self._pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._context = multiprocessing_context
        self._pool = BufferPool(sampler.order.batch_size, max_idle=self._prefetch + 2)
        self._owner: weakref.ref[_Iteration] | None = None
        self._move_of_owner = 0
        self._num_side_passes = 0
        self._iterations: weakref.WeakSet[_Iteration] = weakref.WeakSet()
        self._threads: list[Workers] = []
        self._groups: list[WorkerGroup] = []
        self._idle_groups: SimpleQueue[WorkerGroup] = SimpleQueue()

    def __len__(self) -> int:
        """Number of batches in a whole epoch, also after resuming in the middle of one."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Goes through an epoch. The first call of ``next`` decides which one.

        Yields:
            Batches as ``lewm_data.format.schema`` describes them, on the CPU.

        Raises:
            DamagedChunkError: A stored frame is damaged; names its episode and step.
            LoaderError: A worker process died.
        """
        iteration = _Iteration(self)
        self._iterations.add(iteration)
        return iteration

    def close(self) -> None:
        """Ends all iterations and waits for their threads and processes."""
        for iteration in list(self._iterations):
            iteration.close()
        for workers in self._threads:
            workers.close()
        for group in self._groups:
            group.close()
        self._threads, self._groups, self._idle_groups = [], [], SimpleQueue()

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position: where the next batch comes from."""
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where ``state_dict`` was called, also with another kind or number of workers."""
        self.batch_sampler.load_state_dict(state)

    def _start(self, iteration: _Iteration) -> Place:
        """Decides where an iteration starts."""
        if self.batch_sampler.follows_training:
            return self.batch_sampler.start_of_side_pass()
        owner = self._owner() if self._owner is not None else None
        if owner is not None and not owner.is_over and self._moves_position(owner):
            if self._num_side_passes:
                warnings.warn(
                    "An earlier iteration over this loader is unfinished, so that this one does not move the loader's "
                    "position, and repeats the epoch. If you have abandoned the earlier one, call close() on the "
                    "loader, or set_epoch() on its batch_sampler.",
                    UserWarning,
                    stacklevel=3,
                )
            return self.batch_sampler.start_of_side_pass()
        place = self.batch_sampler.begin()
        self._owner, self._move_of_owner = weakref.ref(iteration), self.batch_sampler.num_moves
        return place

    def _moves_position(self, iteration: _Iteration) -> bool:
        """Whether an iteration is the one that moves the position: the first, unless the position was set since."""
        is_owner = self._owner is not None and self._owner() is iteration
        return is_owner and self._move_of_owner == self.batch_sampler.num_moves

    def _note_batch(self, iteration: _Iteration) -> None:
        """Moves the position, or counts the passes that are complete and did not."""
        if self._moves_position(iteration):
            self.batch_sampler.advance()
            self._num_side_passes = 0
        elif iteration.is_over:
            self._num_side_passes += 1

    def _read_ahead(self, epoch: int, positions: range) -> Any:
        """An iterator over the batches at some positions, read by the loader's workers. It has ``close``."""
        if self.num_workers == 0 or not positions:
            return (self._read(epoch, position) for position in positions)
        if self.worker_type == "process":
            return ProcessBatches(
                self._take_group(), epoch, positions, self._idle_groups.put, pin_memory=self._pin_memory
            )
        prefetcher = Prefetcher(
            positions,
            functools.partial(self._read, epoch),
            num_threads=min(self.num_workers, len(positions)),
            max_in_flight=self._prefetch,
            start_thread=_follow_cuda_device(self._pin_memory),
            name="lewm_data-loader",
        )
        self._threads = [workers for workers in self._threads if workers.are_alive]
        self._threads.append(prefetcher.workers)
        return prefetcher

    def _read(self, epoch: int, position: int) -> Batch:
        order = self.batch_sampler.order
        windows = order.batch(epoch, position)
        draws = order.draws(epoch, position) if self.dataset.uses_draws else None
        with self.dataset.add_batch_context(windows):
            return self.dataset.read(windows, empty_pinned if self._pin_memory else self._pool.empty, draws)

    def _take_group(self) -> WorkerGroup:
        """An idle group of processes, or a new one. Ends idle groups that are broken or more than one."""
        idle: list[WorkerGroup] = []
        with contextlib.suppress(Empty):
            while True:
                idle.append(self._idle_groups.get_nowait())
        usable = [group for group in idle if group.finish_work()]
        for group in idle:
            if group not in usable[:1]:
                group.close()
        self._groups = [group for group in self._groups if group not in idle or group in usable[:1]]
        if usable:
            return usable[0]
        group = WorkerGroup(
            self.dataset,
            self.batch_sampler.order,
            num_workers=self.num_workers,
            prefetch=self._prefetch,
            context=self._context,
        )
        self._groups.append(group)
        return group


class PlacedBatch(dict[str, Any]):
    """A batch that knows its place in the run.

    Attributes:
        place: Epoch and position; None for a copy that a library made.
    """

    place: Place | None = None


class _Iteration(Iterator[Batch]):
    """One pass over an epoch of a loader."""

    def __init__(self, loader: WindowLoader) -> None:
        self.is_over = False
        self._is_closed = False
        self._loader = loader
        self._batches: Any = None
        self._epoch = 0
        self._positions = range(0)
        self._num_taken = 0

    def __next__(self) -> Batch:
        if self._is_closed:
            raise RuntimeError("the loader was closed while it was being iterated over")
        if self._batches is None:
            self._epoch, position = self._loader._start(self)
            self._positions = self._loader.batch_sampler.order.positions(position)
            self._batches = self._loader._read_ahead(self._epoch, self._positions)
        if self._num_taken == len(self._positions):
            self._end()
            raise StopIteration
        try:
            batch = PlacedBatch(next(self._batches))
        except BaseException:
            self._positions = range(0)  # as with a generator, nothing comes after an error
            self._num_taken = 0
            self._end()
            raise
        batch.place = Place(self._epoch, self._positions[self._num_taken])
        self._num_taken += 1
        if self._num_taken == len(self._positions):
            self._end()
        self._loader._note_batch(self)
        return batch

    def close(self) -> None:
        """Stops the iteration early."""
        self._is_closed = not self.is_over
        self._end()

    def _end(self) -> None:
        """Stops the threads and waits for them, or hands the processes back."""
        self.is_over = True
        if self._batches is not None:
            self._batches.close()


def _follow_cuda_device(pin_memory: bool) -> Callable[[], None]:
    """Makes a thread pin memory for this thread's GPU. By default a new thread opens a context on GPU 0."""
    if not (pin_memory and torch.cuda.is_available()):
        return lambda: None
    device = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(device)
