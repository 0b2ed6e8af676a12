"""Frames of one column into the caller's memory: from stored chunks, through the HDF5 library, or from RAM."""

from __future__ import annotations

import mmap
import os
import resource
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.loading.codecs import Bytes, ChunkCodec, ChunkError
from lewm_data.loading.index import FrameIndex
from lewm_data.loading.memory import NodeMemory

_FALLBACK_CACHE_BYTES = 64 << 20
_USAGE_OF = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the former on Linux only


class UnreadableFrameError(Exception):
    """A frame cannot be read; the store turns this into an error that names episode and step.

    Attributes:
        row: Row of the frame in the column.
        path: File that it lies in.
        reason: What is wrong with it, in words.
    """

    def __init__(self, row: int, path: Path, reason: str) -> None:
        super().__init__(f"row {row} of {path}: {reason}")
        self.row, self.path, self.reason = row, path, reason


class FrameReader(Protocol):
    """Reads frames of one column. Several threads may call it at once, also in a forked process."""

    def read(self, rows: NDArray[np.int64], out: Bytes) -> None:
        """Reads frames.

        Args:
            rows: (n,) int64 rows of the column, in any order, repeats allowed.
            out: (n, frame bytes) uint8, contiguous; filled on return.

        Raises:
            UnreadableFrameError: A frame is damaged.
        """


@dataclass(frozen=True, slots=True)
class Part:
    """A run of rows whose chunks lie in one file.

    Attributes:
        path: The file.
        codec: How its chunks were stored.
        index: Where they lie.
    """

    path: Path
    codec: ChunkCodec
    index: FrameIndex


class ChunkReader:
    """Reads one-frame chunks from the mapped file and decodes them, past the HDF5 library and its global lock."""

    def __init__(self, parts: list[Part], *, verify_checksums: bool) -> None:
        self._parts = parts
        self._stops = np.cumsum([len(part.index.offset) for part in parts])
        self._verify = verify_checksums
        self._maps = [_map(part.path) for part in parts]
        self._is_cold = True

    @property
    def is_uncompressed(self) -> bool:
        """Whether frames lie in the file as they are, so that the page cache is as good as a cache of ours."""
        return all(part.codec.codec == "none" for part in self._parts)

    def read(self, rows: NDArray[np.int64], out: Bytes) -> None:
        """See ``FrameReader``."""
        faults = _num_disk_reads()
        if len(self._parts) == 1:
            self._read_part(0, rows, rows, out, np.arange(len(rows)))
        else:
            part_of_row = np.searchsorted(self._stops, rows, side="right")
            for part in np.unique(part_of_row).tolist():
                places = np.flatnonzero(part_of_row == part)
                first_row = int(self._stops[part - 1]) if part else 0
                self._read_part(part, rows[places] - first_row, rows, out, places)
        self._is_cold = _num_disk_reads() > faults

    def _read_part(
        self,
        part: int,
        local: NDArray[np.int64],
        rows: NDArray[np.int64],
        out: Bytes,
        places: NDArray[np.int64],
    ) -> None:
        path, codec, index = self._parts[part].path, self._parts[part].codec, self._parts[part].index
        file_map = self._maps[part]
        offsets = index.offset[local].tolist()
        stops = (index.offset[local] + index.size[local]).tolist()
        masks = [0] * len(local) if index.mask is None else index.mask[local].tolist()
        if self._is_cold:
            _announce(file_map, offsets, stops)
        stored = memoryview(file_map)
        is_verified, decode = self._verify, codec.decode
        try:
            for place, offset, stop, mask in zip(places.tolist(), offsets, stops, masks, strict=True):
                decode(stored[offset:stop], mask, out[place], verify=is_verified)
        except ChunkError as error:
            raise UnreadableFrameError(int(rows[place]), path, f"its chunk is damaged: {error}") from error


def _map(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _num_disk_reads() -> int:
    """Page faults of this thread that waited for the disk."""
    return resource.getrusage(_USAGE_OF).ru_majflt


def _announce(file_map: mmap.mmap, offsets: list[int], stops: list[int]) -> None:
    """Tells the kernel of all reads at once, so that a cold file is read with a deep queue and not frame by frame."""
    for offset, stop in zip(offsets, stops, strict=True):
        start = offset - offset % mmap.PAGESIZE
        file_map.madvise(mmap.MADV_WILLNEED, start, stop - start)


class Hdf5Reader:
    """Reads any layout and filter through the HDF5 library: right, not fast."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._lock = threading.Lock()
        self._pid = -1
        self._dataset: h5py.Dataset | None = None

    def read(self, rows: NDArray[np.int64], out: Bytes) -> None:
        """See ``FrameReader``."""
        if self._pid != os.getpid():  # a handle and a lock from before the fork are the parent's
            self._lock, self._dataset, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._dataset is None:
                import hdf5plugin  # noqa: F401  # registers the filters of other writers

                self._dataset = h5py.File(
                    self._path, "r", rdcc_nbytes=_FALLBACK_CACHE_BYTES, locking="best-effort"
                )[self._column]
            frames = out.reshape(len(rows), *self._dataset.shape[1:])
            for place in np.argsort(rows, kind="stable").tolist():  # neighbours share a chunk in the cache
                try:
                    self._dataset.read_direct(frames, np.s_[int(rows[place])], np.s_[place])
                except OSError as error:
                    raise UnreadableFrameError(
                        int(rows[place]), self._path, f"the HDF5 library cannot read it: {error}"
                    ) from error


class ResidentReader:
    """Copies frames that lie decoded in memory. Pickling it sends where the memory is, not what it holds."""

    def __init__(self, memory: NodeMemory, start: int, num_rows: int, frame_bytes: int) -> None:
        """Takes a piece of memory.

        Args:
            memory: Where the frames lie, row after row.
            start: Byte at which the first begins.
            num_rows: How many there are.
            frame_bytes: Bytes of one.
        """
        self._memory = memory
        self._place = (start, num_rows, frame_bytes)

    def read(self, rows: NDArray[np.int64], out: Bytes) -> None:
        """See ``FrameReader``."""
        start, num_rows, frame_bytes = self._place
        frames = self._memory.array[start : start + num_rows * frame_bytes].reshape(num_rows, frame_bytes)
        # With mode="raise", numpy would go through a temporary copy of the whole output.
        np.take(frames, rows, axis=0, out=out, mode="clip")
