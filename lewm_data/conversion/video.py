"""What a video file's header tells, before a single frame is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import av

from lewm_data.conversion.source_info import is_lfs_pointer


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoHeader:
    """Facts of a video stream.

    Attributes:
        codec: Such as ``av1`` or ``h264``.
        width: Pixels.
        height: Pixels.
        num_frames: Frames in the container's index; None where the container keeps none.
        fps: Average frame rate; None if unknown.
        start_seconds: Presentation time of the first frame.
    """

    codec: str
    width: int
    height: int
    num_frames: int | None
    fps: float | None
    start_seconds: float


class VideoProblem(Exception):
    """A video that cannot be used, told by its header.

    Attributes:
        code: Code of the catalogue.
        expected: What should have been there.
        found: What was there.
    """

    def __init__(self, code: str, expected: str, found: str) -> None:
        super().__init__(f"{code}: expected {expected}, found {found}")
        self.code, self.expected, self.found = code, expected, found


def read_header(path: Path) -> VideoHeader:
    """Reads a video file's header.

    Args:
        path: The file.

    Returns:
        What it tells of the first video stream.

    Raises:
        VideoProblem: The file is absent, empty, a Git LFS pointer, cut off, unreadable, or has no video stream.
    """
    if not path.is_file():
        raise VideoProblem("file_missing", "the file", "no such file")
    size = path.stat().st_size
    if size == 0:
        raise VideoProblem("video_empty", "a video", "0 bytes")
    if is_lfs_pointer(path):
        raise VideoProblem("lfs_pointer", "the file itself", "a Git LFS pointer")
    missing = _bytes_cut_off(path, size)
    if missing:
        raise VideoProblem("video_truncated", f"{size + missing:,} bytes", f"{size:,}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoProblem("video_no_stream", "a video stream", "none")
            stream = container.streams.video[0]
            rate = stream.average_rate
            start = stream.start_time
            return VideoHeader(
                codec=stream.codec_context.codec.canonical_name,
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                num_frames=stream.frames or None,
                fps=float(rate) if rate else None,
                start_seconds=float(start * stream.time_base) if start is not None else 0.0,
            )
    except av.FFmpegError as error:
        if _is_mp4(path) and not _has_moov(path, size):
            raise VideoProblem("video_truncated", "an MP4 index (moov)", "none: the recording was cut off") from error
        raise VideoProblem("video_unreadable", "a video", str(error)) from error


def _boxes(path: Path, size: int) -> list[tuple[bytes, int, int]]:
    """Top-level MP4 boxes as (type, offset, size); ISO/IEC 14496-12, section 4.2."""
    boxes: list[tuple[bytes, int, int]] = []
    offset = 0
    with path.open("rb") as file:
        while offset + 8 <= size and len(boxes) < 10_000:
            file.seek(offset)
            header = file.read(16)
            box_size, kind = struct.unpack(">I4s", header[:8])
            if box_size == 1 and len(header) == 16:
                box_size = struct.unpack(">Q", header[8:])[0]
            elif box_size == 0:  # to the end of the file
                box_size = size - offset
            if box_size < 8:
                break
            boxes.append((kind, offset, box_size))
            offset += box_size
    return boxes


def _is_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _has_moov(path: Path, size: int) -> bool:
    return any(kind == b"moov" for kind, *_ in _boxes(path, size))


def _bytes_cut_off(path: Path, size: int) -> int:
    """How many bytes the last box of an MP4 claims beyond the file's end."""
    boxes = _boxes(path, size) if _is_mp4(path) else []
    return max(0, boxes[-1][1] + boxes[-1][2] - size) if boxes else 0
