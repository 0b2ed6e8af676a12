"""Small pictures for pages: scaled, put side by side, and compressed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WEBP_QUALITY = 65
"""At 56 to 192 pixels of height, no difference to 90 is to be seen, at half of its bytes."""

MAX_WEBP_SIDE = 16_383


def scaled(frame: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Scales a picture down to a height, keeping its proportions.

    Args:
        frame: uint8 RGB of shape (H, W, 3).
        height: Wanted height in pixels; a smaller picture stays as it is.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    if frame.shape[0] <= height:
        return frame
    width = max(1, round(height * frame.shape[1] / frame.shape[0]))
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def side_by_side(pictures: Sequence[NDArray[np.uint8] | None]) -> NDArray[np.uint8] | None:
    """Puts pictures of one height side by side; one that is None leaves its place grey.

    Args:
        pictures: uint8 RGB of shape (height, width, 3) each; those of another size than the first are left out.

    Returns:
        uint8 RGB of shape (height, n * width, 3), or None where there is no picture at all.
    """
    first = next((picture for picture in pictures if picture is not None), None)
    if first is None:
        return None
    height, width = first.shape[:2]
    strip = np.full((height, len(pictures) * width, 3), 127, np.uint8)
    for number, picture in enumerate(pictures):
        if picture is not None and picture.shape == first.shape:
            strip[:, number * width : (number + 1) * width] = picture
    return strip


def webp(picture: NDArray[np.uint8]) -> str:
    """A picture as WebP, in base64.

    Args:
        picture: uint8 RGB of shape (H, W, 3); scaled down where a side is longer than ``MAX_WEBP_SIDE``.
    """
    file = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((MAX_WEBP_SIDE, MAX_WEBP_SIDE))
    image.save(file, "WEBP", quality=WEBP_QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")
