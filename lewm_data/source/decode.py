"""Decoding jobs -> decoded frames, in order, matched to rows by position and checked by time."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from lewm_data.errors import SourceError
from lewm_data.findings import Finding, finding
from lewm_data.machine_errors import machine_errors, raise_machine_error
from lewm_data.resources import num_cpus
from lewm_data.source.images import read_images
from lewm_data.source.media import MediaError, require_readable
from lewm_data.source.metadata import TIMESTAMP_TOLERANCE_SECONDS
from lewm_data.source.orientation import Orientation
from lewm_data.source.rows import PARQUET_ERRORS, RowCursor
from lewm_data.source.scale import unknown_colors
from lewm_data.source.video_reader import TimedFrame, VideoReader

_MAX_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeJob:
    """The frames of one camera in one episode, or in a run of its steps.

    Attributes:
        episode: episode_index.
        column: Frame column of the output.
        camera: LeRobot's camera key.
        file: Video or Parquet file, relative to the dataset's folder.
        is_image: Whether the frames are pictures stored in Parquet rows.
        start_seconds: Start of the episode, in seconds since the video's first frame.
        first_row: Row of the Parquet file where the episode starts.
        timestamps: Time that each frame should have, in seconds since the episode's start, float64, shape (L,).
        fps: Frames per second.
        first_step: Step of the episode that the first timestamp belongs to.
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
    """One frame of a job; frames come in order.

    Attributes:
        job: The job.
        frame: The frame as it is stored.
        orientation: How to turn it upright.
    """

    job: DecodeJob
    frame: av.VideoFrame
    orientation: Orientation

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright frame."""
        return self.orientation.size(self.frame.height, self.frame.width)


class JobEnd(NamedTuple):
    """The end of a job: how many frames it gave, and what was found wrong."""

    job: DecodeJob
    num_frames: int
    findings: tuple[Finding, ...]


Event = DecodedFrame | JobEnd


def event_bytes(event: Event) -> int:
    """Memory that an event keeps in use."""
    if isinstance(event, JobEnd):
        return 0
    return sum(plane.buffer_size for plane in event.frame.planes)


class Decoder:
    """Decodes jobs one after the other; keeps one file open per camera.

    Args:
        root: The dataset's folder.
        threads: Threads of the video decoder; 0 means ``num_decode_threads``.
        batch_rows: Rows of Parquet pictures to read at once.
        sparse: Whether jobs are single frames with gaps between them, rather than whole episodes.
    """

    def __init__(self, root: Path, *, threads: int, batch_rows: int, sparse: bool = False) -> None:
        self._root = root
        self._threads = threads or num_decode_threads()
        self._batch_rows = batch_rows
        self._sparse = sparse
        self._videos: dict[str, VideoReader] = {}
        self._images: dict[str, tuple[str, RowCursor]] = {}

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every open file."""
        for video in self._videos.values():
            video.close()
        for _, cursor in self._images.values():
            cursor.close()

    def run(self, job: DecodeJob) -> Iterator[Event]:
        """Decodes one job. A damaged file ends it early. Consecutive jobs of one file need no seeking.

        Args:
            job: What to decode.

        Yields:
            The job's frames in presentation order, then its end.

        Raises:
            SourceError: The file is gone.
            MachineError: The machine cannot read the file.
            MemoryError: Too little memory to decode a frame.
        """
        for event in _check_frames(job, self._image_frames(job) if job.is_image else self._video_frames(job)):
            if isinstance(event, JobEnd) and not job.is_image and _is_damaged(event):
                _require_readable(job, self._root / job.file)
            yield event

    def _video_frames(self, job: DecodeJob) -> Iterator[TimedFrame]:
        video = self._videos.get(job.camera)
        if video is None or video.file != job.file:
            if video is not None:
                video.close()
            video = self._videos[job.camera] = VideoReader(self._root, job.file, self._threads, sparse=self._sparse)
        return video.frames(job.start_seconds, job.first_step, job.fps)

    def _image_frames(self, job: DecodeJob) -> Iterator[TimedFrame]:
        """Gives each picture the time of its own row."""
        file, cursor = self._images.get(job.camera, ("", None))
        if cursor is None or file != job.file:
            if cursor is not None:
                cursor.close()
            cursor = RowCursor(self._root / job.file, [job.camera], batch_rows=self._batch_rows)
            self._images[job.camera] = job.file, cursor
        start = job.first_row + job.first_step
        pictures = read_images(cursor, self._root, start, start + len(job.timestamps))
        for (picture, orientation), seconds in zip(pictures, job.timestamps.tolist(), strict=False):
            yield TimedFrame(av.VideoFrame.from_ndarray(picture, format="rgb24"), orientation, seconds)


def _check_frames(job: DecodeJob, frames: Iterator[TimedFrame]) -> Iterator[Event]:
    """Passes a job's frames on after checking the size, integrity, colors and time of each."""
    where: dict[str, Any] = {"episode": job.episode, "file": job.file}
    findings: list[Finding] = []
    count, step, size, worst = 0, job.first_step, None, (0.0, 0)
    first_interlaced: int | None = None
    if not len(job.timestamps):
        yield JobEnd(job, 0, ())
        return
    try:
        for timed in frames:
            decoded = DecodedFrame(job, timed.frame, timed.orientation)
            size = size or decoded.size
            expected_seconds = float(job.timestamps[count])
            _check_frame(decoded, size, timed.seconds, expected_seconds)
            worst = max(worst, (abs(timed.seconds - expected_seconds), step))
            if first_interlaced is None and timed.frame.interlaced_frame:
                first_interlaced = step
            yield decoded
            count += 1
            step += 1
            if count == len(job.timestamps):
                break
    except MediaError as error:
        found = f"{error.found} at step {step}"
        findings.append(finding(error.code, expected=error.expected, found=found, step=step, **where))
    except MemoryError:  # FFmpeg's MemoryError is an FFmpegError too, but the video is not at fault
        raise
    except (av.FFmpegError, *PARQUET_ERRORS) as error:
        raise_machine_error(error, f"episode {job.episode}: {job.file}")
        if getattr(error, "errno", None) == errno.ENOENT:
            raise lost_source(job.episode, job.file, error) from error
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
    if first_interlaced is not None:
        found = f"interlaced ones from step {first_interlaced} on"
        findings.append(
            finding("video_interlaced", expected="progressive frames", found=found, step=first_interlaced, **where)
        )
    yield JobEnd(job, count, tuple(findings))


def _check_frame(decoded: DecodedFrame, size: tuple[int, int], seconds: float, expected_seconds: float) -> None:
    """Raises MediaError if a frame does not belong to its row, or cannot be converted truthfully."""
    if decoded.size != size:
        (height, width), (other_height, other_width) = size, decoded.size
        raise MediaError("video_size_changes", f"{width}x{height} throughout", f"{other_width}x{other_height}")
    if decoded.frame.is_corrupt:  # h264 and hevc fill in what they cannot decode, and report it nowhere else
        raise MediaError("decode_error", "a picture", "a damaged one")
    colors = unknown_colors(decoded.frame)
    if colors is not None:
        raise MediaError("decode_error", "colors as BT.601, BT.709, BT.2020, FCC or SMPTE 240M", colors)
    if abs(seconds - expected_seconds) >= 0.5 / decoded.job.fps:
        raise MediaError(
            "video_timestamps",
            f"a frame {expected_seconds:.4f} s after the episode's start",
            f"one at {seconds:.4f} s",
        )


def _is_damaged(end: JobEnd) -> bool:
    return any(found.code in ("decode_error", "video_frames_short") for found in end.findings)


def _require_readable(job: DecodeJob, path: Path) -> None:
    try:
        with machine_errors(f"episode {job.episode}: {job.file}"):
            require_readable(path)
    except OSError as error:
        raise lost_source(job.episode, job.file, error) from error


def lost_source(episode: int, file: str, error: Exception) -> SourceError:
    """Makes the error for a file that was readable during inspection but no longer is."""
    return SourceError(
        f"episode {episode}: {file} was readable when it was inspected, but is not now ({str(error).splitlines()[0]}). "
        "Leave the dataset alone while it is converted, then run again."
    )


def num_decode_threads() -> int:
    """Default number of threads of a video decoder: one per CPU, at most four, since each thread holds frames."""
    return min(num_cpus(), _MAX_THREADS)
