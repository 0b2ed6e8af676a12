"""The chunk index of a dataset whose greatest size is fixed, read from the file without the HDF5 library.

The library hands out one chunk at a time through a Python callback, 2 microseconds each: that is 20 seconds for ten
million frames. In the files that this package writes the index is a fixed array: a table of one entry a chunk, cut into
pages. Its bytes are laid out as in the HDF5 File Format Specification, version 3.0: the Data Layout message of version
4, and appendix C, "The Fixed Array Index". All of it is verified by its checksums, and whatever looks otherwise in any
way is left to the library.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.format.hdf5_metadata import CHECKSUM_BYTES, MetadataFile, UnlikeError, read_messages

_READ_BYTES = 1 << 20

_LAYOUT_MESSAGE = 8
_LAYOUT_START = struct.Struct("<5B")  # version, class, flags, dimensions, bytes of each dimension
_LAYOUT_END = struct.Struct("<2BQ")  # index type, page bits, address of the array's header
_CHUNKED, _FIXED_ARRAY = (4, 2, 0), 3
_ARRAY_HEADER = struct.Struct("<4s4B2Q")  # signature, version, filtered, entry bytes, page bits, entries, block address
_BLOCK_START = struct.Struct("<4s2BQ")  # signature, version, filtered, address of the array's header

_ADDRESS_BYTES = 8
_MASK_BYTES = 4
_MOST_SIZE_BYTES = 4  # frames of less than 16 MiB
_MOST_PAGE_BITS = 32
_NO_FILE_REACHES = 1 << 63  # and the address of a chunk that was never written is 2**64 - 1


class ChunkPlaces(NamedTuple):
    """Where the chunks of a dataset lie.

    Attributes:
        offset: (n,) uint64, byte of the file at which row i's chunk begins.
        size: (n,) uint32, bytes that it takes.
        mask: (n,) uint8, the filters that it skipped: the lowest byte of its filter mask.
    """

    offset: NDArray[np.uint64]
    size: NDArray[np.uint32]
    mask: NDArray[np.uint8]


def read_fixed_array(path: Path, dataset: h5py.Dataset) -> ChunkPlaces | None:
    """Reads where every chunk of a dataset lies.

    Args:
        path: File that the dataset lies in.
        dataset: Open and chunked.

    Returns:
        The places of all its rows; None where only the HDF5 library can tell, because a chunk is not one row, or the
        index is of another kind, does not know every row, or is damaged.
    """
    creation = dataset.file.id.get_create_plist()
    if dataset.file.mode != "r" or creation.get_sizes() != (8, 8):  # what is open for writing need not be on the disk
        return None
    num_rows, row_shape = len(dataset), dataset.shape[1:]
    if num_rows == 0 or dataset.chunks != (1, *row_shape) or dataset.maxshape[1:] != row_shape:
        return None
    try:
        with open(path, "rb", buffering=_READ_BYTES) as opened:
            file = MetadataFile(opened, creation.get_userblock(), os.fstat(opened.fileno()).st_size)
            address = find_array(read_messages(file, h5py.h5o.get_info(dataset.id).addr))
            array = FixedArray.parse(address, file.read_verified(address, FixedArray.HEADER_BYTES))
            chunk_bytes = dataset.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
            places = _gather(array, _read_pages(file, array, num_rows), num_rows, chunk_bytes)
            is_true = _agrees(file, dataset, array, places)
    except (ValueError, OSError, RuntimeError):  # UnlikeError, and any in which h5py clothes HDF5's own
        return None
    places.offset[:] += np.uint64(file.base)
    return places if is_true else None


def find_array(messages: Iterable[tuple[int, bytes]]) -> int:
    """Finds the address of a fixed array's header among a dataset's messages, as (type, content).

    Raises:
        UnlikeError: The dataset is laid out otherwise.
    """
    layout = next((content for kind, content in messages if kind == _LAYOUT_MESSAGE), b"")
    if len(layout) >= _LAYOUT_START.size:
        *what, num_dims, dim_bytes = _LAYOUT_START.unpack_from(layout)
        end = _LAYOUT_START.size + num_dims * dim_bytes
        if tuple(what) == _CHUNKED and len(layout) >= end + _LAYOUT_END.size:
            index, _, address = _LAYOUT_END.unpack_from(layout, end)
            if index == _FIXED_ARRAY:
                return int(address)
    raise UnlikeError("the layout is not in chunks found by a fixed array")


@dataclass(frozen=True, slots=True)
class FixedArray:
    """What the header of a fixed array says.

    Attributes:
        address: Where the header is.
        is_filtered: Whether an entry has a size and a filter mask behind its address.
        entry_bytes: Bytes of an entry.
        page_entries: Entries of a page; where they hold all, there are no pages.
        num_entries: Entries in all, one for each row of the dataset's greatest size.
        block_address: Where the entries are.
    """

    HEADER_BYTES: ClassVar[int] = _ARRAY_HEADER.size + CHECKSUM_BYTES

    address: int
    is_filtered: bool
    entry_bytes: int
    page_entries: int
    num_entries: int
    block_address: int

    @classmethod
    def parse(cls, address: int, header: bytes) -> FixedArray:
        """Reads a header's bytes.

        Args:
            address: Where they were.
            header: The bytes, without their checksum.

        Raises:
            UnlikeError: They are none that are known here.
        """
        signature, version, client, entry_bytes, page_bits, num_entries, block_address = _ARRAY_HEADER.unpack(header)
        size_bytes = entry_bytes - _ADDRESS_BYTES - _MASK_BYTES
        is_known = 1 <= size_bytes <= _MOST_SIZE_BYTES if client else entry_bytes == _ADDRESS_BYTES
        if (signature, version) != (b"FAHD", 0) or client > 1 or page_bits > _MOST_PAGE_BITS or not is_known:
            raise UnlikeError("it is no header of a fixed array of version 0")
        return cls(address, client == 1, entry_bytes, 1 << page_bits, num_entries, block_address)

    @property
    def size_bytes(self) -> int:
        """Bytes of a chunk's size in an entry with filters."""
        return self.entry_bytes - _ADDRESS_BYTES - _MASK_BYTES

    @property
    def entry_dtype(self) -> np.dtype[Any]:
        """An entry: of the four bytes of ``size`` only the first ``size_bytes`` belong to it."""
        if not self.is_filtered:
            return np.dtype([("address", "<u8")])
        fields = {
            "address": ("<u8", 0),
            "size": ("<u4", _ADDRESS_BYTES),
            "mask": ("u1", _ADDRESS_BYTES + self.size_bytes),
        }
        formats, offsets = zip(*fields.values(), strict=True)
        return np.dtype({"names": [*fields], "formats": formats, "offsets": offsets, "itemsize": self.entry_bytes})


def _read_pages(file: MetadataFile, array: FixedArray, num_rows: int) -> Iterator[NDArray[np.void]]:
    """Reads the entries of the first rows, page by page."""
    num_pages = -(-array.num_entries // array.page_entries)
    inner_bytes = array.num_entries * array.entry_bytes if num_pages == 1 else -(-num_pages // 8)
    block = file.read_verified(array.block_address, _BLOCK_START.size + inner_bytes + CHECKSUM_BYTES)
    if _BLOCK_START.unpack_from(block) != (b"FADB", 0, array.is_filtered, array.address):
        raise UnlikeError("it is no data block of this fixed array")
    inner = block[_BLOCK_START.size :]
    if num_pages == 1:
        yield np.frombuffer(inner, array.entry_dtype)
        return
    num_needed = -(-num_rows // array.page_entries)
    if not np.unpackbits(np.frombuffer(inner, np.uint8), count=num_needed).all():
        raise UnlikeError("it has pages that were never written")
    address = array.block_address + len(block) + CHECKSUM_BYTES
    for first in range(0, num_needed * array.page_entries, array.page_entries):
        num_entries = min(array.page_entries, array.num_entries - first)
        page = file.read_verified(address, num_entries * array.entry_bytes + CHECKSUM_BYTES)
        yield np.frombuffer(page, array.entry_dtype)
        address += len(page) + CHECKSUM_BYTES


def _gather(array: FixedArray, pages: Iterable[NDArray[np.void]], num_rows: int, chunk_bytes: int) -> ChunkPlaces:
    """Takes the entries of the first rows apart; without filters each chunk has ``chunk_bytes``."""
    size = np.full(num_rows, chunk_bytes, np.uint32)
    places = ChunkPlaces(np.empty(num_rows, np.uint64), size, np.zeros(num_rows, np.uint8))
    row = 0
    for page in pages:
        entries = page[: num_rows - row]
        rows = slice(row, row + len(entries))
        places.offset[rows] = entries["address"]
        if array.is_filtered:
            places.size[rows] = entries["size"] & np.uint32((1 << 8 * array.size_bytes) - 1)
            places.mask[rows] = entries["mask"]
        row = rows.stop
    if row < num_rows or places.offset.max() >= _NO_FILE_REACHES:
        raise UnlikeError("it does not know every row's chunk")
    return places


def _agrees(file: MetadataFile, dataset: h5py.Dataset, array: FixedArray, places: ChunkPlaces) -> bool:
    """Whether some chunks, at the borders of pages too, are those that the library finds.

    ``read_direct_chunk`` looks a chunk up at once, where ``get_chunk_info_by_coord`` goes through all before it.
    """
    num_rows = len(places.offset)
    rows = {0, 1, array.page_entries - 1, array.page_entries, num_rows // 2, num_rows - 1}
    for row in sorted(row for row in rows if row < num_rows):
        mask, stored = dataset.id.read_direct_chunk((row, *(0 for _ in dataset.shape[1:])))
        if mask & 0xFF != places.mask[row] or stored != file.read(int(places.offset[row]), int(places.size[row])):
            return False
    return True
