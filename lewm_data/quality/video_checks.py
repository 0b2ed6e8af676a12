"""Checks of a video file by its header, and of the spans that episodes have in it. Values in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lewm_data.findings import Finding, finding
from lewm_data.source.metadata import TIMESTAMP_TOLERANCE_SECONDS
from lewm_data.source.video import MAX_FRAME_PIXELS, VideoHeader


def check_video(
    header: VideoHeader, *, file: str, fps: float, declared_shape: Sequence[int], episodes: Sequence[int]
) -> Iterator[Finding]:
    """What a video file's header tells, beside the spans.

    Args:
        header: The header.
        file: The video file.
        fps: Frames per second that the dataset has.
        declared_shape: The camera's shape in ``meta/info.json``; without a size, it says nothing.
        episodes: episode_index of every episode in the file.
    """
    if header.width * header.height > MAX_FRAME_PIXELS:
        for episode in episodes:
            yield finding(
                "video_too_large",
                episode=episode,
                file=file,
                expected=f"{MAX_FRAME_PIXELS:,} pixels at most",
                found=f"{header.width}x{header.height}",
            )
    # an average over n frames is off by 1/n where a container is mistaken about how long its last one lasts
    tolerance = max(0.01, 1.5 / header.num_frames if header.num_frames else 0.0)
    if header.fps is not None and abs(header.fps / fps - 1) > tolerance:
        for episode in episodes:
            yield finding("video_fps", episode=episode, file=file, expected=f"{fps:g} fps", found=f"{header.fps:.3f}")
    if abs(header.start_seconds) > TIMESTAMP_TOLERANCE_SECONDS:
        yield finding(
            "video_start_offset",
            file=file,
            expected="a first frame at 0 s",
            found=f"{header.start_seconds:.4f} s",
        )
    sides = sorted(side for side in declared_shape if side not in (1, 3, 4))
    if 0 not in declared_shape and sorted((header.width, header.height)) != sides:
        yield finding(
            "video_size",
            file=file,
            expected=f"the declared shape {tuple(declared_shape)}",
            found=f"{header.width}x{header.height}",
        )


def check_spans(
    header: VideoHeader,
    *,
    file: str,
    episodes: np.ndarray,
    lengths: np.ndarray,
    start_seconds: np.ndarray,
    stop_seconds: np.ndarray,
    fps: float,
    complete: bool,
) -> Iterator[Finding]:
    """Whether the spans of the episodes that share a video file fit it and each other.

    Args:
        header: The file's header.
        file: The video file.
        episodes: episode_index, shape (n,).
        lengths: Steps of each, shape (n,).
        start_seconds: Start of each span, shape (n,).
        stop_seconds: End of each span, exclusive, shape (n,).
        fps: Frames per second.
        complete: Whether these are all the episodes in the file, so that gaps mean something.
    """
    num_frames = header.num_frames
    # Pieces that were joined with pauses reach further in time than in frames.
    reach = max(num_frames or 0, round((header.duration_seconds or 0) * fps))
    is_all_used = num_frames == lengths.sum()
    end, owner, blamed = 0.0, -1, set()  # where the frames used so far end, and the row of who uses the last
    for row in np.argsort(start_seconds, kind="stable"):
        where: dict[str, Any] = {"episode": int(episodes[row]), "file": file}
        start, stop, length = float(start_seconds[row]), float(stop_seconds[row]), int(lengths[row])
        if length <= 0:
            continue  # told by check_length
        if not (np.isfinite(start) and np.isfinite(stop)):
            yield finding("location_null", expected="a span in the video", found=f"{start} s to {stop} s", **where)
            continue
        if start < 0 or stop <= start:
            yield finding("span_backwards", expected="0 <= start < stop", found=_seconds(start, stop), **where)
            continue
        # One frame more than rows is how recorders stop; it is passed over.
        if not -0.5 < (stop - start) * fps - length < 1.5:
            yield finding(
                "span_length",
                expected=f"{length} frames, as many as rows",
                found=f"{(stop - start) * fps:.2f} ({_seconds(start, stop)})",
                **where,
            )
        if start * fps < end - 0.5:
            # Nobody can tell which of the two is right.
            for mine, other in ((row, owner), (owner, row)):
                if mine not in blamed:
                    blamed.add(mine)
                    yield finding(
                        "span_overlap",
                        episode=int(episodes[mine]),
                        file=file,
                        expected="frames of its own",
                        found=f"{_seconds(start_seconds[mine], stop_seconds[mine])}, while episode {episodes[other]} "
                        f"has {_seconds(start_seconds[other], stop_seconds[other])}",
                    )
        elif complete and start * fps > end + 0.5 and not is_all_used:
            yield finding("span_gap", expected=f"a start at {end / fps:.4f} s", found=f"{start:.4f} s", **where)
        first = round(start * fps)
        if reach and (first + length > reach or length > (num_frames or length)):
            yield finding(
                "span_past_file" if first >= reach else "video_frames_short",
                expected=f"frames {first} to {first + length - 1}",
                found=f"{num_frames or reach} frames in the file",
                **where,
            )
        if start * fps + length > end:
            end, owner = start * fps + length, row
    if complete and num_frames is not None and num_frames > round(end):
        yield finding(
            "video_frames_extra",
            file=file,
            expected=f"{round(end)} frames, as many as the spans hold",
            found=f"{num_frames}",
        )


def _seconds(start: float, stop: float) -> str:
    return f"{start:.4f} s to {stop:.4f} s"
