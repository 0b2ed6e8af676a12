"""Fill and empty the page cache file by file, and see how much of a file it holds."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def warm(path: Path) -> None:
    """Reads a file, or all files of a folder, into the page cache."""
    for file in _files(path):
        with open(file, "rb", buffering=0) as opened:
            while opened.read(1 << 24):
                pass


def drop(path: Path) -> None:
    """Asks the kernel to forget a file, or all files of a folder. Pages that a process has mapped stay.

    Raises:
        OSError: The system has no ``posix_fadvise``.
    """
    if not hasattr(os, "posix_fadvise"):
        raise OSError("this system has no posix_fadvise: its page cache cannot be emptied file by file")
    for file in _files(path):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())  # the kernel keeps pages that are not on the disk yet
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(path: Path) -> float:
    """Share of a file, or of all files of a folder, that the page cache holds: 0 to 1 (Linux, by ``mincore``)."""
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
            del view  # the map cannot be closed while an array views it
            if library.mincore(*arguments):
                raise OSError(ctypes.get_errno(), "mincore failed", str(file))
        total += len(pages)
        resident += int((pages & 1).sum())
    return resident / max(1, total)


def _files(path: Path) -> list[Path]:
    return [file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
