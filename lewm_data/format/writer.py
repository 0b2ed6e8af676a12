"""Writes episodes to one HDF5 file of format version 1. The file appears under its name only when it is complete."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import h5py
import numpy as np

from lewm_data.config import Compression
from lewm_data.format.codecs import CODECS, JPEG_FILTER_ID, StoredChunk, encoder, settle_quality
from lewm_data.format.hdf5 import register_codecs
from lewm_data.format.header import FileHeader
from lewm_data.format.jpeg_filter import filter_parameters
from lewm_data.format.schema import (
    DONE,
    EP_LEN,
    EP_OFFSET,
    EPISODE_DTYPES,
    EPISODE_IDX,
    ROW_DTYPES,
    STEP_IDX,
    rows_per_chunk,
)
from lewm_data.format.statistics import file_statistics

LIBVER = ("v110", "v110")
"""The file format that HDF5 1.10 and newer read. "latest" would write one that only HDF5 2.0 reads."""


SYNC_BYTES = 256 << 20
"""Frames are flushed to the disk whenever this much has accumulated, so that the final flush is short. A flush reports
no progress, and the watchdog must not mistake a slow disk for a hang."""


_INDICES: dict[str, tuple[str, int | None]] = {name: (ROW_DTYPES[name], None) for name in (EPISODE_IDX, STEP_IDX)}


class FileShape(NamedTuple):
    """A file's datasets, except for the number of rows.

    Attributes:
        cameras: Frame columns, in order.
        height: Rows of a frame.
        width: Columns of a frame.
        columns: Value column to (dtype, numbers per row); None means one number per row, shape (N,). The writer adds
            ``episode_idx`` and ``step_idx`` itself.
        compression: Codec of the frames.
        quality: Quality of a lossy codec; None takes the codec's default.
    """

    cameras: tuple[str, ...]
    height: int
    width: int
    columns: dict[str, tuple[str, int | None]]
    compression: Compression
    quality: int | None = None


class FileWriter:
    """Writes episodes to a file that appears under its name only when ``finish`` is called.

    Use it as a context manager: entering creates the file, and leaving without ``finish`` removes it.

    Args:
        path: The file to make; it is written as ``<path>.tmp``, flushed to the disk, then renamed.
        shape: Its datasets.
        num_rows: Maximum number of steps.
        threads: Threads that compress frames.

    Example:
        >>> shape = FileShape(("pixels",), 8, 8, {"action": ("float32", 2), "done": ("bool", None)}, "lzf")
        >>> with FileWriter(path, shape, num_rows=1) as writer:
        ...     writer.write_rows({"action": np.zeros((1, 2)), "done": np.ones(1, bool)})
        ...     writer.write_chunks("pixels", [writer.encode(np.zeros((8, 8, 3), np.uint8)).result()], start=0)
        ...     writer.end_episode(1)
        ...     writer.finish(header)
    """

    def __init__(self, path: Path, shape: FileShape, *, num_rows: int, threads: int = 1) -> None:
        self._path = path
        self._shape = shape
        self._encode = encoder(shape.compression, shape.quality)
        self._temporary = path.with_name(path.name + ".tmp")
        self._lengths: list[int] = []
        self._rows = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compress") if threads > 1 else None
        self._num_rows = num_rows
        self._unsynced_bytes = 0
        self._file: h5py.File | None = None

    def __enter__(self) -> FileWriter:
        try:
            self._file = h5py.File(self._temporary, "w", libver=LIBVER, locking=False)
            self._create_datasets(self._file, self._num_rows)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        """Stops compressing and removes the temporary file, which ``finish`` has renamed if the file is complete."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._file is not None:
            self._close_quietly()
        self._temporary.unlink(missing_ok=True)

    @property
    def num_episodes(self) -> int:
        """Number of episodes that have ended."""
        return len(self._lengths)

    def write_rows(self, columns: Mapping[str, np.ndarray]) -> None:
        """Writes the rows of the current episode.

        Args:
            columns: Name to values of shape (L,) or (L, width); every value column.
        """
        assert self._file is not None
        count = len(next(iter(columns.values())))
        indices = {
            EPISODE_IDX: np.full(count, self.num_episodes, np.int32),
            STEP_IDX: np.arange(count, dtype=np.int32),
        }
        for name, values in {**columns, **indices}.items():
            self._file[name][self._rows : self._rows + count] = values

    def encode(self, frame: np.ndarray) -> Future[StoredChunk]:
        """Compresses a frame, in another thread if the writer has several.

        Args:
            frame: uint8, shape (H, W, 3), C-contiguous. Do not change it before the result is ready.
        """
        if self._pool is not None:
            return self._pool.submit(self._encode, frame)
        done: Future[StoredChunk] = Future()
        done.set_result(self._encode(frame))
        return done

    def write_chunks(self, column: str, chunks: Iterable[StoredChunk], *, start: int) -> None:
        """Writes encoded frames of the current episode.

        Args:
            column: Frame column.
            chunks: Frames in order, from ``encode``.
            start: Step of the first frame.
        """
        assert self._file is not None
        dataset = self._file[column].id
        for row, chunk in enumerate(chunks, start=self._rows + start):
            dataset.write_direct_chunk((row, 0, 0, 0), chunk.data, chunk.filter_mask)
            self._unsynced_bytes += len(chunk.data)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._file.flush()
            sync(self._temporary)
            self._unsynced_bytes = 0

    def end_episode(self, length: int) -> None:
        """Ends the current episode after ``length`` steps. Without this call, the next episode overwrites it."""
        self._lengths.append(length)
        self._rows += length

    def mark_end(self, step: int) -> None:
        """Sets ``done`` at a step of the current episode."""
        assert self._file is not None
        self._file[DONE][self._rows + step] = True

    def finish(self, header: FileHeader, *, complete: Callable[[h5py.File], None] = lambda file: None) -> None:
        """Completes the file, flushes it to the disk and renames it.

        Args:
            header: The root attributes; the writer computes the statistics.
            complete: Called with the open file, to add more datasets.
        """
        assert self._file is not None
        file = self._file
        for dataset in file.values():
            dataset.resize(self._rows, axis=0)
        lengths = np.array(self._lengths, np.int64)
        file.create_dataset(EP_LEN, data=lengths, dtype=EPISODE_DTYPES[EP_LEN])
        file.create_dataset(EP_OFFSET, data=np.cumsum(lengths) - lengths, dtype=EPISODE_DTYPES[EP_OFFSET])
        complete(file)
        file.attrs.update(dataclasses.replace(header, statistics=file_statistics(file)).to_attributes())
        file.close()
        self._file = None
        replace_durably(self._temporary, self._path)

    def _create_datasets(self, file: h5py.File, num_rows: int) -> None:
        shape = self._shape
        filters: dict[str, object] = {"fletcher32": True}
        filter_id = CODECS[shape.compression].filter_id
        if filter_id is not None:
            filters["compression"] = "lzf" if shape.compression == "lzf" else filter_id
            if shape.compression != "lzf":
                register_codecs()
            if filter_id == JPEG_FILTER_ID:
                quality = settle_quality(shape.compression, shape.quality)
                filters["compression_opts"] = filter_parameters(quality, shape.height, shape.width)
        frame = (shape.height, shape.width, 3)
        for name in shape.cameras:
            file.create_dataset(
                name,
                shape=(num_rows, *frame),
                maxshape=(num_rows, *frame),
                chunks=(1, *frame),
                dtype="uint8",
                **filters,
            )
        for name, (dtype, width) in {**shape.columns, **_INDICES}.items():
            tail = () if width is None else (width,)
            file.create_dataset(
                name,
                shape=(num_rows, *tail),
                maxshape=(num_rows, *tail),
                chunks=(max(1, min(rows_per_chunk(np.dtype(dtype).itemsize * (width or 1)), num_rows)), *tail),
                dtype=dtype,
                fletcher32=True,
            )

    def _close_quietly(self) -> None:
        """Closes after a failure. On a full disk, closing fails too, but the file is removed anyway."""
        try:
            if self._file is not None:
                self._file.close()
        except (OSError, RuntimeError):
            pass
        self._file = None


def replace_durably(temporary: Path, path: Path) -> None:
    """Renames a finished file so that it is complete under its name even after a power loss."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
