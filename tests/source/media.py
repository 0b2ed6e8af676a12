"""Small videos for tests: any codec and pixel format, with the metadata that phones and cameras write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def encode_video(
    path: Path,
    frames: Sequence[np.ndarray | av.VideoFrame],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    **attributes: Any,
) -> Path:
    """Encodes frames, RGB arrays or PyAV's own; ``attributes`` are set on the encoder, such as ``color_range``."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        first = frames[0]
        height, width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        # For fewer frames than it delays for B-frames, x265 returns times that it never set: the muxer refuses some.
        stream.codec_context.max_b_frames = 0
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)
        for number, picture in enumerate([*frames, None]):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24") if isinstance(picture, np.ndarray) else picture
            if frame is not None:
                frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
    return path


def filter_stream(source: Path, target: Path, name: str) -> Path:
    """Passes the packets of a raw stream through one of FFmpeg's bitstream filters, such as ``h264_metadata``."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        filters = av.BitStreamFilterContext(name, stream)
        packets = [bytes(out) for packet in container.demux(stream) if packet.size for out in filters.filter(packet)]
    target.write_bytes(b"".join(packets))
    return target


def first_frame(path: Path) -> av.VideoFrame:
    """Decodes the first frame of a video."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


def set_matrix(path: Path, matrix: Sequence[float], box: bytes = b"tkhd") -> None:
    """Writes a, b, c, d into the matrix of an MP4's track (``tkhd``) or movie header (``mvhd``), version 0."""
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    content = bytearray(path.read_bytes())
    start = content.index(box) + {b"tkhd": 44, b"mvhd": 40}[box]
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def add_clean_aperture(path: Path, width: int, height: int) -> None:
    """Adds a ``clap`` box to the sample entry of an H.264 MP4 whose index is at its end."""
    clap = struct.pack(">I4s8I", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    content = bytearray(path.read_bytes())
    entry = content.index(b"avc1", content.index(b"stsd")) - 4
    (length,) = struct.unpack(">I", content[entry : entry + 4])
    content[entry + length : entry + length] = clap
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = content.index(kind, content.index(b"moov")) - 4
        (length,) = struct.unpack(">I", content[start : start + 4])
        content[start : start + 4] = struct.pack(">I", length + len(clap))
    path.write_bytes(content)


def area_average(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The exact average of each output pixel's area, float64, shape (height, width, 3)."""
    rows, columns = _overlaps(picture.shape[0], height), _overlaps(picture.shape[1], width)
    return np.einsum("yh,hwc,xw->yxc", rows, picture.astype(np.float64), columns, optimize=True)


def _overlaps(size: int, out_size: int) -> np.ndarray:
    """Share of each input pixel in each output pixel, shape (out_size, size)."""
    edges = np.arange(out_size + 1) * size / out_size
    low, high = np.arange(size), np.arange(size) + 1
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return overlap.clip(0) / (size / out_size)
