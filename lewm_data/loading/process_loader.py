"""Worker processes that fill whole batches in memory which the trainer's process uses again and again.

Torch's DataLoader gives each batch fresh shared memory, and the kernel takes ten times as long to provide and clear it
as copying the frames takes. Here the processes fill a few slots of a batch each, and only slot numbers cross the pipe.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor

from lewm_data.errors import LoaderError, ResourceError
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.sampler import WindowOrder
from lewm_data.loading.shared_memory import NodeMemory
from lewm_data.loading.worker_process import SlotLayout, serve

_PATIENCE_SECONDS = 10.0
_ENDED_AT_START = (
    "A worker process of the loader ended while it started; its own message is above this one. A new process imports "
    "the script that started it. So put what the script does into a function main(), and call it at the end, under "
    "if __name__ == '__main__':"
)


class WorkerGroup:
    """Processes that read batches into slots of memory. One iteration at a time uses a group.

    The processes end with ``close``, soon after the group is garbage-collected, and when this process ends, however
    that happens. A collected group asks its processes to leave and does not wait for them.
    """

    def __init__(
        self, dataset: BatchDataset, order: WindowOrder, *, num_workers: int, prefetch: int, context: str | None
    ) -> None:
        """Starts the processes.

        Args:
            dataset: Where batches come from.
            order: Maps epoch and position to the windows of a batch.
            num_workers: Number of processes, 1 or more.
            prefetch: Number of batches that may be ready or in progress, at least.
            context: ``fork``, ``spawn`` or ``forkserver``; None is Python's default.

        Raises:
            ResourceError: The system cannot start this many processes, or lacks memory for the slots.
        """
        per_worker = max(1, -(-prefetch // num_workers))
        self.max_in_progress = num_workers * per_worker
        self._dataset = dataset
        self._layout = SlotLayout(dataset, order.batch_size)
        self._slots: list[NodeMemory] = []
        self._free: SimpleQueue[int] = SimpleQueue()
        if hasattr(os, "memfd_create"):  # elsewhere spawned processes could not find the memory
            # Two more than are in progress: the batch in use, and one that the trainer has not released yet.
            for slot in range(self.max_in_progress + 2):
                self._slots.append(NodeMemory.create(self._layout.num_bytes, purpose="a batch of the loader"))
                self._free.put(slot)
        self._in_progress: deque[tuple[int, int | NodeMemory | None]] = deque()
        self._num_begun = 0
        self._has_replied: set[int] = set()
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        # It must run before multiprocessing's own exit handler, which waits for the processes.
        self._leave = weakref.finalize(self, _ask_to_leave, self._connections, os.getpid())
        self._leave.atexit = False
        atexit.register(self._leave)
        self._start(multiprocessing.get_context(context), order, num_workers)

    def _start(self, context: Any, order: WindowOrder, num_workers: int) -> None:
        for number in range(num_workers):
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            process = context.Process(
                target=serve,
                args=(theirs, self._dataset, order, self._layout, self._slots),
                name=f"lewm_data-loader-{number}",
                daemon=True,
            )
            try:
                process.start()
            except BrokenPipeError as error:  # it ended before it had read what it should do
                self.close()
                raise LoaderError(_ENDED_AT_START) from error
            except BlockingIOError as error:
                self.close()
                raise ResourceError(
                    f"the system started {number} of {num_workers} worker processes, and no more ({error}). Lower "
                    "num_workers, or raise the limit on processes (ulimit -u)."
                ) from error
            theirs.close()
            self._processes.append(process)

    def submit(self, epoch: int, position: int) -> None:
        """Asks the next process in turn for a batch."""
        place: int | NodeMemory | None = None
        if self._slots:
            try:
                place = self._free.get_nowait()
            except Empty:  # the trainer keeps many batches
                place = NodeMemory.create(self._layout.num_bytes, purpose="a batch of the loader")
        number = self._num_begun % len(self._processes)
        self._num_begun += 1
        self._in_progress.append((number, place))
        with contextlib.suppress(OSError):  # the process is dead, as `receive` will notice
            self._connections[number].send((place, epoch, position))

    def receive(self) -> Batch:
        """Waits for the batch that was submitted first.

        Returns:
            Column to tensor, frames (B, T, 3, H, W). Its slot is free again when the last of the tensors dies.

        Raises:
            LoaderError: The process died.
            Exception: What reading the batch raised there.
        """
        number, place = self._in_progress[0]
        reply = self._reply(number)
        self._in_progress.popleft()
        if isinstance(reply, BaseException):
            self._release(place)
            raise reply
        if isinstance(reply, dict):
            return self._dataset.arrange({name: torch.from_numpy(values) for name, values in reply.items()})
        memory = (self._slots[place] if isinstance(place, int) else place).array[:]  # type: ignore[union-attr]
        if isinstance(place, int):
            weakref.finalize(memory, self._free.put, place).atexit = False
        return self._dataset.arrange(self._layout.tensors(memory, reply))

    def finish_work(self) -> bool:
        """Waits for the batches in progress and drops them. Returns whether all processes are alive."""
        while self._in_progress:
            number, place = self._in_progress[0]
            try:
                self._reply(number)
            except LoaderError:
                return False
            self._in_progress.popleft()
            self._release(place)
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        """Asks the processes to leave after the batches in progress, and waits for them. Safe to call twice."""
        self._leave()
        atexit.unregister(self._leave)
        for process in self._processes:
            process.join(_PATIENCE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def _reply(self, number: int) -> Any:
        connection, process = self._connections[number], self._processes[number]
        with contextlib.suppress(OSError, EOFError):
            if connection in wait([connection, process.sentinel]):
                reply = connection.recv()
                self._has_replied.add(number)
                return reply
        process.join(_PATIENCE_SECONDS)
        if process.exitcode == 1 and number not in self._has_replied:
            raise LoaderError(_ENDED_AT_START)
        raise LoaderError(
            f"A worker process of the loader died (process {process.pid}, exit status {process.exitcode}). Usually "
            "memory ran out: lower num_workers or batch_size. The next iteration starts new workers."
        )

    def _release(self, place: int | NodeMemory | None) -> None:
        if isinstance(place, int):
            self._free.put(place)


class ProcessBatches(Iterator[Batch]):
    """The batches at some positions of an epoch, read by a group of processes."""

    def __init__(
        self,
        group: WorkerGroup,
        epoch: int,
        positions: range,
        give_back: Callable[[WorkerGroup], None],
        *,
        pin_memory: bool,
    ) -> None:
        """Borrows a group; gives it back with ``close``, or when the iterator is garbage-collected."""
        self._group = group
        self._epoch = epoch
        self._positions = iter(positions)
        self._num_in_progress = 0
        self._pin_memory = pin_memory
        self._give_back = weakref.finalize(self, give_back, group)
        self._give_back.atexit = False

    def __next__(self) -> Batch:
        while self._num_in_progress < self._group.max_in_progress:
            position = next(self._positions, None)
            if position is None:
                break
            self._group.submit(self._epoch, position)
            self._num_in_progress += 1
        if not self._num_in_progress:
            raise StopIteration
        self._num_in_progress -= 1
        return {name: self._pin(values) for name, values in self._group.receive().items()}

    def close(self) -> None:
        """Gives the group back. Its next user waits for the batches in progress."""
        self._give_back()

    def _pin(self, values: Any) -> Any:
        return values.pin_memory() if self._pin_memory and isinstance(values, Tensor) else values


def _ask_to_leave(connections: list[Connection], owner: int) -> None:
    if os.getpid() != owner:  # a forked copy of the group has no say
        return
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(None)
