"""Reads frames of one column into the caller's memory: what every reader does, the HDF5 library's, and RAM's."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.format.codecs import Bytes
from lewm_data.format.hdf5 import open_unlocked, register_codecs
from lewm_data.loading.shared_memory import NodeMemory
from lewm_data.machine_errors import raise_machine_error

type ReaderKind = Literal["chunks", "library", "remote", "memory", "shared_memory"]

_FALLBACK_CACHE_BYTES = 64 << 20


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
