"""The clock of an episode: which frame belongs to a row, by timestamps and frame_index. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from lewm_data.findings import Finding, finding
from lewm_data.source.metadata import TIMESTAMP_TOLERANCE_SECONDS

Frames = Literal["equal", "unequal", "in_rows"]
"""An episode's frames compared with its rows: as many, another number, or stored in the rows themselves."""

ClockKind = Literal["grid", "jitter", "offset", "drift", "backwards", "null", "absent"]


class Clock(NamedTuple):
    """A classification of an episode's timestamps.

    Attributes:
        kind: ``grid``: step i is at i/fps; ``jitter``: less than half a frame off; ``offset``: the grid, starting at
            another time; ``drift``: half a frame or more off the grid; ``backwards``: not increasing; ``null``: not all
            finite; ``absent``: no usable timestamps.
        step: The first step of an offset, the worst of a drift or jitter, the first wrong one otherwise.
        seconds: The offset, or the distance from the grid at ``step``; positive if the timestamp is late.
    """

    kind: ClockKind
    step: int = 0
    seconds: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether the timestamps confirm the order of the rows: one frame after another."""
        return self.kind in ("grid", "jitter", "offset")


def read_clock(timestamp: np.ndarray | None, fps: float) -> Clock:
    """Classifies the timestamps of an episode.

    Args:
        timestamp: Seconds, float64, shape (L,), one or more; None where the file has no such column.
        fps: Steps per second.

    Example:
        >>> read_clock(np.array([0.1, 0.2, 0.3]), fps=10.0)
        Clock(kind='offset', step=0, seconds=0.1)
    """
    if timestamp is None or not np.isfinite(timestamp).any():
        return Clock("absent")
    if not np.isfinite(timestamp).all():
        return Clock("null", int(np.flatnonzero(~np.isfinite(timestamp))[0]))
    steps = np.diff(timestamp)
    if (steps <= 0).any():
        return Clock("backwards", int(np.flatnonzero(steps <= 0)[0]) + 1)
    grid = np.arange(len(timestamp)) / fps
    off = timestamp - grid
    # LeRobot stores float32, whose neighbors are 1.2e-4 s apart after 17 minutes
    tolerance = TIMESTAMP_TOLERANCE_SECONDS + np.spacing(np.maximum(grid, np.abs(timestamp)).astype(np.float32))
    if (np.abs(off) <= tolerance).all():
        return Clock("grid")
    if (np.abs(off - off[0]) <= 2 * tolerance).all():
        return Clock("offset", 0, float(off[0]))
    worst = int(np.abs(off).argmax())
    half_frame = 0.5 / fps
    if abs(off[worst]) < half_frame:
        return Clock("jitter", worst, float(off[worst]))
    whole = round(float(np.median(off)) * fps) / fps
    if whole and (np.abs(off - whole) < half_frame).all():
        return Clock("offset", 0, float(whole))
    return Clock("drift", worst, float(off[worst]))


def check_clock(
    timestamp: np.ndarray | None,
    frame_index: np.ndarray | None,
    *,
    length: int,
    fps: float,
    frames: Frames,
    where: dict[str, Any],
) -> Iterator[Finding]:
    """Reports what timestamps and frame_index say against matching rows and frames by position.

    Args:
        timestamp: Seconds, float64, shape (L,); None where the file has no such column.
        frame_index: Shape (L,); None where the file has no such column.
        length: Rows that the metadata promises.
        fps: Steps per second.
        frames: How the frames relate to the rows.
        where: ``episode`` and ``file`` of the findings.
    """
    clock = read_clock(timestamp, fps)
    times = list(_check_timestamps(clock, timestamp, fps, frames, where))
    order = list(_check_frame_index(frame_index, clock, length, where))
    yield from order + times
    if any(found.severity == "error" for found in order) and (
        not clock.is_steady or any(found.severity == "error" for found in times)
    ):
        yield finding(
            "rows_misplaced",
            expected="frame_index or timestamps that tell which frame belongs to a row",
            found="both broken",
            **where,
        )


def _check_frame_index(
    frame_index: np.ndarray | None, clock: Clock, length: int, where: dict[str, Any]
) -> Iterator[Finding]:
    if frame_index is None:
        return
    count = len(frame_index)
    wrong = np.flatnonzero(frame_index != np.arange(count))
    if not len(wrong):
        return
    # a single value was never filled in; a constant offset keeps the order
    says_nothing = (frame_index == frame_index[0]).all()
    is_offset = (frame_index - frame_index[0] == np.arange(count)).all()
    is_confirmed = clock.is_steady and count == length
    yield finding(
        "column_derived" if says_nothing or is_offset or is_confirmed else "frame_index_broken",
        expected=f"frame_index 0 to {count - 1}",
        found=f"{frame_index[wrong[0]]} at step {wrong[0]}",
        step=int(wrong[0]),
        **where,
    )


def _check_timestamps(
    clock: Clock, timestamp: np.ndarray | None, fps: float, frames: Frames, where: dict[str, Any]
) -> Iterator[Finding]:
    if clock.kind == "grid":
        return
    if clock.kind == "absent" or timestamp is None:
        if frames == "unequal":
            found = "none, and another number of frames than rows"
            yield finding("timestamps_off_fps", expected="a timestamp in every row", found=found, **where)
        elif timestamp is not None:
            yield finding("column_derived", expected="a timestamp in every row", found="null throughout", **where)
        return
    step = clock.step
    at_step = f"{timestamp[step]:.6f} s at step {step}"
    if clock.kind == "null":
        found = f"NaN, Inf or null at step {step}"
        yield finding("timestamps_off_fps", expected="a timestamp in every row", found=found, step=step, **where)
    elif clock.kind == "backwards":
        yield finding(
            "timestamps_not_increasing",
            expected="timestamps that increase",
            found=f"{timestamp[step]:.6f} s after {timestamp[step - 1]:.6f} s at step {step}",
            step=step,
            **where,
        )
    elif clock.kind == "offset":
        yield from _check_offset(clock, at_step, fps, frames, where)
    else:
        code = {"jitter": "timestamps_jitter", "drift": "timestamps_off_fps"}[clock.kind]
        if clock.kind == "drift" and frames == "in_rows":
            code = "timestamps_wall_clock"
        yield finding(
            code,
            expected=f"{step / fps:.6f} s at step {step} ({fps:g} fps)",
            found=f"{timestamp[step]:.6f} s, {abs(clock.seconds):.4f} s {'late' if clock.seconds > 0 else 'early'}",
            step=step,
            **where,
        )


def _check_offset(clock: Clock, at_step: str, fps: float, frames: Frames, where: dict[str, Any]) -> Iterator[Finding]:
    begins = f"timestamps begin at {_frames(clock.seconds * fps)} ({at_step})"
    expected = "timestamps that begin at 0 s"
    if frames == "unequal" and abs(clock.seconds) >= 0.5 / fps:
        yield finding(
            "timestamps_off_fps",
            expected=expected,
            found=f"{begins}, and rows and frames differ in number",
            step=0,
            **where,
        )
    else:
        yield finding("timestamps_offset", expected=expected, found=begins, step=0, **where)


def _frames(number: float) -> str:
    """A number of frames in words, such as ``1 frame`` or ``-0.25 frames``."""
    rounded = round(number, 2)
    return f"{rounded:g} frame{'' if rounded == 1 else 's'}"


def drift_remedy(drifts: dict[int, float], *, num_episodes: int, fps: float, equal: bool) -> str:
    """What to do about timestamps that drift off the grid, given the whole dataset.

    Args:
        drifts: Every episode that drifts, to the largest distance from the grid in seconds; positive is late.
        num_episodes: Episodes in all.
        fps: Steps per second.
        equal: Whether the episode at hand has as many frames as rows.
    """
    worst = max(drifts.values(), key=abs)
    cause = "the recorder fell behind" if worst > 0 else "the recorder ran ahead of"
    truth = (
        f"{len(drifts):,} of {num_episodes:,} episodes {'drifts' if len(drifts) == 1 else 'drift'} by up to "
        f"{abs(worst):.2f} s: {cause} {fps:g} fps."
    )
    if not equal:
        return f"{truth} Rows and frames differ in number: exclude it with --episodes, or drop it with skip."
    return (
        f"{truth} Each row still has its own frame: --dirty_episode_policy keep matches them by position. "
        "To drop these episodes, use --dirty_episode_policy skip or --episodes."
    )
