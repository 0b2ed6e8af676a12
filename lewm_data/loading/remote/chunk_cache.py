"""Stored chunks that were read from an object store once, kept on the local disk up to a limit.

A sparse file mirrors the object: a chunk lies where it lies there. Beside it stand the chunks' CRC-32, and a chunk
counts as kept only where its bytes have theirs: so a process that is killed, a loss of power or a bad disk costs a
request and never a wrong picture. Nothing is replaced while it is in use: windows come in random order, and then any
share of the chunks saves as many requests as any other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import weakref
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lewm_data.config import RemoteConfig
from lewm_data.format.chunk_index import cache_folder
from lewm_data.format.data_file import Part
from lewm_data.loading.remote.remote_object import RemoteObject

logger = logging.getLogger(__name__)

_KEPT = 1 << 32
"""Set beside each CRC, so that 0 means that there is nothing."""

_BLOCK_BYTES = 4096


def remote_folder(config: RemoteConfig) -> Path:
    """The folder for what was read from object stores; nobody else may look into it."""
    folder = Path(config.cache_dir).expanduser() if config.cache_dir else cache_folder() / "remote"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class ChunkCache:
    """The kept chunks of one column in one object. Threads and processes share it."""

    def __init__(self, base: Path, *, num_chunks: int, limit_bytes: int) -> None:
        """Opens the files, or makes them.

        Args:
            base: Their path without its suffix, in a folder of such files.
            num_chunks: Chunks of the column.
            limit_bytes: Disk space that all files of the folder may take.

        Raises:
            OSError: They cannot be made.
        """
        self._folder = base.parent
        self._limit_bytes = limit_bytes
        self._room_bytes = 0
        self._data = os.open(_data_path(base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._data).atexit = False
        fcntl.flock(self._data, fcntl.LOCK_SH)  # in use; gone with the last process that has it
        sums = base.with_suffix(".crc")
        size = 8 * num_chunks
        if not sums.exists() or sums.stat().st_size != size:
            temporary = sums.with_name(f"{sums.name}.{os.getpid()}.part")
            temporary.write_bytes(bytes(size))  # in full: a map of a sparse file kills the process on a full disk
            temporary.replace(sums)
        os.utime(sums)
        self._sums: NDArray[np.uint64] = np.memmap(sums, np.uint64, "r+", shape=(num_chunks,))

    @classmethod
    def of(cls, part: Part[RemoteObject], config: RemoteConfig) -> ChunkCache | None:
        """The cache of a part, or None where none is wanted or possible.

        Files of an older version of the same object are removed, and so are the longest unused ones of other objects
        as far as the limit asks for it.
        """
        if not config.chunk_cache_bytes:
            return None
        address = _digest(part.container.address)
        version = _digest(repr(part.container.identity))
        name = f"{address}-{version}-{int(part.index.offset[0]):x}"
        try:
            folder = remote_folder(config) / "chunks"
            folder.mkdir(exist_ok=True, mode=0o700)
            for old in folder.glob(f"{address}-*.chunks"):
                if not old.name.startswith(f"{address}-{version}-"):
                    _remove(old)
            _make_room(folder, name, min(part.container.size_bytes, config.chunk_cache_bytes), config.chunk_cache_bytes)
            return cls(folder / name, num_chunks=len(part.index.offset), limit_bytes=config.chunk_cache_bytes)
        except OSError as error:
            logger.warning("%s: no chunks are kept on this disk (%s)", part.container, error)
            return None

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some chunks are kept, (n,) bool. Looks also how much room is left."""
        self._room_bytes = self._limit_bytes - _used_bytes(self._folder)
        return np.asarray(self._sums[rows]) != 0

    def get(self, row: int, offset: int, size: int) -> bytes | None:
        """A chunk's stored bytes, or None where they are not as they were."""
        try:
            stored = os.pread(self._data, size, offset)
        except OSError:
            return None
        return stored if zlib.crc32(stored) | _KEPT == int(self._sums[row]) else None

    def put(self, row: int, offset: int, stored: memoryview) -> None:
        """Keeps a chunk, where there is room."""
        taken_bytes = len(stored) + _BLOCK_BYTES  # it begins and ends within a block
        if taken_bytes > self._room_bytes:
            return
        self._room_bytes -= taken_bytes
        try:
            written = os.pwrite(self._data, stored, offset)
        except OSError as error:  # a full disk
            logger.warning("%s: no more chunks are kept (%s)", self._folder, error)
            self._room_bytes = 0
            return
        if written == len(stored):
            self._sums[row] = zlib.crc32(stored) | _KEPT


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _data_path(base: Path) -> Path:
    return base.with_suffix(".chunks")


def _used_bytes(folder: Path) -> int:
    used = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            used += entry.stat().st_blocks * 512
    return used


def _make_room(folder: Path, name: str, wanted_bytes: int, limit_bytes: int) -> None:
    """Removes other objects' files, the longest unused first, until so much fits."""
    others = [path for path in folder.glob("*.chunks") if path.stem != name]
    for path in sorted(others, key=_last_used):
        if _used_bytes(folder) + wanted_bytes <= limit_bytes:
            return
        _remove(path)


def _last_used(path: Path) -> float:
    try:
        return path.with_suffix(".crc").stat().st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    """Removes a column's files unless a process has them open."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.with_suffix(".crc").unlink(missing_ok=True)
        path.unlink()
