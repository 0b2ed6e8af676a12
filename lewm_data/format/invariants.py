"""Every rule of the format. The loader and ``verify`` both use this module."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import FormatError
from lewm_data.format.codecs import CODECS, ChunkCodec
from lewm_data.format.data_file import DataFile, LocalFile
from lewm_data.format.hdf5 import read_values
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import (
    ACTION,
    EP_LEN,
    EP_OFFSET,
    EPISODE_DTYPES,
    FLOAT_DTYPES,
    PIXELS,
    ROW_DTYPES,
    STATE,
    is_pixels,
)
from lewm_data.format.segments import Column
from lewm_data.format.virtual import open_shard, shard_problems, shard_rows
from lewm_data.notation import MAX_IMAGE_SIDE


class BrokenRule(NamedTuple):
    """A rule that a file breaks.

    Attributes:
        words: What is wrong, as one sentence without the file's name.
        is_fatal: Whether the file cannot be read correctly because of it. The loader ignores other violations.
    """

    words: str
    is_fatal: bool = True


class Structure(NamedTuple):
    """The episodes and columns of a file.

    Attributes:
        ep_len: (E,) int64, steps of each episode.
        ep_offset: (E,) int64, first row of each episode.
        columns: Every column of N rows, by name.
    """

    ep_len: NDArray[np.int64]
    ep_offset: NDArray[np.int64]
    columns: dict[str, Column]


def read_structure(file: h5py.File, where: str, header: FileHeader | None) -> Structure:
    """Reads a file's episodes and columns once its structure is known to be sound.

    Args:
        file: The open file.
        where: Its path or address, for messages.
        header: Its header; None if another program wrote it.

    Raises:
        FormatError: The file breaks a rule that reading depends on; names the rule.
    """
    for rule in broken_rules(file, header):
        if rule.is_fatal:
            raise FormatError(f"{where}: {rule.words}. Convert the dataset again.")
    columns = {
        name: Column(item.shape[1:], item.dtype)
        for name, item in file.items()
        if isinstance(item, h5py.Dataset) and name not in EPISODE_DTYPES
    }
    ep_len, ep_offset = (read_values(where, file[name]).astype(np.int64) for name in (EP_LEN, EP_OFFSET))
    return Structure(ep_len, ep_offset, columns)


def broken_rules(file: h5py.File, header: FileHeader | None) -> Iterator[BrokenRule]:
    """Checks names, links, dtypes, shapes and episodes.

    Files of other programs, such as stable-worldmodel's, need only ``pixels``, ``ep_len`` and ``ep_offset``.

    Args:
        file: The open file.
        header: Its header; None if another program wrote it.

    Yields:
        Each broken rule. Rules that depend on a fatal one are not checked.
    """
    for rules in (_broken_entries, _broken_datasets, _broken_episodes):
        is_sound = True
        for rule in rules(file, header):
            is_sound = is_sound and not rule.is_fatal
            yield rule
        if not is_sound:
            return


def storage_problems(data_file: DataFile, file: h5py.File, header: FileHeader) -> Iterator[str]:
    """Checks how frames are stored: chunks, filters, and that each one was written.

    The loader also reads frames that are stored differently, only more slowly.

    Args:
        data_file: The file.
        file: The same file, open; its structure is sound.
        header: Its header.

    Yields:
        Each problem as one sentence without the file's name.
    """
    codec = header.compression
    filters = ChunkCodec(codec, has_checksum=True).filter_ids if codec in CODECS else None
    if codec in CODECS and CODECS[codec].is_lossless == bool(header.lossy_quality):
        yield f"the root attribute 'lossy_quality' is {header.lossy_quality}, which {codec} does not have"
    for name in header.cameras:
        dataset = file[name]
        if dataset.is_virtual:
            yield from shard_problems(data_file, dataset, header.fingerprint)
            continue
        if dataset.chunks != (1, *dataset.shape[1:]):
            yield f"dataset {name!r} has chunks {dataset.chunks}, not {(1, *dataset.shape[1:])}"
        properties = dataset.id.get_create_plist()
        found = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
        if found != filters:
            yield f"dataset {name!r} has filters {found}, not {filters} ({codec})"
        if dataset.chunks is not None and dataset.id.get_num_chunks() != len(dataset):
            yield f"dataset {name!r} stores {dataset.id.get_num_chunks()} of its {len(dataset)} frames"


def _required(header: FileHeader | None) -> tuple[str, ...]:
    if header is None:
        return (*EPISODE_DTYPES, PIXELS)
    rows = [name for name in ROW_DTYPES if name != STATE]  # a state is optional
    return tuple(dict.fromkeys([*EPISODE_DTYPES, PIXELS, *rows, *header.cameras, *header.columns, *header.statistics]))


def _broken_entries(file: h5py.File, header: FileHeader | None) -> Iterator[BrokenRule]:
    """Each entry of the root is a dataset of this file, and none is missing."""
    required = _required(header)
    for name in required:
        if name not in file:
            yield BrokenRule(f"dataset {name!r} is missing")
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            yield BrokenRule(f"{name!r} is a link that leads out of the file's folder")
            continue
        item = file.get(name)
        if item is None:
            if header is not None or name in required:
                yield BrokenRule(f"{name!r} cannot be opened; the file is damaged")
        elif not isinstance(item, h5py.Dataset) and (header is not None or name in required):
            yield BrokenRule(f"{name!r} is a group; the format has none", is_fatal=name in required)


def _broken_datasets(file: h5py.File, header: FileHeader | None) -> Iterator[BrokenRule]:
    """Each dataset has its dtype and shape, and the file holds its values."""
    datasets = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
    num_rows = datasets[PIXELS].shape[0] if datasets[PIXELS].ndim else 0
    for name, dataset in datasets.items():
        if dataset.external or not _is_beside(dataset):
            yield BrokenRule(f"{name!r} leads out of the file's folder")
        elif dataset.ndim == 0:
            yield BrokenRule(f"dataset {name!r} is a single value")
        else:
            if name not in EPISODE_DTYPES and len(dataset) != num_rows:
                yield BrokenRule(f"dataset {name!r} has {len(dataset)} rows, but {PIXELS!r} has {num_rows}")
            yield from (
                _broken_frames(name, dataset, header) if is_pixels(name) else _broken_values(name, dataset, header)
            )


def _dtypes(name: str) -> tuple[str, ...]:
    """The dtypes that a column may have; empty if the format does not define the column."""
    if name in (ACTION, STATE):
        return FLOAT_DTYPES
    dtype = {**ROW_DTYPES, **EPISODE_DTYPES}.get(name)
    return () if dtype is None else (dtype,)


def _broken_frames(name: str, dataset: h5py.Dataset, header: FileHeader | None) -> Iterator[BrokenRule]:
    shape = dataset.shape[1:]
    is_rgb = dataset.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
    if not is_rgb or not all(1 <= side <= MAX_IMAGE_SIDE for side in shape[:2]):
        yield BrokenRule(f"dataset {name!r} is {dataset.dtype} {shape}, not uint8 (H, W, 3)")
    elif header is not None:
        expected = (header.image_height, header.image_width, 3)
        if shape != expected:
            yield BrokenRule(f"dataset {name!r} has frames of {shape}, not {expected}", is_fatal=False)
        if name not in header.cameras:
            yield BrokenRule(f"dataset {name!r} is not in the camera map", is_fatal=False)


def _broken_values(name: str, dataset: h5py.Dataset, header: FileHeader | None) -> Iterator[BrokenRule]:
    if name in EPISODE_DTYPES and dataset.ndim != 1:
        yield BrokenRule(f"dataset {name!r} has shape {dataset.shape}, but holds one number per episode")
    if header is None:
        return
    dtypes = _dtypes(name)
    if dtypes and dataset.dtype not in map(np.dtype, dtypes):
        yield BrokenRule(f"dataset {name!r} is {dataset.dtype}, not {' or '.join(dtypes)}", is_fatal=name in ROW_DTYPES)
    if not dataset.is_virtual:
        claimed, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
        if claimed > stored:
            yield BrokenRule(f"dataset {name!r} claims {claimed:,} bytes, but the file stores {stored:,}")


def _broken_episodes(file: h5py.File, header: FileHeader | None) -> Iterator[BrokenRule]:
    """Episodes follow each other, and each has a row for each step."""
    num_rows, num_episodes = len(file[PIXELS]), len(file[EP_LEN])
    if len(file[EP_OFFSET]) != num_episodes:
        yield BrokenRule(f"'ep_len' has {num_episodes} episodes, 'ep_offset' has {len(file[EP_OFFSET])}")
        return
    where = file.filename
    lengths, offsets = (read_values(where, file[name]).astype(np.int64) for name in (EP_LEN, EP_OFFSET))
    shortest = int(lengths.min(initial=1))
    if shortest < 0:
        yield BrokenRule(f"'ep_len' holds {shortest}, but an episode has 0 steps or more")
    if header is None:
        if (offsets < 0).any() or (offsets + lengths > num_rows).any():
            yield BrokenRule(f"an episode extends beyond the {num_rows} rows of {PIXELS!r}")
        return
    if num_episodes == 0 or shortest == 0:
        yield BrokenRule("'ep_len' has no episode, or one without steps", is_fatal=False)
    if not np.array_equal(offsets, np.cumsum(lengths) - lengths):
        yield BrokenRule("'ep_offset' is not the running sum of 'ep_len'")
    if lengths.sum() != num_rows:
        yield BrokenRule(f"'ep_len' adds up to {lengths.sum()} steps, but {PIXELS!r} has {num_rows} rows")
    known = sum(len(record.episodes) for record in header.sources)
    if known != num_episodes:
        yield BrokenRule(
            f"the root attributes name {known} source episodes, but the file has {num_episodes}", is_fatal=False
        )
    yield from _broken_corrections(header, lengths)


def _broken_corrections(header: FileHeader, lengths: NDArray[np.int64]) -> Iterator[BrokenRule]:
    """Shifts are of the file's cameras, and each episode has as many steps as were kept of it."""
    begin = 0
    for record in header.sources:
        for column in record.shifts:
            if column not in header.cameras:
                yield BrokenRule(
                    f"the root attributes shift {column!r}, which is not in the camera map", is_fatal=False
                )
        of_record = lengths[begin : begin + len(record.episodes)].tolist()
        begin += len(record.episodes)
        if record.kept_steps and [stop - start for start, stop in record.kept_steps] != of_record:
            yield BrokenRule("'ep_len' does not agree with the kept steps in the root attributes", is_fatal=False)


def _is_beside(dataset: h5py.Dataset) -> bool:
    """Whether the shards of a virtual dataset are in the file's folder or below it, and refer to no other files.

    ``find_segments`` opens the shards of frames; those of small columns are opened here.

    Raises:
        FormatError: A shard is missing, which the HDF5 library would read as zeros.
    """
    shards = shard_rows(dataset) if dataset.is_virtual else []
    if not all(rows.is_beside for rows in shards):
        return False
    if not is_pixels(dataset.name.strip("/")):
        for rows in shards:
            with open_shard(LocalFile.at(Path(dataset.file.filename)), rows):
                pass
    return True
