"""Memory for batches, used again once nobody looks at it."""

from __future__ import annotations

import weakref
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lewm_data.loading.batches import empty

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
