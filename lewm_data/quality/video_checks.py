"""Checks of a video file's header and of the episodes' spans in it. Values in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lewm_data.findings import Finding, finding
from lewm_data.source.media import MAX_FRAME_PIXELS
from lewm_data.source.metadata import TIMESTAMP_TOLERANCE_SECONDS
from lewm_data.source.video import VideoHeader


def check_video(
    header: VideoHeader, *, file: str, fps: float, declared_shape: Sequence[int], episodes: Sequence[int]
) -> Iterator[Finding]:
    """Reports what a video file's header alone shows.

    Args:
        header: The header.
        file: The video file.
        fps: Frames per second that the dataset has.
        declared_shape: The camera's shape in ``meta/info.json``; ignored if it has no size.
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
    if _is_far(header, fps):
        for episode in episodes:
            yield finding("video_fps", episode=episode, file=file, expected=f"{fps:g} fps", found=f"{header.fps:.3f}")
    if abs(header.start_seconds) > TIMESTAMP_TOLERANCE_SECONDS:
        yield finding(
            "video_start_offset",
            file=file,
            expected="a first frame at 0 s",
            found=f"{header.start_seconds:.4f} s",
        )
    for change in header.player_changes:
        yield finding("video_display", file=file, expected="frames that players show as they are stored", found=change)
    sides = sorted(side for side in declared_shape if side not in (1, 3, 4))
    if 0 not in declared_shape and sorted((header.width, header.height)) != sides:
        yield finding(
            "video_size",
            file=file,
            expected=f"the declared shape {tuple(declared_shape)}",
            found=f"{header.width}x{header.height}",
        )


def _is_far(header: VideoHeader, fps: float) -> bool:
    """Whether the average frame rate is an entirely different one."""
    # an average over n frames is off by 1/n if the container misstates the duration of the last frame
    tolerance = max(0.01, 1.5 / header.num_frames if header.num_frames else 0.0)
    return header.fps is not None and abs(header.fps / fps - 1) > tolerance


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """The spans that episodes have in one video file; arrays of shape (n,).

    Attributes:
        file: The video file.
        fps: Steps per second.
        episodes: episode_index.
        lengths: Steps of each.
        start_seconds: Start of each span.
        stop_seconds: End of each span, exclusive.
        next_seconds: Start of the next span in the file, also of an episode that is not among these; Inf for none.
        is_declared: Whether the metadata gives ``stop_seconds``; else they follow from the lengths (v2.x).
        is_complete: Whether these are all the episodes in the file, so that gaps mean something.
    """

    file: str
    fps: float
    episodes: np.ndarray
    lengths: np.ndarray
    start_seconds: np.ndarray
    stop_seconds: np.ndarray
    next_seconds: np.ndarray
    is_declared: bool
    is_complete: bool

    def where(self, row: int) -> dict[str, Any]:
        """``episode`` and ``file`` of a finding about one span."""
        return {"episode": int(self.episodes[row]), "file": self.file}

    def seconds(self, row: int) -> str:
        """One span as text."""
        return f"{self.start_seconds[row]:.4f} s to {self.stop_seconds[row]:.4f} s"

    def frames(self, row: int) -> float:
        """Frames that one span claims."""
        return float(self.stop_seconds[row] - self.start_seconds[row]) * self.fps


def check_spans(header: VideoHeader, spans: Spans) -> Iterator[Finding]:
    """Reports spans that do not fit their video file, their rows or each other."""
    order = [row for row in np.argsort(spans.start_seconds, kind="stable") if spans.lengths[row] > 0]
    sound = []
    for row in order:
        problems = list(_check_span(header, spans, row))
        yield from problems
        if not any(found.code in ("location_null", "span_backwards") for found in problems):
            sound.append(row)
    yield from _check_neighbors(header, spans, sound)
    for row in sound:
        yield from _check_reach(header, spans, row)
    yield from _check_rate(header, spans, sound)


def frames_are_equal(header: VideoHeader, spans: Spans) -> np.ndarray:
    """Whether each episode has exactly as many frames as rows, shape (n,): by its span, the next one and the file."""
    frames = np.array([_frames_available(header, spans, row) for row in range(len(spans.episodes))])
    equal = np.abs(frames - spans.lengths) < 0.5
    if spans.is_declared:
        equal |= np.abs((spans.stop_seconds - spans.start_seconds) * spans.fps - spans.lengths) < 0.5
    return equal


def _reach(header: VideoHeader, fps: float) -> int:
    """The file's duration in frames; 0 if unknown. Pieces joined with pauses last longer than their frames."""
    return max(header.num_frames or 0, round((header.duration_seconds or 0) * fps))


def _frames_available(header: VideoHeader, spans: Spans, row: int) -> float:
    """Frames from a span's start to the next span, or to the file's end; NaN if unknown."""
    following = float(spans.next_seconds[row])
    stop = following * spans.fps if np.isfinite(following) else float(_reach(header, spans.fps) or np.nan)
    return stop - float(spans.start_seconds[row]) * spans.fps


def _check_span(header: VideoHeader, spans: Spans, row: int) -> Iterator[Finding]:
    """Checks one span by itself and against the rows of its episode."""
    start, stop, length = float(spans.start_seconds[row]), float(spans.stop_seconds[row]), int(spans.lengths[row])
    if not (np.isfinite(start) and np.isfinite(stop)):
        yield finding(
            "location_null", expected="a span in the video", found=f"{start} s to {stop} s", **spans.where(row)
        )
        return
    surplus = spans.frames(row) - length
    # recorders often stop with one frame more than rows
    if -0.5 < surplus < 1.5 and stop > start >= 0:
        return
    is_last_frame = abs(surplus + 1) < 0.5 and stop >= start >= 0
    if is_last_frame and _frames_available(header, spans, row) > length - 0.5:
        yield finding(
            "span_stop_short",
            expected=f"to_timestamp {start + length / spans.fps:.4f} s",
            found=f"{stop:.4f} s, one frame less than its {length} rows",
            **spans.where(row),
        )
    elif start < 0 or stop <= start:
        yield finding("span_backwards", expected="0 <= start < stop", found=spans.seconds(row), **spans.where(row))
    else:
        yield finding(
            "span_length",
            expected=f"{length} frames, as many as rows",
            found=f"{spans.frames(row):.2f} ({spans.seconds(row)})",
            **spans.where(row),
        )


def _check_neighbors(header: VideoHeader, spans: Spans, order: Sequence[int]) -> Iterator[Finding]:
    """Reports overlapping spans, gaps between them, and frames after the last one; ``order`` is by start."""
    fps, num_frames = spans.fps, header.num_frames
    is_all_used = num_frames == spans.lengths.sum()
    end, owner, blamed = 0.0, -1, set()  # the frame after the last used one, and the row that uses that
    for row in order:
        start, length = float(spans.start_seconds[row]), int(spans.lengths[row])
        if start * fps < end - 0.5:
            for mine, other in ((row, owner), (owner, row)):  # either may be the wrong one
                if mine not in blamed:
                    blamed.add(mine)
                    yield finding(
                        "span_overlap",
                        expected="frames of its own",
                        found=f"{spans.seconds(mine)}, while episode {spans.episodes[other]} has "
                        f"{spans.seconds(other)}",
                        **spans.where(mine),
                    )
        elif spans.is_complete and start * fps > end + 0.5 and not is_all_used:
            yield finding(
                "span_gap", expected=f"a start at {end / fps:.4f} s", found=f"{start:.4f} s", **spans.where(row)
            )
        if start * fps + length > end:
            end, owner = start * fps + length, row
    if spans.is_complete and num_frames is not None and num_frames > round(end):
        yield finding(
            "video_frames_extra",
            file=spans.file,
            expected=f"{round(end)} frames, as many as the spans hold",
            found=f"{num_frames}",
        )


def _check_reach(header: VideoHeader, spans: Spans, row: int) -> Iterator[Finding]:
    """Reports a span that extends past the end of its file."""
    num_frames, reach, length = header.num_frames, _reach(header, spans.fps), int(spans.lengths[row])
    first = round(float(spans.start_seconds[row]) * spans.fps)
    if reach and (first + length > reach or length > (num_frames or length)):
        yield finding(
            "span_past_file" if first >= reach else "video_frames_short",
            expected=f"frames {first} to {first + length - 1}",
            found=f"{num_frames or reach} frames in the file",
            **spans.where(row),
        )


def _check_rate(header: VideoHeader, spans: Spans, order: Sequence[int]) -> Iterator[Finding]:
    """Reports a frame rate close to the dataset's that slips by half a frame or more before an episode ends.

    29.97 instead of 30 fps takes 17 s. The average rate alone cannot show it, since a container may misstate how long
    the last frame lasts, so the stream's nominal rate must agree.
    """
    rate, num_frames = header.base_fps, header.num_frames
    if rate is None or header.fps is None or num_frames is None or _is_far(header, spans.fps):
        return
    if abs(spans.fps / rate - 1) * num_frames < 0.5:
        return
    if abs(header.fps / rate - 1) * num_frames >= 1.5:
        return  # a variable rate: decoding compares the time of each frame
    is_all_used = spans.is_complete and num_frames == spans.lengths[order].sum()
    first = 0
    for row in order:
        length, start = int(spans.lengths[row]), float(spans.start_seconds[row])
        slip = (length - 1) * abs(spans.fps / rate - 1)
        if is_all_used:  # frames are found by the span's start, so a wrong rate may lead to the wrong first frame
            last = start + (length - 1) / spans.fps
            slip = max(slip, abs(start * rate - first), abs(last * rate - (first + length - 1)))
        if slip >= 0.5:
            yield finding(
                "video_fps",
                expected=f"{spans.fps:g} fps",
                found=f"{rate:.3f}: frames slip by {slip:.1f} before the episode ends",
                **spans.where(row),
            )
        first += length
