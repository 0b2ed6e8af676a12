"""Opens HDF5 files for reading, refuses datasets that other files hold, and explains every failure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import FormatError, LewmDataError, ResourceError
from lewm_data.format import jpeg_filter
from lewm_data.machine_errors import raise_machine_error
from lewm_data.paths import expand, is_file, is_folder
from lewm_data.resources import available_memory_bytes

HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError)
"""What h5py raises for a file whose bytes are damaged. An error of another class is a bug in our code."""


def register_codecs() -> None:
    """Teaches this process's HDF5 library every codec of the format."""
    import hdf5plugin  # noqa: F401  registers all but JPEG

    jpeg_filter.register()


def open_file(path: Path) -> h5py.File:
    """Opens an HDF5 file for reading, ready for every codec.

    Raises:
        FormatError: The file does not exist, is not an HDF5 file, or is damaged.
        MachineError: The machine did not let it be opened.
    """
    register_codecs()
    path = expand(path)
    if is_folder(path):
        raise FormatError(
            f"{path}: a folder, not a converted file. Convert it first: lewm-data convert {path} OUTPUT.h5"
        )
    if not is_file(path):
        raise FormatError(f"{path}: no such file.")
    file = open_hdf5(path)
    try:
        file["/"]  # read here, and again wherever attributes are
    except HDF5_ERRORS as error:
        file.close()
        raise_machine_error(error, path)
        raise FormatError(f"{path}: a damaged HDF5 file ({first_line(error)}).") from error
    return file


def open_hdf5(source: Any, where: object = None) -> h5py.File:
    """Opens a path or a file-like object with the HDF5 library.

    Args:
        source: The path or file-like object.
        where: Its name for messages, if that is not the path.

    Raises:
        FormatError: It is not an HDF5 file, or it is truncated.
        MachineError: The machine did not let it be opened.
    """
    try:
        return open_unlocked(source) if isinstance(source, Path) else h5py.File(source, "r")
    except OSError as error:
        raise_machine_error(error, where or source)
        raise FormatError(
            f"{where or source}: not a readable HDF5 file ({error}). It may be truncated; copy or convert it again."
        ) from error


def open_unlocked(path: Path | str, **options: Any) -> h5py.File:
    """Opens a file for reading without a lock, which another process may hold or a mount may lack.

    A finished file never changes, so reading needs none. HDF5 refuses a second handle with other lock settings in the
    same process, so a file that other code has opened with locks is opened the same way.

    Args:
        path: The file.
        **options: Further options of ``h5py.File``.

    Raises:
        OSError: The HDF5 library cannot open it.
    """
    try:
        return h5py.File(path, "r", locking=False, **options)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r", **options)


@contextmanager
def wrap_hdf5_errors(where: str | Path) -> Iterator[None]:
    """Turns what the HDF5 library raises for a damaged file into an error that names the file.

    Args:
        where: The file's path or address.

    Raises:
        FormatError: The HDF5 library cannot read the file.
        MachineError: The machine cannot read the file.
    """
    try:
        yield
    except LewmDataError:
        raise
    except HDF5_ERRORS as error:
        raise_machine_error(error, where)
        raise FormatError(f"{where}: the file is damaged ({first_line(error)}). Copy or convert it again.") from error


def first_line(error: BaseException) -> str:
    """An error's message without the HDF5 library's stack, or its class if there is no message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def own_dataset(where: str | Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that the file itself holds. The HDF5 library would follow links and external storage anywhere.

    Args:
        where: The file's path or address.
        file: The open file.
        name: The dataset.

    Raises:
        FormatError: There is no such dataset, or another file holds it.
    """
    plain = name.strip("/")
    if plain not in file:
        raise FormatError(f"{where}: it has no {plain!r}. Convert the dataset again.")
    is_own = "/" not in plain and isinstance(file.get(plain, getlink=True), h5py.HardLink)
    dataset = file[plain] if is_own else None
    if not isinstance(dataset, h5py.Dataset) or dataset.external:
        raise FormatError(f"{where}: {plain!r} leads out of the file. Do not trust it.")
    return dataset


def refuse_references(file: h5py.File, path: object) -> None:
    """Refuses a file that is incomplete without others.

    Raises:
        FormatError: A dataset is virtual or stored in another file.
    """
    for name, item in file.items():
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise FormatError(
                f"{path}: other files hold {name!r}, so this file is incomplete by itself. Merge it with its shards: "
                f"lewm-data merge {path} OUTPUT.h5"
            )


def check_fits(where: str | Path, dataset: h5py.Dataset, num_rows: int | None = None) -> None:
    """Refuses to read more than fits into memory.

    Args:
        where: The file's path or address.
        dataset: The column.
        num_rows: Rows to read; None means all.

    Raises:
        ResourceError: The rows are larger than the available memory.
    """
    rows = len(dataset) if num_rows is None else num_rows
    claimed, available = rows * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize, available_memory_bytes()
    if claimed > available:
        raise ResourceError(
            f"{where}: column {dataset.name.strip('/')!r} takes {claimed / 1e9:.1f} GB, but {available / 1e9:.1f} GB "
            "of memory are available. Leave it out of columns, or check where the file comes from."
        )


def read_values(where: str | Path, dataset: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Reads rows [start, stop) of a small column; all of them by default.

    Raises:
        ResourceError: The rows are larger than the available memory.
    """
    check_fits(where, dataset, len(range(len(dataset))[start:stop]))
    return np.asarray(dataset[start:stop])
