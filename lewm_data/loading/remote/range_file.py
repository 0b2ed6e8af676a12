"""An object in a store as a file that the HDF5 library can read its metadata from."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Buffer, Callable

BLOCK_BYTES = 256 << 10
"""HDF5 asks for a few hundred bytes here and there: a node of its chunk index lies alone among megabytes of frames."""

_MOST_BLOCKS = 256
_MOST_AHEAD = 32


class RangeFile(io.RawIOBase):
    """Reads blocks of an object and keeps the latest; where reading goes on in order, ever more of them at once."""

    def __init__(self, fetch: Callable[[int, int], Buffer], size_bytes: int) -> None:
        """Takes an object.

        Args:
            fetch: Reads its bytes [start, stop).
            size_bytes: Its size.
        """
        super().__init__()
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._num_ahead = 1

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Byte at which the next reading begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves there."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fills a buffer, or as much of it as there is."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = max(0, min(len(target), self._size_bytes - self._position))
        filled = 0
        while filled < wanted:
            number, begin = divmod(self._position + filled, BLOCK_BYTES)
            piece = self._block(number)[begin : begin + wanted - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += filled
        return filled

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        self._num_ahead = min(2 * self._num_ahead, _MOST_AHEAD) if number - 1 in self._blocks else 1
        start = number * BLOCK_BYTES
        data = memoryview(self._fetch(start, min(start + self._num_ahead * BLOCK_BYTES, self._size_bytes)))
        for i in range(0, len(data), BLOCK_BYTES):
            self._blocks[number + i // BLOCK_BYTES] = bytes(data[i : i + BLOCK_BYTES])
        while len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]
