"""Paths as people type them: ``~`` is the home folder, and an address such as ``s3://`` is not a path."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from lewm_data.errors import UsageError
from lewm_data.machine_errors import machine_errors

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")

_MAX_NAME_BYTES = 255
"""Longest file name on any common file system. A longer one, in a dataset's metadata, cannot exist."""


def is_address(place: str | os.PathLike[str]) -> bool:
    """Whether a place is an fsspec address, such as ``s3://bucket/data.h5``, and not a path on this machine."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def expand(place: str | os.PathLike[str]) -> Path:
    """Replaces a leading ``~`` with the home folder.

    Raises:
        UsageError: This user has no home folder, or the path cannot be written as UTF-8.
    """
    if not _is_utf8(place):
        raise _not_utf8(place)
    try:
        return Path(place).expanduser()
    except RuntimeError as error:
        if os.fspath(place).split("/")[0] != "~":  # no such user, so "~" is part of a file's name
            return Path(place)
        raise UsageError(f"{place}: this user has no home folder. Set HOME, or give the full path.") from error


def local_path(place: str | os.PathLike[str], name: str) -> Path:
    """A path on this machine, with ``~`` expanded.

    Args:
        place: What the user gave.
        name: What it is, for the message, such as ``output``.

    Raises:
        UsageError: It is an address, or there is no home folder for ``~``.
    """
    drive = Path(place).parts[:1]
    if is_address(place) or (len(drive) == 1 and drive[0].endswith(":")):  # Path("s3://bucket") is s3:/bucket
        raise UsageError(
            f"{name} is {place}, an address, but must be a path on this machine. Give such a path, then copy the file."
        )
    return expand(place)


def png_path(place: str | os.PathLike[str]) -> Path:
    """The local path of a picture to write.

    Raises:
        UsageError: It is an address, or its ending is not that of a PNG.
    """
    path = local_path(place, "png")
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the picture is a PNG. Choose a name that ends in .png.")
    return path


def is_file(path: Path) -> bool:
    """Whether there is a regular file.

    Raises:
        MachineError: The machine cannot tell, because a folder above denies access or the mount does not answer.
    """
    return _is(stat.S_ISREG, path)


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        MachineError: As for ``is_file``.
    """
    return _is(stat.S_ISDIR, path)


def walk_files(folder: Path) -> Iterator[Path]:
    """Yields every file below a folder, in sorted order; nothing if there is no such folder.

    Raises:
        MachineError: A folder cannot be listed. (``Path.rglob`` would skip it.)
    """
    for entry in sorted_entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from walk_files(folder / entry.name)
        elif is_file(folder / entry.name):
            yield folder / entry.name


def sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; empty if there is no such folder.

    Raises:
        MachineError: The folder cannot be listed.
    """
    try:
        with machine_errors(folder):
            return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_utf8(place: str | os.PathLike[str]) -> bool:
    """Whether Arrow, FFmpeg and HDF5 accept a path. Python stores bytes that it cannot decode as lone surrogates."""
    try:
        os.fspath(place).encode()
        os.fsencode(place)  # a name from metadata that the system's encoding cannot express
    except UnicodeEncodeError:
        return False
    return True


def _not_utf8(place: str | os.PathLike[str]) -> UsageError:
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        return UsageError(
            f"{place}: this Python takes the names of files for {encoding}, but this one has other letters. "
            "Set PYTHONUTF8=1 (or LANG=C.UTF-8), then run the same again."
        )
    return UsageError(f"{place}: the name is not valid UTF-8. Rename the file or folder.")


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    if not _is_utf8(path):
        raise _not_utf8(path)
    if any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in path.parts):
        return False
    try:
        with machine_errors(path):
            return kind(path.stat().st_mode)
    except (OSError, ValueError):  # nothing there, or a link in a circle
        return False
