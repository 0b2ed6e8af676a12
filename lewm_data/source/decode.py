"""Video spans and Parquet images -> decoded frames, in order, matched by ordinal and checked by time."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import imagecodecs
import numpy as np

from lewm_data.errors import SourceError
from lewm_data.findings import Finding, finding
from lewm_data.resources import num_cpus, return_free_memory
from lewm_data.source.metadata import TIMESTAMP_TOLERANCE_SECONDS
from lewm_data.source.rows import PARQUET_ERRORS, RowCursor
from lewm_data.source.scale import unknown_colours
from lewm_data.source.video import MAX_FRAME_PIXELS

_MAX_THREADS = 4
_SKIP_SECONDS = 2.0
"""A gap this short is decoded through rather than sought over: seeking flushes the decoder."""

_SPARSE_KEYFRAMES = 3
"""Frames wanted one by one are sought over a gap of so many keyframes, which is 5 times as fast with LeRobot's AV1 (a
keyframe every 2 frames, 12 pictures of 290); where keyframes are rare, seeking would decode more than going through."""
_NOT_THE_DATAS_FAULT = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}
)
"""What the machine says when a file is gone or cannot be reached: no reason to drop an episode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeJob:
    """The frames of one camera in one episode, or in a run of its steps.

    Attributes:
        episode: episode_index.
        column: Frame column that they go to.
        camera: LeRobot's camera key.
        file: Video or Parquet file, relative to the dataset's folder.
        is_image: Whether the pictures are in Parquet.
        start_seconds: Begin of the episode's span in the video, from its first frame.
        first_row: Row of the Parquet file where the episode begins.
        timestamps: Seconds since the episode's begin that each frame should have, float64, shape (L,).
        fps: Frames per second.
        first_step: Step of the episode that the first of them belongs to.
    """

    episode: int
    column: str
    camera: str
    file: str
    is_image: bool
    start_seconds: float
    first_row: int
    timestamps: np.ndarray
    fps: float
    first_step: int = 0


class DecodedFrame(NamedTuple):
    """One frame of a job; frames come in order."""

    job: DecodeJob
    frame: av.VideoFrame


class JobEnd(NamedTuple):
    """The end of a job: how many frames came, and what was wrong."""

    job: DecodeJob
    num_frames: int
    findings: tuple[Finding, ...]


Event = DecodedFrame | JobEnd


def event_bytes(event: Event) -> int:
    """Memory that an event holds on to."""
    if isinstance(event, JobEnd):
        return 0
    return sum(plane.buffer_size for plane in event.frame.planes)


class Decoder:
    """Decodes jobs one after the other; holds one open file per camera.

    Args:
        root: The dataset's folder.
        threads: Threads of the video decoder; 0 means ``num_decode_threads``.
        batch_rows: Rows of Parquet images read at once.
        sparse: Whether jobs are single frames with gaps between, rather than whole episodes.
    """

    def __init__(self, root: Path, *, threads: int, batch_rows: int, sparse: bool = False) -> None:
        self._root = root
        self._threads = threads or num_decode_threads()
        self._batch_rows = batch_rows
        self._sparse = sparse
        self._videos: dict[str, _VideoFile] = {}
        self._images: dict[str, tuple[str, RowCursor]] = {}

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *exception: object) -> None:
        for video in self._videos.values():
            video.close()
        for _, cursor in self._images.values():
            cursor.close()

    def run(self, job: DecodeJob) -> Iterator[Event]:
        """Decodes one job; a damaged one ends early. Jobs of one file that follow each other need no seeking.

        Yields:
            The job's frames in presentation order, then its end.
        """
        yield from _run(job, self._image_frames(job) if job.is_image else self._video_frames(job))

    def _video_frames(self, job: DecodeJob) -> Iterator[tuple[av.VideoFrame, float]]:
        video = self._videos.get(job.camera)
        if video is None or video.file != job.file:
            if video is not None:
                video.close()
            video = self._videos[job.camera] = _VideoFile(self._root, job.file, self._threads, sparse=self._sparse)
        return video.frames(job)

    def _image_frames(self, job: DecodeJob) -> Iterator[tuple[av.VideoFrame, float]]:
        file, cursor = self._images.get(job.camera, ("", None))
        if cursor is None or file != job.file:
            if cursor is not None:
                cursor.close()
            cursor = RowCursor(self._root / job.file, [job.camera], batch_rows=self._batch_rows)
            self._images[job.camera] = job.file, cursor
        return _image_frames(job, cursor, self._root)


class _Damaged(Exception):
    """A job that cannot go on."""

    def __init__(self, code: str, expected: str, found: str) -> None:
        super().__init__(code)
        self.code, self.expected, self.found = code, expected, found


def _run(job: DecodeJob, frames: Iterator[tuple[av.VideoFrame, float]]) -> Iterator[Event]:
    """Passes a job's frames on, each checked for its size, its damage and its time."""
    where: dict[str, Any] = {"episode": job.episode, "file": job.file}
    findings: list[Finding] = []
    count, step, size, worst = 0, job.first_step, None, (0.0, 0)
    try:
        for frame, seconds in frames:
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise _Damaged(
                    "video_size_changes",
                    "{}x{} throughout".format(*size),
                    f"{frame.width}x{frame.height} at {step}",
                )
            if frame.is_corrupt:  # h264 and hevc make up what they cannot decode, and say so nowhere else
                raise _Damaged("decode_error", "a picture", f"one that is damaged, at step {step}")
            colours = unknown_colours(frame)
            if colours is not None:
                raise _Damaged("decode_error", "colours as BT.601, BT.709, BT.2020, FCC or SMPTE 240M", colours)
            off = abs(seconds - float(job.timestamps[count]))
            if off >= 0.5 / job.fps:
                raise _Damaged(
                    "video_timestamps",
                    f"step {step} at {job.timestamps[count]:.4f} s of the episode",
                    f"a frame at {seconds:.4f} s",
                )
            worst = max(worst, (off, step))
            yield DecodedFrame(job, frame)
            count += 1
            step += 1
            if count == len(job.timestamps):
                break
    except _Damaged as damaged:
        findings.append(finding(damaged.code, expected=damaged.expected, found=damaged.found, step=step, **where))
    except MemoryError:  # FFmpeg's own is an FFmpegError as well, but no fault of the video
        raise
    except (av.FFmpegError, *PARQUET_ERRORS) as error:
        if getattr(error, "errno", None) in _NOT_THE_DATAS_FAULT:
            raise gone(job.episode, job.file, error) from error
        found = f"{error} at step {step}"
        findings.append(finding("decode_error", expected="a picture", found=found, step=step, **where))
    else:
        if count < len(job.timestamps):
            expected = f"{job.first_step + len(job.timestamps)} frames"
            findings.append(finding("video_frames_short", expected=expected, found=f"{step}", step=step, **where))
    if worst[0] > TIMESTAMP_TOLERANCE_SECONDS:
        findings.append(
            finding(
                "video_timestamps_jitter",
                expected=f"frames at their rows' times, within {TIMESTAMP_TOLERANCE_SECONDS} s",
                found=f"{worst[0]:.6f} s off at step {worst[1]}",
                step=worst[1],
                **where,
            )
        )
    yield JobEnd(job, count, tuple(findings))


def gone(episode: int, file: str, error: Exception) -> SourceError:
    """A file that was there when the dataset was inspected, and cannot be read any more."""
    return SourceError(
        f"episode {episode}: {file} could be read when it was inspected, but not now ({str(error).splitlines()[0]}). "
        "Leave the dataset alone while it is converted, and run again."
    )


class _VideoFile:
    """An open video that remembers where it is, so that episodes in a row need no seeking."""

    def __init__(self, root: Path, file: str, threads: int, *, sparse: bool) -> None:
        self.file = file
        self._path = str(root / file)
        self._threads = threads
        self._sparse = sparse
        self._last_key: float | None = None  # where the last keyframe was, unless there was a seek since
        self._key_spacing: float | None = None  # the longest stretch without one so far
        self._container: av.container.InputContainer | None = None
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._next: av.VideoFrame | None = None
        self._size = (0, 0)  # width and height by the file's header
        self._drained = False  # a decoder that met the end takes no further packets

    def close(self) -> None:
        """Closes the file and frees the decoder."""
        self._next = None
        self._drained = False
        self._decoded = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None
            return_free_memory()

    def frames(self, job: DecodeJob) -> Iterator[tuple[av.VideoFrame, float]]:
        """Yields frames from the job's start on, each with its time since that start."""
        try:
            self._position(job.start_seconds + job.first_step / job.fps, job.fps)
            while (frame := self._take()) is not None:
                seconds = self._seconds(frame) - job.start_seconds
                if (frame.width, frame.height) != self._size:  # also where it changed in an earlier episode
                    raise _Damaged(
                        "video_size_changes",
                        "{}x{} throughout".format(*self._size),
                        f"{frame.width}x{frame.height} {seconds:.4f} s into the episode",
                    )
                yield frame, seconds
        except av.FFmpegError:
            self.close()  # the decoder's state is not to be trusted any more
            raise

    def _position(self, start_seconds: float, fps: float) -> None:
        """Moves to the first frame of a span: the one within half a frame of its start, or after it."""
        first_wanted = start_seconds - 0.5 / fps
        peeked = self._peek() if self._container is not None else None
        if peeked is None or not 0 <= start_seconds - self._seconds(peeked) + 0.5 / fps <= self._skip_seconds():
            self._seek(start_seconds)
            peeked = self._peek()
            if peeked is not None and self._seconds(peeked) > first_wanted + 1 / fps:
                self._seek(None)  # the index led past the frame: decode from the file's begin
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
            stream = self._container.streams.video[0]
            self._size = stream.codec_context.width, stream.codec_context.height
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads
            # a stream may claim another size than its container, and change it midway
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

    def _seconds(self, frame: av.VideoFrame) -> float:
        """Time since the file's first frame."""
        assert self._container is not None
        stream = self._container.streams.video[0]
        if frame.pts is None:
            raise _Damaged("video_timestamps", "a presentation time on every frame", "a frame without one")
        return float((frame.pts - (stream.start_time or 0)) * stream.time_base)


# --- pictures in Parquet

_PICTURES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg8", b"RIFF": "webp"}
"""First bytes of a picture -> imagecodecs' codec."""


def _image_frames(job: DecodeJob, cursor: RowCursor, root: Path) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yields the pictures of a job; each is where its row is, so its time is the row's."""
    step, first_row = job.first_step, job.first_row + job.first_step
    for batch in cursor.read(first_row, first_row + len(job.timestamps)):
        for value in batch.column(0):
            try:
                picture = _decode_picture(_image_bytes(value.as_py(), root))
            except (RuntimeError, ValueError) as error:  # what imagecodecs' own errors derive from
                raise _Damaged("decode_error", "a PNG, JPEG or WebP", f"{error} at step {step}") from error
            yield av.VideoFrame.from_ndarray(picture, format="rgb24"), float(job.timestamps[step - job.first_step])
            step += 1


def _decode_picture(data: bytes) -> np.ndarray:
    """One picture as uint8 RGB of shape (H, W, 3): grey is repeated, opacity left out, 16 bits cut to 8."""
    name = next((codec for magic, codec in _PICTURES.items() if data.startswith(magic)), None)
    if name is None:
        raise ValueError(f"bytes that begin with {data[:8]!r}")
    _check_size(data)
    picture = getattr(imagecodecs, f"{name}_decode")(data)
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.ndim == 2 or picture.shape[2] < 3:
        picture = np.repeat(picture.reshape(*picture.shape[:2], -1)[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(picture[:, :, :3])


def _check_size(data: bytes) -> None:
    """Refuses a picture by its header where decoding it would fill the memory: a few bytes can claim gigabytes."""
    from PIL import Image  # 20 MB, which only pictures in Parquet need

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as picture:
            is_small = picture.width * picture.height <= MAX_FRAME_PIXELS
    except Image.DecompressionBombError:
        is_small = False
    if not is_small:
        raise ValueError(f"a picture of more than {MAX_FRAME_PIXELS:,} pixels")


def _image_bytes(value: object, root: Path) -> bytes:
    """The encoded picture of a cell: bytes, or a path within the dataset's folder."""
    if isinstance(value, dict):
        if value.get("bytes"):
            return bytes(value["bytes"])
        value = value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        path = (root / value).resolve()
        if path.is_relative_to(root.resolve()) and path.is_file():
            return path.read_bytes()
    raise _Damaged("decode_error", "an encoded picture", f"{str(value)[:60]!r}")


def num_decode_threads() -> int:
    """Threads of a video decoder unless told otherwise: one per processor, four at most, since each keeps frames."""
    return min(num_cpus(), _MAX_THREADS)
