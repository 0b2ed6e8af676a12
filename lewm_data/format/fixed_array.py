"""Reads the chunk index of a dataset straight from the file, without the HDF5 library.

The library reports one chunk at a time through a Python callback, at 2 microseconds each: 20 seconds for ten million
frames. In the files that this package writes, the index is a fixed array: a table with one entry per chunk, cut into
pages. Its layout is that of the HDF5 File Format Specification, version 3.0: "Version 2 Data Object Header Prefix", the
Data Layout message of version 4, and appendix C, "The Fixed Array Index". Every block ends in a lookup3 checksum, which
is verified here. Any other layout is left to the library.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import h5py
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lewm_data.machine_errors import machine_errors

_READ_BYTES = 1 << 20
_CHECKSUM_BYTES = 4

_SIGNATURE = b"OHDR\x02"
_START_BYTES = 34  # from the signature to the size, including everything optional
_MAX_HEADER_BYTES = 1 << 20  # the size is not verified yet, so it must not decide how much memory to allocate
_MESSAGE = struct.Struct("<BHB")  # type, bytes, flags

_LAYOUT_MESSAGE = 8
_LAYOUT_START = struct.Struct("<5B")  # version, class, flags, dimensions, bytes of each dimension
_LAYOUT_END = struct.Struct("<2BQ")  # index type, page bits, address of the array's header
_CHUNKED, _FIXED_ARRAY = (4, 2, 0), 3
_ARRAY_HEADER = struct.Struct("<4s4B2Q")  # signature, version, filtered, entry bytes, page bits, entries, block address
_BLOCK_START = struct.Struct("<4s2BQ")  # signature, version, filtered, address of the array's header

_ADDRESS_BYTES = 8
_MASK_BYTES = 4
_MAX_SIZE_BYTES = 4  # frames of less than 16 MiB
_MAX_PAGE_BITS = 32
_MAX_ADDRESS = 1 << 63  # no file is that long; a chunk that was never written has address 2**64 - 1


class UnsupportedLayoutError(ValueError):
    """These bytes are damaged or in another layout, which the HDF5 library may be able to read."""


class ChunkEntries(NamedTuple):
    """Where the chunks of a dataset are.

    Attributes:
        offset: (n,) uint64, the byte of the file at which row i's chunk begins.
        size: (n,) uint32, stored bytes of the chunk.
        mask: (n,) uint8, the filters that it skipped: the lowest byte of its filter mask.
    """

    offset: NDArray[np.uint64]
    size: NDArray[np.uint32]
    mask: NDArray[np.uint8]


def read_fixed_array(path: Path, dataset: h5py.Dataset) -> ChunkEntries | None:
    """Reads where every chunk of a dataset is.

    Args:
        path: The file that holds the dataset.
        dataset: Open and chunked.

    Returns:
        One entry per row. None if only the HDF5 library can tell: a chunk is not one row, or the index is of another
        kind, lacks a row, or is damaged.
    """
    creation = dataset.file.id.get_create_plist()
    if dataset.file.mode != "r" or creation.get_sizes() != (8, 8):  # a writer's changes may not be on the disk yet
        return None
    num_rows, row_shape = len(dataset), dataset.shape[1:]
    if num_rows == 0 or dataset.chunks != (1, *row_shape) or dataset.maxshape[1:] != row_shape:
        return None
    try:
        with machine_errors(path), open(path, "rb", buffering=_READ_BYTES) as opened:
            file = MetadataFile(opened, creation.get_userblock(), os.fstat(opened.fileno()).st_size)
            address = find_array(read_messages(file, h5py.h5o.get_info(dataset.id).addr))
            array = FixedArray.parse(address, file.read_verified(address, FixedArray.HEADER_BYTES))
            chunk_bytes = dataset.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
            entries = _gather(array, _read_pages(file, array, num_rows), num_rows, chunk_bytes)
            is_confirmed = _agrees(file, dataset, array, entries)
    except (ValueError, OSError, RuntimeError):  # UnsupportedLayoutError, and HDF5's errors as h5py raises them
        return None
    entries.offset[:] += np.uint64(file.base)
    return entries if is_confirmed else None


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """A file whose addresses count from the end of its user block.

    Attributes:
        file: The file.
        base: Bytes of the user block.
        num_bytes: Bytes of the file.
    """

    file: BinaryIO
    base: int
    num_bytes: int

    def read(self, address: int, num_bytes: int) -> bytes:
        """Reads bytes that must be within the file."""
        if self.base + address + num_bytes > self.num_bytes:
            raise UnsupportedLayoutError(f"{num_bytes} bytes at address {address} extend past the end of the file")
        self.file.seek(self.base + address)
        return self.file.read(num_bytes)

    def read_verified(self, address: int, num_bytes: int) -> bytes:
        """Reads a block that ends in its checksum, and returns it without the checksum."""
        block = self.read(address, num_bytes)
        content, checksum = block[:-_CHECKSUM_BYTES], block[-_CHECKSUM_BYTES:]
        if imagecodecs.h5checksum_lookup3(content) != int.from_bytes(checksum, "little"):
            raise UnsupportedLayoutError(f"the checksum of {num_bytes} bytes at address {address} does not match")
        return content


def read_messages(file: MetadataFile, address: int) -> Iterator[tuple[int, bytes]]:
    """Reads the messages in an object header's first block, where the library puts a dataset's layout."""
    start = file.read(address, _START_BYTES)
    if not start.startswith(_SIGNATURE):
        raise UnsupportedLayoutError("not an object header of version 2")
    flags = start[len(_SIGNATURE)]
    position = len(_SIGNATURE) + 1 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    num_bytes = int.from_bytes(start[position : position + width], "little")
    if num_bytes > _MAX_HEADER_BYTES:
        raise UnsupportedLayoutError(f"an object header of {num_bytes} bytes")
    position += width
    header = file.read_verified(address, position + num_bytes + _CHECKSUM_BYTES)
    order_bytes = 2 if flags & 4 else 0
    while position + _MESSAGE.size + order_bytes <= len(header):
        kind, message_bytes, _ = _MESSAGE.unpack_from(header, position)
        position += _MESSAGE.size + order_bytes
        yield kind, header[position : position + message_bytes]
        position += message_bytes


def find_array(messages: Iterable[tuple[int, bytes]]) -> int:
    """Finds the address of a fixed array's header among a dataset's messages, given as (type, content).

    Raises:
        UnsupportedLayoutError: The dataset has another layout.
    """
    layout = next((content for kind, content in messages if kind == _LAYOUT_MESSAGE), b"")
    if len(layout) >= _LAYOUT_START.size:
        *start, num_dims, dim_bytes = _LAYOUT_START.unpack_from(layout)
        end = _LAYOUT_START.size + num_dims * dim_bytes
        if tuple(start) == _CHUNKED and len(layout) >= end + _LAYOUT_END.size:
            index, _, address = _LAYOUT_END.unpack_from(layout, end)
            if index == _FIXED_ARRAY:
                return int(address)
    raise UnsupportedLayoutError("the dataset is not chunked with a fixed array as its index")


@dataclass(frozen=True, slots=True)
class FixedArray:
    """The header of a fixed array.

    Attributes:
        address: Address of the header.
        is_filtered: Whether each entry also holds a size and a filter mask.
        entry_bytes: Bytes of an entry.
        page_entries: Entries per page; if one page holds all entries, the array has no pages.
        num_entries: Number of entries, one per row of the dataset's maximum size.
        block_address: Address of the entries.
    """

    HEADER_BYTES: ClassVar[int] = _ARRAY_HEADER.size + _CHECKSUM_BYTES

    address: int
    is_filtered: bool
    entry_bytes: int
    page_entries: int
    num_entries: int
    block_address: int

    @classmethod
    def parse(cls, address: int, header: bytes) -> FixedArray:
        """Parses a header.

        Args:
            address: Its address.
            header: Its bytes, without the checksum.

        Raises:
            UnsupportedLayoutError: It is not a header that this module knows.
        """
        signature, version, client, entry_bytes, page_bits, num_entries, block_address = _ARRAY_HEADER.unpack(header)
        size_bytes = entry_bytes - _ADDRESS_BYTES - _MASK_BYTES
        is_known = 1 <= size_bytes <= _MAX_SIZE_BYTES if client else entry_bytes == _ADDRESS_BYTES
        if (signature, version) != (b"FAHD", 0) or client > 1 or page_bits > _MAX_PAGE_BITS or not is_known:
            raise UnsupportedLayoutError("not the header of a fixed array of version 0")
        return cls(address, client == 1, entry_bytes, 1 << page_bits, num_entries, block_address)

    @property
    def size_bytes(self) -> int:
        """Bytes of a chunk's size in an entry with filters."""
        return self.entry_bytes - _ADDRESS_BYTES - _MASK_BYTES

    @property
    def entry_dtype(self) -> np.dtype[Any]:
        """The dtype of an entry; only the first ``size_bytes`` of the four bytes of ``size`` belong to it."""
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
    block = file.read_verified(array.block_address, _BLOCK_START.size + inner_bytes + _CHECKSUM_BYTES)
    if _BLOCK_START.unpack_from(block) != (b"FADB", 0, array.is_filtered, array.address):
        raise UnsupportedLayoutError("not the data block of this fixed array")
    inner = block[_BLOCK_START.size :]
    if num_pages == 1:
        yield np.frombuffer(inner, array.entry_dtype)
        return
    num_needed = -(-num_rows // array.page_entries)
    if not np.unpackbits(np.frombuffer(inner, np.uint8), count=num_needed).all():
        raise UnsupportedLayoutError("some pages were never written")
    address = array.block_address + len(block) + _CHECKSUM_BYTES
    for first in range(0, num_needed * array.page_entries, array.page_entries):
        num_entries = min(array.page_entries, array.num_entries - first)
        page = file.read_verified(address, num_entries * array.entry_bytes + _CHECKSUM_BYTES)
        yield np.frombuffer(page, array.entry_dtype)
        address += len(page) + _CHECKSUM_BYTES


def _gather(array: FixedArray, pages: Iterable[NDArray[np.void]], num_rows: int, chunk_bytes: int) -> ChunkEntries:
    """Unpacks the entries of the first rows; without filters, every chunk has ``chunk_bytes``."""
    size = np.full(num_rows, chunk_bytes, np.uint32)
    found = ChunkEntries(np.empty(num_rows, np.uint64), size, np.zeros(num_rows, np.uint8))
    row = 0
    for page in pages:
        entries = page[: num_rows - row]
        rows = slice(row, row + len(entries))
        found.offset[rows] = entries["address"]
        if array.is_filtered:
            found.size[rows] = entries["size"] & np.uint32((1 << 8 * array.size_bytes) - 1)
            found.mask[rows] = entries["mask"]
        row = rows.stop
    if row < num_rows or found.offset.max() >= _MAX_ADDRESS:
        raise UnsupportedLayoutError("some rows have no chunk")
    return found


def _agrees(file: MetadataFile, dataset: h5py.Dataset, array: FixedArray, found: ChunkEntries) -> bool:
    """Whether the HDF5 library finds a sample of chunks, including those at page boundaries, in the same place.

    ``read_direct_chunk`` looks a chunk up directly; ``get_chunk_info_by_coord`` walks through every chunk before it.
    """
    num_rows = len(found.offset)
    rows = {0, 1, array.page_entries - 1, array.page_entries, num_rows // 2, num_rows - 1}
    for row in sorted(row for row in rows if row < num_rows):
        mask, stored = dataset.id.read_direct_chunk((row, *(0 for _ in dataset.shape[1:])))
        if mask & 0xFF != found.mask[row] or stored != file.read(int(found.offset[row]), int(found.size[row])):
            return False
    return True
