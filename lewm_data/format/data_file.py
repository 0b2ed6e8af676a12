"""A file that holds data, wherever it lies: what finding its frames needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import h5py

from lewm_data.errors import FormatError
from lewm_data.format.chunk_index import FrameIndex, frame_index
from lewm_data.format.codecs import ChunkCodec


class Container(Protocol):
    """A file on a disk, or an object in a store."""

    @property
    def size_bytes(self) -> int:
        """Its size."""

    def exists(self) -> bool:
        """Whether it is there."""

    def sibling(self, name: str) -> Self:
        """The file of another name beside it, as virtual datasets name their shards."""

    def open(self) -> h5py.File:
        """Opens it for reading.

        Raises:
            FormatError: It is no HDF5 file, or truncated.
        """

    def index(self, dataset: h5py.Dataset, fingerprint: str) -> FrameIndex:
        """Where each chunk of a dataset lies that has one frame in a chunk.

        Args:
            dataset: Open, in this file.
            fingerprint: The file's content fingerprint.
        """


@dataclass(frozen=True, slots=True)
class Part[C: Container]:
    """A run of rows whose chunks lie in one file.

    Attributes:
        container: The file.
        codec: How its chunks were stored.
        index: Where they lie.
    """

    container: C
    codec: ChunkCodec
    index: FrameIndex


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on a disk.

    Attributes:
        path: Where it lies.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        """See ``Container``."""
        return self.path.stat().st_size

    def exists(self) -> bool:
        """See ``Container``."""
        return self.path.is_file()

    def sibling(self, name: str) -> LocalFile:
        """See ``Container``."""
        return LocalFile(self.path.parent / name)

    def open(self) -> h5py.File:
        """See ``Container``."""
        try:
            return h5py.File(self.path, "r", locking="best-effort")
        except OSError as error:
            raise not_hdf5(self, error) from error

    def index(self, dataset: h5py.Dataset, fingerprint: str) -> FrameIndex:
        """See ``Container``."""
        return frame_index(self.path, dataset, fingerprint)


def not_hdf5(container: Container, error: OSError) -> FormatError:
    """What to say where the HDF5 library cannot open a file."""
    return FormatError(f"{container}: no readable HDF5 file ({error}). It may be truncated; convert the dataset again.")
