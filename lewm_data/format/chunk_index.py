"""Where each frame is in a file: byte offset, stored size and filter mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import FormatError
from lewm_data.format.fixed_array import read_fixed_array
from lewm_data.machine_errors import raise_machine_error


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The chunks of one dataset that holds one frame per chunk.

    Attributes:
        offset: (n,) uint64, the byte at which row i's chunk begins.
        size: (n,) uint32, stored bytes of the chunk; 0 if it was never written.
        mask: (n,) uint8, its filter mask, or None if every chunk passed every filter.
    """

    offset: NDArray[np.uint64]
    size: NDArray[np.uint32]
    mask: NDArray[np.uint8] | None

    @classmethod
    def read(cls, path: Path, dataset: h5py.Dataset) -> FrameIndex:
        """Reads the index in one piece if HDF5 stores it that way, and chunk by chunk otherwise.

        Args:
            path: The file that holds the dataset.
            dataset: Open and chunked, with one row per chunk.

        Returns:
            The index, one entry per row.

        Raises:
            FormatError: The file's own index is damaged.
        """
        entries = read_fixed_array(path, dataset)
        if entries is None:
            return cls.scan(dataset)
        return cls(entries.offset, entries.size, entries.mask if entries.mask.any() else None)

    @classmethod
    def scan(cls, dataset: h5py.Dataset, on_chunk: Callable[[], None] | None = None) -> FrameIndex:
        """Asks the HDF5 library for every chunk, one at a time.

        Args:
            dataset: Open and chunked, with one row per chunk.
            on_chunk: Called for each chunk.

        Returns:
            The index, one entry per row.

        Raises:
            FormatError: The HDF5 library cannot read it.
        """
        num_rows = len(dataset)
        offset = np.zeros(num_rows, np.uint64)
        size = np.zeros(num_rows, np.uint32)
        mask = np.zeros(num_rows, np.uint8)
        offsets, sizes, masks = memoryview(offset), memoryview(size), memoryview(mask)  # items are set faster

        def note(info: tuple[tuple[int, ...], int, int, int]) -> None:
            position, filter_mask, byte_offset, num_bytes = info
            row = position[0]
            offsets[row] = byte_offset
            sizes[row] = num_bytes
            if filter_mask:
                masks[row] = filter_mask & 0xFF
            if on_chunk is not None:
                on_chunk()

        try:
            dataset.id.chunk_iter(note)
        except (ValueError, OSError, RuntimeError, IndexError) as error:  # the last one for a row that does not exist
            raise_machine_error(error, dataset.file.filename)
            raise FormatError(
                f"{dataset.file.filename}: the chunk index of {dataset.name!r} cannot be read ({error}). "
                "The file is damaged; copy or convert it again."
            ) from error
        return cls(offset, size, mask if mask.any() else None)

    @classmethod
    def of_contiguous(cls, dataset: h5py.Dataset) -> FrameIndex:
        """Computes the index of a dataset that is stored uncompressed in one piece."""
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
        offset = np.arange(len(dataset), dtype=np.uint64) * np.uint64(row_bytes)
        return cls(offset + np.uint64(dataset.id.get_offset()), np.full(len(dataset), row_bytes, np.uint32), None)

    def stop_byte(self) -> int:
        """The first byte after the last chunk; a file that is shorter is truncated."""
        return int((self.offset + self.size).max()) if len(self.offset) else 0
