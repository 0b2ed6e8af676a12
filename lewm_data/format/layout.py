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

from lewm_data.config import MAX_IMAGE_SIDE
from lewm_data.errors import NO_DESCRIPTOR, FormatError, LewmDataError, ResourceError, has_no_descriptor
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.codecs import ChunkCodec
from lewm_data.format.data_file import Container, Part
from lewm_data.format.schema import EP_LEN, EP_OFFSET, EPISODE_DTYPES, PIXELS, ROW_DTYPES, is_pixels
from lewm_data.resources import available_memory_bytes


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


@contextmanager
def telling_damage(where: str | Path) -> Iterator[None]:
    """Puts whatever HDF5 and h5py raise for a damaged structure into words.

    Raises:
        FormatError: Something was raised that is not an error of ours.
        ResourceError: This process may open no more files.
    """
    try:
        yield
    except LewmDataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if has_no_descriptor(error):
            raise ResourceError(f"{where}: {NO_DESCRIPTOR}") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FormatError(f"{where}: it is damaged ({reason}). Copy or convert it again.") from error


def own_dataset(where: str | Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that lies in a file itself. HDF5 would read whatever links and external storage lead to.

    Raises:
        FormatError: There is none, or it lies elsewhere.
    """
    plain = name.strip("/")
    if plain not in file:
        raise FormatError(f"{where}: it has no {plain!r}. Convert the dataset again.")
    is_own = "/" not in plain and isinstance(file.get(plain, getlink=True), h5py.HardLink)
    dataset = file[plain] if is_own else None
    if not isinstance(dataset, h5py.Dataset) or dataset.external:
        raise FormatError(f"{where}: {plain!r} leads out of the file. Do not trust it.")
    return dataset


def check_fits(where: str | Path, dataset: h5py.Dataset, num_rows: int | None = None) -> None:
    """Refuses a column that claims more than the memory holds; ``num_rows`` of it, or all.

    Raises:
        ResourceError: It does.
    """
    rows = len(dataset) if num_rows is None else num_rows
    claimed, available = rows * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize, available_memory_bytes()
    if claimed > available:
        raise ResourceError(
            f"{where}: column {dataset.name.strip('/')!r} claims {claimed / 1e9:.1f} GB, but {available / 1e9:.1f} GB "
            "of memory are available. Leave it out of columns, or check where the file comes from."
        )


def read_values(where: str | Path, dataset: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Reads rows [start, stop) of a small column; all of them by default.

    Raises:
        ResourceError: They claim more than the memory holds.
    """
    check_fits(where, dataset, len(range(len(dataset))[start:stop]))
    return np.asarray(dataset[start:stop])


def read_layout(
    file: h5py.File, where: str, *, is_ours: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, Column]]:
    """Reads episodes and columns, and checks the format's invariants.

    Args:
        file: The open file.
        where: Its path or address, for messages.
        is_ours: Whether this package wrote it; of other files less is asked.

    Returns:
        (E,) int64 steps of each episode, (E,) int64 first row of each, and every column of N rows by name.

    Raises:
        FormatError: An invariant is broken; says which.
    """

    def check(holds: bool | np.bool_, broken: str) -> None:
        if not holds:
            raise FormatError(f"{where}: {broken}. Convert the dataset again.")

    for name in file:
        check(isinstance(file.get(name, getlink=True), h5py.HardLink), f"{name!r} leads out of the file's folder")
    required = (*EPISODE_DTYPES, PIXELS, *(ROW_DTYPES if is_ours else ()))
    for name in required:
        check(name in file, f"dataset {name!r} is missing")
    items = dict(file.items())
    for name in items if is_ours else required:
        check(items[name] is not None, f"{name!r} is there, but cannot be opened; the file is damaged")
    for name in required:
        check(isinstance(items[name], h5py.Dataset), f"{name!r} is no dataset")
    datasets = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
    for name, dataset in datasets.items():
        check(not dataset.external and _is_beside(dataset), f"{name!r} leads out of the file's folder")
        check(dataset.ndim > 0, f"{name!r} is a single value")
        if is_ours and not dataset.is_virtual and not is_pixels(name):
            claimed, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
            check(claimed <= stored, f"{name!r} claims {claimed:,} bytes, but {stored:,} are stored")
    num_rows = len(datasets[PIXELS])
    ep_len = read_values(where, datasets.pop(EP_LEN)).astype(np.int64)
    ep_offset = read_values(where, datasets.pop(EP_OFFSET)).astype(np.int64)
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
    """Whether the files that a virtual dataset reads lie in the file's own folder or below, and read no others."""
    sources = dataset.virtual_sources() if dataset.is_virtual else []
    names = [PurePosixPath(source.file_name) for source in sources]
    if any(name.is_absolute() or ".." in name.parts for name in names):
        return False
    if not is_pixels(dataset.name.strip("/")):  # find_parts looks at those of frames
        folder = Path(dataset.file.filename).parent
        for source in sources:
            if source.file_name != "." and (folder / source.file_name).exists():  # HDF5 reads an absent one as zeros
                with h5py.File(folder / source.file_name, "r") as shard:
                    own_dataset(folder / source.file_name, shard, source.dset_name)
    return True


def find_parts[C: Container](
    container: C, dataset: h5py.Dataset, column: Column, fingerprint: str
) -> list[Part[C]] | None:
    """Finds the chunks of a column of frames.

    Args:
        container: The file.
        dataset: The open column; a virtual dataset is resolved to its shards.
        column: Its shape and dtype.
        fingerprint: The file's content fingerprint.

    Returns:
        Where the frames lie, part by part in the order of rows; None where only the HDF5 library can read them.

    Raises:
        FormatError: A shard or a frame is missing, or a file is truncated.
    """
    if not dataset.is_virtual:
        part = _find_part(container, dataset, column, fingerprint)
        return None if part is None else [part]
    parts: list[Part[C]] = []
    next_row = 0
    for source in sorted(dataset.virtual_sources(), key=lambda source: source.vspace.get_select_bounds()[0][0]):
        (first, *_), (last, *_) = source.vspace.get_select_bounds()
        shard_file = container if source.file_name == "." else container.sibling(source.file_name)
        if not shard_file.exists():
            raise FormatError(
                f"{container}: its shard {shard_file} is missing. Put it back, or convert the dataset again."
            )
        with shard_file.open() as shard:
            frames = own_dataset(f"{container}: its shard {shard_file}", shard, source.dset_name)
            if frames.is_virtual:
                raise FormatError(f"{container}: its shard {shard_file} has shards itself. Do not trust it.")
            is_whole = len(frames) == last + 1 - first and frames.shape[1:] == column.shape
            part = _find_part(shard_file, frames, column, str(shard.attrs.get("fingerprint", "")))
        if part is None or first != next_row or not is_whole:
            return None
        parts.append(part)
        next_row = last + 1
    return parts if next_row == len(dataset) else None


def _find_part[C: Container](container: C, dataset: h5py.Dataset, column: Column, fingerprint: str) -> Part[C] | None:
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
                f"{container}: {dataset.name!r} stores {num_chunks} of its {len(dataset)} frames. Convert the dataset "
                "again."
            )
        index = container.index(dataset, fingerprint)
    else:
        return None
    if (index.size == 0).any():
        row = int(np.flatnonzero(index.size == 0)[0])
        raise FormatError(
            f"{container}: {dataset.name!r} has no frame stored for row {row}. Convert the dataset again."
        )
    if index.stop_byte() > container.size_bytes:
        raise FormatError(f"{container}: the file is truncated. Copy or convert it again.")
    return Part(container, codec, index)
