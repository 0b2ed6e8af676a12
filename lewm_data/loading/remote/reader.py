"""Frames straight from object storage: just the chunks that are asked for, many requests at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.config import RemoteConfig
from lewm_data.format.codecs import Bytes, ChunkError
from lewm_data.format.data_file import Part
from lewm_data.loading.readers import UnreadableFrameError
from lewm_data.loading.remote.chunk_cache import ChunkCache
from lewm_data.loading.remote.ranges import Request, plan_requests
from lewm_data.loading.remote.remote_object import RemoteObject

MOST_GAP_BYTES = 64 << 10
"""Less than a frame of 224 pixels takes: where frames are large, those that no window asked for are not read."""

MOST_REQUEST_BYTES = 4 << 20
_KEPT_CHUNKS_PER_JOB = 64
_CHECKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The chunks of one part that a reading asks for, and where their frames go.

    Attributes:
        part: The part.
        cache: Its kept chunks, or None.
        first_row: Row of the column at which the part begins.
        rows: (n,) rows of the part.
        places: (n,) where in ``out`` each frame goes.
        out: (m, frame bytes) uint8.
        verify: Whether checksums are checked.
    """

    part: Part[RemoteObject]
    cache: ChunkCache | None
    first_row: int
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    out: Bytes
    verify: bool

    def jobs(self) -> list[Callable[[], None]]:
        """What to do, each by itself: chunks that are kept some at a time, the others request by request."""
        index = self.part.index
        is_kept = np.zeros(len(self.rows), np.bool_) if self.cache is None else self.cache.has(self.rows)
        kept, absent = np.flatnonzero(is_kept).tolist(), np.flatnonzero(~is_kept)
        jobs: list[Callable[[], None]] = []
        for first in range(0, len(kept), _KEPT_CHUNKS_PER_JOB):
            chunks = kept[first : first + _KEPT_CHUNKS_PER_JOB]
            jobs.append(lambda chunks=chunks: self._read_kept(chunks))  # type: ignore[misc]
        requests = plan_requests(
            index.offset[self.rows[absent]],
            index.size[self.rows[absent]],
            most_gap_bytes=MOST_GAP_BYTES,
            most_bytes=MOST_REQUEST_BYTES,
        )
        for request in requests:
            chunks = absent[request.chunks].tolist()
            jobs.append(lambda request=request, chunks=chunks: self._fetch(request, chunks))  # type: ignore[misc]
        return jobs

    def _read_kept(self, chunks: list[int]) -> None:
        assert self.cache is not None
        for chunk in chunks:
            row, offset, size = self._place(chunk)
            stored = self.cache.get(row, offset, size)
            if stored is None:
                self._fetch(Request(offset, offset + size, [chunk]), [chunk])
            else:
                self._decode(chunk, memoryview(stored))

    def _fetch(self, request: Request, chunks: list[int]) -> None:
        data = memoryview(self.part.container.read(request.start, request.stop))
        for chunk in chunks:
            row, offset, size = self._place(chunk)
            stored = data[offset - request.start :][:size]
            self._decode(chunk, stored)
            if self.cache is not None:
                self.cache.put(row, offset, stored)

    def _place(self, chunk: int) -> tuple[int, int, int]:
        """Row in the part, first byte and size of a chunk."""
        row = int(self.rows[chunk])
        return row, int(self.part.index.offset[row]), int(self.part.index.size[row])

    def _decode(self, chunk: int, stored: memoryview) -> None:
        row = int(self.rows[chunk])
        mask = 0 if self.part.index.mask is None else int(self.part.index.mask[row])
        try:
            self.part.codec.decode(stored, mask, self.out[self.places[chunk]], verify=self.verify)
        except ChunkError as error:
            self.part.container.check_unchanged()  # bytes of another object make no frame either
            reason = f"its chunk is damaged: {error}"
            raise UnreadableFrameError(self.first_row + row, self.part.container, reason) from error


class RemoteReader:
    """Reads and decodes one-frame chunks of objects. Each request has a thread that waits for it and decodes it."""

    def __init__(self, parts: Sequence[Part[RemoteObject]], config: RemoteConfig, *, verify_checksums: bool) -> None:
        """Prepares; no request is made before the first reading.

        Args:
            parts: Where the rows lie, in their order.
            config: How to read.
            verify_checksums: Check each chunk's checksum at each reading.
        """
        self._parts = parts
        self._stops = np.cumsum([len(part.index.offset) for part in parts])
        self._verify = verify_checksums
        self._num_connections = config.num_connections
        self._caches = [ChunkCache.of(part, config) for part in parts]
        self._threads_of: tuple[int, ThreadPoolExecutor] | None = None

    def read(self, rows: NDArray[np.int64], out: Bytes, places: NDArray[np.int64] | None = None) -> None:
        """See ``FrameReader``.

        Raises:
            UnreadableFrameError: A frame is damaged.
            FormatError: The object changed since it was opened.
            UnreachableError: The store does not answer.
        """
        where = np.arange(len(rows)) if places is None else places
        part_of_row = np.searchsorted(self._stops, rows, side="right")
        numbers = np.unique(part_of_row).tolist()
        threads = self._threads()
        jobs: list[Future[None]] = []
        try:
            for number in numbers:
                chosen = np.flatnonzero(part_of_row == number)
                first_row = int(self._stops[number - 1]) if number else 0
                wanted = _Wanted(
                    self._parts[number],
                    self._caches[number],
                    first_row,
                    rows[chosen] - first_row,
                    where[chosen],
                    out,
                    self._verify,
                )
                jobs += map(threads.submit, wanted.jobs())
            error = next(filter(None, map(Future.exception, wait(jobs, return_when=FIRST_EXCEPTION).done)), None)
        finally:
            for job in jobs:
                job.cancel()
            wait(jobs)  # from here on nobody writes into ``out`` any more
            jobs.clear()
        if error is not None:
            try:
                raise error
            finally:
                del error  # else it would hold on to itself, and to this reader and its threads
        self._check_unchanged(numbers)

    def _check_unchanged(self, numbers: list[int]) -> None:
        """Asks whether each part's object is still the same: not behind the requests of another thread's batch."""
        if len(numbers) == 1:
            self._parts[numbers[0]].container.check_unchanged()
            return
        with ThreadPoolExecutor(min(len(numbers), _CHECKS_AT_ONCE)) as threads:
            list(threads.map(lambda number: self._parts[number].container.check_unchanged(), numbers))

    def _threads(self) -> ThreadPoolExecutor:
        """This process's threads: those from before a fork are the parent's."""
        if self._threads_of is None or self._threads_of[0] != os.getpid():
            threads = ThreadPoolExecutor(self._num_connections, "lewm_data-remote")
            self._threads_of = os.getpid(), threads
            weakref.finalize(self, threads.shutdown, wait=False).atexit = False
        return self._threads_of[1]
