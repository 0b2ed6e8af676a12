"""Encoded pictures stored in Parquet rows (PNG, JPEG, WebP) -> RGB arrays."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from lewm_data.machine_errors import machine_errors
from lewm_data.paths import is_file
from lewm_data.source.media import MAX_FRAME_PIXELS, MediaError
from lewm_data.source.orientation import UPRIGHT, Orientation, orientation_from_exif
from lewm_data.source.rows import RowCursor

if TYPE_CHECKING:
    from PIL import Image

_CODECS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg8", b"RIFF": "webp"}
"""First bytes of an encoded picture -> imagecodecs' name of its codec."""

_EXIF_MARKERS = (b"Exif", b"eXIf", b"EXIF")
"""Where JPEG, PNG and WebP keep EXIF. Pillow decodes a whole PNG to look for it."""

_ORIENTATION_TAG = 0x0112


def read_images(cursor: RowCursor, root: Path, start: int, stop: int) -> Iterator[tuple[np.ndarray, Orientation]]:
    """Decodes the pictures of consecutive rows.

    Args:
        cursor: Reads the picture column, and only that one.
        root: The dataset's folder; cells may hold paths within it.
        start: First row of the Parquet file.
        stop: Last row, exclusive.

    Yields:
        For each row a uint8 RGB array of shape (H, W, 3), and how to turn it upright (EXIF); fewer if the file ends
        early.

    Raises:
        MediaError: A cell holds no picture, or one that cannot be decoded (``decode_error``).
    """
    for batch in cursor.read(start, stop):
        for value in batch.column(0):
            yield _decode(encoded_bytes(value.as_py(), root))


def _decode(data: bytes) -> tuple[np.ndarray, Orientation]:
    """Decodes one picture: gray is repeated over three channels, alpha is dropped, 16 bits are cut to 8."""
    name = next((codec for magic, codec in _CODECS.items() if data.startswith(magic)), None)
    if name is None:
        raise _undecodable(f"bytes that begin with {data[:8]!r}")
    orientation = _read_header(data)
    try:
        picture = getattr(imagecodecs, f"{name}_decode")(data)
    except (RuntimeError, ValueError) as error:  # imagecodecs' errors derive from RuntimeError
        raise _undecodable(str(error)) from error
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.ndim == 2 or picture.shape[2] < 3:
        picture = np.repeat(picture.reshape(*picture.shape[:2], -1)[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(picture[:, :, :3]), orientation


def _undecodable(found: str) -> MediaError:
    return MediaError("decode_error", "a PNG, JPEG or WebP", found)


def _read_header(data: bytes) -> Orientation:
    """Reads the orientation, after checking the size: decoding a few bytes can allocate the gigabytes they claim."""
    from PIL import Image  # 20 MB, which only pictures in Parquet need

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as picture:
            is_small = picture.width * picture.height <= MAX_FRAME_PIXELS
            if is_small and any(marker in data for marker in _EXIF_MARKERS):
                return _exif_orientation(picture)
    except Image.DecompressionBombError:
        is_small = False
    except OSError as error:  # Pillow's, about the bytes: no file is read here
        raise _undecodable(str(error)) from error
    if not is_small:
        raise _undecodable(f"a picture of more than {MAX_FRAME_PIXELS:,} pixels")
    return UPRIGHT


def _exif_orientation(picture: Image.Image) -> Orientation:
    try:
        return orientation_from_exif(picture.getexif().get(_ORIENTATION_TAG))
    except (KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error):  # the picture itself may be fine
        return UPRIGHT


def encoded_bytes(value: object, root: Path) -> bytes:
    """The encoded picture of a cell, which holds its bytes or a path within the dataset's folder."""
    if isinstance(value, dict):
        if value.get("bytes"):
            return bytes(value["bytes"])
        value = value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        path = (root / value).resolve()
        if path.is_relative_to(root.resolve()) and is_file(path):
            with machine_errors(path):
                return path.read_bytes()
    raise MediaError("decode_error", "an encoded picture", f"{str(value)[:60]!r}")
