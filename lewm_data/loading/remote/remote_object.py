"""An object behind an fsspec address: what it is now, and ranges of its bytes, asked for again where that helps."""

from __future__ import annotations

import os
from collections.abc import Buffer, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py

from lewm_data.config import RemoteConfig
from lewm_data.errors import FormatError, LewmDataError, UnreachableError, UsageError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.data_file import not_hdf5
from lewm_data.loading.remote.filesystems import call_options, connect, is_s3, pin, read_range
from lewm_data.loading.remote.range_file import RangeFile
from lewm_data.loading.remote.retries import http_status, patiently
from lewm_data.loading.remote.signed_url import SignedUrl

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_VERSION_KEYS = (
    "ETag", "etag", "e_tag", "VersionId", "generation", "md5Hash", "content_md5", "Content-MD5", "blob_id",
    "LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created",
)  # fmt: skip
"""Under which names filesystems tell what changes with an object's content."""

_OF_PARENTS: list[Any] = []
"""Filesystems that a fork left in this process. Freeing one would close it here, and the kernel tell the parent no
more of its connections, since both share the list of them: it would wait for ever."""


@dataclass(frozen=True, slots=True)
class ObjectIdentity:
    """What tells that an object is still the one that was opened.

    Attributes:
        size_bytes: Its size.
        version: Its ETag, time and the like, as far as its filesystem tells.
    """

    size_bytes: int
    version: str


class RemoteObject:
    """An object in a store. Any thread may ask, and another process connects anew.

    Attributes:
        address: Where it is, as it was given.
        config: How to reach it.
        identity: What it was when it was opened.
    """

    def __init__(self, address: str, config: RemoteConfig) -> None:
        """Connects, and looks what the object is.

        Args:
            address: An fsspec address.
            config: How to reach it.

        Raises:
            UsageError: Nobody knows such addresses, a package is missing, access is refused, or there is no object.
            UnreachableError: The store does not answer.
        """
        self.address = address
        self.config = config
        self._connected: tuple[int, AbstractFileSystem, str] | None = None
        self._signed: SignedUrl | None = None
        try:
            self._pinned, self._is_immutable = self._patiently(lambda: pin(address, config))
            self.identity = self._identify()
        except FileNotFoundError as error:
            raise UsageError(f"{self}: there is no such object. Check the address.") from error

    def __str__(self) -> str:
        return self.address

    @property
    def size_bytes(self) -> int:
        """Its size when it was opened."""
        return self.identity.size_bytes

    def exists(self) -> bool:
        """It was there when it was opened."""
        return True

    def sibling(self, name: str) -> RemoteObject:
        """The object of another name beside it.

        Raises:
            FormatError: The name leads elsewhere.
            UsageError: There is none.
        """
        if name.startswith("/") or "://" in name or ".." in name.split("/"):
            raise FormatError(f"{self}: names {name!r} as its shard, but a shard lies beside it. Convert it again.")
        return RemoteObject(f"{self.address.rpartition('/')[0]}/{name}", self.config)

    def open(self) -> h5py.File:
        """Opens it with the HDF5 library, for its metadata.

        Raises:
            FormatError: It is no HDF5 file, or truncated.
        """
        try:
            return h5py.File(RangeFile(self.read, self.size_bytes), "r")
        except OSError as error:
            raise not_hdf5(self, error) from error

    def index(self, dataset: h5py.Dataset, fingerprint: str) -> FrameIndex:
        """See ``Container``. HDF5 keeps it in small pieces all over the object, so this shows a progress bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*bar, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"{self}: index of {dataset.name.strip('/')}", total=len(dataset))
            return FrameIndex.scan(dataset, lambda: progress.advance(task))

    def read(self, start: int, stop: int) -> Buffer:
        """Its bytes [start, stop); asks again where connections drop or the store fails.

        Raises:
            UnreachableError: It did not answer.
            FormatError: It is gone, or another one now.
        """

        def read(fs: AbstractFileSystem, path: str) -> Buffer:
            try:
                data = None if self._signed is None else self._signed.read(start, stop)
                return read_range(fs, path, start, stop, self.config) if data is None else data
            except EOFError:
                self.check_unchanged()  # a shorter object never gives more, however often it is asked
                raise

        try:
            return self._ask(read)
        except FileNotFoundError as error:
            raise self._changed() from error
        except LewmDataError:
            raise
        except Exception as error:
            self.check_unchanged()
            raise UnreachableError(f"{self}: bytes {start} to {stop} cannot be read ({error}).") from error

    def check_unchanged(self) -> None:
        """Makes sure that all that was read until now came from the object that was opened.

        Raises:
            FormatError: It is another one now, or gone.
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
        def look(fs: AbstractFileSystem, path: str) -> dict[str, Any]:
            fs.invalidate_cache(fs._parent(path))  # else it tells what it heard before
            return fs.info(path, **call_options(fs, self.config))

        info = self._ask(look)
        if info.get("type") != "file":
            raise UsageError(f"{self}: is a folder, not a file. Give the address of one converted file.")
        if info.get("size") is None:
            raise UsageError(
                f"{self}: its server does not tell its size, so it cannot be read from there. Download it."
            )
        told = [f"{key} {info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
        return ObjectIdentity(int(info["size"]), ", ".join(told))

    def _ask[T](self, question: Callable[[AbstractFileSystem, str], T]) -> T:
        return self._patiently(lambda: question(*self._filesystem()))

    def _patiently[T](self, ask: Callable[[], T]) -> T:
        """Asks until there is an answer, and puts refusals into words."""
        try:
            return patiently(ask, what=self.address, retry_seconds=self.config.retry_seconds)
        except Exception as error:
            is_refused = isinstance(error, PermissionError) or "Credentials" in type(error).__name__
            if not is_refused and http_status(error) not in (401, 403):
                raise
            raise UsageError(
                f"{self}: access is refused ({error}). Give credentials in the environment or in storage_options; a "
                "public bucket takes anon=True there."
            ) from error

    def _filesystem(self) -> tuple[AbstractFileSystem, str]:
        """This process's filesystem, and the object's path in it."""
        if self._connected is None or self._connected[0] != os.getpid():
            _OF_PARENTS.append(self._connected)
            fs, path = connect(self._pinned, self.config)
            self._signed = SignedUrl(fs, path, self.config) if is_s3(fs) else None
            self._connected = os.getpid(), fs, path
        return self._connected[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connected": None, "_signed": None}
