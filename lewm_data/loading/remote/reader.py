"""Frames from object storage: few requests for many chunks, many of them at once."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.codecs import Bytes, ChunkError
from lewm_data.format.segments import Segment, group_by_segment
from lewm_data.loading.readers import FrameRead, ReaderKind, UnreadableFrameError
from lewm_data.loading.remote.chunk_cache import ChunkCache
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.remote.crew import Crew
from lewm_data.loading.remote.range_client import MAX_HEAD_BYTES
from lewm_data.loading.remote.remote_object import RemoteObject

_CACHED_CHUNKS_PER_JOB = 64
_MAX_CHECKS_AT_ONCE = 16
_MAX_KEPT_BYTES = 1 << 20
"""What a thread keeps between requests: 64 threads keep 64 MiB at most."""


class _ReceiveMemory(threading.local):
    """Each thread's memory for responses. New memory for each of them would be cleared and mapped page by page."""

    memory = bytearray()

    def take(self, num_bytes: int) -> bytearray | None:
        """Memory for a range and the head of its response, the same for each call; None where that is too much."""
        needed = MAX_HEAD_BYTES + num_bytes
        if needed > _MAX_KEPT_BYTES:
            return None
        if len(self.memory) < needed:
            self.memory = bytearray(1 << (needed - 1).bit_length())
        return self.memory


_receive_memory = _ReceiveMemory()


@dataclass(frozen=True, slots=True)
class _PartRead:
    """The frames that one call of ``RemoteReader.read`` takes from one part.

    Attributes:
        part: The part.
        cache: Its chunks on the local disk, or None.
        config: How to read.
        first_row: Row of the column at which the part begins.
        rows: (n,) rows of the part.
        out_indices: (n,) where in ``out`` each frame goes.
        out: (m, frame bytes) uint8.
        verify: Whether to check checksums.
        confirmations: For each request, whether the store named the version that was opened.
        uncached: Row, first byte and bytes of the chunks that may enter the cache once the object is known to be
            unchanged.
    """

    part: Segment[RemoteObject]
    cache: ChunkCache | None
    config: RemoteConfig
    first_row: int
    rows: NDArray[np.int64]
    out_indices: NDArray[np.int64]
    out: Bytes
    verify: bool
    confirmations: list[bool] = field(default_factory=list)
    uncached: list[tuple[int, int, bytes]] = field(default_factory=list)

    def jobs(self, crew: Crew) -> list[Callable[[], None]]:
        """Independent jobs for a crew: one for each request, and one for every few cached chunks."""
        index = self.part.index
        is_cached = np.zeros(len(self.rows), np.bool_) if self.cache is None else self.cache.has(self.rows)
        cached, absent = np.flatnonzero(is_cached).tolist(), np.flatnonzero(~is_cached)
        jobs: list[Callable[[], None]] = []
        for first in range(0, len(cached), _CACHED_CHUNKS_PER_JOB):
            chunks = cached[first : first + _CACHED_CHUNKS_PER_JOB]
            jobs.append(partial(self._read_cached, crew, chunks))
        ranges = coalesce_ranges(
            index.offset[self.rows[absent]],
            index.size[self.rows[absent]],
            max_gap_bytes=self.config.max_gap_bytes,
            max_request_bytes=self.config.max_request_bytes,
        )
        for byte_range in ranges:
            chunks = absent[byte_range.chunks].tolist()
            jobs.append(partial(self._fetch, crew, byte_range.start, byte_range.stop, chunks))
        return jobs

    def needs_check(self) -> bool:
        """Whether it is still open if the object is the one that was opened."""
        return not self.confirmations or not all(self.confirmations)

    def fill_cache(self) -> None:
        """Caches the remaining chunks. Call this when the object is known to be unchanged."""
        if self.cache is not None:
            for row, offset, stored in self.uncached:
                self.cache.put(row, offset, memoryview(stored))

    def _read_cached(self, crew: Crew, chunks: list[int]) -> None:
        assert self.cache is not None
        for chunk in chunks:
            row, offset, size = self._location(chunk)
            stored = self.cache.get(row, offset, size)
            if stored is None:
                self._fetch(crew, offset, offset + size, [chunk])
            else:
                self._decode(chunk, memoryview(stored))

    def _fetch(self, crew: Crew, start: int, stop: int, chunks: list[int]) -> None:
        with crew.waiting():
            read = self.part.file.read(start, stop, memory=_receive_memory.take(stop - start))
        self.confirmations.append(read.is_same_version)
        data = memoryview(read.data)
        for chunk in chunks:
            row, offset, size = self._location(chunk)
            stored = data[offset - start :][:size]
            self._decode(chunk, stored)
            if self.cache is not None and read.is_same_version:
                self.cache.put(row, offset, stored)
            elif self.cache is not None:
                self.uncached.append((row, offset, bytes(stored)))  # the thread's next request overwrites it

    def _location(self, chunk: int) -> tuple[int, int, int]:
        """Row in the part, first byte and size of a chunk."""
        row = int(self.rows[chunk])
        return row, int(self.part.index.offset[row]), int(self.part.index.size[row])

    def _decode(self, chunk: int, stored: memoryview) -> None:
        row = int(self.rows[chunk])
        mask = 0 if self.part.index.mask is None else int(self.part.index.mask[row])
        try:
            self.part.codec.decode(stored, mask, self.out[self.out_indices[chunk]], verify=self.verify)
        except ChunkError as error:
            self.part.file.check_unchanged()  # bytes of another object do not decode either
            reason = f"its chunk is damaged: {error}"
            raise UnreadableFrameError(self.first_row + row, self.part.file, reason) from error


class RemoteReader:
    """Reads and decodes one-frame chunks of objects. A thread sends each request, waits for it, and decodes it."""

    def __init__(self, parts: Sequence[Segment[RemoteObject]], config: RemoteConfig, *, verify_checksums: bool) -> None:
        """Prepares the reader. Makes no request before the first read.

        Args:
            parts: Where the rows lie, in order.
            config: How to read.
            verify_checksums: Check the checksum of each chunk on every read.
        """
        self._parts = parts
        self._stops = np.cumsum([len(part.index.offset) for part in parts])
        self._config = config
        self._verify = verify_checksums
        self._caches = [ChunkCache.for_part(part, config) for part in parts]
        self._threads_of: tuple[int, ThreadPoolExecutor] | None = None

    kind: ReaderKind = "remote"

    def read(self, reads: Sequence[FrameRead]) -> None:
        """See ``FrameReader``.

        Raises:
            UnreadableFrameError: A frame is damaged.
            FormatError: The object changed since it was opened.
            UnreachableError: The store does not answer.
        """
        part_reads = [part_read for read in reads for part_read in self._part_reads(read)]
        crew = Crew(self._threads(), max_threads=self._config.num_connections)
        crew.run([job for part_read in part_reads for job in part_read.jobs(crew)])
        self._check_unchanged([part_read.part.file for part_read in part_reads if part_read.needs_check()])
        for part_read in part_reads:
            part_read.fill_cache()

    def _part_reads(self, read: FrameRead) -> Iterator[_PartRead]:
        rows, out, out_indices = read
        for number, chosen, own_rows in group_by_segment(rows, self._stops):
            yield _PartRead(
                self._parts[number],
                self._caches[number],
                self._config,
                int(rows[chosen[0]] - own_rows[0]),
                own_rows,
                chosen if out_indices is None else out_indices[chosen],
                out,
                self._verify,
            )

    def _check_unchanged(self, objects: list[RemoteObject]) -> None:
        """Checks that objects are unchanged, in threads that do not queue behind another batch."""
        if len(objects) == 1:
            objects[0].check_unchanged()
        elif objects:
            with ThreadPoolExecutor(min(len(objects), _MAX_CHECKS_AT_ONCE)) as threads:
                list(threads.map(RemoteObject.check_unchanged, objects))

    def _threads(self) -> ThreadPoolExecutor:
        """This process's threads. Those from before a fork exist only in the parent."""
        if self._threads_of is None or self._threads_of[0] != os.getpid():
            threads = ThreadPoolExecutor(self._config.num_connections, "lewm_data-remote")
            self._threads_of = os.getpid(), threads
            weakref.finalize(self, threads.shutdown, wait=False).atexit = False
        return self._threads_of[1]


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One range to request, the bytes [start, stop).

    Attributes:
        start: First byte.
        stop: First byte after the range.
        chunks: Positions of the chunks that lie in it, among those passed to ``coalesce_ranges``.
    """

    start: int
    stop: int
    chunks: list[int]


def coalesce_ranges(
    offsets: NDArray[np.integer] | Sequence[int],
    sizes: NDArray[np.integer] | Sequence[int],
    *,
    max_gap_bytes: int,
    max_request_bytes: int,
) -> list[ByteRange]:
    """Merges nearby chunks into ranges.

    Args:
        offsets: (n,) first byte of each chunk, in any order; repeats are allowed.
        sizes: (n,) bytes of each chunk.
        max_gap_bytes: Largest gap between two chunks of one range. The bytes in the gap are read and dropped.
        max_request_bytes: Size up to which a range grows. A chunk larger than this still makes one range.

    Returns:
        Ranges in byte order. Each chunk lies in exactly one of them.

    Example:
        >>> found = coalesce_ranges([0, 120, 900], [100, 100, 100], max_gap_bytes=50, max_request_bytes=512)
        >>> [(r.start, r.stop) for r in found]
        [(0, 220), (900, 1000)]
    """
    begins, lengths = np.asarray(offsets, np.int64), np.asarray(sizes, np.int64)
    stops = (begins + lengths).tolist()
    ranges: list[ByteRange] = []
    start = stop = 0
    chunks: list[int] = []
    for position in np.argsort(begins, kind="stable").tolist():
        begin, end = int(begins[position]), stops[position]
        is_near = begin - stop <= max_gap_bytes and max(stop, end) - start <= max_request_bytes
        if chunks and (is_near or end <= stop):
            chunks.append(position)
            stop = max(stop, end)
            continue
        if chunks:
            ranges.append(ByteRange(start, stop, chunks))
        start, stop, chunks = begin, end, [position]
    if chunks:
        ranges.append(ByteRange(start, stop, chunks))
    return ranges
