"""Worker processes that fill whole batches in memory which the trainer's process hands out again and again.

Torch's own way gives each batch fresh shared memory, and the kernel takes ten times as long to provide and clear it as
the copying takes. Here the processes share a few slots of a batch each; what crosses the pipe is a slot's number.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lewm_data.errors import LoaderError
from lewm_data.loading.batches import Batch, BatchDataset, whole_batch
from lewm_data.loading.sampler import WindowSampler
from lewm_data.loading.shared_memory import NodeMemory

type Task = tuple[int | None, NDArray[np.int64]]
"""A slot to fill, or None to make a tensor, and the windows to fill it with."""

_ALIGNMENT = 64


class BatchSlots:
    """Slots of memory of one batch each, and where in a slot each column lies.

    Attributes:
        num_slots: How many there are.
    """

    def __init__(self, dataset: BatchDataset, batch_size: int, num_slots: int) -> None:
        """Reserves memory; the kernel provides it when it is first used.

        Args:
            dataset: Whose batches shall fit.
            batch_size: Windows in the largest.
            num_slots: How many batches.
        """
        self.num_slots = num_slots
        self._layout = dataset.layout()
        self._starts: dict[str, int] = {}
        size = 0
        for name, (shape, dtype) in self._layout.items():
            self._starts[name] = size
            size += batch_size * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            size += -size % _ALIGNMENT
        self._slot_bytes = size
        self._memory = NodeMemory.create(num_slots * size)

    def memory(self, slot: int) -> NDArray[np.uint8]:
        """The bytes of a slot; a new array each time."""
        return self._memory.array[slot * self._slot_bytes : (slot + 1) * self._slot_bytes]

    def tensors(self, memory: NDArray[np.uint8], num_windows: int) -> Batch:
        """A batch in a slot's memory, as ``BatchDataset.fill`` takes it: frames are (B, T, H, W, 3).

        Args:
            memory: Of a slot; it lives as long as any of the tensors.
            num_windows: Windows in the batch.

        Returns:
            Column to tensor.
        """
        whole = torch.from_numpy(memory)
        batch: Batch = {}
        for name, (shape, dtype) in self._layout.items():
            num_bytes = num_windows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            piece = whole[self._starts[name] : self._starts[name] + num_bytes]
            batch[name] = piece.view(torch.from_numpy(np.empty(0, dtype)).dtype).view(num_windows, *shape)
        return batch


class SlotDataset(Dataset[Any]):
    """What a worker process runs: fills the slot that it is told to."""

    def __init__(self, dataset: BatchDataset, slots: BatchSlots | None) -> None:
        """Takes the dataset and where to put batches; without slots all batches are made anew."""
        self._dataset = dataset
        self._slots = slots

    def __getitems__(self, task: Task) -> tuple[int, int] | Batch:
        """Reads a batch.

        Args:
            task: The slot, and (B,) int64 window numbers.

        Returns:
            The slot and B; or the batch itself, in new shared memory, where the slot is None.
        """
        slot, windows = task
        with self._dataset.add_batch_context(windows):
            if slot is None or self._slots is None:
                return self._dataset.__getitems__(windows)
            batch = self._slots.tensors(self._slots.memory(slot), len(windows))
            self._dataset.fill(windows, {name: tensor.numpy() for name, tensor in batch.items()})
        return slot, len(windows)


class ProcessBatches:
    """Batches from a torch DataLoader with worker processes; also the batch sampler that gives it its tasks.

    Attributes:
        dataloader: The DataLoader.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        sampler: WindowSampler,
        *,
        num_workers: int,
        num_ahead: int,
        pin_memory: bool,
        multiprocessing_context: str | None,
    ) -> None:
        """Prepares; no process starts before the first batch.

        Args:
            dataset: Where batches come from.
            sampler: Which windows, from where on.
            num_workers: Processes; 0 reads in the caller's.
            num_ahead: Batches that may be ready or in work beyond the one that is used, at least.
            pin_memory: Hand batches out in page-locked memory.
            multiprocessing_context: ``fork``, ``spawn`` or ``forkserver``; None is Python's default.
        """
        self._dataset = dataset
        self._sampler = sampler
        self._pin_memory = pin_memory
        self._slots: BatchSlots | None = None
        self._free: SimpleQueue[int] = SimpleQueue()
        self._in_work: set[int] = set()
        per_worker = max(1, -(-num_ahead // num_workers)) if num_workers else 0
        if num_workers and hasattr(os, "memfd_create"):  # elsewhere spawned processes could not find the slots
            # Two more than are in work: the batch that is used, and one that the trainer has not let go of yet.
            self._slots = BatchSlots(dataset, sampler.order.batch_size, num_workers * per_worker + 2)
            for slot in range(self._slots.num_slots):
                self._free.put(slot)
        self.dataloader: DataLoader[Any] = DataLoader(
            SlotDataset(dataset, self._slots),
            batch_sampler=self,  # type: ignore[arg-type]  # torch hands on what it yields, which need be no list
            collate_fn=whole_batch,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=per_worker or None,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            generator=torch.Generator(),  # torch draws a seed from it; the global one stays untouched
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Task]:
        # Torch asks for the first task once its workers have finished all of an abandoned iteration.
        for slot in self._in_work:
            self._free.put(slot)
        self._in_work = set()
        for windows in self._sampler:
            try:
                slot = self._free.get_nowait()
            except Empty:  # the trainer keeps many batches, or there are no slots
                yield None, windows
            else:
                self._in_work.add(slot)
                yield slot, windows

    def batches(self) -> Iterator[Batch]:
        """Goes through the rest of the sampler's epoch.

        Raises:
            LoaderError: A worker process died. (Torch raises a RuntimeError of its own where this is noticed while
                the trainer is at work.)
        """
        workers = getattr(getattr(self.dataloader, "_iterator", None), "_workers", ())
        if not all(worker.is_alive() for worker in workers):
            self.close()
        try:
            for result in self.dataloader:
                yield self._receive(result)
        except RuntimeError as error:  # torch's own
            if "DataLoader worker" not in str(error):
                raise
            self.close()  # the next iteration starts new processes
            raise LoaderError(
                f"A worker process of the loader died: {str(error).splitlines()[0]} Usually memory ran out: "
                "lower num_workers or batch_size. The next iteration starts new workers."
            ) from error

    def close(self) -> None:
        """Stops the processes."""
        workers = getattr(self.dataloader, "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()
            self.dataloader._iterator = None

    def _receive(self, result: tuple[int, int] | Batch) -> Batch:
        if isinstance(result, dict):
            return {name: self._pin(tensor) for name, tensor in result.items()}
        assert self._slots is not None
        slot, num_windows = result
        self._in_work.discard(slot)
        memory = self._slots.memory(slot)
        weakref.finalize(memory, self._free.put, slot).atexit = False  # with the last tensor in it
        raw = self._slots.tensors(memory, num_windows)
        return self._dataset.arrange({name: self._pin(tensor) for name, tensor in raw.items()})

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._pin_memory else tensor
