"""An object behind an fsspec address: its identity, and ranges of its bytes with retries."""

from __future__ import annotations

import itertools
import os
from collections.abc import Buffer, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py

from lewm_data.errors import FormatError, UsageError, redact
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.hdf5 import open_hdf5
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.remote.filesystems import (
    ObjectIdentity,
    call_options,
    connect,
    is_s3,
    pin,
    read_range,
    without_credentials,
)
from lewm_data.loading.remote.range_file import RangeFile
from lewm_data.loading.remote.retries import StoreError, call_store
from lewm_data.loading.remote.signed_url import SignedUrl
from lewm_data.resources import Progress

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_INHERITED: list[Any] = []
"""Filesystems that a fork left in this process. Freeing one here would deregister its connections from the event
queue that this process shares with its parent, and the parent would wait forever."""

_CHUNKS_PER_UPDATE = 1000


class RangeRead(NamedTuple):
    """Bytes of an object.

    Attributes:
        data: (stop - start,) bytes.
        is_same_version: Whether the response itself named the version that was opened. Otherwise, call
            ``RemoteObject.check_unchanged`` before you use the bytes.
    """

    data: Buffer
    is_same_version: bool


class RemoteObject:
    """An object in a store. Any thread may read it. A copy in another process connects by itself.

    Attributes:
        address: Its address, as it was given.
        config: How to read it.
        progress: Called while its index is read. None shows a bar on stderr.
        identity: Its identity when it was opened.
        name: Of a shard, the name that its virtual dataset gives it; else empty.
    """

    def __init__(self, address: str, config: RemoteConfig, progress: Progress | None = None) -> None:
        """Connects and looks up the object's identity.

        Args:
            address: An fsspec address.
            config: How to read it.
            progress: Called while its index is read. None shows a bar on stderr.

        Raises:
            UsageError: The protocol is unknown, a package is missing, or there is no such object.
            AccessError: The store refuses access.
            UnreachableError: The store does not answer.
        """
        self.address = address
        self._shown = redact(address)
        self.config = config
        self.progress = progress
        self.name = ""
        self._connected: tuple[int, AbstractFileSystem, str] | None = None
        self._signed: SignedUrl | None = None
        try:
            self._pinned, self._is_immutable = self._call(lambda: pin(address, config))
            self.identity = self._identify()
        except FileNotFoundError as error:
            raise UsageError(f"{self}: there is no such object. Check the address.") from error

    def __str__(self) -> str:
        return self._shown

    @property
    def path(self) -> str:
        """The address without secrets, for messages and records."""
        return str(self)

    @property
    def key(self) -> str:
        """The address without credentials: the same name for the same object tomorrow, with a new signature."""
        return without_credentials(self.address)

    @property
    def size_bytes(self) -> int:
        """Its size when it was opened."""
        return self.identity.size_bytes

    def sibling(self, name: str) -> RemoteObject:
        """The object of another name in the same folder.

        Raises:
            FormatError: The name leads to another folder.
            UsageError: There is no such object.
        """
        if name.startswith("/") or "://" in name or ".." in name.split("/"):
            raise FormatError(
                f"{self}: names {name!r} as its shard, but a shard must lie in the folder of the file. "
                "Convert the dataset again."
            )
        place, mark, query = self.address.partition("?")
        found = RemoteObject(f"{place.rpartition('/')[0]}/{name}{mark}{query}", self.config, self.progress)
        found.name = name
        return found

    def open(self) -> h5py.File:
        """Opens it with the HDF5 library, for its metadata.

        Raises:
            FormatError: It is not an HDF5 file, or it is truncated.
            UnreachableError: The store stops answering.
        """
        return open_hdf5(self.file(), self)

    def file(self) -> RangeFile:
        """A read-only binary file over the object, for libraries that read files."""
        return RangeFile(lambda start, stop: self.read(start, stop).data, self.size_bytes)

    def chunk_index(self, dataset: h5py.Dataset) -> FrameIndex:
        """See ``DataFile``. Shows progress: HDF5 scatters its chunk index over the whole object."""
        from lewm_data.progress_bar import shown

        what, total, counter = f"{self}: index of {dataset.name.strip('/')}", len(dataset), itertools.count(1)
        with shown(self.progress) as show:

            def count() -> None:
                done = next(counter)
                if done % _CHUNKS_PER_UPDATE == 0 or done == total:
                    show(what, done, total)

            return FrameIndex.scan(dataset, count)

    def read(self, start: int, stop: int, *, memory: bytearray | None = None) -> RangeRead:
        """Reads the bytes [start, stop). Retries where connections drop or the store fails.

        Args:
            start: First byte.
            stop: First byte after the range.
            memory: Where the bytes may be received, ``MAX_HEAD_BYTES`` longer than the range or more. The result may
                lie in it. None takes new memory.

        Raises:
            UnreachableError: The store does not answer.
            AccessError: The store refuses access.
            FormatError: The object is gone or has changed.
        """

        def attempt(fs: AbstractFileSystem, path: str) -> RangeRead:
            try:
                response = None
                if self._signed is not None:
                    response = self._signed.read(start, stop, etag=self.identity.etag, memory=memory)
                if response is None:
                    return RangeRead(read_range(fs, path, start, stop, self.config), self._is_immutable)
                return RangeRead(response.data, bool(response.etag) and response.etag == self.identity.etag)
            except EOFError:
                self.check_unchanged()  # retrying cannot help where the object is shorter now
                raise

        try:
            return self._ask(attempt)
        except FileNotFoundError as error:
            raise self._changed() from error
        except StoreError:
            self.check_unchanged()  # the object may be shorter now, and the store refuse a range past its end
            raise

    def check_unchanged(self) -> None:
        """Makes sure that everything read so far came from the object that was opened.

        Raises:
            FormatError: The object is gone or has changed.
            UnreachableError: The store does not answer.
        """
        if self._is_immutable:
            return
        try:
            now = self._identify()
        except FileNotFoundError as error:
            raise self._changed() from error
        if now != self.identity:
            raise self._changed()

    def _changed(self) -> FormatError:
        return FormatError(f"{self}: the object changed while it was in use. Open it again.")

    def _identify(self) -> ObjectIdentity:
        def look_up(fs: AbstractFileSystem, path: str) -> dict[str, Any]:
            fs.invalidate_cache(fs._parent(path))  # the filesystem would repeat an earlier answer
            return fs.info(path, **call_options(fs, self.config))

        return ObjectIdentity.from_info(str(self), self._ask(look_up))

    def _ask[T](self, question: Callable[[AbstractFileSystem, str], T]) -> T:
        return self._call(lambda: question(*self._filesystem()))

    def _call[T](self, attempt: Callable[[], T]) -> T:
        return call_store(attempt, what=str(self), retry_seconds=self.config.retry_seconds)

    def _filesystem(self) -> tuple[AbstractFileSystem, str]:
        """This process's filesystem, and the object's path in it."""
        if self._connected is None or self._connected[0] != os.getpid():
            _INHERITED.append(self._connected)
            fs, path = connect(self._pinned, self.config)
            self._signed = SignedUrl(fs, path, self.config) if is_s3(fs) else None
            self._connected = os.getpid(), fs, path
        return self._connected[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connected": None, "_signed": None, "progress": None}
