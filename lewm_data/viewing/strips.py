"""Film strips and curves, made small: which episodes and frames a page shows, and how their bytes are packed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lewm_data.viewing.recording import Picture, Recording

MAX_PICTURE_BYTES = 20 << 20
"""Limit on the pictures of a page, in base64. A phone opens a page of this size at once."""

WEBP_QUALITY = 65
"""At heights of 56 to 192 pixels, quality 90 looks the same and takes twice the bytes."""

MAX_WEBP_SIDE = 16_383

MAX_POINTS = 240
"""Points of a curve."""

ABSENT = 65_535
"""Stands for NaN and infinite values in a packed curve."""


class StripShape(NamedTuple):
    """The size of a film strip.

    Attributes:
        num_frames: Maximum number of evenly spread frames; frames with findings are added to them.
        height: Height of the frames in pixels.
    """

    num_frames: int
    height: int


_SHAPES = ((24, StripShape(24, 192)), (100, StripShape(16, 112)), (400, StripShape(12, 72)))
_SMALLEST = StripShape(8, 56)


def strip_shape(num_strips: int) -> StripShape:
    """Returns the largest shape in which this many strips take about ten megabytes."""
    return next((shape for most, shape in _SHAPES if num_strips <= most), _SMALLEST)


def choose_episodes(candidates: NDArray[np.int64], urgent: Iterable[int], max_episodes: int) -> list[int]:
    """Chooses the episodes that get pictures.

    Args:
        candidates: Positions to choose from, ascending.
        urgent: Positions to prefer, the most urgent first; repeats are allowed.
        max_episodes: Maximum number of episodes to choose.

    Returns:
        The chosen positions, ascending. Unless all candidates fit, urgent ones take at most half of the places, and
        the others are spread evenly.
    """
    if len(candidates) <= max_episodes:
        return candidates.tolist()
    allowed = set(candidates.tolist())
    first = [position for position in dict.fromkeys(urgent) if position in allowed]
    chosen = set(first[: (max_episodes + 1) // 2])
    rest = candidates[~np.isin(candidates, list(chosen))]
    places = np.linspace(0, len(rest) - 1, max_episodes - len(chosen)).round().astype(int)
    return sorted(chosen | set(rest[places].tolist()))


def evenly(items: Sequence[int], count: int) -> list[int]:
    """Picks up to ``count`` items, evenly spread, the first and the last included."""
    if not items:
        return []
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def strip_steps(length: int, num_frames: int, also: Iterable[int] = ()) -> list[int]:
    """Chooses the steps of a film strip: evenly spread ones, and those that findings are about.

    Args:
        length: Number of steps in the episode.
        num_frames: Number of evenly spread steps, the first and the last included.
        also: Further steps; those outside the episode are ignored.
    """
    return sorted({*evenly(range(length), num_frames), *(step for step in also if 0 <= step < length)})


def run_steps(length: int, num_steps: int, frameskip: int, max_frames: int) -> tuple[int, list[int]]:
    """Chooses the steps of an example from which the page cuts windows: neighbors from the middle of an episode.

    Args:
        length: Number of steps in the episode; at least one window's.
        num_steps: Number of frames in a window.
        frameskip: Steps from one kept frame to the next.
        max_frames: Maximum number of neighbors.

    Returns:
        The first step of the example, and the steps to show, counted from that one.
    """
    span = num_steps * frameskip
    stretch = min(length, max(span, max_frames))
    first = (length - stretch) // 2
    kept = range(0, span, frameskip)
    return first, sorted({*range(min(stretch, max_frames)), *kept[:max_frames]})


def side_by_side(pictures: Sequence[Picture | None]) -> Picture | None:
    """Puts pictures of one size side by side.

    Args:
        pictures: uint8 RGB of shape (height, width, 3) each. The place of a picture that is None or that has another
            size than the first stays gray.

    Returns:
        uint8 RGB of shape (height, n * width, 3), or None if there is no picture at all.
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


def webp(picture: Picture) -> str:
    """Encodes a picture as WebP in base64.

    Args:
        picture: uint8 RGB of shape (H, W, 3); scaled down if a side is longer than ``MAX_WEBP_SIDE``.
    """
    file = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((MAX_WEBP_SIDE, MAX_WEBP_SIDE))
    image.save(file, "WEBP", quality=WEBP_QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")


class PictureBook:
    """The pictures of a page, up to a total size."""

    def __init__(self, max_bytes: int) -> None:
        """Starts an empty book.

        Args:
            max_bytes: Size of the base64 text after which the book takes no more pictures.
        """
        self.pictures: list[str] = []
        self.is_full = False
        self._bytes = 0
        self._max_bytes = max_bytes

    def strip(
        self, recording: Recording, position: int, camera: str, steps: Sequence[int], height: int
    ) -> dict[str, Any]:
        """Adds frames of one episode and camera to the book, side by side.

        Returns:
            ``picture``: the strip's number, or None if there is no picture; ``absent``: places of the frames that
            could not be read; ``aspect``: width of a frame divided by its height.
        """
        if self.is_full:
            return {"picture": None, "absent": []}
        frames = list(recording.frames(position, camera, steps, height))
        picture = side_by_side(frames)
        absent = [number for number, frame in enumerate(frames) if frame is None]
        if picture is None:
            return {"picture": None, "absent": absent}
        self.pictures.append(webp(picture))
        self._bytes += len(self.pictures[-1])
        self.is_full = self._bytes > self._max_bytes
        aspect = round(picture.shape[1] / len(frames) / picture.shape[0], 4)
        return {"picture": len(self.pictures) - 1, "absent": absent, "aspect": aspect}


def thinned(values: NDArray[np.float64], max_points: int = MAX_POINTS) -> NDArray[np.float64]:
    """Thins curves without losing a spike: each stretch of steps keeps its smallest and its largest value, in order.

    Args:
        values: (L, D).
        max_points: Maximum number of points to keep; an even number.

    Returns:
        (P, D): all values if L is at most ``max_points``, otherwise two per stretch.
    """
    length = len(values)
    if length <= max_points:
        return values
    edges = np.linspace(0, length, max_points // 2 + 1).round().astype(int)
    thin = np.empty((max_points, values.shape[1]))
    for number, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = values[start:stop]
        is_nan = np.isnan(part)
        low, high = np.where(is_nan, np.inf, part).argmin(axis=0), np.where(is_nan, -np.inf, part).argmax(axis=0)
        first, second = np.minimum(low, high), np.maximum(low, high)
        thin[2 * number] = np.take_along_axis(part, first[None], axis=0)[0]
        thin[2 * number + 1] = np.take_along_axis(part, second[None], axis=0)[0]
    return thin


def packed(values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """Packs curves as numbers from 0 to 65534 between two limits: little-endian uint16 in base64.

    Args:
        values: (P, D).
        low: (D,) values that become 0.
        high: (D,) values that become 65534.

    Returns:
        The D curves, one after the other.
    """
    width = np.where(high > low, high - low, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.clip((values - low) / width, 0, 1)
    numbers = np.where(np.isfinite(values), np.nan_to_num(share) * (ABSENT - 1), ABSENT)
    return base64.b64encode(numbers.round().astype("<u2").T.tobytes()).decode("ascii")
