"""One open video file -> decoded frames from any time on. Seeks only where that is faster than decoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av

from lewm_data.resources import return_free_memory
from lewm_data.source.media import MAX_FRAME_PIXELS, MediaError, lacks_memory
from lewm_data.source.orientation import Orientation, frame_orientation
from lewm_data.source.video import first_video_stream

_SKIP_SECONDS = 2.0
"""Decode through a gap this short instead of seeking, because seeking flushes the decoder."""

_SPARSE_KEYFRAMES = 3
"""When single frames are wanted, seek over a gap of more than this many keyframes. With LeRobot's AV1 (a keyframe every
2 frames, 12 pictures of 290) this is 5 times as fast; where keyframes are rare, a seek decodes more than it saves."""


class TimedFrame(NamedTuple):
    """A decoded frame.

    Attributes:
        frame: The frame as it is stored.
        orientation: How to turn it upright.
        seconds: Its time since the episode's start.
    """

    frame: av.VideoFrame
    orientation: Orientation
    seconds: float


class VideoReader:
    """An open video that remembers its position, so that consecutive episodes need no seeking.

    Args:
        root: The dataset's folder.
        file: The video, relative to it.
        threads: Threads of the decoder.
        sparse: Whether you will read single frames with gaps between them, rather than whole episodes.
    """

    def __init__(self, root: Path, file: str, threads: int, *, sparse: bool) -> None:
        self.file = file
        self._path = str(root / file)
        self._threads = threads
        self._sparse = sparse
        self._last_key: float | None = None  # time of the last keyframe; None after a seek
        self._key_spacing: float | None = None  # longest stretch without a keyframe so far
        self._container: av.container.InputContainer | None = None
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._next: av.VideoFrame | None = None
        self._size = (0, 0)  # width and height in the file's header
        self._rotation = 0
        self._orientation: Orientation | None = None
        self._drained = False  # a decoder that has reached the end accepts no more packets

    def close(self) -> None:
        """Closes the file and frees the decoder; reading again reopens it."""
        self._next = None
        self._drained = False
        self._decoded = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None
            return_free_memory()

    def frames(self, start_seconds: float, first_step: int, fps: float) -> Iterator[TimedFrame]:
        """Decodes frames in presentation order, up to the end of the file.

        Args:
            start_seconds: Where the episode starts, in seconds since the file's first frame.
            first_step: First step of the episode that is wanted.
            fps: Steps per second.

        Yields:
            Each frame with its orientation and its time.

        Raises:
            MediaError: The frame size changes, a frame has no presentation time, or it is turned by anything but
                quarter turns.
            av.FFmpegError: FFmpeg cannot read or decode the file.
            MemoryError: The machine has too little memory.
        """
        try:
            self._position(start_seconds + first_step / fps, fps)
            while (frame := self._take()) is not None:
                orientation = self._orientation_of(frame)
                if (frame.width, frame.height) != self._size:  # also if the change is in an earlier episode
                    width, height = orientation.size(*self._size)
                    found_width, found_height = orientation.size(frame.width, frame.height)
                    raise MediaError(
                        "video_size_changes", f"{width}x{height} throughout", f"{found_width}x{found_height}"
                    )
                yield TimedFrame(frame, orientation, self._seconds(frame) - start_seconds)
        except av.FFmpegError as error:
            is_starved = isinstance(error, MemoryError) and lacks_memory()
            self.close()  # the decoder may be in any state
            if isinstance(error, MemoryError) and not is_starved:
                raise MediaError("decode_error", "a picture", f"sizes that no memory holds ({error})") from error
            raise

    def _position(self, start_seconds: float, fps: float) -> None:
        """Moves to the first frame of a span: the one within half a frame of its start, or the first one after it."""
        first_wanted = start_seconds - 0.5 / fps
        peeked = self._peek() if self._container is not None else None
        if peeked is None or not 0 <= start_seconds - self._seconds(peeked) + 0.5 / fps <= self._skip_seconds():
            self._seek(start_seconds)
            peeked = self._peek()
            if peeked is not None and self._seconds(peeked) > first_wanted + 1 / fps:
                self._seek(None)  # the index led past the frame, so decode from the start of the file
        while (peeked := self._peek()) is not None and self._seconds(peeked) < first_wanted:
            self._take()

    def _skip_seconds(self) -> float:
        if not self._sparse or self._key_spacing is None:
            return _SKIP_SECONDS
        return min(_SKIP_SECONDS, _SPARSE_KEYFRAMES * self._key_spacing)

    def _seek(self, seconds: float | None) -> None:
        self._next = self._last_key = None
        if self._drained or seconds is None:
            self.close()
        if self._container is None:
            self._container = av.open(self._path, metadata_errors="replace")  # titles need not be UTF-8
            stream = first_video_stream(self._container)
            self._size = stream.codec_context.width, stream.codec_context.height
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads
            # the stream may claim another size than its container, and may change it later
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        stream = self._container.streams.video[0]
        if seconds:
            offset = int(seconds / stream.time_base) + (stream.start_time or 0)
            self._container.seek(offset, stream=stream, backward=True)
        self._decoded = self._container.decode(stream)

    def _peek(self) -> av.VideoFrame | None:
        if self._next is None:
            self._next = next(self._decoded, None)
            self._drained = self._next is None
            if self._sparse and self._next is not None and self._next.key_frame and self._next.pts is not None:
                seconds = self._seconds(self._next)
                if self._last_key is not None:
                    self._key_spacing = max(self._key_spacing or 0.0, seconds - self._last_key)
                self._last_key = seconds
        return self._next

    def _take(self) -> av.VideoFrame | None:
        frame, self._next = self._peek(), None
        return frame

    def _orientation_of(self, frame: av.VideoFrame) -> Orientation:
        """Reads the display matrix of the first frame, and again when the angle changes.

        Reading it ties a frame into a reference cycle, which keeps its memory until Python collects garbage. A
        container has one matrix for all frames; a stream may change it.
        """
        if self._orientation is None or frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, frame_orientation(frame)
        return self._orientation

    def _seconds(self, frame: av.VideoFrame) -> float:
        """Time since the file's first frame."""
        assert self._container is not None
        stream = self._container.streams.video[0]
        if frame.pts is None:
            raise MediaError("video_timestamps", "a presentation time on every frame", "a frame without one")
        return float((frame.pts - (stream.start_time or 0)) * stream.time_base)
