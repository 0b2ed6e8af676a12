"""A small file over many shards: it holds the small columns itself, and its frames are HDF5 virtual datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from lewm_data.errors import FormatError
from lewm_data.format.hdf5 import open_file
from lewm_data.format.schema import FileHeader


def add_virtual_frames(master: h5py.File, shards: list[Path], header: FileHeader) -> None:
    """Makes the columns of frames of a master.

    Args:
        master: The open file; it will lie beside the shards' folder.
        shards: Finished files of format version 1, in order.
        header: Of any of them.
    """
    lengths = []
    for path in shards:
        with open_file(path) as file:
            lengths.append({name: len(file[name]) for name in header.cameras})
    frame = (header.image_height, header.image_width, 3)
    for name in header.cameras:
        layout = h5py.VirtualLayout((sum(length[name] for length in lengths), *frame), np.uint8)
        start = 0
        for path, length in zip(shards, lengths, strict=True):
            stop = start + length[name]
            if stop > start:  # no episode of a shard may be left
                layout[start:stop] = h5py.VirtualSource(f"{path.parent.name}/{path.name}", name, (stop - start, *frame))
            start = stop
        master.create_virtual_dataset(name, layout)


def shards_of(path: Path, file: h5py.File, column: str) -> list[tuple[Path, str, int, int]]:
    """The shards of a virtual column: file, dataset, first row and first row after it; in the order of rows."""
    found = []
    for source in file[column].virtual_sources():
        (first, *_), (last, *_) = source.vspace.get_select_bounds()
        shard = path if source.file_name == "." else path.parent / source.file_name
        found.append((shard, source.dset_name.strip("/"), int(first), int(last) + 1))
    return sorted(found, key=lambda source: source[2])


def shard_problems(path: Path, file: h5py.File, column: str, header: FileHeader) -> Iterator[str]:
    """What is wrong with the shards of a column. HDF5 itself reads a missing one as black frames.

    Args:
        path: The master.
        file: The same, open.
        column: A virtual column of frames.
        header: The master's root attributes.
    """
    next_row = 0
    for shard, name, first, stop in shards_of(path, file, column):
        if first != next_row:
            yield f"{column!r}: no shard holds the rows from {next_row} to {first}"
        next_row = stop
        try:
            with open_file(shard) as opened:
                if str(opened.attrs.get("fingerprint", "")) != header.fingerprint:
                    yield f"{column!r}: its shard {shard} belongs to another conversion"
                elif name not in opened or opened[name].shape != (stop - first, *file[column].shape[1:]):
                    yield f"{column!r}: its shard {shard} does not hold {stop - first} frames"
                elif opened[name].id.get_num_chunks() != stop - first:
                    yield f"{column!r}: its shard {shard} stores {opened[name].id.get_num_chunks()} of its frames"
        except (FormatError, OSError, RuntimeError) as error:
            yield f"{column!r}: its shard cannot be read: {error}"
    if next_row != len(file[column]):
        yield f"{column!r}: no shard holds the rows from {next_row} to {len(file[column])}"
