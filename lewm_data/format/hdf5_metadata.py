"""Blocks of an HDF5 file's metadata, each verified by the checksum at its end, and the messages of an object header.

After the HDF5 File Format Specification, version 3.0: "Version 2 Data Object Header Prefix". Its checksum is Jenkins'
lookup3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import imagecodecs

CHECKSUM_BYTES = 4

_SIGNATURE = b"OHDR\x02"
_START_BYTES = 34  # from the signature to the size, with all that is optional
_MOST_HEADER_BYTES = 1 << 20  # a size that is not verified yet must not take all memory
_MESSAGE = struct.Struct("<BHB")  # type, bytes, flags


class UnlikeError(ValueError):
    """These bytes are not what is known here, or not whole; the HDF5 library may know better."""


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """A file, in which addresses count from behind its user block.

    Attributes:
        file: The file.
        base: Bytes of the user block.
        num_bytes: Bytes of the file.
    """

    file: BinaryIO
    base: int
    num_bytes: int

    def read(self, address: int, num_bytes: int) -> bytes:
        """Reads bytes that must lie within the file."""
        if self.base + address + num_bytes > self.num_bytes:
            raise UnlikeError(f"{num_bytes} bytes at address {address} reach past the end of the file")
        self.file.seek(self.base + address)
        return self.file.read(num_bytes)

    def read_verified(self, address: int, num_bytes: int) -> bytes:
        """Reads a block that ends in its checksum, and takes that off."""
        block = self.read(address, num_bytes)
        content, checksum = block[:-CHECKSUM_BYTES], block[-CHECKSUM_BYTES:]
        if imagecodecs.h5checksum_lookup3(content) != int.from_bytes(checksum, "little"):
            raise UnlikeError(f"the checksum of {num_bytes} bytes at address {address} does not match")
        return content


def read_messages(file: MetadataFile, address: int) -> Iterator[tuple[int, bytes]]:
    """Reads the messages in an object header's first block, where the library puts a dataset's layout."""
    start = file.read(address, _START_BYTES)
    if not start.startswith(_SIGNATURE):
        raise UnlikeError("it is no object header of version 2")
    flags = start[len(_SIGNATURE)]
    place = len(_SIGNATURE) + 1 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    num_bytes = int.from_bytes(start[place : place + width], "little")
    if num_bytes > _MOST_HEADER_BYTES:
        raise UnlikeError(f"an object header of {num_bytes} bytes")
    place += width
    header = file.read_verified(address, place + num_bytes + CHECKSUM_BYTES)
    order_bytes = 2 if flags & 4 else 0
    while place + _MESSAGE.size + order_bytes <= len(header):
        kind, message_bytes, _ = _MESSAGE.unpack_from(header, place)
        place += _MESSAGE.size + order_bytes
        yield kind, header[place : place + message_bytes]
        place += message_bytes
