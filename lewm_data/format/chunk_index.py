"""Where each frame lies in a file: byte offset, stored size and filter mask, kept beside large files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import FormatError
from lewm_data.format.fixed_array import read_fixed_array

logger = logging.getLogger(__name__)

KEPT_FROM_CHUNKS = 1_000_000
"""Chunks from which an index is kept in a file: a chunk costs 2 microseconds to scan, 0.04 to read from a fixed array,
0.012 to load from the kept file."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells that a file is still the one that was opened.

    Attributes:
        size_bytes: Its size.
        mtime_ns: When it was last modified.
    """

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Reads the identity of a file now."""
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The chunks of one dataset of one-frame chunks.

    Attributes:
        offset: (n,) uint64, byte at which row i's chunk begins.
        size: (n,) uint32, bytes that it takes; 0 where it was never written.
        mask: (n,) uint8, its filter mask, or None where every chunk passed every filter.
    """

    offset: NDArray[np.uint64]
    size: NDArray[np.uint32]
    mask: NDArray[np.uint8] | None

    @classmethod
    def read(cls, path: Path, dataset: h5py.Dataset) -> FrameIndex:
        """Takes the index from the file: in one piece where it lies there so, else chunk by chunk.

        Args:
            path: File that the dataset lies in.
            dataset: Open and chunked, with one row in a chunk.

        Returns:
            The index, one entry for each row.

        Raises:
            FormatError: The file's own index is damaged.
        """
        places = read_fixed_array(path, dataset)
        if places is None:
            return cls.scan(dataset)
        return cls(places.offset, places.size, places.mask if places.mask.any() else None)

    @classmethod
    def scan(cls, dataset: h5py.Dataset, found: Callable[[], None] | None = None) -> FrameIndex:
        """Asks HDF5 for every chunk, once.

        Args:
            dataset: Open and chunked, with one row in a chunk.
            found: Called for each chunk.

        Returns:
            The index, one entry for each row.

        Raises:
            FormatError: HDF5 cannot read it.
        """
        num_rows = len(dataset)
        offset = np.zeros(num_rows, np.uint64)
        size = np.zeros(num_rows, np.uint32)
        mask = np.zeros(num_rows, np.uint8)
        offsets, sizes, masks = (
            memoryview(offset),
            memoryview(size),
            memoryview(mask),
        )  # faster to set items of

        def note(info: tuple[tuple[int, ...], int, int, int]) -> None:
            place, filter_mask, byte_offset, num_bytes = info
            row = place[0]
            offsets[row] = byte_offset
            sizes[row] = num_bytes
            if filter_mask:
                masks[row] = filter_mask & 0xFF
            if found is not None:
                found()

        try:
            dataset.id.chunk_iter(note)
        except (ValueError, OSError, RuntimeError) as error:
            raise FormatError(
                f"{dataset.file.filename}: the places of the frames of {dataset.name!r} cannot be read ({error}). "
                "The file is damaged; copy or convert it again."
            ) from error
        return cls(offset, size, mask if mask.any() else None)

    @classmethod
    def of_contiguous(cls, dataset: h5py.Dataset) -> FrameIndex:
        """The same for a dataset that lies uncompressed in one piece."""
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
        offset = np.arange(len(dataset), dtype=np.uint64) * np.uint64(row_bytes)
        return cls(offset + np.uint64(dataset.id.get_offset()), np.full(len(dataset), row_bytes, np.uint32), None)

    def stop_byte(self) -> int:
        """First byte after the last chunk: a shorter file is truncated."""
        return int((self.offset + self.size).max()) if len(self.offset) else 0


def frame_index(path: Path, dataset: h5py.Dataset, fingerprint: str) -> FrameIndex:
    """The index of a dataset: from the file beside the data where that is current, else from the data, and then kept.

    Args:
        path: File that the dataset lies in.
        dataset: Open and chunked, with one row in a chunk.
        fingerprint: The file's content fingerprint, so that a rewritten file never meets an old index.

    Returns:
        The index. A folder that cannot be written to is no error: the user's cache folder is tried, then
        nothing kept.

    Raises:
        FormatError: The file's own index is damaged.
    """
    if len(dataset) < KEPT_FROM_CHUNKS:
        return FrameIndex.read(path, dataset)
    column = dataset.name.strip("/")
    places = _index_paths(path, column)
    identity = FileIdentity.of(path)
    stamp = f"{identity.size_bytes} {identity.mtime_ns} {len(dataset)} {column} {fingerprint}"
    for place in places:
        if (kept := _load(place, stamp, len(dataset))) is not None:
            return kept
    logger.info("%s: reading the places of %d frames of %s; kept for the next time", path, len(dataset), column)
    index = FrameIndex.read(path, dataset)
    any(_save(place, stamp, index) for place in places)
    return index


def cache_folder() -> Path:
    """This user's folder for what can be made again: ``$XDG_CACHE_HOME/lewm_data``, else ``~/.cache/lewm_data``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lewm_data"


def _index_paths(path: Path, column: str) -> tuple[Path, Path]:
    """Beside the data, and where that is not possible, in the user's cache folder."""
    name = hashlib.sha256(f"{path.resolve()}\0{column}".encode()).hexdigest()[:32]
    return path.with_name(f"{path.name}.{column}.index.npz"), cache_folder() / f"{name}.index.npz"


def _load(place: Path, stamp: str, num_rows: int) -> FrameIndex | None:
    try:
        with open(place, "rb") as file, np.load(file, allow_pickle=False) as kept:
            if bytes(kept["stamp"]).decode() != stamp:
                return None
            index = FrameIndex(kept["offset"], kept["size"], kept.get("mask"))
    # Absent, or not written by us, in whatever way.
    except (OSError, ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile):
        return None
    arrays: list[tuple[NDArray[Any], type[np.generic]]] = [(index.offset, np.uint64), (index.size, np.uint32)]
    if index.mask is not None:
        arrays.append((index.mask, np.uint8))
    return index if all(a.shape == (num_rows,) and a.dtype == dtype for a, dtype in arrays) else None


def _save(place: Path, stamp: str, index: FrameIndex) -> bool:
    arrays: dict[str, NDArray[np.generic]] = {
        "stamp": np.frombuffer(stamp.encode(), np.uint8),
        "offset": index.offset,
        "size": index.size,
    }
    if index.mask is not None:
        arrays["mask"] = index.mask
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types **kwds like its own flag
        os.replace(part, place)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        return False
    return True
