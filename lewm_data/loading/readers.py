"""Reads frames of one column into the caller's memory: from stored chunks, through the HDF5 library, or from RAM."""

from __future__ import annotations

import io
import itertools
import mmap
import os
import resource
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.format.codecs import Bytes, ChunkError
from lewm_data.format.data_file import LocalFile
from lewm_data.format.hdf5 import open_unlocked, register_codecs
from lewm_data.format.segments import Segment, group_by_segment
from lewm_data.loading.shared_memory import NodeMemory
from lewm_data.machine_errors import raise_machine_error
from lewm_data.resources import MAX_WORKERS, allow_open_files

type ReaderKind = Literal["chunks", "library", "remote", "memory", "shared_memory"]

_FALLBACK_CACHE_BYTES = 64 << 20
_USAGE_OF = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the former on Linux only


class UnreadableFrameError(Exception):
    """A frame cannot be read; the store turns this into an error that names the episode and step.

    Attributes:
        row: Row of the frame in the column.
        file: Path or address of the file that holds it.
        reason: What is wrong with it, in words.
    """

    def __init__(self, row: int, file: object, reason: str) -> None:
        super().__init__(f"row {row} of {file}: {reason}")
        self.row, self.file, self.reason = row, str(file), reason


class FrameRead(NamedTuple):
    """Frames to read, and the memory to read them into.

    Attributes:
        rows: (n,) int64 rows of the column, in any order; repeats are allowed.
        out: (m, frame bytes) uint8, contiguous.
        out_indices: (n,) int64 in [0, m), the row of ``out`` for each frame. None fills all of ``out`` in order, and m
            is n.
    """

    rows: NDArray[np.int64]
    out: Bytes
    out_indices: NDArray[np.int64] | None = None


class FrameReader(Protocol):
    """Reads frames of one column. Several threads may call it at once, also in a forked process."""

    @property
    def kind(self) -> ReaderKind:
        """Where frames come from: stored chunks, the HDF5 library, object storage, or decoded memory."""

    def read(self, reads: Sequence[FrameRead]) -> None:
        """Reads frames, in any order.

        Args:
            reads: What to read. One call with several costs no more than one call with all their frames.

        Raises:
            UnreadableFrameError: A frame is damaged.
        """


_MAX_THREADS = {"none": 4, "lz4": 4}
"""Threads that still help. On 16 cores, uncompressed files gave 21,400 windows/s to 4 threads and 6,000 to 16, lz4
7,000 and 4,400; LZF and the RAM cache gained up to 16 (docs/codecs_and_cache.md)."""


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
        self._max_stored_bytes = max(int(segment.index.size.max()) for segment in segments)
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
        segment, file = self._segments[number], self._files[number].fileno()
        offsets, sizes = segment.index.offset[rows].tolist(), segment.index.size[rows].tolist()
        masks = itertools.repeat(0) if segment.index.mask is None else segment.index.mask[rows].tolist()
        if self._maps[number] is not None and os.fstat(file).st_size < self._mapped_bytes[number]:
            # reading past the end of a map would kill the process
            raise UnreadableFrameError(
                first_row + int(rows[0]), segment.file.path, "the file was truncated while it was in use"
            )
        codec, verify, frame_map = segment.codec, self._verify, self._maps[number]
        frame_bytes = out.shape[1]
        scratch = memoryview(self._scratch())
        try:
            for index, offset, size, mask in zip(out_indices, offsets, sizes, masks, strict=False):
                if frame_map is not None and size - codec.checksum_bytes == frame_bytes and not mask:
                    out[index] = frame_map[offset : offset + frame_bytes]
                    continue
                stored = scratch[:size]
                if os.preadv(file, [stored], offset) != size:
                    raise ChunkError("the file ends within it")
                codec.decode(stored, mask, out[index], verify=verify)
        except (ChunkError, OSError) as error:
            raise_machine_error(error, segment.file)
            row = first_row + int(rows[out_indices.index(index)])
            what = "its chunk is damaged" if isinstance(error, ChunkError) else "the disk cannot read it"
            raise UnreadableFrameError(row, segment.file, f"{what}: {error}") from error

    def _scratch(self) -> Bytes:
        """This thread's memory for one stored chunk; it stays in the processor's cache."""
        if not hasattr(self._of_thread, "scratch"):
            self._of_thread.scratch = np.empty(self._max_stored_bytes, np.uint8)
        scratch: Bytes = self._of_thread.scratch
        return scratch


def _map(segment: Segment[LocalFile], file: io.FileIO) -> Bytes | None:
    if segment.codec.codec != "none":
        return None
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _num_disk_reads() -> int:
    """How often this thread has waited for the disk."""
    usage = resource.getrusage(_USAGE_OF)
    return usage.ru_inblock + usage.ru_majflt


def _announce(file: int, offsets: list[int], sizes: list[int]) -> None:
    """Announces all reads to the kernel at once, so that it reads a cold file with a deep queue, not one by one."""
    if hasattr(os, "posix_fadvise"):
        for offset, size in zip(offsets, sizes, strict=True):
            os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)


class Hdf5Reader:
    """Reads any layout and filter through the HDF5 library: correct, but slow."""

    kind: ReaderKind = "library"

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._lock = threading.Lock()
        self._pid = -1
        self._dataset: h5py.Dataset | None = None

    def read(self, reads: Sequence[FrameRead]) -> None:
        """See ``FrameReader``."""
        for read in reads:
            self._read(*read)

    def _read(self, rows: NDArray[np.int64], out: Bytes, out_indices: NDArray[np.int64] | None) -> None:
        if self._pid != os.getpid():  # a handle and a lock from before a fork belong to the parent
            self._lock, self._dataset, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._dataset is None:
                register_codecs()
                self._dataset = open_unlocked(self._path, rdcc_nbytes=_FALLBACK_CACHE_BYTES)[self._column]
            frames = out.reshape(len(out), *self._dataset.shape[1:])
            order = np.argsort(rows, kind="stable")  # neighbors share a chunk in the cache
            where = order if out_indices is None else out_indices[order]
            for row, index in zip(rows[order].tolist(), where.tolist(), strict=True):
                try:
                    self._dataset.read_direct(frames, np.s_[row], np.s_[index])
                except (OSError, RuntimeError, ValueError) as error:
                    raise_machine_error(error, self._path)
                    raise UnreadableFrameError(row, self._path, f"the HDF5 library cannot read it: {error}") from error


class ResidentReader:
    """Copies decoded frames from memory. Pickling sends the location of shared memory, not its content."""

    def __init__(self, memory: NodeMemory | Bytes, start: int, num_rows: int, frame_bytes: int) -> None:
        """Takes a piece of memory.

        Args:
            memory: Holds the frames, row after row; shared, or private to this process.
            start: Byte at which the first frame begins.
            num_rows: Number of frames.
            frame_bytes: Bytes of one frame.
        """
        self.memory = memory
        self._extent = (start, num_rows, frame_bytes)

    @property
    def kind(self) -> ReaderKind:
        """See ``FrameReader``; another process can find shared memory only."""
        return "shared_memory" if isinstance(self.memory, NodeMemory) else "memory"

    def read(self, reads: Sequence[FrameRead]) -> None:
        """See ``FrameReader``."""
        start, num_rows, frame_bytes = self._extent
        memory = self.memory.array if isinstance(self.memory, NodeMemory) else self.memory
        frames = memory[start : start + num_rows * frame_bytes].reshape(num_rows, frame_bytes)
        for rows, out, out_indices in reads:
            if out_indices is None:
                # With mode="raise", numpy would make a temporary copy of the whole output.
                np.take(frames, rows, axis=0, out=out, mode="clip")
                continue
            for row, index in zip(rows.tolist(), out_indices.tolist(), strict=True):  # numpy cannot gather and scatter
                out[index] = frames[row]
