"""Facts and faults in the header of a video file, before any frame is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from lewm_data.machine_errors import machine_errors, raise_machine_error
from lewm_data.paths import is_file
from lewm_data.source.files import is_lfs_pointer
from lewm_data.source.media import MediaError, lacks_memory, require_readable
from lewm_data.source.mp4 import Mp4Index, Mp4Track, read_mp4
from lewm_data.source.orientation import UPRIGHT, required_orientation

_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""FFmpeg's AVColorTransferCharacteristic of HDR video -> its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoHeader:
    """What the header says of a video stream.

    Attributes:
        codec: Such as ``av1`` or ``h264``.
        width: Columns of an upright frame, in pixels.
        height: Rows of an upright frame, in pixels.
        num_frames: Frames in the container's index; None if it has no index.
        fps: Average frame rate; None if unknown.
        start_seconds: Presentation time of the first frame.
        duration_seconds: From the first frame to the end of the last; None if unknown.
        base_fps: Nominal frame rate of the stream, which all frames of a steady recording keep; None if unknown.
        player_changes: What players change in decoded frames before they show them, and the conversion does not.
    """

    codec: str
    width: int
    height: int
    num_frames: int | None
    fps: float | None
    start_seconds: float
    duration_seconds: float | None
    base_fps: float | None = None
    player_changes: tuple[str, ...] = ()


def read_header(path: Path) -> VideoHeader:
    """Reads a video file's header.

    Args:
        path: The file.

    Returns:
        What the header says of the first video stream.

    Raises:
        MediaError: The file is missing, empty, a Git LFS pointer, cut off or unreadable, has no video stream, declares
            more than one codec or frame size, or is turned by anything but quarter turns.
        MachineError, MemoryError: The machine cannot read it.
    """
    if not is_file(path):
        raise MediaError("file_missing", "the file", "no such file")
    try:
        with machine_errors(path):
            track = _check_file(path)
        with av.open(str(path), metadata_errors="replace") as container:  # titles need not be UTF-8
            return _stream_header(container, track)
    except av.FFmpegError as error:
        if not isinstance(error, MemoryError):
            raise_machine_error(error, path)
        elif lacks_memory():
            raise
        with machine_errors(path):
            require_readable(path)
        raise MediaError("video_unreadable", "a video", error.strerror or str(error)) from error
    except OSError as error:
        raise MediaError("video_unreadable", "a file that can be read", f"{error.strerror}") from error


def _check_file(path: Path) -> Mp4Track | None:
    """Checks what needs no decoder; returns the video track of an MP4."""
    size = path.stat().st_size
    if size == 0:
        raise MediaError("video_empty", "a video", "0 bytes")
    if is_lfs_pointer(path):
        raise MediaError("lfs_pointer", "the file itself", "a Git LFS pointer")
    with path.open("rb") as file:
        return _check_mp4(read_mp4(file, size), size) if file.read(8)[4:] == b"ftyp" else None


def _check_mp4(index: Mp4Index, size: int) -> Mp4Track | None:
    """Raises MediaError if an MP4 is cut off, or declares more than one codec or frame size."""
    if index.claimed_bytes > size:
        raise MediaError("video_truncated", f"{index.claimed_bytes:,} bytes", f"{size:,}")
    if not index.has_index:
        raise MediaError("video_truncated", "an MP4 index (moov)", "none: the recording was cut off")
    track = index.track
    if track is None:
        return None
    if len(track.codecs) > 1:
        raise MediaError("video_codec_changes", "one codec throughout", " and ".join(sorted(track.codecs)))
    if len(track.sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for width, height in sorted(track.sizes))
        raise MediaError("video_size_changes", "one size throughout", listed)
    return track


def _stream_header(container: av.container.InputContainer, track: Mp4Track | None) -> VideoHeader:
    stream = first_video_stream(container)
    codec, rate, start, duration = stream.codec_context, stream.average_rate, stream.start_time, stream.duration
    # in other containers than MP4, only decoded frames show it
    orientation = UPRIGHT if track is None else required_orientation(track.matrix)
    height, width = orientation.size(codec.height, codec.width)
    return VideoHeader(
        codec=codec.codec.canonical_name,
        width=width,
        height=height,
        num_frames=stream.frames or None,
        fps=float(rate) if rate else None,
        start_seconds=float(start * stream.time_base) if start is not None else 0.0,
        duration_seconds=float(duration * stream.time_base) if duration is not None else None,
        base_fps=float(stream.base_rate) if stream.base_rate else None,
        player_changes=tuple(_player_changes(stream, track)),
    )


def first_video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream of an open file.

    Raises:
        MediaError: The file has none, or its codec is unknown.
    """
    if not container.streams.video:
        raise MediaError("video_no_stream", "a video stream", "none")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError("video_unreadable", "a codec that can be decoded", "an unknown one")
    return stream


def _player_changes(stream: av.VideoStream, track: Mp4Track | None) -> list[str]:
    changes = []
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        changes.append(f"pixels of {aspect.numerator}:{aspect.denominator}, which players stretch to squares")
    codec = stream.codec_context
    if track is not None and track.shown_size is not None and track.shown_size != (codec.width, codec.height):
        width, height = track.shown_size
        changes.append(f"frames that players cut to {width:g}x{height:g}")
    transfer = _HDR_TRANSFERS.get(codec.color_trc)
    if transfer is not None:
        changes.append(f"HDR colors ({transfer}), which players tone-map")
    return changes
