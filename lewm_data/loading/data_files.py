"""Finds a file by path or address, and the right reader for its frames. Only this module distinguishes the two."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py

from lewm_data.errors import FormatError, ResourceError, UsageError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.data_file import DataFile, LocalFile
from lewm_data.format.hdf5 import open_file, refuse_references, register_codecs
from lewm_data.format.segments import find_segments
from lewm_data.format.virtual import shard_names
from lewm_data.loading.readers import ChunkReader, FrameReader, Hdf5Reader
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.remote.filesystems import ObjectIdentity
from lewm_data.loading.remote.metadata_cache import cached_metadata, open_metadata, parts_of
from lewm_data.loading.remote.reader import RemoteReader
from lewm_data.loading.remote.remote_object import RemoteObject
from lewm_data.machine_errors import machine_errors
from lewm_data.paths import expand, is_address, is_file, is_folder
from lewm_data.resources import Progress, silent

_DOWNLOAD_BYTES = 16 << 20
_NUM_DOWNLOADS = 8


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


def open_data_file(place: str | Path, remote: RemoteConfig | None = None, progress: Progress | None = None) -> DataFile:
    """Looks up a file.

    Args:
        place: A path, or an fsspec address.
        remote: How to read from object storage; None uses the defaults.
        progress: Called while the metadata of a remote file is read. None shows a bar on stderr.

    Returns:
        The file.

    Raises:
        UsageError: It does not exist.
        FormatError: The object at the address is not a file whose frames can be read from there.
    """
    if isinstance(place, str) and is_address(place):
        config = remote or RemoteConfig()
        obj = RemoteObject(place, config, progress)
        return RemoteFile(obj, cached_metadata(obj, config))
    path = expand(place)
    if is_folder(path):
        raise UsageError(f"{path}: a folder, not a converted file. Pass a dataset's folder as root instead.")
    if not is_file(path):
        raise UsageError(f"{path}: no such file. Convert a dataset first: lewm-data convert SOURCE OUTPUT.h5")
    return LocalFile.at(path)


def open_all(place: str | Path, remote: RemoteConfig | None = None) -> h5py.File:
    """Opens a file with the HDF5 library, frames included, for code that reads every byte, such as ``verify``.

    Args:
        place: A path, or an fsspec address. A remote file is read in order with few requests, and never stored here.
        remote: How to read from object storage; None uses the defaults.

    Returns:
        The file, open for reading. Close it, or use it as a context manager.

    Raises:
        UsageError: It does not exist.
        FormatError: It is not an HDF5 file, or a remote one that keeps data in other files.
        UnreachableError: The store does not answer, now or during a later read.

    Example:
        >>> with open_all("s3://bucket/data.h5") as file:  # doctest: +SKIP
        ...     file["pixels"].shape
        (83, 224, 224, 3)
    """
    if not is_address(place):
        return open_file(Path(place))
    register_codecs()
    obj = RemoteObject(str(place), remote or RemoteConfig())
    file = obj.open()
    with contextlib.ExitStack() as on_error:
        on_error.callback(file.close)
        refuse_references(file, obj)  # HDF5 would look for the other files on this machine
        on_error.pop_all()
    return file


@contextlib.contextmanager
def local_copy(
    place: str | Path,
    folder: Path | None = None,
    remote: RemoteConfig | None = None,
    progress: Progress = silent,
) -> Iterator[Path]:
    """Yields a path on this machine that holds a file and its shards, for code that needs one, such as ``merge``.

    Args:
        place: A path, which is yielded as it is; or an fsspec address, which is downloaded and removed afterwards.
        folder: Where to put the download; None is the system's folder for temporary files.
        remote: How to read from object storage; None uses the defaults.
        progress: Called with the address, the bytes downloaded and their total.

    Raises:
        UsageError: There is no such object.
        FormatError: The object changed while it was downloaded, or one of its shards is missing.
        UnreachableError: The store does not answer.
        ResourceError: The disk has no room for it.
    """
    if not is_address(place):
        yield Path(place)
        return
    obj = RemoteObject(str(place), remote or RemoteConfig())
    with tempfile.TemporaryDirectory(prefix="lewm_data-", dir=folder) as temporary:
        path = Path(temporary, obj.key.rpartition("/")[2].partition("?")[0] or "data.h5")
        _download(obj, path, progress)
        for name in _shards(path):
            try:
                shard = obj.sibling(name)
            except UsageError as error:
                raise FormatError(
                    f"{obj}: its shard {name} is missing. Put it back, or convert the dataset again."
                ) from error
            _download(shard, Path(temporary, name), progress)
        yield path


def _shards(path: Path) -> list[str]:
    """Names of the shards of a downloaded file; empty for what is no HDF5 file, which its reader reports."""
    with contextlib.suppress(FormatError), open_file(path) as file:
        return shard_names(file)
    return []


def _download(obj: RemoteObject, path: Path, progress: Progress) -> None:
    with machine_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if obj.size_bytes > free:
            raise ResourceError(
                f"{obj}: {obj.size_bytes / 1e6:,.0f} MB must be downloaded, but only {free / 1e6:,.0f} MB are free in "
                f"{path.parent}. Free some space, or set TMPDIR to a folder on a larger disk."
            )
        _copy(obj, path, progress)


def _copy(obj: RemoteObject, path: Path, progress: Progress) -> None:
    def copy(start: int) -> int:
        data = memoryview(obj.read(start, min(start + _DOWNLOAD_BYTES, obj.size_bytes)).data)
        return os.pwrite(file.fileno(), data, start)

    num_done = 0
    with path.open("xb") as file, ThreadPoolExecutor(_NUM_DOWNLOADS) as threads:
        for num_bytes in threads.map(copy, range(0, obj.size_bytes, _DOWNLOAD_BYTES)):
            num_done += num_bytes
            progress(str(obj), num_done, obj.size_bytes)
    if num_done != obj.size_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the system wrote less without raising an error
    obj.check_unchanged()


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
