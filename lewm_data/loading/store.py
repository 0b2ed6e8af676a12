"""One file of format version 1, opened once: its episodes, its columns, and its frames by row.

The HDF5 library is asked for everything it alone knows, and closed. Reading frames needs a map of the file
and an index of its chunks, so any number of threads and processes read side by side. Of a file in object storage,
the index is kept here, and its frames come by requests for just their bytes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.config import RemoteConfig
from lewm_data.errors import DamagedChunkError, FormatError, UsageError
from lewm_data.format.codecs import Bytes
from lewm_data.format.layout import read_layout, read_values, telling_damage
from lewm_data.format.schema import PIXELS, FileHeader, is_pixels
from lewm_data.loading.readers import ChunkReader, FrameReader, ResidentReader, UnreadableFrameError
from lewm_data.loading.remote.origin import origin_of
from lewm_data.loading.shared_memory import NodeMemory


class FrameStore:
    """A file, opened for reading windows.

    Pickling sends the path and what identifies the file; the other side opens it again, once it reads.

    Attributes:
        path: The file, or its address in object storage.
        origin: Where it is, and what it was when it was opened.
        header: Its root attributes, or None where the file was not written by this package.
        ep_len: (E,) int64, steps of each episode.
        ep_offset: (E,) int64, first row of each episode.
        num_rows: Steps of all episodes, N.
        columns: Every column of N rows, by name.
        verify_checksums: Whether each chunk's checksum is checked at each reading.
    """

    def __init__(self, path: str | Path, *, verify_checksums: bool = False, remote: RemoteConfig | None = None) -> None:
        """Opens a file and checks that it is whole.

        Args:
            path: A file of format version 1, a master of virtual datasets over such files, or another HDF5
                file with ``ep_len``, ``ep_offset`` and ``pixels``, such as stable-worldmodel's. Or the fsspec
                address of one, such as ``s3://bucket/data.h5`` or ``hf://datasets/owner/name/data.h5``.
            verify_checksums: Check every chunk's checksum at each reading, not only that it decodes to a
                frame.
            remote: How to read from object storage; None takes the defaults.

        Raises:
            UsageError: There is no such file, or no way to reach it.
            UnreachableError: Its object store does not answer.
            FormatError: It is no HDF5 file, of a newer format version, truncated, or breaks an invariant.

        Warns:
            UserWarning: A column of frames is laid out so that only the HDF5 library can read it, slowly.
        """
        self.origin = origin_of(path, remote)
        self.path: str | Path = self.origin.path
        self.verify_checksums = verify_checksums
        self._readers: dict[str, FrameReader] = {}
        with telling_damage(self.path), self.origin.open() as file:
            is_ours = "format_version" in file.attrs
            self.header = FileHeader.from_attributes(file.attrs, path=str(self.path)) if is_ours else None
            if verify_checksums and not FileHeader.is_as_written(file.attrs):
                raise FormatError(f"{self.path}: its root attributes are not those that were written. Convert again.")
            self.ep_len, self.ep_offset, self.columns = read_layout(file, str(self.path), is_ours=is_ours)
            for name in (*self.header.cameras, *self.header.statistics) if self.header else ():
                if name not in self.columns:  # h5py passes over what it cannot open
                    raise FormatError(f"{self.path}: column {name!r} is missing or damaged. Convert the dataset again.")
            self.num_rows = len(file[PIXELS])
            for column in self.frame_columns:
                self._readers[column] = self._make_reader(file, column)

    @property
    def frame_columns(self) -> list[str]:
        """The columns that hold frames, ``pixels`` first."""
        return sorted((name for name in self.columns if is_pixels(name)), key=lambda name: (name != PIXELS, name))

    def read_column(self, column: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Reads a small column, whole or in part.

        Args:
            column: Its name.
            start: First row.
            stop: End of the rows, exclusive; None goes to the last one.

        Returns:
            (stop - start, ...) in its stored dtype.

        Raises:
            UsageError: There is no such column.
            FormatError: It cannot be read as it was written.
            ResourceError: It claims more than the memory holds.
        """
        self._check_column(column)
        with telling_damage(self.path), self.origin.open() as file:
            return read_values(self.path, file[column], start, stop)

    def read_frames(
        self,
        column: str,
        rows: NDArray[np.int64],
        out: NDArray[np.uint8],
        places: NDArray[np.int64] | None = None,
    ) -> None:
        """Reads frames into the caller's memory. Threads may call this side by side.

        Args:
            column: ``pixels`` or ``pixels_<camera>``.
            rows: (n,) int64 rows in [0, N), in any order.
            out: (m, H, W, 3) uint8, C-contiguous.
            places: (n,) int64 in [0, m), where in ``out`` each frame goes; None fills all of it in order, and m is n.

        Raises:
            DamagedChunkError: A stored frame cannot be read as it was written; names its episode and step.
            ValueError: ``out`` has another shape, dtype or layout.
            IndexError: A row or a place lies outside its range.
        """
        num_frames = len(rows) if places is None else len(out)
        shape = (num_frames, *self.columns[column].shape)
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, but must be contiguous uint8 {shape}.")
        if len(rows) == 0:
            return
        for name, numbers, stop in (("rows", rows, self.num_rows), ("places", places, num_frames)):
            if numbers is not None and (numbers.min() < 0 or numbers.max() >= stop):
                raise IndexError(f"{name} {numbers.min()} to {numbers.max()} do not lie within [0, {stop})")
        try:
            self._reader(column).read(rows, out.reshape(num_frames, -1), places)
        except UnreadableFrameError as error:
            episode, step = self.locate(error.row)
            raise DamagedChunkError(
                f"{error.file}: column {column!r}, episode {episode}, step {step}: {error.reason}. "
                "Check the whole file with: lewm-data verify FILE; then convert it again."
            ) from error

    def locate(self, row: int) -> tuple[int, int]:
        """The position in the file of a row's episode, and the row's step in it."""
        episode = int(np.searchsorted(self.ep_offset, row, side="right")) - 1
        return episode, row - int(self.ep_offset[episode])

    def is_resident(self, column: str) -> bool:
        """Whether a column's frames are copied from decoded memory."""
        return isinstance(self._readers.get(column), ResidentReader)

    def is_uncompressed(self, column: str) -> bool:
        """Whether a column's frames lie in the file decoded, so that reading them is one copy already."""
        reader = self._reader(column)
        return isinstance(reader, ChunkReader) and reader.is_uncompressed

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
        resident = {name: r for name, r in self._readers.items() if isinstance(r, ResidentReader) and r.is_shared}
        return {**self.__dict__, "_readers": resident}

    def _reader(self, column: str) -> FrameReader:
        """The column's reader; in a process that got this store by pickling it is made at the first reading."""
        if column not in self._readers:
            self.origin.check_unchanged()
            with (
                warnings.catch_warnings(action="ignore"),  # said where it was opened
                telling_damage(self.path),
                self.origin.open() as file,
            ):
                self._readers.setdefault(column, self._make_reader(file, column))
        return self._readers[column]

    def _make_reader(self, file: h5py.File, column: str) -> FrameReader:
        return self.origin.make_reader(file, column, self.columns[column], verify_checksums=self.verify_checksums)

    def _check_column(self, column: str) -> None:
        if column not in self.columns:
            raise UsageError(f"{self.path}: there is no column {column!r}. It has: {', '.join(sorted(self.columns))}.")
