"""HDF5 files, opened for reading."""

from __future__ import annotations

from pathlib import Path

import h5py

from lewm_data.errors import FormatError


def open_file(path: Path) -> h5py.File:
    """Opens an HDF5 file to read, ready for every codec.

    Raises:
        FormatError: There is no such file, or it is no HDF5 file, or a damaged one.
    """
    import hdf5plugin  # noqa: F401  registers the codecs with HDF5

    if path.is_dir():
        raise FormatError(f"{path}: is a folder, not a converted file. A dataset's folder is converted first.")
    if not path.is_file():
        raise FormatError(f"{path}: no such file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path}: not an HDF5 file, or one that is cut off ({error}).") from error
    try:
        file["/"]  # read here, and again wherever attributes are
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        file.close()
        raise FormatError(f"{path}: a damaged HDF5 file ({error}).") from error
    return file


def refuse_references(file: h5py.File, path: Path) -> None:
    """Refuses a file whose columns lie in other files, so that it means nothing by itself.

    Raises:
        FormatError: A dataset is virtual, or stored outside.
    """
    for name, item in file.items():
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise FormatError(
                f"{path}: {name!r} lies in other files, so this one cannot be passed on alone. Join it with them: "
                f"lewm-data merge {path} OUTPUT.h5"
            )
