"""What no loader can beat: copying memory and nothing else, and a batch that exists already."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Arrays, Contender, Settings, window_index, window_order
from benchmarks.prepared import Prepared
from lewm_data.format.schema import PIXELS

type Frames = NDArray[np.uint8]


class MemoryLimit(Contender):
    """Threads that gather the frames of whole batches into buffers that they reuse.

    They do no window arithmetic, read no other column and wait for no trainer. Frames come from a mapped file, or from
    memory in huge pages, like a private RAM cache.
    """

    def __init__(self, data: Prepared, settings: Settings, *, mapped: bool) -> None:
        self._side = data.image_size
        shape = (data.num_frames, self._side**2 * 3)

        def open_frames() -> Frames:
            frames: Frames = np.memmap(data.raw, np.uint8, "r", shape=shape)
            return frames.view(np.ndarray) if mapped else np.array(frames)

        super().__init__(data, settings, data.raw, open_frames, reads_file=mapped)
        self._windows, self._first_rows = window_index(data, settings)
        self._rows: list[NDArray[np.int64]] = []

    def num_in_work(self, num_workers: int) -> int:
        """See ``Contender``."""
        return max(1, num_workers)

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Frames]:
        """See ``Contender``; each thread has one buffer, and goes on while the trainer looks at its last batch."""
        rows = self._rows = self._batch_rows(batch_size)
        num_threads = max(1, num_workers)
        done: SimpleQueue[Frames] = SimpleQueue()
        stop = Event()

        def work(first: int) -> None:
            buffer = np.ones((len(rows[0]), self._dataset.shape[1]), np.uint8)
            number = first
            while not stop.is_set():
                done.put(self._gather(rows[number % len(rows)], buffer))
                number += num_threads

        threads = [Thread(target=work, args=(first,)) for first in range(num_threads)]
        for thread in threads:
            thread.start()
        try:
            while True:
                yield done.get()
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def count(self, batch: Frames) -> int:
        """See ``Contender``."""
        return len(batch) // self._settings.num_steps

    def arrays(self, batch: Frames) -> Arrays:
        """See ``Contender``; gathers the first batch again, because a thread may be overwriting this one."""
        again = self._gather(self._rows[0], np.empty_like(batch))
        return {PIXELS: again.reshape(-1, self._settings.num_steps, self._side, self._side, 3)}

    def _batch_rows(self, batch_size: int) -> list[NDArray[np.int64]]:
        """The rows of each batch of an epoch."""
        order = window_order(self._windows, batch_size, self._settings)
        steps = np.arange(self._settings.num_steps) * self._settings.frameskip
        return [
            (self._first_rows(order.batch(0, number * batch_size))[:, None] + steps).reshape(-1)
            for number in range(order.num_batches())
        ]

    def _gather(self, rows: NDArray[np.int64], out: Frames) -> Frames:
        return np.take(self._dataset, rows, axis=0, out=out, mode="clip")


class CachedBatch(MemoryLimit):
    """Hands over the same batch again and again, which times the measurement itself."""

    def __init__(self, data: Prepared, settings: Settings) -> None:
        super().__init__(data, settings, mapped=True)
        self.path = None

    def batches(self, batch_size: int, num_workers: int) -> Iterator[Frames]:
        """See ``Contender``."""
        self._rows = self._batch_rows(batch_size)[:1]
        batch = self._gather(self._rows[0], np.empty((len(self._rows[0]), self._dataset.shape[1]), np.uint8))
        while True:
            yield batch
