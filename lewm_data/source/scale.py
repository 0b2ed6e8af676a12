"""Decoded frame -> RGB array of the wanted size: color conversion and scaling in one swscale pass."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from lewm_data.config import Resize

# FFmpeg's AVColorSpace (the tag in the stream) -> swscale's table of coefficients. Untagged video counts as BT.601,
# as in LeRobot's readers. PyAV alone ignores a BT.709 tag.
_COEFFICIENTS = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_RGB_FORMATS = ("rgb", "bgr", "gbr", "gray", "pal", "mono", "ya8", "ya16")


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
    """

    def __init__(self, height: int, width: int, resize: Resize) -> None:
        self._height, self._width, self._resize = height, width, resize
        self._reformatter = VideoReformatter()

    def put(self, frame: av.VideoFrame, out: np.ndarray) -> None:
        """Converts one frame.

        Args:
            frame: A decoded frame of any size and pixel format whose colors are supported (``unknown_colors``).
            out: uint8, shape (height, width, 3), C-contiguous; overwritten.
        """
        height, width = self._scaled_size(frame.height, frame.width)
        picture = self._reformat(frame, height, width)
        plane = picture.planes[0]
        rgb = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]
        rgb = rgb.reshape(height, width, 3)
        if (height, width) == (self._height, self._width):
            out[...] = rgb
            return
        top, left = abs(self._height - height) // 2, abs(self._width - width) // 2
        if self._resize == "crop":
            out[...] = rgb[top : top + self._height, left : left + self._width]
        else:
            out.fill(0)
            out[top : top + height, left : left + width] = rgb

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

    def _reformat(self, frame: av.VideoFrame, height: int, width: int) -> av.VideoFrame:
        same_size = (height, width) == (frame.height, frame.width)
        source = int(Colorspace.DEFAULT)
        full_range = False
        if not frame.format.name.startswith(_RGB_FORMATS):
            source = _COEFFICIENTS[frame.colorspace]
            # the name of the old "yuvj" formats says full range, and swscale handles them by itself
            full_range = frame.color_range == ColorRange.JPEG and not frame.format.name.startswith("yuvj")
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=source,
            dst_colorspace=Colorspace.DEFAULT,
            interpolation=Interpolation.BILINEAR if same_size else Interpolation.AREA,
            src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
        )
