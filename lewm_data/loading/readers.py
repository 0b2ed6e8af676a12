"""Frames of one column into the caller's memory: from stored chunks, through the HDF5 library, or from RAM."""

from __future__ import annotations

import io
import itertools
import mmap
import os
import resource
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.format.codecs import Bytes, ChunkError
from lewm_data.format.data_file import LocalFile, Part
from lewm_data.loading.shared_memory import NodeMemory
from lewm_data.resources import allow_open_files

_FALLBACK_CACHE_BYTES = 64 << 20
_USAGE_OF = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the former on Linux only


class UnreadableFrameError(Exception):
    """A frame cannot be read; the store turns this into an error that names episode and step.

    Attributes:
        row: Row of the frame in the column.
        file: Path or address of the file that it lies in.
        reason: What is wrong with it, in words.
    """

    def __init__(self, row: int, file: object, reason: str) -> None:
        super().__init__(f"row {row} of {file}: {reason}")
        self.row, self.file, self.reason = row, str(file), reason


class FrameReader(Protocol):
    """Reads frames of one column. Several threads may call it at once, also in a forked process."""

    def read(self, rows: NDArray[np.int64], out: Bytes, places: NDArray[np.int64] | None = None) -> None:
        """Reads frames.

        Args:
            rows: (n,) int64 rows of the column, in any order, repeats allowed.
            out: (m, frame bytes) uint8, contiguous.
            places: (n,) int64 in [0, m), where in ``out`` each frame goes; None fills all of it in order, and m is n.

        Raises:
            UnreadableFrameError: A frame is damaged.
        """


class ChunkReader:
    """Reads and decodes one-frame chunks past the HDF5 library, its global lock and its cache.

    Uncompressed frames are copied from a map of the file, at two thirds of the cost of reading them. Compressed ones
    are read: that costs little beside decoding, a disk error or a truncated file is an exception where a map would
    kill the process, and the process does not look as large as the file.
    """

    def __init__(self, parts: list[Part[LocalFile]], *, verify_checksums: bool) -> None:
        """Opens the files.

        Args:
            parts: Where the rows lie, in their order.
            verify_checksums: Check each chunk's checksum at each reading.
        """
        self._parts = parts
        self._stops = np.cumsum([len(part.index.offset) for part in parts])
        self._verify = verify_checksums
        allow_open_files(len(parts))
        self._files = [open(part.container.path, "rb", buffering=0) for part in parts]  # noqa: SIM115  # closed with the reader
        for file in self._files:
            weakref.finalize(self, file.close).atexit = False
        maps = [_map(part, file) for part, file in zip(parts, self._files, strict=True)]
        self._maps = maps if not verify_checksums else [None] * len(parts)
        self._mapped_bytes = [part.index.stop_byte() for part in parts]
        self._most_stored = max(int(part.index.size.max()) for part in parts)
        self._of_thread = threading.local()
        self._is_cold = True

    @property
    def is_uncompressed(self) -> bool:
        """Whether frames lie in the file as they are, so that the page cache is as good as a cache of ours."""
        return all(part.codec.codec == "none" for part in self._parts)

    def read(self, rows: NDArray[np.int64], out: Bytes, places: NDArray[np.int64] | None = None) -> None:
        """See ``FrameReader``."""
        before = _num_disk_reads()
        where = range(len(rows)) if places is None else places.tolist()
        if len(self._parts) == 1:
            self._read_part(0, rows, 0, out, where)
        else:
            part_of_row = np.searchsorted(self._stops, rows, side="right")
            for part in np.unique(part_of_row).tolist():
                chosen = np.flatnonzero(part_of_row == part)
                first_row = int(self._stops[part - 1]) if part else 0
                self._read_part(part, rows[chosen] - first_row, first_row, out, [where[i] for i in chosen.tolist()])
        self._is_cold = _num_disk_reads() > before

    def _read_part(
        self, number: int, rows: NDArray[np.int64], first_row: int, out: Bytes, places: Sequence[int]
    ) -> None:
        """Reads rows of a part, which begins at a row of the column; the i-th frame goes to ``out[places[i]]``."""
        part, file = self._parts[number], self._files[number].fileno()
        offsets, sizes = part.index.offset[rows].tolist(), part.index.size[rows].tolist()
        masks = itertools.repeat(0) if part.index.mask is None else part.index.mask[rows].tolist()
        if self._is_cold:
            _announce(file, offsets, sizes)
        if self._maps[number] is not None and os.fstat(file).st_size < self._mapped_bytes[number]:
            # reading past the end of a map would kill the process
            raise UnreadableFrameError(
                first_row + int(rows[0]), part.container.path, "the file was cut off while it was in use"
            )
        codec, verify, frame_map = part.codec, self._verify, self._maps[number]
        frame_bytes = out.shape[1]
        scratch = memoryview(self._scratch())
        try:
            for place, offset, size, mask in zip(places, offsets, sizes, masks, strict=False):
                if frame_map is not None and size - codec.checksum_bytes == frame_bytes and not mask:
                    out[place] = frame_map[offset : offset + frame_bytes]
                    continue
                stored = scratch[:size]
                if os.preadv(file, [stored], offset) != size:
                    raise ChunkError("the file ends within it")
                codec.decode(stored, mask, out[place], verify=verify)
        except (ChunkError, OSError) as error:
            row = first_row + int(rows[places.index(place)])
            what = "its chunk is damaged" if isinstance(error, ChunkError) else "the disk cannot read it"
            raise UnreadableFrameError(row, part.container, f"{what}: {error}") from error

    def _scratch(self) -> Bytes:
        """Memory of this thread for one stored chunk; it stays in the processor's cache."""
        if not hasattr(self._of_thread, "scratch"):
            self._of_thread.scratch = np.empty(self._most_stored, np.uint8)
        scratch: Bytes = self._of_thread.scratch
        return scratch


def _map(part: Part[LocalFile], file: io.FileIO) -> Bytes | None:
    if part.codec.codec != "none":
        return None
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _num_disk_reads() -> int:
    """How often this thread had to wait for the disk."""
    usage = resource.getrusage(_USAGE_OF)
    return usage.ru_inblock + usage.ru_majflt


def _announce(file: int, offsets: list[int], sizes: list[int]) -> None:
    """Tells the kernel of all reads at once, so that a cold file is read with a deep queue and not frame by frame."""
    if hasattr(os, "posix_fadvise"):
        for offset, size in zip(offsets, sizes, strict=True):
            os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)


class Hdf5Reader:
    """Reads any layout and filter through the HDF5 library: right, not fast."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._lock = threading.Lock()
        self._pid = -1
        self._dataset: h5py.Dataset | None = None

    def read(self, rows: NDArray[np.int64], out: Bytes, places: NDArray[np.int64] | None = None) -> None:
        """See ``FrameReader``."""
        if self._pid != os.getpid():  # a handle and a lock from before the fork are the parent's
            self._lock, self._dataset, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._dataset is None:
                import hdf5plugin  # noqa: F401  # registers the filters of other writers

                self._dataset = h5py.File(self._path, "r", rdcc_nbytes=_FALLBACK_CACHE_BYTES, locking="best-effort")[
                    self._column
                ]
            frames = out.reshape(len(out), *self._dataset.shape[1:])
            order = np.argsort(rows, kind="stable")  # neighbours share a chunk in the cache
            where = order if places is None else places[order]
            for row, place in zip(rows[order].tolist(), where.tolist(), strict=True):
                try:
                    self._dataset.read_direct(frames, np.s_[row], np.s_[place])
                except (OSError, RuntimeError, ValueError) as error:
                    raise UnreadableFrameError(row, self._path, f"the HDF5 library cannot read it: {error}") from error


class ResidentReader:
    """Copies frames that lie decoded in memory. Pickling it sends where shared memory is, not what it holds."""

    def __init__(self, memory: NodeMemory | Bytes, start: int, num_rows: int, frame_bytes: int) -> None:
        """Takes a piece of memory.

        Args:
            memory: Where the frames lie, row after row; shared, or of this process alone.
            start: Byte at which the first begins.
            num_rows: How many there are.
            frame_bytes: Bytes of one.
        """
        self.memory = memory
        self._place = (start, num_rows, frame_bytes)

    @property
    def is_shared(self) -> bool:
        """Whether another process can find the memory."""
        return isinstance(self.memory, NodeMemory)

    def read(self, rows: NDArray[np.int64], out: Bytes, places: NDArray[np.int64] | None = None) -> None:
        """See ``FrameReader``."""
        start, num_rows, frame_bytes = self._place
        memory = self.memory.array if isinstance(self.memory, NodeMemory) else self.memory
        frames = memory[start : start + num_rows * frame_bytes].reshape(num_rows, frame_bytes)
        if places is None:
            # With mode="raise", numpy would go through a temporary copy of the whole output.
            np.take(frames, rows, axis=0, out=out, mode="clip")
            return
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):  # numpy cannot gather and scatter at once
            out[place] = frames[row]
