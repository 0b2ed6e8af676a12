"""A file over ranges of bytes, through which the HDF5 library reads an object's metadata."""

from __future__ import annotations

import gc
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Buffer, Callable, Iterator
from contextlib import contextmanager

BLOCK_BYTES = 256 << 10
"""HDF5 reads metadata a few hundred bytes at a time, and the nodes of its chunk index lie scattered between frames."""

_MAX_BLOCKS_AHEAD = 32


class RangeFile(io.RawIOBase):
    """A file over byte ranges. Caches recent blocks, and reads further ahead while the reads are sequential."""

    def __init__(
        self,
        read: Callable[[int, int], Buffer],
        size_bytes: int,
        *,
        block_bytes: int = BLOCK_BYTES,
        max_blocks: int = 256,
    ) -> None:
        """Opens the file. Makes no request yet.

        Args:
            read: Reads the bytes [start, stop).
            size_bytes: Size of the file.
            block_bytes: Bytes of a block, the unit of requests.
            max_blocks: Blocks to keep in memory.
        """
        super().__init__()
        self._read = read
        self._size_bytes = size_bytes
        self._block_bytes, self._max_blocks = block_bytes, max_blocks
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._num_ahead = 1

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Byte at which the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fills a buffer, up to the end of the file."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = max(0, min(len(target), self._size_bytes - self._position))
        filled = 0
        while filled < wanted:
            number, begin = divmod(self._position + filled, self._block_bytes)
            piece = self._block(number)[begin : begin + wanted - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._position += filled
        return filled

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        self._num_ahead = min(2 * self._num_ahead, _MAX_BLOCKS_AHEAD) if number - 1 in self._blocks else 1
        size = self._block_bytes
        start = number * size
        # HDF5 reads under h5py's global lock, and this thread may wait for another one, such as fsspec's event loop.
        # A collection there that freed an h5py object would wait for that lock, and so for this thread.
        with _COLLECTOR_PAUSES.one():
            data = memoryview(self._read(start, min(start + self._num_ahead * size, self._size_bytes)))
        for i in range(0, len(data), size):
            self._blocks[number + i // size] = bytes(data[i : i + size])
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
        return self._blocks[number]


class _Pauses:
    """Pauses of the garbage collector, which may overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_running = 0
        self._was_enabled = False

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            if self._num_running == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._num_running += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_running -= 1
                if self._num_running == 0 and self._was_enabled:
                    gc.enable()


_COLLECTOR_PAUSES = _Pauses()
