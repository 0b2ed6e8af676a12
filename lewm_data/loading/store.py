"""One converted file, opened once: its episodes, its columns, and its frames by row.

The HDF5 library is needed only to open a file. After that, frames are read with a memory map and an index of the file's
chunks, so any number of threads and processes read in parallel. For a file in object storage, the index is cached on
this machine, and each frame is fetched with a request for just its bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import DamagedChunkError, FormatError, UsageError
from lewm_data.format.codecs import Bytes
from lewm_data.format.hdf5 import read_values, wrap_hdf5_errors
from lewm_data.format.header import FileHeader
from lewm_data.format.invariants import read_structure
from lewm_data.format.schema import PIXELS, is_pixels
from lewm_data.loading.data_files import make_reader, open_data_file
from lewm_data.loading.readers import (
    ChunkReader,
    FrameRead,
    FrameReader,
    ReaderKind,
    ResidentReader,
    UnreadableFrameError,
)
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.shared_memory import NodeMemory
from lewm_data.resources import MAX_WORKERS, Progress


class FrameStore:
    """A file, opened for reading windows.

    Pickling sends the path and the file's identity; the receiving process opens the file again when it first reads.

    Attributes:
        data_file: The file, local or remote, and what identified it when it was opened.
        path: The file's path, or its address in object storage.
        header: Its root attributes, or None if another program wrote it.
        ep_len: (E,) int64, steps of each episode.
        ep_offset: (E,) int64, first row of each episode.
        num_rows: Steps of all episodes, N.
        columns: Every column of N rows, by name.
        verify_checksums: Whether each chunk's checksum is checked every time it is read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        verify_checksums: bool = False,
        remote: RemoteConfig | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Opens a file and checks that it is whole.

        Args:
            path: A file of format version 1, a virtual file over such files, or another HDF5 file with ``ep_len``,
                ``ep_offset`` and ``pixels``, such as stable-worldmodel's. Or the fsspec address of one, such as
                ``s3://bucket/data.h5`` or ``hf://datasets/owner/name/data.h5``.
            verify_checksums: Check every chunk's checksum every time it is read, not only that it decodes to a
                frame.
            remote: How to read from object storage; None uses the defaults.
            progress: Called while the metadata of a remote file is read. None shows a bar on stderr.

        Raises:
            UsageError: The file does not exist, or it cannot be reached.
            UnreachableError: Its object store does not answer.
            FormatError: It is not an HDF5 file, is of a newer format version, is truncated, or breaks a rule of the
                format.

        Warns:
            UserWarning: Only the HDF5 library can read a column of frames, which is slow.
        """
        self.data_file = open_data_file(path, remote, progress)
        self.path: str | Path = self.data_file.path
        self.verify_checksums = verify_checksums
        self._readers: dict[str, FrameReader] = {}
        with wrap_hdf5_errors(self.path), self.data_file.open() as file:
            is_ours = "format_version" in file.attrs
            self.header = FileHeader.from_attributes(file.attrs, path=str(self.path)) if is_ours else None
            if verify_checksums and not FileHeader.is_as_written(file.attrs):
                raise FormatError(
                    f"{self.path}: its root attributes do not match their checksum. Copy or convert it again."
                )
            self.ep_len, self.ep_offset, self.columns = read_structure(file, str(self.path), self.header)
            self.num_rows = len(file[PIXELS])
            for column in self.frame_columns:
                self._readers[column] = self._make_reader(file, column)
        for column in self.frame_columns:
            if self.reader_kind(column) == "library":
                warnings.warn(
                    f"{self.path}: {column!r} is not stored as one frame per chunk with a codec that lewm_data decodes "
                    "itself, so the HDF5 library reads it, many times slower. To make this fast, convert the source "
                    "with lewm-data convert, or decode everything once with cache='ram'.",
                    UserWarning,
                    stacklevel=2,
                )

    @property
    def frame_columns(self) -> list[str]:
        """The columns that hold frames, ``pixels`` first."""
        return sorted((name for name in self.columns if is_pixels(name)), key=lambda name: (name != PIXELS, name))

    def read_column(self, column: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Reads a small column, all of it or a part.

        Args:
            column: Its name.
            start: First row.
            stop: End of the rows, exclusive; None reads to the last one.

        Returns:
            (stop - start, ...) in its stored dtype.

        Raises:
            UsageError: The file has no such column.
            FormatError: The column is damaged.
            ResourceError: It is larger than the available memory.
        """
        self._check_column(column)
        with wrap_hdf5_errors(self.path), self.data_file.open() as file:
            return read_values(self.path, file[column], start, stop)

    def read_frames(
        self,
        column: str,
        rows: NDArray[np.int64],
        out: NDArray[np.uint8],
        out_indices: NDArray[np.int64] | None = None,
    ) -> None:
        """Reads frames into the caller's memory. Several threads may call this at once.

        Args:
            column: ``pixels`` or ``pixels_<camera>``.
            rows: (n,) int64 rows in [0, N), in any order.
            out: (m, H, W, 3) uint8, C-contiguous.
            out_indices: (n,) int64 in [0, m), the index in ``out`` for each frame. None fills all of ``out`` in order,
                and m is n.

        Raises:
            DamagedChunkError: A stored frame is damaged; names its episode and step.
            ValueError: ``out`` has the wrong shape, dtype or layout.
            IndexError: A row or an index is out of range.
        """
        self.read_all(column, [FrameRead(rows, out, out_indices)])

    def read_all(self, column: str, reads: Sequence[FrameRead]) -> None:
        """Reads frames into several pieces of the caller's memory at once, such as windows and their goals.

        Args:
            column: ``pixels`` or ``pixels_<camera>``.
            reads: The arguments ``rows``, ``out`` and ``out_indices`` of ``read_frames``, for each piece.

        Raises:
            DamagedChunkError: A stored frame is damaged; names its episode and step.
            ValueError: An ``out`` has the wrong shape, dtype or layout.
            IndexError: A row or an index is out of range.
        """
        flat = [self._flattened(column, read) for read in reads]
        try:
            self._reader(column).read([read for read in flat if len(read.rows)])
        except UnreadableFrameError as error:
            episode, step = self.locate(error.row)
            raise DamagedChunkError(
                f"{error.file}: column {column!r}, episode {episode}, step {step}: {error.reason}. "
                "Check the whole file with: lewm-data verify FILE; then convert it again."
            ) from error

    def _flattened(self, column: str, read: FrameRead) -> FrameRead:
        """Checks a read, and gives it its frames (m, H, W, 3) as (m, frame bytes)."""
        rows, out, out_indices = read
        num_frames = len(rows) if out_indices is None else len(out)
        shape = (num_frames, *self.columns[column].shape)
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, but must be contiguous uint8 {shape}.")
        for name, numbers, stop in (("rows", rows, self.num_rows), ("out_indices", out_indices, num_frames)):
            if numbers is not None and len(numbers) and (numbers.min() < 0 or numbers.max() >= stop):
                raise IndexError(f"{name} {numbers.min()} to {numbers.max()} are not all in [0, {stop})")
        return FrameRead(rows, out.reshape(num_frames, self.columns[column].row_bytes), out_indices)

    def locate(self, row: int) -> tuple[int, int]:
        """The position in the file of a row's episode, and the row's step in that episode."""
        episode = int(np.searchsorted(self.ep_offset, row, side="right")) - 1
        return episode, row - int(self.ep_offset[episode])

    def reader_kind(self, column: str) -> ReaderKind:
        """Where a column's frames come from: stored chunks, the HDF5 library, object storage, or decoded memory."""
        return self._reader(column).kind

    def shared_memory(self, column: str) -> NodeMemory | None:
        """The memory that holds a column's decoded frames for all processes of the node, if some does."""
        reader = self._readers.get(column)
        memory = reader.memory if isinstance(reader, ResidentReader) else None
        return memory if isinstance(memory, NodeMemory) else None

    def is_resident(self, column: str) -> bool:
        """Whether a column's frames are copied from decoded memory."""
        return isinstance(self._readers.get(column), ResidentReader)

    def is_uncompressed(self, column: str) -> bool:
        """Whether a column's frames are stored decoded, so that reading them is a single copy already."""
        reader = self._reader(column)
        return isinstance(reader, ChunkReader) and reader.is_uncompressed

    def max_threads(self) -> int:
        """Number of threads beyond which reading this file's frames got slower when it was measured."""
        readers = [self._reader(column) for column in self.frame_columns]
        return max(reader.max_threads if isinstance(reader, ChunkReader) else MAX_WORKERS for reader in readers)

    def make_resident(self, column: str, memory: NodeMemory | Bytes, start: int) -> None:
        """Serves a column's frames from memory from now on.

        Args:
            column: ``pixels`` or ``pixels_<camera>``.
            memory: Holds all of its frames, decoded, row after row.
            start: Byte at which the first of them begins.
        """
        self._check_column(column)
        frame_bytes = self.columns[column].row_bytes
        self._readers[column] = ResidentReader(memory, start, self.num_rows, frame_bytes)

    def __getstate__(self) -> dict[str, Any]:
        shared = {name: reader for name, reader in self._readers.items() if reader.kind == "shared_memory"}
        return {**self.__dict__, "_readers": shared}

    def _reader(self, column: str) -> FrameReader:
        """The column's reader; a process that received this store makes it when it first reads."""
        if column not in self._readers:
            self.data_file.check_unchanged()
            with wrap_hdf5_errors(self.path), self.data_file.open() as file:
                self._readers.setdefault(column, self._make_reader(file, column))
        return self._readers[column]

    def _make_reader(self, file: h5py.File, column: str) -> FrameReader:
        return make_reader(self.data_file, file, column, verify_checksums=self.verify_checksums)

    def _check_column(self, column: str) -> None:
        if column not in self.columns:
            raise UsageError(f"{self.path}: there is no column {column!r}. It has: {', '.join(sorted(self.columns))}.")
