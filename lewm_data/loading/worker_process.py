"""What a worker process of the loader runs: it fills slots of memory with batches, and sends their numbers back."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lewm_data.errors import LoaderError
from lewm_data.loading.batches import Batch, BatchDataset
from lewm_data.loading.sampler import WindowOrder
from lewm_data.loading.shared_memory import NodeMemory

type Task = tuple[int | NodeMemory | None, int, int]
"""Where to put a batch, its epoch, and its position. A slot's number, memory of its own, or None: send it back."""

_ALIGNMENT = 64
_SECONDS_BETWEEN_CHECKS = 10.0


class SlotLayout:
    """Where each column of a batch lies in a slot of memory.

    Attributes:
        num_bytes: Size of a slot.
    """

    def __init__(self, dataset: BatchDataset, batch_size: int) -> None:
        """Lays out the columns one after another.

        Args:
            dataset: Whose batches the slots hold.
            batch_size: Windows in the largest batch.
        """
        self._columns = dataset.layout()
        self._starts: dict[str, int] = {}
        self.num_bytes = 0
        for name, (shape, dtype) in self._columns.items():
            self._starts[name] = self.num_bytes
            self.num_bytes += batch_size * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            self.num_bytes += -self.num_bytes % _ALIGNMENT

    def tensors(self, memory: NDArray[np.uint8], num_windows: int) -> Batch:
        """Views a slot as a batch, with frames (B, T, H, W, 3) as ``BatchDataset.fill`` takes them.

        Args:
            memory: (num_bytes,) uint8. It lives as long as any of the tensors.
            num_windows: Windows in the batch.

        Returns:
            Column to tensor.
        """
        slot = torch.from_numpy(memory)
        batch: Batch = {}
        for name, (shape, dtype) in self._columns.items():
            num_bytes = num_windows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            column = slot[self._starts[name] : self._starts[name] + num_bytes]
            batch[name] = column.view(torch.from_numpy(np.empty(0, dtype)).dtype).view(num_windows, *shape)
        return batch


def serve(
    connection: Connection, dataset: BatchDataset, order: WindowOrder, layout: SlotLayout, slots: list[NodeMemory]
) -> None:
    """Runs in a worker process: reads batches until the loader asks it to leave or its process has ended.

    Args:
        connection: Brings tasks, and None to leave. Takes the number of windows, or the batch, or an error.
        dataset: Where batches come from.
        order: Maps epoch and position to the windows of a batch.
        layout: Where each column lies in a slot.
        slots: The memory to fill.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the trainer, which may still need batches
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    started_by = os.getppid()
    with contextlib.suppress(OSError, EOFError):
        while os.getppid() == started_by:
            # Workers forked later hold copies of the pipe behind the sentinel, so it may stay silent for a while.
            ready = wait([connection, parent.sentinel], _SECONDS_BETWEEN_CHECKS)
            if connection in ready:
                task: Task | None = connection.recv()
                if task is None:
                    return
                connection.send(_answer(task, dataset, order, layout, slots))
            elif ready:
                return


def _answer(
    task: Task, dataset: BatchDataset, order: WindowOrder, layout: SlotLayout, slots: list[NodeMemory]
) -> int | dict[str, NDArray[Any]] | BaseException:
    place, epoch, position = task
    try:
        windows = order.batch(epoch, position)
        draws = order.draws(epoch, position) if dataset.uses_draws else None
        with dataset.add_batch_context(windows):
            if place is None:
                batch = {
                    name: np.empty((len(windows), *shape), dtype) for name, (shape, dtype) in dataset.layout().items()
                }
                dataset.fill(windows, batch, None, draws)
                return batch
            memory = slots[place] if isinstance(place, int) else place
            tensors = layout.tensors(memory.array, len(windows))
            dataset.fill(windows, {name: tensor.numpy() for name, tensor in tensors.items()}, None, draws)
            return len(windows)
    except BaseException as error:  # noqa: BLE001  # raised in the trainer's process
        return _portable(error)


def _portable(error: BaseException) -> BaseException:
    """The error with this process's traceback as a note, as the same type if it can be pickled."""
    error.add_note("In a worker process of the loader:\n" + "".join(traceback.format_exception(error)))
    try:
        restored: BaseException = ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001  # whatever a foreign error's constructor raises
        portable = LoaderError(f"{type(error).__name__}: {error}")
        for note in error.__notes__:
            portable.add_note(note)
        return portable
    return restored
