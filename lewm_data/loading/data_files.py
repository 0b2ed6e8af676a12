"""Finds a file by path or address, and the right reader for its frames. Only this module distinguishes the two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py

from lewm_data.config import RemoteConfig
from lewm_data.errors import UsageError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.data_file import DataFile, LocalFile
from lewm_data.format.segments import find_segments
from lewm_data.loading.readers import ChunkReader, FrameReader, Hdf5Reader
from lewm_data.loading.remote.filesystems import ObjectIdentity, is_address
from lewm_data.loading.remote.metadata_cache import cached_metadata, open_metadata, parts_of
from lewm_data.loading.remote.reader import RemoteReader
from lewm_data.loading.remote.remote_object import RemoteObject


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A ``DataFile`` in object storage whose metadata is cached on this machine.

    Attributes:
        obj: The object.
        metadata: An HDF5 file with everything but the content of its frames.
    """

    obj: RemoteObject
    metadata: Path

    @property
    def path(self) -> str:
        """See ``DataFile``."""
        return self.obj.path

    @property
    def key(self) -> str:
        """See ``DataFile``."""
        return self.obj.key

    @property
    def identity(self) -> ObjectIdentity:
        """See ``DataFile``."""
        return self.obj.identity

    @property
    def size_bytes(self) -> int:
        """See ``DataFile``."""
        return self.obj.size_bytes

    def check_unchanged(self) -> None:
        """See ``DataFile``."""
        self.obj.check_unchanged()

    def sibling(self, name: str) -> RemoteFile:
        """See ``DataFile``."""
        obj = self.obj.sibling(name)
        return RemoteFile(obj, cached_metadata(obj, obj.config))

    def open(self) -> h5py.File:
        """See ``DataFile``."""
        return open_metadata(self.metadata, self.obj)

    def chunk_index(self, dataset: h5py.Dataset) -> FrameIndex:
        """See ``DataFile``."""
        return self.obj.chunk_index(dataset)


def open_data_file(place: str | Path, remote: RemoteConfig | None = None) -> DataFile:
    """Looks up a file.

    Args:
        place: A path, or an fsspec address.
        remote: How to read from object storage; None uses the defaults.

    Returns:
        The file.

    Raises:
        UsageError: It does not exist.
        FormatError: The object at the address is not a file whose frames can be read from there.
    """
    if isinstance(place, str) and is_address(place):
        config = remote or RemoteConfig()
        obj = RemoteObject(place, config)
        return RemoteFile(obj, cached_metadata(obj, config))
    path = Path(place)
    if path.is_dir():
        raise UsageError(f"{path}: a folder, not a converted file. Pass a dataset's folder as root instead.")
    if not path.is_file():
        raise UsageError(f"{path}: no such file. Convert a dataset first: lewm-data convert SOURCE OUTPUT.h5")
    return LocalFile.at(path)


def make_reader(data_file: DataFile, file: h5py.File, column: str, *, verify_checksums: bool) -> FrameReader:
    """Makes the fastest reader of a column of frames.

    Args:
        data_file: The file.
        file: The same file, open.
        column: ``pixels`` or ``pixels_<camera>``.
        verify_checksums: Check each chunk's checksum every time it is read.

    Raises:
        FormatError: A shard or a frame is missing, or a file is truncated.
    """
    if isinstance(data_file, RemoteFile):
        obj = data_file.obj
        return RemoteReader(parts_of(file, column, obj), obj.config, verify_checksums=verify_checksums)
    assert isinstance(data_file, LocalFile)
    segments = find_segments(data_file, file[column])
    if segments is None:
        return Hdf5Reader(data_file.path, column)
    return ChunkReader(segments, verify_checksums=verify_checksums)
