"""A converted file, local or remote, through one protocol."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import h5py

from lewm_data.errors import FormatError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.hdf5 import open_hdf5
from lewm_data.machine_errors import machine_errors
from lewm_data.paths import is_file


class DataFile(Protocol):
    """A file on this machine, or an object in a store. A pickle of it holds its location and its identity."""

    @property
    def path(self) -> Path | str:
        """Its path, or its address."""

    @property
    def key(self) -> str:
        """A name that is the same in every process on this machine."""

    @property
    def identity(self) -> Any:
        """Identifies the version that was opened: equal as long as the content is the same."""

    @property
    def size_bytes(self) -> int:
        """Its size in bytes."""

    def check_unchanged(self) -> None:
        """Checks that this is still the file that was opened.

        Raises:
            FormatError: The file has changed or is gone.
        """

    def sibling(self, name: str) -> Self:
        """The file ``name`` in the same folder; virtual datasets name their shards this way.

        Raises:
            LewmDataError: It does not exist.
        """

    def open(self) -> h5py.File:
        """Opens it for reading. A remote file may be opened without the content of its frames.

        Raises:
            FormatError: It is not an HDF5 file, or it is truncated.
        """

    def chunk_index(self, dataset: h5py.Dataset) -> FrameIndex:
        """Finds each chunk of a dataset that holds one frame per chunk.

        Args:
            dataset: Open, in this file.
        """


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Identifies one version of a file.

    Attributes:
        size_bytes: Its size.
        mtime_ns: When it was last modified.
    """

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Reads a file's identity now."""
        with machine_errors(path):
            status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A ``DataFile`` on this machine.

    Attributes:
        path: Its path.
        identity: Its size and modification time when it was opened.
    """

    path: Path
    identity: FileIdentity

    @classmethod
    def at(cls, path: Path) -> LocalFile:
        """Makes the file at a path, as it is now."""
        return cls(path, FileIdentity.of(path))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def key(self) -> str:
        """See ``DataFile``."""
        return str(self.path.resolve())

    @property
    def size_bytes(self) -> int:
        """See ``DataFile``."""
        return self.identity.size_bytes

    def check_unchanged(self) -> None:
        """See ``DataFile``."""
        if FileIdentity.of(self.path) != self.identity:
            raise FormatError(f"{self.path}: the file changed while it was in use. Open it again.")

    def sibling(self, name: str) -> LocalFile:
        """See ``DataFile``."""
        path = self.path.parent / name
        if not is_file(path):
            raise FormatError(f"{self.path}: its shard {path} is missing. Put it back, or convert the dataset again.")
        return LocalFile.at(path)

    def open(self) -> h5py.File:
        """See ``DataFile``."""
        return open_hdf5(self.path)

    def chunk_index(self, dataset: h5py.Dataset) -> FrameIndex:
        """See ``DataFile``."""
        return FrameIndex.read(self.path, dataset)
