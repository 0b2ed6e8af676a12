"""A virtual file: it holds the small columns itself, and its frames are HDF5 virtual datasets over shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import h5py
import numpy as np

from lewm_data.errors import FormatError
from lewm_data.format.data_file import DataFile
from lewm_data.format.hdf5 import open_file, own_dataset
from lewm_data.format.header import FileHeader
from lewm_data.machine_errors import raise_machine_error

_SAME_FILE = "."


class ShardRows(NamedTuple):
    """The rows of a virtual dataset that one shard holds.

    Attributes:
        file_name: The shard, relative to the virtual file's folder.
        column: The dataset in the shard.
        start: First row in the virtual dataset.
        stop: End of its rows, exclusive.
    """

    file_name: str
    column: str
    start: int
    stop: int

    @property
    def is_beside(self) -> bool:
        """Whether the shard is in the virtual file's folder or below it."""
        path = PurePosixPath(self.file_name)
        return not path.is_absolute() and ".." not in path.parts and "://" not in self.file_name

    def path(self, virtual_file: Path) -> Path:
        """The shard of a virtual file on this machine."""
        return virtual_file if self.file_name == _SAME_FILE else virtual_file.parent / self.file_name


def shard_rows(dataset: h5py.Dataset) -> list[ShardRows]:
    """Which shard holds which rows of a virtual dataset, in the order of rows."""
    found = []
    for source in dataset.virtual_sources():
        (first, *_), (last, *_) = source.vspace.get_select_bounds()
        found.append(ShardRows(source.file_name, source.dset_name.strip("/"), int(first), int(last) + 1))
    return sorted(found, key=lambda rows: rows.start)


def missing_rows(shards: Sequence[ShardRows], num_rows: int) -> tuple[int, int] | None:
    """The first rows [start, stop) of a virtual dataset that no shard holds; HDF5 reads them as zeros."""
    next_row = 0
    for rows in shards:
        if rows.start > next_row:
            return next_row, rows.start
        next_row = max(next_row, rows.stop)
    return (next_row, num_rows) if next_row < num_rows else None


@contextmanager
def open_shard[F: DataFile](file: F, rows: ShardRows) -> Iterator[tuple[F, h5py.Dataset]]:
    """Opens the dataset that holds some rows of a virtual dataset.

    Args:
        file: The virtual file.
        rows: Rows of one of its datasets, from ``shard_rows``.

    Yields:
        The shard and its open dataset.

    Raises:
        FormatError: The shard is missing or damaged, lacks the dataset, or refers to other files.
        UsageError: A remote shard is missing.
    """
    if not rows.is_beside:
        raise FormatError(f"{file}: its shard {rows.file_name!r} leads out of the file's folder. Do not trust it.")
    shard = file if rows.file_name == _SAME_FILE else file.sibling(rows.file_name)
    with shard.open() as opened:
        where = f"{file}: its shard {shard}"
        dataset = own_dataset(where, opened, rows.column)
        if dataset.is_virtual:
            raise FormatError(f"{where} has shards itself. Do not trust it.")
        yield shard, dataset


def add_virtual_frames(file: h5py.File, shards: Sequence[Path], header: FileHeader) -> None:
    """Adds the columns of frames to a virtual file.

    Args:
        file: The open file. It must end up next to the shards' folder.
        shards: Finished files of format version 1, in order.
        header: The header of any of them.
    """
    lengths = []
    for path in shards:
        with open_file(path) as shard:
            lengths.append({name: len(shard[name]) for name in header.cameras})
    frame = (header.image_height, header.image_width, 3)
    for name in header.cameras:
        layout = h5py.VirtualLayout((sum(length[name] for length in lengths), *frame), np.uint8)
        start = 0
        for path, length in zip(shards, lengths, strict=True):
            stop = start + length[name]
            if stop > start:  # every episode of a shard may have been dropped
                layout[start:stop] = h5py.VirtualSource(f"{path.parent.name}/{path.name}", name, (stop - start, *frame))
            start = stop
        file.create_virtual_dataset(name, layout)


def shard_problems(file: DataFile, dataset: h5py.Dataset, fingerprint: str) -> Iterator[str]:
    """Checks that shards of the same conversion hold every frame of a virtual column.

    Args:
        file: The virtual file.
        dataset: The open column.
        fingerprint: The virtual file's content fingerprint.

    Yields:
        Each problem as one sentence.
    """
    column = dataset.name.strip("/")
    shards = shard_rows(dataset)
    for rows in shards:
        num_rows = rows.stop - rows.start
        shape = (num_rows, *dataset.shape[1:])
        try:
            with open_shard(file, rows) as (shard, frames):
                if str(frames.file.attrs.get("fingerprint", "")) != fingerprint:
                    yield f"{column!r}: its shard {shard} belongs to another conversion"
                elif frames.shape != shape:
                    yield f"{column!r}: its shard {shard} has shape {frames.shape}, not {shape}"
                elif (stored := frames.id.get_num_chunks()) != num_rows:
                    yield f"{column!r}: its shard {shard} stores {stored} of its {num_rows} frames"
        except (FormatError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise_machine_error(error, f"{file}: its shard {rows.file_name}")
            yield f"{column!r}: its shard cannot be read: {error}"
    if missing := missing_rows(shards, len(dataset)):
        yield f"{column!r}: no shard holds the rows from {missing[0]} to {missing[1]}"


def check_shards(file: DataFile, opened: h5py.File, header: FileHeader) -> None:
    """Checks that every frame is there, before code reads a file through HDF5, which reads missing shards as zeros.

    Args:
        file: The file.
        opened: The same file, open.
        header: Its header.

    Raises:
        FormatError: A shard is missing, belongs to another conversion, or lacks frames.
    """
    for frames in (opened[name] for name in header.cameras if name in opened and opened[name].is_virtual):
        for problem in shard_problems(file, frames, header.fingerprint):
            raise FormatError(f"{file}: {problem.rstrip('.')}.")


def shard_names(opened: h5py.File) -> list[str]:
    """Names of the shards that an open file reads from, relative to its folder; empty if it is not virtual."""
    columns = (item for item in opened.values() if isinstance(item, h5py.Dataset) and item.is_virtual)
    rows = [part for column in columns for part in shard_rows(column)]
    return list(dict.fromkeys(part.file_name for part in rows if part.file_name != _SAME_FILE and part.is_beside))
