"""Where a store's file is: on this machine or behind an address. Told apart here, and nowhere else."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py

from lewm_data.config import RemoteConfig
from lewm_data.errors import FormatError, UsageError
from lewm_data.format.chunk_index import FileIdentity
from lewm_data.format.data_file import LocalFile
from lewm_data.format.layout import Column, find_parts
from lewm_data.loading.readers import ChunkReader, FrameReader, Hdf5Reader
from lewm_data.loading.remote.filesystems import ObjectIdentity, is_address
from lewm_data.loading.remote.metadata_cache import cached_metadata, open_metadata, parts_of
from lewm_data.loading.remote.reader import RemoteReader
from lewm_data.loading.remote.remote_object import RemoteObject


class Origin(Protocol):
    """A file of which a store reads. Pickling it sends where it is and what identifies it."""

    @property
    def path(self) -> Path | str:
        """Where it is, as it was given."""

    @property
    def key(self) -> str:
        """What names it for other processes of this machine."""

    @property
    def identity(self) -> FileIdentity | ObjectIdentity:
        """What it was when it was opened."""

    def open(self) -> h5py.File:
        """Opens everything of it but, perhaps, the content of its frames.

        Raises:
            FormatError: It is no HDF5 file, truncated, or changed since it was opened first.
        """

    def check_unchanged(self) -> None:
        """Makes sure that it is still the file that was opened.

        Raises:
            FormatError: It is not.
        """

    def make_reader(self, file: h5py.File, name: str, column: Column, *, verify_checksums: bool) -> FrameReader:
        """A reader of one column of frames.

        Args:
            file: From ``open``.
            name: The column.
            column: Its shape and dtype.
            verify_checksums: Check each chunk's checksum at each reading.
        """


@dataclass(frozen=True, slots=True)
class LocalOrigin:
    """A file on this machine.

    Attributes:
        path: Where it lies.
        identity: Its size and time when it was opened.
    """

    path: Path
    identity: FileIdentity

    @property
    def key(self) -> str:
        """See ``Origin``."""
        return str(self.path.resolve())

    def open(self) -> h5py.File:
        """See ``Origin``."""
        return LocalFile(self.path).open()

    def check_unchanged(self) -> None:
        """See ``Origin``."""
        if FileIdentity.of(self.path) != self.identity:
            raise FormatError(f"{self.path}: the file changed while it was in use. Open it again.")

    def make_reader(self, file: h5py.File, name: str, column: Column, *, verify_checksums: bool) -> FrameReader:
        """See ``Origin``."""
        parts = find_parts(LocalFile(self.path), file[name], column, str(file.attrs.get("fingerprint", "")))
        if parts is None:
            warnings.warn(
                f"{self.path}: the frames of {name!r} are not stored one in a chunk with a codec that lewm_data "
                "decodes itself, so they are read through the HDF5 library, many times slower. To make this fast, "
                "convert the source with lewm-data convert, or let cache='ram' decode everything once.",
                UserWarning,
                stacklevel=5,
            )
            return Hdf5Reader(self.path, name)
        return ChunkReader(parts, verify_checksums=verify_checksums)


@dataclass(frozen=True, slots=True)
class RemoteOrigin:
    """An object in a store.

    Attributes:
        obj: The object.
        metadata: The local copy of everything but its frames.
    """

    obj: RemoteObject
    metadata: Path

    @property
    def path(self) -> str:
        """See ``Origin``."""
        return self.obj.address

    @property
    def key(self) -> str:
        """See ``Origin``."""
        return self.obj.address

    @property
    def identity(self) -> ObjectIdentity:
        """See ``Origin``."""
        return self.obj.identity

    def open(self) -> h5py.File:
        """See ``Origin``."""
        return open_metadata(self.metadata, self.obj)

    def check_unchanged(self) -> None:
        """See ``Origin``."""
        self.obj.check_unchanged()

    def make_reader(self, file: h5py.File, name: str, column: Column, *, verify_checksums: bool) -> FrameReader:
        """See ``Origin``."""
        return RemoteReader(parts_of(file, name, self.obj), self.obj.config, verify_checksums=verify_checksums)


def origin_of(place: str | Path, remote: RemoteConfig | None = None) -> Origin:
    """Looks up a file.

    Args:
        place: A path, or an fsspec address.
        remote: How to read from object storage; None takes the defaults.

    Returns:
        The file.

    Raises:
        UsageError: There is none.
        FormatError: What lies at the address is no file of frames that can be read from there.
    """
    if isinstance(place, str) and is_address(place):
        config = remote or RemoteConfig()
        obj = RemoteObject(place, config)
        return RemoteOrigin(obj, cached_metadata(obj, config))
    path = Path(place)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, not a converted file. Give a dataset's folder as root instead.")
    if not path.is_file():
        raise UsageError(f"{path}: no such file. Convert a dataset first: lewm-data convert SOURCE OUTPUT.h5")
    return LocalOrigin(path, FileIdentity.of(path))
