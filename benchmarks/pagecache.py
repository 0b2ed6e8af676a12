"""What the system keeps of a file in memory: fill it, empty it, and see how much is there."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def warm(path: Path) -> None:
    """Reads a file, or all files of a folder, into the page cache."""
    for file in _files(path):
        with open(file, "rb", buffering=0) as opened:
            while opened.read(1 << 24):
                pass


def drop(path: Path) -> None:
    """Asks the system to forget a file, or all files of a folder; needs no rights, but Linux.

    Pages that a process has mapped stay; ``cached_share`` tells.

    Raises:
        OSError: The system has no ``posix_fadvise``.
    """
    if not hasattr(os, "posix_fadvise"):
        raise OSError("this system has no posix_fadvise: its page cache cannot be emptied file by file")
    for file in _files(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not yet on the disk is not forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(path: Path) -> float:
    """How much of a file, or of all files of a folder, lies in the page cache: 0 to 1 (Linux, by ``mincore``)."""
    library = ctypes.CDLL(None, use_errno=True)
    total = resident = 0
    for file in _files(path):
        size = file.stat().st_size
        if not size:
            continue
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
            view = np.frombuffer(mapped, np.uint8)
            arguments = (ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
            del view  # or the map cannot be closed
            if library.mincore(*arguments):
                raise OSError(ctypes.get_errno(), "mincore failed", str(file))
        total += len(pages)
        resident += int((pages & 1).sum())
    return resident / max(1, total)


def _files(path: Path) -> Iterator[Path]:
    return (file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
