"""How to turn or flip a stored picture upright: display matrices of videos, EXIF of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np

from lewm_data.source.media import MediaError

_TOLERANCE = 1e-2
"""Largest off-axis share of a display matrix that still counts as a quarter turn: 0.6 degrees."""


class Orientation(NamedTuple):
    """A turn by a multiple of 90 degrees, a flip, or both: first transpose, then flip.

    Attributes:
        transposed: Rows become columns.
        mirrored: Left and right change places, after the transposition.
        flipped: Top and bottom change places, after the transposition.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the upright picture, given those of the stored one, or the reverse."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Turns a picture upright.

        Args:
            picture: Shape (H, W) or (H, W, channels).

        Returns:
            A view of the same memory, shape (H, W, ...) or (W, H, ...).
        """
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]


UPRIGHT = Orientation()

_EXIF = {
    1: UPRIGHT,
    2: Orientation(mirrored=True),
    3: Orientation(mirrored=True, flipped=True),
    4: Orientation(flipped=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, mirrored=True),
    7: Orientation(transposed=True, mirrored=True, flipped=True),
    8: Orientation(transposed=True, flipped=True),
}
"""Values of the EXIF tag "Orientation" (CIPA DC-008, 4.6.5)."""


def orientation_from_exif(value: object) -> Orientation:
    """Orientation by the EXIF tag 274; upright if the value is absent or unknown, as in Pillow's ``exif_transpose``."""
    return _EXIF.get(value, UPRIGHT) if isinstance(value, int) else UPRIGHT


def orientation_from_matrix(matrix: Sequence[float]) -> Orientation | None:
    """Orientation by a display matrix (ISO/IEC 14496-12, 6.2.2), in any scale.

    A pixel at column x, row y is shown at column ``a*x + c*y``, row ``b*x + d*y``, up to a shift.

    Args:
        matrix: a, b, c, d.

    Returns:
        The orientation, or None if the matrix turns by anything but quarter turns. Some recorders leave the matrix
        all zero, which means upright.

    Example:
        >>> orientation_from_matrix((0, 1, -1, 0))  # a quarter turn clockwise, as phones write it
        Orientation(transposed=True, mirrored=True, flipped=False)
    """
    a, b, c, d = matrix
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if not straight and not crossed:
        return UPRIGHT
    if crossed <= _TOLERANCE * min(abs(a), abs(d)):
        return Orientation(mirrored=a < 0, flipped=d < 0)
    if straight <= _TOLERANCE * min(abs(b), abs(c)):
        return Orientation(transposed=True, mirrored=c < 0, flipped=b < 0)
    return None


def frame_orientation(frame: av.VideoFrame) -> Orientation:
    """Orientation by the display matrix that FFmpeg attaches to a decoded frame, from the container or the stream.

    Raises:
        MediaError: The matrix turns by anything but quarter turns.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = (np.frombuffer(matrix, np.int32, count=5) / (1 << 16)).tolist()
    return required_orientation((a, b, c, d))


def required_orientation(matrix: Sequence[float]) -> Orientation:
    """Like ``orientation_from_matrix``, but raises an error instead of returning None.

    Raises:
        MediaError: The matrix turns by anything but quarter turns.
    """
    orientation = orientation_from_matrix(matrix)
    if orientation is None:
        listed = ", ".join(f"{value:.3g}" for value in matrix)
        raise MediaError("video_rotation", "an upright video, or one turned by quarter turns", f"the matrix {listed}")
    return orientation
