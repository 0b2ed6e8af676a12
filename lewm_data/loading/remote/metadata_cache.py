"""Everything of a remote file but its frames, kept on this machine until the object changes.

The outline is itself a small HDF5 file: root attributes, episodes and small columns as they are, columns of frames
without content, and beside them, in a group, where each of their chunks lies in the object. So whoever opens the
outline sees the file, and a second opening costs one request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path

import h5py
import numpy as np
from filelock import FileLock

from lewm_data.config import RemoteConfig
from lewm_data.errors import FormatError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.codecs import ChunkCodec
from lewm_data.format.data_file import Part
from lewm_data.format.layout import Column, check_fits, find_parts, own_dataset, read_values
from lewm_data.format.schema import is_pixels
from lewm_data.loading.remote.chunk_cache import remote_folder
from lewm_data.loading.remote.remote_object import ObjectIdentity, RemoteObject

logger = logging.getLogger(__name__)

_VERSION = 1
_STAMP = "outline_of"
_INDEX = "chunks"


def outline_of(obj: RemoteObject, config: RemoteConfig) -> Path:
    """The outline of an object: the one that is kept, or a new one where the object is another now.

    Args:
        obj: The object.
        config: How to read it.

    Returns:
        An HDF5 file on this machine.

    Raises:
        FormatError: The object is no HDF5 file, is truncated, changed meanwhile, or holds frames in a layout that only
            the HDF5 library can read.
    """
    path = remote_folder(config) / f"{hashlib.sha256(obj.address.encode()).hexdigest()[:32]}.outline.h5"
    with FileLock(path.with_suffix(".lock")):
        if _is_current(path, obj):
            return path
        logger.info("%s: reading all but its frames; kept in %s for the next time", obj, path)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            with obj.open() as file, h5py.File(temporary, "w") as outline:
                _copy(obj, file, outline)
            obj.check_unchanged()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def open_outline(path: Path, obj: RemoteObject) -> h5py.File:
    """Opens the outline of an object that was opened before.

    Raises:
        FormatError: The object is another one now.
    """
    with contextlib.suppress(OSError):
        file = h5py.File(path, "r", locking="best-effort")
        if file.attrs.get(_STAMP) == _stamp(obj):
            return file
        file.close()
    raise FormatError(f"{obj}: the object changed while it was in use. Open it again.")


def parts_of(outline: h5py.File, column: str, obj: RemoteObject) -> list[Part[RemoteObject]]:
    """Where the frames of a column lie.

    Args:
        outline: The open outline.
        column: ``pixels`` or ``pixels_<camera>``.
        obj: The object.

    Returns:
        Its parts, in the order of rows.

    Raises:
        FormatError: A shard is another object now.
    """
    parts = []
    group = outline[_INDEX][column]
    for number in sorted(group, key=int):
        kept = group[number]
        container = obj if kept.attrs["address"] == obj.address else RemoteObject(kept.attrs["address"], obj.config)
        if container.identity != ObjectIdentity(**json.loads(kept.attrs["identity"])):
            raise FormatError(f"{container}: the shard changed while it was in use. Open {obj} again.")
        mask = kept["mask"][:] if "mask" in kept else None
        codec = ChunkCodec(str(kept.attrs["codec"]), bool(kept.attrs["has_checksum"]))
        parts.append(Part(container, codec, FrameIndex(kept["offset"][:], kept["size"][:], mask)))
    return parts


def _stamp(obj: RemoteObject) -> str:
    return json.dumps({"version": _VERSION, "address": obj.address, **dataclasses.asdict(obj.identity)})


def _is_current(path: Path, obj: RemoteObject) -> bool:
    try:
        with open_outline(path, obj) as outline:
            for column in outline[_INDEX]:
                parts_of(outline, column, obj)
        return True
    except (OSError, LookupError, ValueError, FormatError):  # none, of another object, or damaged
        return False


def _copy(obj: RemoteObject, file: h5py.File, outline: h5py.File) -> None:
    for name, value in file.attrs.items():
        outline.attrs[name] = value
    outline.attrs[_STAMP] = _stamp(obj)
    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            raise FormatError(f"{obj}: {name!r} is a link to another file, which would be looked for on this machine.")
    for name, dataset in file.items():
        if not isinstance(dataset, h5py.Dataset):
            continue
        if dataset.external:
            raise FormatError(f"{obj}: {name!r} lies in another file, which would be looked for on this machine.")
        if is_pixels(name):
            outline.create_dataset(name, dataset.shape, dataset.dtype)  # takes no space while nothing is written
            _copy_index(obj, dataset, file, outline.create_group(f"{_INDEX}/{name}"))
        elif dataset.is_virtual:
            outline[name] = _read_virtual(obj, dataset)
        else:
            outline[name] = read_values(obj.address, dataset) if dataset.shape else dataset[()]


def _copy_index(obj: RemoteObject, dataset: h5py.Dataset, file: h5py.File, group: h5py.Group) -> None:
    column = Column(dataset.shape[1:], dataset.dtype)
    parts = find_parts(obj, dataset, column, str(file.attrs.get("fingerprint", "")))
    if parts is None:
        raise FormatError(
            f"{obj}: the frames of {dataset.name.strip('/')!r} are not stored one in a chunk with a codec that "
            "lewm_data decodes itself, so they cannot be read from there. Download it, or convert its source with "
            "lewm-data convert."
        )
    for number, part in enumerate(parts):
        kept = group.create_group(str(number))
        kept.attrs["address"] = part.container.address
        kept.attrs["identity"] = json.dumps(dataclasses.asdict(part.container.identity))
        kept.attrs["codec"], kept.attrs["has_checksum"] = part.codec.codec, part.codec.has_checksum
        kept["offset"], kept["size"] = part.index.offset, part.index.size
        if part.index.mask is not None:
            kept["mask"] = part.index.mask


def _read_virtual(obj: RemoteObject, dataset: h5py.Dataset) -> np.ndarray:
    """A small column of a master of virtual datasets, whose shards the HDF5 library would look for on the disk."""
    check_fits(obj.address, dataset)
    values = np.empty(dataset.shape, dataset.dtype)
    for source in dataset.virtual_sources():
        (first, *_), (last, *_) = source.vspace.get_select_bounds()
        sibling = obj.sibling(source.file_name)
        with sibling.open() as shard:
            values[first : last + 1] = read_values(
                sibling.address, own_dataset(sibling.address, shard, source.dset_name)
            )
    return values
