"""The checks themselves: values in, findings out. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lewm_data.conversion.catalogue import finding
from lewm_data.conversion.layout import DONE_KEYS, LAST_STEP, LeRobotDataset
from lewm_data.conversion.video import VideoHeader
from lewm_data.schema import ACTION, DONE, STATE, Finding

TIMESTAMP_TOLERANCE_SECONDS = 1e-4
"""LeRobot's own tolerance between a row's timestamp and its frame's."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""What is larger becomes Inf in the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRows:
    """One episode's Parquet rows, in file order; L of them.

    Attributes:
        episode: episode_index.
        file: Parquet file, relative to the dataset's folder.
        frame_index: Shape (L,).
        timestamp: Seconds since the episode's begin, float64, shape (L,).
        index: The dataset-wide row number, shape (L,).
        columns: Our column name to values of shape (L,) or (L, width).
    """

    episode: int
    file: str
    frame_index: np.ndarray
    timestamp: np.ndarray
    index: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def check_dataset(dataset: LeRobotDataset, extra_columns: Sequence[str]) -> Iterator[Finding]:
    """What ``meta/info.json`` and the episode table tell about the dataset as a whole."""
    where: dict[str, Any] = {"file": "meta/info.json"}
    for key in dataset.row_columns(tuple(extra_columns)).values():
        feature = dataset.features.get(key)
        if feature is None:
            yield finding("column_missing", expected=f"a feature {key!r}", found="none", **where)
        elif feature.dtype in ("video", "image") or not _is_number(feature.dtype):
            yield finding("column_dtype", expected=f"{key!r} of a number's dtype", found=feature.dtype, **where)
    if not dataset.cameras:
        yield finding("camera_none", expected="a camera (dtype video or image)", found="none", **where)
    if dataset.done_source == LAST_STEP:
        yield finding("done_inferred", expected=" or ".join(DONE_KEYS), found="none of them", **where)
    for name, claimed, found in (
        ("total_episodes", dataset.total_episodes, dataset.listed_episodes),
        ("total_frames", dataset.total_steps, dataset.listed_steps),
    ):
        if claimed is not None and claimed != found:
            yield finding(
                "total_mismatch",
                expected=f"{name} {claimed:,} in meta/episodes",
                found=f"{found:,}",
                **where,
            )
    if dataset.listed_episodes == 0:
        yield finding("metadata_missing", file="meta/episodes", expected="an episode", found="none")


def check_length(episode: int, length: int, min_steps: int) -> Iterator[Finding]:
    """Whether an episode holds anything, and a training window."""
    if length <= 0:
        yield finding("episode_empty", episode=episode, expected="a step or more", found=f"{length}")
    elif length < min_steps:
        yield finding(
            "episode_short",
            episode=episode,
            expected=f"a window's {min_steps} steps or more",
            found=f"{length}",
        )


def check_rows(
    rows: EpisodeRows, *, length: int, first_index: int, fps: float, widths: dict[str, int]
) -> Iterator[Finding]:
    """Everything the Parquet rows of one episode can tell.

    Args:
        rows: The rows found under the episode's index.
        length: How many the metadata promises.
        first_index: The ``index`` that the metadata gives its first row; negative if it gives none.
        fps: Steps per second.
        widths: Our column name to the declared numbers per row.
    """
    where: dict[str, Any] = {"episode": rows.episode, "file": rows.file}
    count = len(rows.frame_index)
    if count != length:
        code = "rows_missing" if count < length else "rows_extra"
        yield finding(code, expected=f"{length} rows", found=f"{count}", **where)
    if first_index >= 0 and count and int(rows.index[0]) != first_index:
        yield finding(
            "index_mismatch",
            expected=f"index {first_index} in its first row",
            found=f"{rows.index[0]}",
            **where,
        )
    yield from _check_time(rows, fps, where)
    for column, values in rows.columns.items():
        width = 1 if values.ndim == 1 else values.shape[1]
        if width != widths[column]:
            yield finding("column_width", expected=f"{column!r} {widths[column]} wide", found=f"{width}", **where)
        if values.dtype.kind == "f":
            bad = ~(np.abs(values) <= FLOAT32_MAX)  # NaN compares false
            if bad.any():
                step = int(np.argwhere(bad)[0][0])
                yield finding(
                    "values_not_finite",
                    expected=f"finite numbers in {column!r}",
                    found=f"{int(bad.sum())} NaN, Inf or null, the first ({values[bad][0]}) at step {step}",
                    **where,
                )
    yield from _check_motion(rows, where)
    if DONE in rows.columns and count:
        yield from _check_done(rows.columns[DONE].reshape(count, -1)[:, 0].astype(bool), where)


def _check_time(rows: EpisodeRows, fps: float, where: dict[str, Any]) -> Iterator[Finding]:
    count = len(rows.frame_index)
    wrong = np.flatnonzero(rows.frame_index != np.arange(count))
    if len(wrong):
        yield finding(
            "frame_index_broken",
            expected=f"frame_index 0 to {count - 1}",
            found=f"{rows.frame_index[wrong[0]]} at step {wrong[0]}",
            **where,
        )
    if not np.isfinite(rows.timestamp).all():
        yield finding("timestamps_off_fps", expected="a timestamp in every row", found="NaN, Inf or null", **where)
        return
    steps = np.diff(rows.timestamp)
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0]) + 1
        yield finding(
            "timestamps_not_increasing",
            expected="timestamps that increase",
            found=f"{rows.timestamp[at]:.6f} s after {rows.timestamp[at - 1]:.6f} s at step {at}",
            **where,
        )
        return
    drift = np.abs(rows.timestamp - np.arange(count) / fps)
    if count and drift.max() > TIMESTAMP_TOLERANCE_SECONDS:
        at = int(drift.argmax())
        code = "timestamps_off_fps" if drift.max() >= 0.5 / fps else "timestamps_jitter"
        yield finding(
            code,
            expected=f"{at / fps:.6f} s at step {at} ({fps:g} fps)",
            found=f"{rows.timestamp[at]:.6f} s",
            **where,
        )


def _check_motion(rows: EpisodeRows, where: dict[str, Any]) -> Iterator[Finding]:
    if len(rows.frame_index) < 2:
        return
    action, state = rows.columns.get(ACTION), rows.columns.get(STATE)
    if action is not None and action.size and (action == action[0]).all():
        code = "action_constant" if action.any() else "action_zero"
        yield finding(code, expected="actions that differ", found=f"the same in {len(action)} steps", **where)
    if state is not None and state.size and (state == state[0]).all():
        yield finding("state_frozen", expected="states that differ", found=f"the same in {len(state)} steps", **where)


def _check_done(done: np.ndarray, where: dict[str, Any]) -> Iterator[Finding]:
    early = np.flatnonzero(done[:-1])
    if not done.any():
        yield finding("done_never", expected=f"an end at step {len(done) - 1}", found="none", **where)
    elif not done[-1]:
        yield finding(
            "done_not_last",
            expected=f"the end at step {len(done) - 1}",
            found=f"it at step {early[0]}",
            **where,
        )
    elif len(early):
        yield finding(
            "done_mid_episode",
            expected=f"one end, at step {len(done) - 1}",
            found=f"one at step {early[0]}",
            **where,
        )


def check_video(
    header: VideoHeader, *, file: str, fps: float, declared_shape: Sequence[int], episodes: Sequence[int]
) -> Iterator[Finding]:
    """What a video file's header tells, beside the spans."""
    if header.fps is not None and abs(header.fps - fps) > 0.01 * fps:
        for episode in episodes:
            yield finding("video_fps", episode=episode, file=file, expected=f"{fps:g} fps", found=f"{header.fps:.3f}")
    if header.start_seconds > TIMESTAMP_TOLERANCE_SECONDS:
        yield finding(
            "video_start_offset",
            file=file,
            expected="a first frame at 0 s",
            found=f"{header.start_seconds:.4f} s",
        )
    if sorted((header.width, header.height)) != sorted(side for side in declared_shape if side not in (1, 3, 4)):
        yield finding(
            "video_size",
            file=file,
            expected=f"the declared shape {tuple(declared_shape)}",
            found=f"{header.width}x{header.height}",
        )


def check_spans(
    *,
    file: str,
    episodes: np.ndarray,
    lengths: np.ndarray,
    start_seconds: np.ndarray,
    stop_seconds: np.ndarray,
    fps: float,
    num_frames: int | None,
    complete: bool,
) -> Iterator[Finding]:
    """Whether the spans of the episodes that share a video file fit it and each other.

    Args:
        file: The video file.
        episodes: episode_index, shape (n,).
        lengths: Steps of each, shape (n,).
        start_seconds: Start of each span, shape (n,).
        stop_seconds: End of each span, exclusive, shape (n,).
        fps: Frames per second.
        num_frames: Frames in the file; None if the header does not tell.
        complete: Whether these are all the episodes in the file, so that gaps mean something.
    """
    end_frames = 0.0  # where the spans so far end
    for row in np.argsort(start_seconds, kind="stable"):
        where: dict[str, Any] = {"episode": int(episodes[row]), "file": file}
        start, stop, length = float(start_seconds[row]), float(stop_seconds[row]), int(lengths[row])
        if not (np.isfinite(start) and np.isfinite(stop)):
            yield finding("location_null", expected="a span in the video", found=f"{start} s to {stop} s", **where)
            continue
        if start < 0 or stop <= start:
            yield finding(
                "span_backwards",
                expected="0 <= start < stop",
                found=f"{start:.4f} s to {stop:.4f} s",
                **where,
            )
            continue
        if abs((stop - start) * fps - length) >= 0.5:
            yield finding(
                "span_length",
                expected=f"{length} frames, as many as rows",
                found=f"{(stop - start) * fps:.2f} ({start:.4f} s to {stop:.4f} s)",
                **where,
            )
        if start * fps < end_frames - 0.5:
            yield finding(
                "span_overlap",
                expected=f"a start at {end_frames / fps:.4f} s or later",
                found=f"{start:.4f} s",
                **where,
            )
        elif complete and start * fps > end_frames + 0.5:
            yield finding("span_gap", expected=f"a start at {end_frames / fps:.4f} s", found=f"{start:.4f} s", **where)
        last = round(start * fps) + length
        if num_frames is not None and last > num_frames:
            code = "span_past_file" if round(start * fps) >= num_frames else "video_frames_short"
            yield finding(
                code,
                expected=f"frames {round(start * fps)} to {last - 1}",
                found=f"{num_frames} frames in the file",
                **where,
            )
        end_frames = max(end_frames, start * fps + length)
    if complete and num_frames is not None and num_frames > round(end_frames) and len(episodes):
        yield finding(
            "video_frames_extra",
            file=file,
            expected=f"{round(end_frames)} frames, as many as the spans hold",
            found=f"{num_frames}",
        )


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False
