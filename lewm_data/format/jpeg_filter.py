"""JPEG chunks through the HDF5 library: its registered filter 32019, which neither h5py nor hdf5plugin brings along.

The loader does not need it. ``verify``, h5py and other people's readers do. Chunks and parameters are those of the
filter's reference implementation, github.com/MarkRivers/jpegHDF5: one JPEG stream a chunk, and quality, columns, rows
and 1 for RGB.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import h5py
import imagecodecs
import numpy as np

from lewm_data.format.codecs import CODECS, JPEG_FILTER_ID

_RGB = 1
_REVERSE = 0x100  # H5Z_FLAG_REVERSE: decode
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_uint,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_void_p),
)


class _FilterClass(ctypes.Structure):
    """HDF5's ``H5Z_class2_t``."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", _Callback),
    )


def filter_parameters(quality: int, height: int, width: int) -> tuple[int, int, int, int]:
    """The filter's parameters for RGB frames, as h5py's ``compression_opts`` takes them."""
    return quality, width, height, _RGB


@functools.cache
def register() -> None:
    """Teaches this process's HDF5 library to read and write JPEG chunks.

    Call it before you read a file of ``compression`` ``jpeg`` with h5py, like ``import hdf5plugin`` for other codecs.

    Raises:
        OSError: The HDF5 library refuses the filter.

    Example:
        >>> register()
        >>> h5py.h5z.filter_avail(32019)
        True
    """
    if h5py.h5z.filter_avail(JPEG_FILTER_ID):  # a plugin for the HDF5 library is installed
        return
    # Through h5py's own module, this finds the HDF5 library that h5py uses, whichever it is.
    library = ctypes.CDLL(h5py.h5z.__file__)
    library.H5allocate_memory.restype = ctypes.c_void_p
    library.H5allocate_memory.argtypes = ctypes.c_size_t, ctypes.c_bool
    library.H5free_memory.argtypes = (ctypes.c_void_p,)
    library.H5Zregister.argtypes = (ctypes.c_void_p,)

    def apply(flags: int, num: int, parameters: Any, size: int, capacity: Any, buffer: Any) -> int:
        try:
            chunk = (ctypes.c_ubyte * size).from_address(buffer[0])
            if flags & _REVERSE:
                done = _decoded(memoryview(chunk).cast("B"), parameters[2], parameters[1])
            else:
                done = _encoded(np.frombuffer(chunk, np.uint8), *parameters[:3])
            memory = library.H5allocate_memory(len(done), False)
            ctypes.memmove(memory, done, len(done))
            library.H5free_memory(buffer[0])
            buffer[0], capacity[0] = memory, len(done)
            return len(done)
        except Exception:  # 0 is how a filter reports failure
            return 0

    callback = _Callback(apply)
    description = _FilterClass(1, JPEG_FILTER_ID, 1, 1, b"jpeg", None, None, callback)
    _KEPT.extend((callback, description))
    if library.H5Zregister(ctypes.byref(description)) < 0:
        raise OSError("the HDF5 library does not accept a filter for JPEG")


_KEPT: list[object] = []
"""What the HDF5 library refers to until the process ends."""


def _decoded(stored: memoryview, height: int, width: int) -> bytes:
    out = np.empty(height * width * 3, np.uint8)
    if CODECS["jpeg"].decode(stored, out) != out.size:
        raise ValueError("the frame has another size")
    return out.tobytes()


def _encoded(frame: np.ndarray, quality: int, width: int, height: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(frame.reshape(height, width, 3), level=quality, subsampling="444"))
