"""A local copy of everything in a remote file except its frames, valid until the object changes.

The copy is itself a small HDF5 file. It holds root attributes, episodes and small columns as they are, and the frame
columns without content. The group ``chunks`` records where each frame's chunk lies in the object. Code that opens the
copy sees the file, and opening the same object again costs one request.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lewm_data.errors import FormatError, ResourceError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.codecs import ChunkCodec
from lewm_data.format.hdf5 import check_fits, read_values, wrap_hdf5_errors
from lewm_data.format.schema import is_pixels
from lewm_data.format.segments import Segment, find_segments
from lewm_data.format.virtual import open_shard, shard_rows
from lewm_data.loading.remote.chunk_cache import remote_folder
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.remote.filesystems import ObjectIdentity
from lewm_data.loading.remote.remote_object import RemoteObject
from lewm_data.locks import exclusive

logger = logging.getLogger(__name__)

_VERSION = 2
_STAMP = "metadata_of"
_INDEX = "chunks"


def cached_metadata(obj: RemoteObject, config: RemoteConfig) -> Path:
    """The local copy of an object's metadata. Reads it from the object where there is none, or an outdated one.

    Where the cache folder cannot be written to, or the store does not show whether the object has changed since, the
    copy lies in a temporary folder until this process ends.

    Args:
        obj: The object.
        config: How to read it.

    Returns:
        An HDF5 file on this machine.

    Raises:
        FormatError: The object is not an HDF5 file, is truncated, changes meanwhile, or stores frames in a layout that
            only the HDF5 library can read.
        ResourceError: No folder of this machine has room for the copy.
    """
    name = f"{hashlib.sha256(obj.key.encode()).hexdigest()[:32]}.metadata.h5"
    reasons = []
    for folder in _folders(config, is_lasting=obj.identity.is_known):
        path = folder / name
        if _is_current(path, obj):
            return path
        try:
            with exclusive(path.with_suffix(".lock")):
                if not _is_current(path, obj):
                    logger.info("%s: reading everything except the frames into %s", obj, path)
                    _write_copy(obj, path)
            return path
        except OSError as error:  # of the local disk: the store's errors are ours
            reasons.append(f"{folder}: {error.strerror or error}")
    raise ResourceError(
        f"{obj}: its metadata must be stored on this machine, but no folder can be written to "
        f"({'; '.join(reasons) or 'there is none'}). Free disk space, or name another folder with cache_dir."
    )


def open_metadata(path: Path, obj: RemoteObject) -> h5py.File:
    """Opens the local copy that ``cached_metadata`` returned for an object.

    Raises:
        FormatError: The object has changed since.
    """
    with contextlib.suppress(OSError):
        file = h5py.File(path, "r", locking=False)
        if file.attrs.get(_STAMP) == _stamp(obj):
            return file
        file.close()
    raise FormatError(f"{obj}: the object changed while it was in use. Open it again.")


def parts_of(metadata: h5py.File, column: str, obj: RemoteObject) -> list[Segment[RemoteObject]]:
    """Where the frames of a column lie.

    Args:
        metadata: The open local copy.
        column: ``pixels`` or ``pixels_<camera>``.
        obj: The object.

    Returns:
        The parts of the column, in the order of rows.

    Raises:
        FormatError: A shard has changed.
    """
    parts = []
    group = metadata[_INDEX][column]
    for number in sorted(group, key=int):
        stored = group[number]
        container = obj.sibling(stored.attrs["name"]) if stored.attrs["name"] else obj
        if container.identity != ObjectIdentity(**json.loads(stored.attrs["identity"])):
            raise FormatError(f"{container}: the shard changed while it was in use. Open {obj} again.")
        mask = stored["mask"][:] if "mask" in stored else None
        codec = ChunkCodec(str(stored.attrs["codec"]), bool(stored.attrs["has_checksum"]))
        parts.append(Segment(container, codec, FrameIndex(stored["offset"][:], stored["size"][:], mask)))
    return parts


def _folders(config: RemoteConfig, *, is_lasting: bool) -> Iterator[Path]:
    """Where the copy may lie: if it may last, the cache folder, else a new folder that goes with this process."""
    if is_lasting:
        with contextlib.suppress(OSError, RuntimeError):  # a read-only disk, or no home directory
            yield remote_folder(config)
    with contextlib.suppress(OSError):
        folder = tempfile.mkdtemp(prefix="lewm_data-remote-")
        atexit.register(_remove_own, os.getpid(), folder)
        yield Path(folder)


def _remove_own(pid: int, folder: str) -> None:
    if os.getpid() == pid:  # a forked child inherits this
        shutil.rmtree(folder, ignore_errors=True)


def _stamp(obj: RemoteObject) -> str:
    address = obj.key
    return json.dumps({"version": _VERSION, "address": address, **dataclasses.asdict(obj.identity)})


def _is_current(path: Path, obj: RemoteObject) -> bool:
    try:
        with open_metadata(path, obj) as metadata:
            for column in metadata[_INDEX]:
                parts_of(metadata, column, obj)
        return True
    except (OSError, LookupError, ValueError, RuntimeError):  # absent, of another version, or damaged
        return False


class _OutputFile(io.FileIO):
    """A file whose writes never fail: the HDF5 library crashes the process when it cannot finish a file.

    Attributes:
        error: The first failure. What was written is not whole then.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes, unless a write has failed."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Changes the size, unless a write has failed."""
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0


def _write_copy(obj: RemoteObject, path: Path) -> None:
    """Copies the metadata of an object into a file that only this user can read. The file appears whole or not at all.

    Raises:
        OSError: The local disk refuses it.
        LewmDataError: The object cannot be read.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with obj.open() as file, _OutputFile(handle, "r+") as output:
            try:
                with wrap_hdf5_errors(str(obj)), h5py.File(output, "w") as copy:
                    _copy(obj, file, copy)
            finally:
                if output.error is not None:
                    raise output.error
        obj.check_unchanged()
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _copy(obj: RemoteObject, file: h5py.File, copy: h5py.File) -> None:
    for name, value in file.attrs.items():
        copy.attrs[name] = value
    copy.attrs[_STAMP] = _stamp(obj)
    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            raise FormatError(
                f"{obj}: {name!r} links to another file, which HDF5 would open on this machine. "
                "Store the column in the file itself."
            )
    for name in list(file):  # file.items() would hold h5py's global lock while other threads open the shards
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            continue
        if dataset.external:
            raise FormatError(
                f"{obj}: {name!r} lies in another file, which HDF5 would open on this machine. "
                "Store the column in the file itself."
            )
        if is_pixels(name):
            copy.create_dataset(name, dataset.shape, dataset.dtype)  # takes no space until it is written
            _copy_index(obj, dataset, copy.create_group(f"{_INDEX}/{name}"))
        elif dataset.is_virtual:
            copy[name] = _read_virtual(obj, dataset)
        else:
            copy[name] = read_values(str(obj), dataset) if dataset.shape else dataset[()]


def _copy_index(obj: RemoteObject, dataset: h5py.Dataset, group: h5py.Group) -> None:
    parts = find_segments(obj, dataset)
    if parts is None:
        raise FormatError(
            f"{obj}: the frames of {dataset.name.strip('/')!r} are not stored one per chunk with a codec that "
            "lewm_data decodes, so they cannot be read remotely. Download the file, or convert its source with "
            "lewm-data convert."
        )
    for number, part in enumerate(parts):
        stored = group.create_group(str(number))
        stored.attrs["name"] = part.file.name
        stored.attrs["identity"] = json.dumps(dataclasses.asdict(part.file.identity))
        stored.attrs["codec"], stored.attrs["has_checksum"] = part.codec.codec, part.codec.has_checksum
        stored["offset"], stored["size"] = part.index.offset, part.index.size
        if part.index.mask is not None:
            stored["mask"] = part.index.mask


def _read_virtual(obj: RemoteObject, dataset: h5py.Dataset) -> np.ndarray:
    """A small column of a virtual dataset, whose shards the HDF5 library would look for on the local disk."""
    check_fits(str(obj), dataset)
    values = np.empty(dataset.shape, dataset.dtype)
    for rows in shard_rows(dataset):
        with open_shard(obj, rows) as (shard, column):
            values[rows.start : rows.stop] = read_values(str(shard), column)
    return values
