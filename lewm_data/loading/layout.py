"""What lies where in a file: its columns, its episodes, and the chunks of its frames, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import FormatError, LewmDataError, ResourceError
from lewm_data.loading.codecs import ChunkCodec
from lewm_data.loading.index import FrameIndex, frame_index
from lewm_data.loading.readers import Part
from lewm_data.resources import available_memory_bytes
from lewm_data.schema import EP_LEN, EP_OFFSET, EPISODE_DTYPES, MAX_IMAGE_SIDE, PIXELS, ROW_DTYPES, is_pixels


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


def open_file(path: Path) -> h5py.File:
    """Opens an HDF5 file for reading.

    Raises:
        FormatError: It is none, or truncated.
    """
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise FormatError(
            f"{path}: no readable HDF5 file ({error}). It may be truncated; convert the dataset again."
        ) from error


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Puts whatever HDF5 and h5py raise for a damaged structure into words.

    Raises:
        FormatError: Something was raised that is not an error of ours.
    """
    try:
        yield
    except LewmDataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FormatError(f"{path}: it is damaged ({reason}). Copy or convert it again.") from error


def read_values(path: Path, dataset: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Reads rows [start, stop) of a small column; all of them by default.

    Raises:
        ResourceError: They claim more than the memory holds.
    """
    num_values = len(range(len(dataset))[start:stop]) * math.prod(dataset.shape[1:])
    claimed, available = num_values * dataset.dtype.itemsize, available_memory_bytes()
    if claimed > available:
        raise ResourceError(
            f"{path}: column {dataset.name.strip('/')!r} claims {claimed / 1e9:.1f} GB, but {available / 1e9:.1f} GB "
            "of memory are available. Leave it out of columns, or check where the file comes from."
        )
    return np.asarray(dataset[start:stop])


def read_layout(
    file: h5py.File, path: Path, *, is_ours: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, Column]]:
    """Reads episodes and columns, and checks the format's invariants.

    Args:
        file: The open file.
        path: Its path, for messages.
        is_ours: Whether this package wrote it; of other files less is asked.

    Returns:
        (E,) int64 steps of each episode, (E,) int64 first row of each, and every column of N rows by name.

    Raises:
        FormatError: An invariant is broken; says which.
    """

    def check(holds: bool | np.bool_, broken: str) -> None:
        if not holds:
            raise FormatError(f"{path}: {broken}. Convert the dataset again.")

    required = (*EPISODE_DTYPES, PIXELS, *(ROW_DTYPES if is_ours else ()))
    for name in required:
        check(isinstance(file.get(name), h5py.Dataset), f"dataset {name!r} is missing")
    items = dict(file.items())
    for name in items if is_ours else required:
        check(items[name] is not None, f"{name!r} is there, but cannot be opened; the file is damaged")
    datasets = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
    for name, dataset in datasets.items():
        is_inside = isinstance(file.get(name, getlink=True), h5py.HardLink) and not dataset.external
        check(is_inside and _is_beside(dataset), f"{name!r} leads out of the file's folder")
        check(dataset.ndim > 0, f"{name!r} is a single value")
        if is_ours and not dataset.is_virtual and not is_pixels(name):
            claimed, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
            check(claimed <= stored, f"{name!r} claims {claimed:,} bytes, but {stored:,} are stored")
    num_rows = len(datasets[PIXELS])
    ep_len = read_values(path, datasets.pop(EP_LEN)).astype(np.int64)
    ep_offset = read_values(path, datasets.pop(EP_OFFSET)).astype(np.int64)
    check(ep_len.ndim == 1 and ep_offset.ndim == 1, "ep_len and ep_offset are no plain lists")
    check(ep_len.shape == ep_offset.shape, f"ep_len has {len(ep_len)} episodes, ep_offset {len(ep_offset)}")
    least = ep_len.min(initial=0)
    check(least >= 0, f"ep_len holds {least}, but an episode has 0 or more steps")
    if is_ours:
        check((ep_offset == np.cumsum(ep_len) - ep_len).all(), "ep_offset is not the cumulated ep_len")
        check(ep_len.sum() == num_rows, f"ep_len adds up to {ep_len.sum()}, but pixels has {num_rows} rows")
    else:
        is_within = (ep_offset >= 0).all() and (ep_offset + ep_len <= num_rows).all()
        check(is_within, f"an episode reaches outside of pixels' {num_rows} rows")
    columns = {}
    for name, dataset in datasets.items():
        check(dataset.ndim > 0 and len(dataset) == num_rows, f"{name!r} has not {num_rows} rows")
        column = Column(dataset.shape[1:], dataset.dtype)
        if is_pixels(name):
            is_rgb = column.dtype == np.uint8 and len(column.shape) == 3 and column.shape[2] == 3
            is_rgb = is_rgb and all(1 <= side <= MAX_IMAGE_SIDE for side in column.shape[:2])
            check(is_rgb, f"{name!r} is {column.dtype} {column.shape}, not uint8 (H, W, 3)")
        elif is_ours and name in ROW_DTYPES:
            check(column.dtype == ROW_DTYPES[name], f"{name!r} is {column.dtype}, not {ROW_DTYPES[name]}")
        columns[name] = column
    return ep_len, ep_offset, columns


def _is_beside(dataset: h5py.Dataset) -> bool:
    """Whether the files that a virtual dataset reads lie in the file's own folder or below."""
    names = [PurePosixPath(source.file_name) for source in dataset.virtual_sources()] if dataset.is_virtual else []
    return not any(name.is_absolute() or ".." in name.parts for name in names)


def find_parts(path: Path, dataset: h5py.Dataset, column: Column, fingerprint: str) -> list[Part] | None:
    """Finds the chunks of a column of frames.

    Args:
        path: The file.
        dataset: The open column; a virtual dataset is resolved to its shards.
        column: Its shape and dtype.
        fingerprint: The file's content fingerprint.

    Returns:
        Where the frames lie, part by part in the order of rows; None where only the HDF5 library can read them.

    Raises:
        FormatError: A shard or a frame is missing, or a file is truncated.
    """
    if not dataset.is_virtual:
        part = _find_part(path, dataset, column, fingerprint)
        return None if part is None else [part]
    parts: list[Part] = []
    next_row = 0
    for source in sorted(dataset.virtual_sources(), key=lambda source: source.vspace.get_select_bounds()[0][0]):
        (first, *_), (last, *_) = source.vspace.get_select_bounds()
        shard_path = path if source.file_name == "." else path.parent / source.file_name
        if not shard_path.is_file():
            raise FormatError(f"{path}: its shard {shard_path} is missing. Put it back, or convert the dataset again.")
        with open_file(shard_path) as shard:
            if source.dset_name.strip("/") not in shard:
                raise FormatError(f"{path}: its shard {shard_path} has no {source.dset_name!r}. Convert again.")
            frames = shard[source.dset_name]
            is_whole = len(frames) == last + 1 - first and frames.shape[1:] == column.shape
            part = _find_part(shard_path, frames, column, str(shard.attrs.get("fingerprint", "")))
        if part is None or first != next_row or not is_whole:
            return None
        parts.append(part)
        next_row = last + 1
    return parts if next_row == len(dataset) else None


def _find_part(path: Path, dataset: h5py.Dataset, column: Column, fingerprint: str) -> Part | None:
    filters = dataset.id.get_create_plist()
    codec = ChunkCodec.from_filters(tuple(filters.get_filter(i)[0] for i in range(filters.get_nfilters())))
    if codec is None or len(dataset) == 0:
        return None
    if filters.get_layout() == h5py.h5d.CONTIGUOUS and dataset.id.get_offset() is not None:
        index = FrameIndex.of_contiguous(dataset)
    elif dataset.chunks == (1, *column.shape):
        num_chunks = dataset.id.get_num_chunks()
        if num_chunks < len(dataset):  # before memory is taken for so many
            raise FormatError(
                f"{path}: {dataset.name!r} stores {num_chunks} of its {len(dataset)} frames. Convert the dataset again."
            )
        index = frame_index(path, dataset, fingerprint)
    else:
        return None
    if (index.size == 0).any():
        row = int(np.flatnonzero(index.size == 0)[0])
        raise FormatError(f"{path}: {dataset.name!r} has no frame stored for row {row}. Convert the dataset again.")
    if index.stop_byte() > path.stat().st_size:
        raise FormatError(f"{path}: the file is truncated. Copy or convert it again.")
    return Part(path, codec, index)
