"""Reads and decodes stored chunks of one frame each, with as few calls as the file's layout allows.

Each call that reads, copies or decodes gives up the interpreter's lock and takes it back. With many threads, the wait
for the lock costs more than the work of a fast codec. So frames at even distances in an uncompressed file are copied in
one call, and neighboring compressed chunks are read in one.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import resource
import threading
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.codecs import Bytes, ChunkError
from lewm_data.format.data_file import LocalFile
from lewm_data.format.segments import Segment, group_by_segment
from lewm_data.loading.chunk_runs import adjacent_runs, even_runs
from lewm_data.loading.distributed import MAX_WORKERS
from lewm_data.loading.readers import FrameRead, ReaderKind, UnreadableFrameError
from lewm_data.machine_errors import raise_machine_error
from lewm_data.resources import allow_open_files

_USAGE_OF = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the former on Linux only
_MAX_RUN_BYTES = 1 << 19
"""Stored bytes that one call reads, unless a single chunk is larger. They should stay in the processor's cache."""

_MAX_THREADS = {"none": 4, "lz4": 4}
"""Threads that still help. On 16 cores, uncompressed files gave 27,000 windows/s to 4 threads and 22,300 to 16, lz4
10,400 and 7,900; LZF and the RAM cache gained up to 16."""


class ChunkReader:
    """Reads and decodes one-frame chunks without the HDF5 library, its global lock and its cache.

    Uncompressed frames are copied from a memory map, at two thirds of the cost of reading them. Compressed frames are
    read: that costs little compared with decoding, a disk error or a truncated file is an exception where a map would
    kill the process, and the process does not appear as large as the file.
    """

    kind: ReaderKind = "chunks"

    def __init__(self, segments: Sequence[Segment[LocalFile]], *, verify_checksums: bool) -> None:
        """Opens the files.

        Args:
            segments: Where the rows are, in their order.
            verify_checksums: Check each chunk's checksum every time it is read.
        """
        self._segments = segments
        self._stops = np.cumsum([len(segment.index.offset) for segment in segments])
        self._verify = verify_checksums
        allow_open_files(len(segments))
        self._files = [open(segment.file.path, "rb", buffering=0) for segment in segments]  # noqa: SIM115  # closed with the reader
        for file in self._files:
            weakref.finalize(self, file.close).atexit = False
        maps = [_map(segment, file) for segment, file in zip(segments, self._files, strict=True)]
        self._maps = maps if not verify_checksums else [None] * len(segments)
        self._mapped_bytes = [segment.index.stop_byte() for segment in segments]
        self._scratch_bytes = max(_MAX_RUN_BYTES, *(int(segment.index.size.max()) for segment in segments))
        self._of_thread = threading.local()
        self._is_cold = True

    @property
    def max_threads(self) -> int:
        """Number of threads beyond which reading got slower when it was measured."""
        return max(_MAX_THREADS.get(segment.codec.codec, MAX_WORKERS) for segment in self._segments)

    @property
    def is_uncompressed(self) -> bool:
        """Whether frames are stored as they are, so that the page cache is as good as a cache of our own."""
        return all(segment.codec.codec == "none" for segment in self._segments)

    def read(self, reads: Sequence[FrameRead]) -> None:
        """See ``FrameReader``."""
        before = _num_disk_reads()
        parts = [part for read in reads for part in self._parts(read)]
        if self._is_cold:
            for number, rows, *_ in parts:
                index = self._segments[number].index
                _announce(self._files[number].fileno(), index.offset[rows].tolist(), index.size[rows].tolist())
        for part in parts:
            self._read_segment(*part)
        self._is_cold = _num_disk_reads() > before

    def _parts(self, read: FrameRead) -> Iterator[tuple[int, NDArray[np.int64], int, Bytes, Sequence[int]]]:
        """A read, cut at the segments' borders: the arguments of ``_read_segment``."""
        rows, out, out_indices = read
        where = range(len(rows)) if out_indices is None else out_indices.tolist()
        if len(self._segments) == 1:
            yield 0, rows, 0, out, where
            return
        for number, chosen, own_rows in group_by_segment(rows, self._stops):
            yield number, own_rows, int(rows[chosen[0]] - own_rows[0]), out, [where[i] for i in chosen.tolist()]

    def _read_segment(
        self, number: int, rows: NDArray[np.int64], first_row: int, out: Bytes, out_indices: Sequence[int]
    ) -> None:
        """Reads rows of a segment that begins at ``first_row``; the i-th frame goes to ``out[out_indices[i]]``."""
        segment, frame_map = self._segments[number], self._maps[number]
        if frame_map is not None:
            if os.fstat(self._files[number].fileno()).st_size < self._mapped_bytes[number]:
                # reading past the end of a map would kill the process
                reason = "the file was truncated while it was in use"
                raise UnreadableFrameError(first_row + int(rows[0]), segment.file.path, reason)
            if _is_plain(segment, rows, out.shape[1]):
                _copy_frames(frame_map, segment.index.offset[rows].tolist(), out, out_indices)
                return
        self._decode_chunks(number, rows, first_row, out, out_indices)

    def _decode_chunks(
        self, number: int, rows: NDArray[np.int64], first_row: int, out: Bytes, out_indices: Sequence[int]
    ) -> None:
        segment, file = self._segments[number], self._files[number].fileno()
        offsets, sizes = segment.index.offset[rows].tolist(), segment.index.size[rows].tolist()
        masks = [0] * len(rows) if segment.index.mask is None else segment.index.mask[rows].tolist()
        decode, verify, scratch, chunk = segment.codec.decode, self._verify, memoryview(self._scratch()), 0
        try:
            for start, stop in adjacent_runs(offsets, sizes, max_bytes=_MAX_RUN_BYTES):
                origin = offsets[start]
                num_read = 0
                if stop > start + 1:
                    with contextlib.suppress(OSError):  # each chunk alone shows which one cannot be read
                        num_read = os.preadv(file, [scratch[: offsets[stop - 1] + sizes[stop - 1] - origin]], origin)
                for chunk in range(start, stop):
                    first, size = offsets[chunk] - origin, sizes[chunk]
                    stored = scratch[first : first + size]
                    if first + size > num_read and os.preadv(file, [stored], offsets[chunk]) != size:
                        raise ChunkError("the file ends within it")
                    decode(stored, masks[chunk], out[out_indices[chunk]], verify=verify)
        except (ChunkError, OSError) as error:
            raise_machine_error(error, segment.file)
            what = "its chunk is damaged" if isinstance(error, ChunkError) else "the disk cannot read it"
            raise UnreadableFrameError(first_row + int(rows[chunk]), segment.file, f"{what}: {error}") from error

    def _scratch(self) -> Bytes:
        """This thread's memory for stored chunks; it stays in the processor's cache."""
        if not hasattr(self._of_thread, "scratch"):
            self._of_thread.scratch = np.empty(self._scratch_bytes, np.uint8)
        scratch: Bytes = self._of_thread.scratch
        return scratch


def _is_plain(segment: Segment[LocalFile], rows: NDArray[np.int64], frame_bytes: int) -> bool:
    """Whether the chunks of rows are frames as they are, perhaps with a checksum behind."""
    index = segment.index
    has_masks = index.mask is not None and bool(index.mask[rows].any())
    return not has_masks and bool((index.size[rows] == frame_bytes + segment.codec.checksum_bytes).all())


def _copy_frames(frame_map: mmap.mmap, offsets: Sequence[int], out: Bytes, out_indices: Sequence[int]) -> None:
    frame_bytes = out.shape[1]
    for start, stop in even_runs(offsets, out_indices):
        distance = offsets[start + 1] - offsets[start] if stop > start + 1 else frame_bytes
        shape, strides = (stop - start, frame_bytes), (distance, 1)
        frames: Bytes = np.ndarray(shape, np.uint8, frame_map, offsets[start], strides)
        first = out_indices[start]
        out[first : first + stop - start] = frames


def _map(segment: Segment[LocalFile], file: io.FileIO) -> mmap.mmap | None:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if segment.codec.codec == "none" else None


def _num_disk_reads() -> int:
    """How often this thread has waited for the disk."""
    usage = resource.getrusage(_USAGE_OF)
    return usage.ru_inblock + usage.ru_majflt


def _announce(file: int, offsets: list[int], sizes: list[int]) -> None:
    """Announces all reads to the kernel at once, so that it reads a cold file with a deep queue, not one by one."""
    if hasattr(os, "posix_fadvise"):
        for offset, size in zip(offsets, sizes, strict=True):
            os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)
