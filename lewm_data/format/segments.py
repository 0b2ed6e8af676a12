"""Where the frames of a column are: runs of rows, each with its file, codec and chunk index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import FormatError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.codecs import ChunkCodec
from lewm_data.format.data_file import DataFile
from lewm_data.format.virtual import missing_rows, open_shard, shard_rows


@dataclass(frozen=True, slots=True)
class Column:
    """What a column holds in each row.

    Attributes:
        shape: Shape of one row: ``(H, W, 3)`` for frames, ``()`` for a number.
        dtype: Its dtype as stored.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, decoded."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Segment[F: DataFile]:
    """Consecutive rows whose chunks are in one file.

    Attributes:
        file: The file.
        codec: How its chunks are stored.
        index: Where they are.
    """

    file: F
    codec: ChunkCodec
    index: FrameIndex


def group_by_segment(
    numbers: NDArray[np.int64], stops: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
    """Groups numbers that run on across several segments by the segment that holds them.

    Args:
        numbers: (n,) int64 in [0, stops[-1]), in any order.
        stops: (s,) int64, the end of each segment, exclusive.

    Yields:
        The segment, (k,) positions in ``numbers`` of those in it, and (k,) their numbers counted from its start.

    Example:
        >>> [(s, chosen.tolist(), own.tolist()) for s, chosen, own in
        ...  group_by_segment(np.array([7, 0, 5]), np.array([4, 9]))]
        [(0, [1], [0]), (1, [0, 2], [3, 1])]
    """
    segment_of = np.searchsorted(stops, numbers, side="right")
    for segment in np.unique(segment_of).tolist():
        chosen = np.flatnonzero(segment_of == segment)
        yield segment, chosen, numbers[chosen] - (int(stops[segment - 1]) if segment else 0)


def find_segments[F: DataFile](file: F, dataset: h5py.Dataset) -> list[Segment[F]] | None:
    """Finds the chunks of a column of frames.

    Args:
        file: The file.
        dataset: The open column; a virtual dataset is resolved to its shards.

    Returns:
        The column's segments in the order of rows; None if only the HDF5 library can read the frames.

    Raises:
        FormatError: A shard or a frame is missing, or a file is truncated.
    """
    if not dataset.is_virtual:
        segment = _find_segment(file, dataset)
        return None if segment is None else [segment]
    shards = shard_rows(dataset)
    if missing := missing_rows(shards, len(dataset)):
        raise FormatError(
            f"{file}: no shard of {dataset.name!r} holds the rows from {missing[0]} to {missing[1]}. "
            "Convert the dataset again."
        )
    segments: list[Segment[F]] = []
    for rows in shards:
        with open_shard(file, rows) as (shard, frames):
            is_whole = frames.shape == (rows.stop - rows.start, *dataset.shape[1:])
            segment = _find_segment(shard, frames)
        if segment is None or not is_whole:
            return None
        segments.append(segment)
    return segments if _are_consecutive(shards) else None


def _are_consecutive(shards: Sequence[Any]) -> bool:
    return all(before.stop == after.start for before, after in zip(shards, shards[1:], strict=False))


def _find_segment[F: DataFile](file: F, dataset: h5py.Dataset) -> Segment[F] | None:
    filters = dataset.id.get_create_plist()
    codec = ChunkCodec.from_filters(tuple(filters.get_filter(i)[0] for i in range(filters.get_nfilters())))
    if codec is None or len(dataset) == 0:
        return None
    if filters.get_layout() == h5py.h5d.CONTIGUOUS and dataset.id.get_offset() is not None:
        index = FrameIndex.of_contiguous(dataset)
    elif dataset.chunks == (1, *dataset.shape[1:]):
        num_chunks = dataset.id.get_num_chunks()
        if num_chunks < len(dataset):  # before allocating memory for so many
            raise FormatError(
                f"{file}: {dataset.name!r} stores {num_chunks} of its {len(dataset)} frames. Convert the dataset again."
            )
        index = file.chunk_index(dataset)
    else:
        return None
    if (index.size == 0).any():
        row = int(np.flatnonzero(index.size == 0)[0])
        raise FormatError(f"{file}: {dataset.name!r} has no frame stored for row {row}. Convert the dataset again.")
    if index.stop_byte() > file.size_bytes:
        raise FormatError(f"{file}: the file is truncated. Copy or convert it again.")
    return Segment(file, codec, index)
