"""Decoded frame -> upright RGB array of the wanted size.

The scaler's versions, as recorded in the header of a converted file:

1. Colors and size in one swscale pass, which halves horizontal color resolution once more in the output. Rotation
   metadata and the range of monochrome video are ignored.
2. RGB at the frame's own size first, exactly as PyAV and LeRobot decode it, then area averaging in RGB, then rotation.
   Mean difference to cv2's ``INTER_AREA`` of LeRobot's frame: 0.01 of 255 (version 1: 1.0, and up to 90 at colored
   edges; torchvision's antialiased resize: 0.6).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from lewm_data.config import Resize
from lewm_data.source.orientation import UPRIGHT, Orientation, frame_orientation

SCALER_VERSION = 2
"""The version that conversions use."""

SCALER_VERSIONS = (1, 2)
"""The versions that ``verify --against`` can repeat."""

# FFmpeg's AVColorSpace (the tag in the stream) -> swscale's table of coefficients. Untagged video counts as BT.601,
# as in LeRobot's readers. PyAV alone ignores a BT.709 tag.
_COEFFICIENTS = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_RGB_FORMATS = ("rgb", "bgr", "gbr", "0rgb", "0bgr", "argb", "abgr", "gray", "pal", "mono", "ya8", "ya16")

_AREA = int(Interpolation.AREA) | 0x40000
"""Area averaging with swscale's SWS_ACCURATE_RND, which this PyAV does not name."""

_RGB_PLANES = (2, 0, 1)
"""Where FFmpeg's planar RGB, ``gbrp``, has red, green and blue."""

_LIMITED_TO_FULL = np.rint((np.arange(256) - 16.0) * 255 / 219).clip(0, 255).astype(np.uint8)
"""Luma of limited range (black 16, white 235) -> full range."""


class _Colors(NamedTuple):
    """Everything that determines how a frame becomes RGB. A swscale context keeps its tables, so each has its own."""

    pixel_format: str
    space: int
    is_full_range: bool


def unknown_colors(frame: av.VideoFrame) -> str | None:
    """Describes a frame's color space if it is not supported; guessing it would tint every picture.

    Returns:
        The color space in words, or None if it is supported.
    """
    if frame.format.name.startswith(_RGB_FORMATS) or frame.colorspace in _COEFFICIENTS:
        return None
    return f"color space number {frame.colorspace} in pixel format {frame.format.name}"


class Scaler:
    """Turns decoded frames into RGB arrays of one size.

    Args:
        height: Rows of the output.
        width: Columns of the output.
        resize: ``stretch`` ignores the aspect ratio, ``crop`` fills the output and cuts off the rest, ``pad`` fits
            the picture in and adds black bars.
        version: How to scale. Older versions reproduce older files.
    """

    def __init__(self, height: int, width: int, resize: Resize, *, version: int = SCALER_VERSION) -> None:
        self._height, self._width, self._resize = height, width, resize
        self._version = version
        self._colors: _Colors | None = None
        self._to_rgb, self._split, self._shrink = VideoReformatter(), VideoReformatter(), VideoReformatter()

    def put(self, frame: av.VideoFrame, out: np.ndarray, *, orientation: Orientation | None = None) -> None:
        """Converts one frame.

        Args:
            frame: A decoded frame of any size and pixel format whose colors are supported (``unknown_colors``).
            out: uint8, shape (height, width, 3), C-contiguous; overwritten.
            orientation: How to turn the frame upright; None looks at the frame's own display matrix.
        """
        if self._version == 1:
            orientation = UPRIGHT
        elif orientation is None:
            orientation = frame_orientation(frame)
        height, width = self._scaled_size(*orientation.size(frame.height, frame.width))
        size = orientation.size(height, width)
        if self._version > 1 and frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG:
            frame = _expanded(frame)
        if self._version == 1 or size == (frame.height, frame.width):
            picture = orientation.apply(_packed(self._convert(frame, *size, "rgb24")))
        else:
            picture = orientation.apply(self._area_averaged(frame, *size))
        if (height, width) == (self._height, self._width):
            out[...] = picture
            return
        top, left = abs(self._height - height) // 2, abs(self._width - width) // 2
        if self._resize == "crop":
            out[...] = picture[top : top + self._height, left : left + self._width]
        else:
            out.fill(0)
            out[top : top + height, left : left + width] = picture

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the whole picture, before cropping or padding."""
        if self._resize == "stretch":
            return self._height, self._width
        ratios = self._height / height, self._width / width
        if self._resize == "crop":
            scale = max(ratios)
            return max(self._height, round(height * scale)), max(self._width, round(width * scale))
        scale = min(ratios)
        return (
            min(self._height, max(1, round(height * scale))),
            min(self._width, max(1, round(width * scale))),
        )

    def _area_averaged(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        """Converts a frame to RGB of its own size, then averages each color plane; returns (height, width, 3)."""
        if _planar_is_exact(_colors(frame), frame.height % 2, frame.width % 32):
            planar = self._convert(frame, frame.height, frame.width, "gbrp")
        else:
            planar = self._split.reformat(self._convert(frame, frame.height, frame.width, "rgb24"), format="gbrp")
        picture = np.empty((height, width, 3), np.uint8)
        for channel, number in enumerate(_RGB_PLANES):
            plane = planar.planes[number]
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            gray = av.VideoFrame.from_numpy_buffer(rows, format="gray", width=frame.width)
            shrunk = self._shrink.reformat(gray, width=width, height=height, interpolation=_AREA)
            picture[:, :, channel] = _plane(shrunk)
        return picture

    def _convert(self, frame: av.VideoFrame, height: int, width: int, pixel_format: str) -> av.VideoFrame:
        """Converts colors, and the size if it differs, in one pass."""
        colors = _colors(frame)
        if colors != self._colors:
            self._colors, self._to_rgb = colors, VideoReformatter()
        return _reformat(self._to_rgb, frame, colors, height, width, pixel_format)


def _reformat(
    reformatter: VideoReformatter, frame: av.VideoFrame, colors: _Colors, height: int, width: int, pixel_format: str
) -> av.VideoFrame:
    same_size = (height, width) == (frame.height, frame.width)
    return reformatter.reformat(
        frame,
        width=width,
        height=height,
        format=pixel_format,
        src_colorspace=colors.space,
        dst_colorspace=Colorspace.DEFAULT,
        interpolation=Interpolation.BILINEAR if same_size else Interpolation.AREA,
        src_color_range=ColorRange.JPEG if colors.is_full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.MPEG,
    )


@cache
def _planar_is_exact(colors: _Colors, odd_rows: int, odd_columns: int) -> bool:
    """Whether swscale's conversion to planar RGB gives the same values as its conversion to packed RGB.

    It does if both have assembly code, as for ``yuv420p`` of even height on x86. Otherwise the two round or
    interpolate color differently.

    Args:
        colors: The conversion.
        odd_rows: Rows of the frame modulo 2, which select swscale's code path.
        odd_columns: Columns modulo 32, which affect the end of each row.
    """
    height, width = 64 + odd_rows, 64 + odd_columns
    frame = av.VideoFrame(width, height, colors.pixel_format)
    noise = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(noise.integers(0, 256, plane.buffer_size, np.uint8))
    packed = _packed(_reformat(VideoReformatter(), frame, colors, height, width, "rgb24"))
    planar = _reformat(VideoReformatter(), frame, colors, height, width, "gbrp")
    return all(
        np.array_equal(packed[:, :, channel], _plane(planar, number)) for channel, number in enumerate(_RGB_PLANES)
    )


def _plane(frame: av.VideoFrame, number: int = 0) -> np.ndarray:
    """One 8-bit plane as a view, shape (H, W)."""
    plane = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _packed(frame: av.VideoFrame) -> np.ndarray:
    """An rgb24 frame as a view, shape (H, W, 3)."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width * 3]
    return rows.reshape(frame.height, frame.width, 3)


def _colors(frame: av.VideoFrame) -> _Colors:
    name = frame.format.name
    if name.startswith(_RGB_FORMATS):
        return _Colors(name, int(Colorspace.DEFAULT), is_full_range=False)
    # "yuvj" formats are full range by name, and swscale handles them itself
    is_full_range = frame.color_range == ColorRange.JPEG and not name.startswith("yuvj")
    return _Colors(name, _COEFFICIENTS[frame.colorspace], is_full_range)


def _expanded(frame: av.VideoFrame) -> av.VideoFrame:
    """Expands a limited-range monochrome frame to full range, 8 bits. swscale would treat it as full range."""
    gray = frame if frame.format.name == "gray" else frame.reformat(format="gray")
    return av.VideoFrame.from_ndarray(_LIMITED_TO_FULL[_plane(gray)], format="gray")
