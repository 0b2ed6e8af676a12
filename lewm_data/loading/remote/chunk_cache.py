"""Stored chunks from an object store, cached on the local disk up to a limit.

A sparse file mirrors the object: a chunk lies at the same offset in both. Next to it lie the chunks' CRC-32 values, and
a cached chunk is used only where its bytes match. So a killed process, a power failure or a bad disk costs a request
and never produces a wrong picture. Chunks are never replaced while the cache is in use: windows come in random order,
so any subset of the chunks saves as many requests as any other.
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

from lewm_data.format.segments import Segment
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.remote.remote_object import RemoteObject
from lewm_data.paths import local_path
from lewm_data.resources import cache_folder

logger = logging.getLogger(__name__)

_PRESENT = 1 << 32
"""Set in each entry besides the CRC, so that 0 means that the chunk is absent."""

_BLOCK_BYTES = 4096


def remote_folder(config: RemoteConfig) -> Path:
    """The folder of the caches; only this user may read it.

    Raises:
        OSError: It cannot be made.
        RuntimeError: This user has no home directory.
    """
    folder = local_path(config.cache_dir, "cache_dir") if config.cache_dir else cache_folder() / "remote"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class ChunkCache:
    """The cached chunks of one column of one object. Threads and processes share them."""

    def __init__(self, base: Path, *, num_chunks: int, limit_bytes: int) -> None:
        """Opens the files, or creates them.

        Args:
            base: Path of the files without the suffix.
            num_chunks: Chunks of the column.
            limit_bytes: Disk space for all files of the folder.

        Raises:
            OSError: They cannot be created.
        """
        self._folder = base.parent
        self._limit_bytes = limit_bytes
        self._room_bytes = 0
        self._data = os.open(_data_path(base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._data).atexit = False
        with contextlib.suppress(OSError):  # without locks, no file is ever removed
            fcntl.flock(self._data, fcntl.LOCK_SH)  # in use, until the last process closes it
        sums = base.with_suffix(".crc")
        size = 8 * num_chunks
        if not sums.exists() or sums.stat().st_size != size:
            temporary = sums.with_name(f"{sums.name}.{os.getpid()}.part")
            temporary.touch(mode=0o600)
            temporary.write_bytes(bytes(size))  # not sparse: writing to the map would kill the process on a full disk
            temporary.replace(sums)
        os.utime(sums)
        self._sums: NDArray[np.uint64] = np.memmap(sums, np.uint64, "r+", shape=(num_chunks,))

    @classmethod
    def for_part(cls, part: Segment[RemoteObject], config: RemoteConfig) -> ChunkCache | None:
        """Opens the cache of a part. Returns None where it is turned off, or impossible on this disk (logged).

        It is off too for an object whose store does not show changes: its chunks could be those of an older object.

        Removes the files of older versions of the same object, and as many of other objects as the limit requires,
        least recently used first.
        """
        if not config.chunk_cache_bytes:
            return None
        if not part.file.identity.is_known:
            logger.warning(
                "%s: the chunk cache is off, since its server reports neither ETag nor time of changes.",
                part.file,
            )
            return None
        address = _digest(part.file.key)
        version = _digest(repr(part.file.identity))
        name = f"{address}-{version}-{int(part.index.offset[0]):x}"
        try:
            folder = remote_folder(config) / "chunks"
            folder.mkdir(exist_ok=True, mode=0o700)
            for old in folder.glob(f"{address}-*.chunks"):
                if not old.name.startswith(f"{address}-{version}-"):
                    _remove(old)
            _make_room(folder, name, min(part.file.size_bytes, config.chunk_cache_bytes), config.chunk_cache_bytes)
            return cls(folder / name, num_chunks=len(part.index.offset), limit_bytes=config.chunk_cache_bytes)
        except (OSError, RuntimeError) as error:
            logger.warning(
                "%s: the chunk cache is off, since its folder cannot be used (%s). Name another one with cache_dir.",
                part.file,
                error,
            )
            return None

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which chunks are cached, (n,) bool. Also updates how much space is left."""
        self._room_bytes = self._limit_bytes - _used_bytes(self._folder)
        return np.asarray(self._sums[rows]) != 0

    def get(self, row: int, offset: int, size: int) -> bytes | None:
        """A chunk's stored bytes, or None where they are absent or do not match their CRC."""
        try:
            stored = os.pread(self._data, size, offset)
        except OSError:
            return None
        return stored if zlib.crc32(stored) | _PRESENT == int(self._sums[row]) else None

    def put(self, row: int, offset: int, stored: memoryview) -> None:
        """Caches a chunk, where there is space."""
        taken_bytes = len(stored) + _BLOCK_BYTES  # it may begin and end in mid-block
        if taken_bytes > self._room_bytes:
            return
        self._room_bytes -= taken_bytes
        try:
            written = os.pwrite(self._data, stored, offset)
        except OSError as error:  # a full disk
            logger.warning("%s: no more chunks are cached (%s)", self._folder, error)
            self._room_bytes = 0
            return
        if written == len(stored):
            self._sums[row] = zlib.crc32(stored) | _PRESENT


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
    """Removes the files of other objects, least recently used first, until the wanted bytes fit."""
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
    """Removes a column's files, unless a process has them open."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.with_suffix(".crc").unlink(missing_ok=True)
        path.unlink()
