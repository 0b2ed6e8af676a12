"""Facts and faults of a video file that its header shows, before any frame is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av

from lewm_data.errors import machine_errors
from lewm_data.paths import is_file
from lewm_data.source.files import is_lfs_pointer

MAX_FRAME_PIXELS = 1 << 26
"""8192x8192, twice the pixels of 8K video. A decoder holds about twenty frames at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoHeader:
    """What the header says of a video stream.

    Attributes:
        codec: Such as ``av1`` or ``h264``.
        width: Columns of a frame, in pixels.
        height: Rows of a frame, in pixels.
        num_frames: Frames in the container's index; None if it has no index.
        fps: Average frame rate; None if unknown.
        start_seconds: Presentation time of the first frame.
        duration_seconds: From the first frame to the end of the last; None if unknown.
        base_fps: Nominal frame rate of the stream, which all frames of a steady recording keep; None if unknown.
    """

    codec: str
    width: int
    height: int
    num_frames: int | None
    fps: float | None
    start_seconds: float
    duration_seconds: float | None
    base_fps: float | None = None


class MediaError(Exception):
    """A video or a picture that cannot be used as it is.

    Attributes:
        code: Code of the finding.
        expected: What should be there.
        found: What is there.
    """

    def __init__(self, code: str, expected: str, found: str) -> None:
        super().__init__(f"{code}: expected {expected}, found {found}")
        self.code, self.expected, self.found = code, expected, found


def read_header(path: Path) -> VideoHeader:
    """Reads a video file's header.

    Args:
        path: The file.

    Returns:
        What the header says of the first video stream.

    Raises:
        MediaError: The file is missing, empty, a Git LFS pointer, cut off or unreadable, has no video stream, or
            declares more than one codec or frame size.
    """
    if not is_file(path):
        raise MediaError("file_missing", "the file", "no such file")
    try:
        with machine_errors(path):
            size = path.stat().st_size
            if size == 0:
                raise MediaError("video_empty", "a video", "0 bytes")
            if is_lfs_pointer(path):
                raise MediaError("lfs_pointer", "the file itself", "a Git LFS pointer")
            with path.open("rb") as file:
                if file.read(8)[4:] == b"ftyp":
                    _check_mp4(file, size)
            with av.open(str(path), metadata_errors="replace") as container:  # titles need not be UTF-8
                return _stream_header(container)
    except av.FFmpegError as error:
        raise MediaError("video_unreadable", "a video", error.strerror or str(error)) from error
    except OSError as error:
        raise MediaError("video_unreadable", "a file that can be read", f"{error.strerror}") from error


def _stream_header(container: av.container.InputContainer) -> VideoHeader:
    if not container.streams.video:
        raise MediaError("video_no_stream", "a video stream", "none")
    stream = container.streams.video[0]
    codec, rate, start, duration = stream.codec_context, stream.average_rate, stream.start_time, stream.duration
    if codec is None:
        raise MediaError("video_unreadable", "a codec that can be decoded", "an unknown one")
    return VideoHeader(
        codec=codec.codec.canonical_name,
        width=codec.width,
        height=codec.height,
        num_frames=stream.frames or None,
        fps=float(rate) if rate else None,
        start_seconds=float(start * stream.time_base) if start is not None else 0.0,
        duration_seconds=float(duration * stream.time_base) if duration is not None else None,
        base_fps=float(stream.base_rate) if stream.base_rate else None,
    )


# --- MP4 boxes: ISO/IEC 14496-12, section 4.2


_MAX_BOXES = 100_000
"""Boxes read at one level; a file with more is treated as an attempt to keep the reader busy."""


class _Box(NamedTuple):
    """A box: its type, and where its content is, as bytes [start, stop) of the file; ``stop`` follows from its size."""

    kind: bytes
    start: int
    stop: int


def _check_mp4(file: BinaryIO, size: int) -> None:
    """Raises MediaError if an MP4 is cut off, or declares more than one codec or frame size."""
    boxes = list(_boxes(file, 0, size))
    if boxes and boxes[-1].stop > size:
        raise MediaError("video_truncated", f"{boxes[-1].stop:,} bytes", f"{size:,}")
    moov = next((box for box in boxes if box.kind == b"moov"), None)
    if moov is None:
        raise MediaError("video_truncated", "an MP4 index (moov)", "none: the recording was cut off")
    for track in _boxes(file, moov.start, moov.stop):
        media = _inside(file, track, b"mdia")
        handler = _inside(file, media, b"hdlr")
        if handler is None or _read(file, handler.start + 8, 4) != b"vide":
            continue
        table = media
        for kind in (b"minf", b"stbl", b"stsd"):
            table = _inside(file, table, kind)
        if table is not None:
            _check_descriptions(file, table)


def _check_descriptions(file: BinaryIO, table: _Box) -> None:
    """Checks the sample descriptions (stsd): frames of one stream may use several, each with a codec and a size."""
    entries = list(_boxes(file, table.start + 8, table.stop))
    codecs = {{b"avc3": b"avc1", b"hev1": b"hvc1"}.get(entry.kind, entry.kind).decode("latin-1") for entry in entries}
    if len(codecs) > 1:
        raise MediaError("video_codec_changes", "one codec throughout", " and ".join(sorted(codecs)))
    sizes = {struct.unpack(">HH", _read(file, entry.start + 24, 4).rjust(4, b"\0")) for entry in entries}
    if len(sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise MediaError("video_size_changes", "one size throughout", listed)


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[_Box]:
    """Yields the consecutive boxes in bytes [start, stop) of a file."""
    for _ in range(_MAX_BOXES):
        header = _read(file, start, 16) if start + 8 <= stop else b""
        if len(header) < 8:
            return
        size, kind = struct.unpack(">I4s", header[:8])
        content = start + 8
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack(">Q", header[8:])
            content = start + 16
        elif size == 0:  # up to the end
            size = stop - start
        if size < content - start or not all(32 <= letter < 127 or letter == 0xA9 for letter in kind):
            return  # not a box: another program may append its own data
        yield _Box(kind, content, start + size)
        start += size


def _inside(file: BinaryIO, box: _Box | None, kind: bytes) -> _Box | None:
    """The first box of a kind within another; None if there is none."""
    return next((inner for inner in _boxes(file, box.start, box.stop) if inner.kind == kind), None) if box else None


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)
