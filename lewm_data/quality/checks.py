"""The checks themselves: values in, findings out. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lewm_data.findings import Finding, finding
from lewm_data.format.schema import ACTION, DONE, ROW_DTYPES, STATE
from lewm_data.source.metadata import TIMESTAMP_TOLERANCE_SECONDS, Feature, LeRobotDataset

NUMBER_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)
"""Dtypes of ``meta/info.json`` that stand for numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRows:
    """One episode's Parquet rows, in file order; L of them, one or more.

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
    episodes_file = "meta/episodes.jsonl" if dataset.is_legacy() else "meta/episodes"
    for key in dataset.row_columns(tuple(extra_columns)).values():
        feature = dataset.features.get(key)
        if feature is None:
            yield finding("column_missing", expected=f"a feature {key!r}", found="none", **where)
        elif feature.dtype not in NUMBER_DTYPES:
            yield finding("column_dtype", expected=f"{key!r} of a number's dtype", found=repr(feature.dtype), **where)
        elif not feature.width:
            yield finding("column_width", expected=f"a shape of {key!r}", found="none, or an empty one", **where)
    if not dataset.cameras:
        yield finding("camera_none", expected="a camera (dtype video or image)", found="none", **where)
    for name, claimed, found in (
        ("total_episodes", dataset.total_episodes, dataset.listed_episodes),
        ("total_frames", dataset.total_steps, dataset.listed_steps),
    ):
        if claimed is not None and claimed != found:
            yield finding(
                "total_mismatch",
                expected=f"{name} {claimed:,}",
                found=f"{found:,} in {episodes_file}",
                **where,
            )
    if dataset.listed_episodes == 0:
        yield finding("metadata_missing", file=episodes_file, expected="an episode", found="none")


MAX_EPISODE_BYTES = 1 << 30
"""Rows of one episode, which are held in memory at once: ten days of a robot arm at 30 fps."""


def check_length(episode: int, length: int, min_steps: int, max_steps: int) -> Iterator[Finding]:
    """Whether an episode holds anything, and a training window, and whether memory holds its rows."""
    if length > max_steps:
        yield finding("episode_too_long", episode=episode, expected=f"{max_steps:,} steps at most", found=f"{length:,}")
    elif length <= 0:
        yield finding("episode_empty", episode=episode, expected="a step or more", found=f"{length}")
    elif length < min_steps:
        yield finding(
            "episode_short",
            episode=episode,
            expected=f"a window's {min_steps} steps or more",
            found=f"{length}",
        )


def check_rows(
    rows: EpisodeRows, *, length: int, first_index: int, fps: float, features: Mapping[str, Feature]
) -> Iterator[Finding]:
    """Everything the Parquet rows of one episode can tell.

    Args:
        rows: The rows found under the episode's index, one or more.
        length: How many the metadata promises.
        first_index: The ``index`` that the metadata gives its first row; negative if it gives none.
        fps: Steps per second.
        features: Our column name to what ``meta/info.json`` says of it.
    """
    where: dict[str, Any] = {"episode": rows.episode, "file": rows.file}
    count = len(rows.frame_index)
    if count != length:
        code = "rows_missing" if count < length else "rows_extra"
        yield finding(code, expected=f"{length} rows", found=f"{count}", **where)
    if first_index >= 0:
        wrong = np.flatnonzero(rows.index != first_index + np.arange(count))
        if len(wrong):
            yield finding(
                "index_mismatch",
                expected=f"index {first_index + wrong[0]} at step {wrong[0]}",
                found=f"{rows.index[wrong[0]]}",
                step=int(wrong[0]),
                **where,
            )
    yield from _check_time(rows, fps, where)
    for column, values in rows.columns.items():
        yield from _check_values(column, values.reshape(count, -1), features[column], where)
    yield from _check_motion(rows, where)
    if DONE in rows.columns and rows.columns[DONE].size:
        done = np.nan_to_num(rows.columns[DONE].reshape(count, -1)[:, 0]).astype(bool)
        yield from _check_done(done, where)


def _check_values(column: str, values: np.ndarray, feature: Feature, where: dict[str, Any]) -> Iterator[Finding]:
    """Width, finiteness and dtype of a column's values, shape (L, width)."""
    if values.shape[1] != feature.width:
        yield finding(
            "column_width", expected=f"{feature.key!r} {feature.width} wide", found=f"{values.shape[1]}", **where
        )
    stored = np.dtype(ROW_DTYPES.get(column, feature.dtype))
    if values.dtype.kind != "f":
        yield from _check_range(values, stored, feature, where)
        return
    limit = np.finfo(stored if stored.kind == "f" else values.dtype).max  # what is larger becomes Inf in the file
    bad = ~(np.abs(values) <= limit)  # NaN compares false
    if bad.any():
        step = int(np.argwhere(bad)[0][0])
        yield finding(
            "values_not_finite",
            expected=f"finite numbers in {feature.key!r}",
            found=f"{int(bad.sum())} NaN, Inf or null, the first ({values[bad][0]}) at step {step}",
            step=step,
            **where,
        )
    elif stored.kind in "iu" and (values != np.round(values)).any():
        step = int(np.argwhere(values != np.round(values))[0][0])
        yield finding(
            "column_dtype",
            expected=f"whole numbers in {feature.key!r} ({feature.dtype})",
            found=f"{values[step]} at step {step}",
            step=step,
            **where,
        )


def _check_range(values: np.ndarray, stored: np.dtype, feature: Feature, where: dict[str, Any]) -> Iterator[Finding]:
    """Whether whole numbers fit into the dtype they will be stored as; else they would wrap round."""
    if stored.kind not in "iu" or values.dtype.kind not in "iu" or not values.size:
        return
    limits = np.iinfo(stored)
    low, high = int(values.min()), int(values.max())
    if low < limits.min or high > limits.max:
        yield finding(
            "column_dtype",
            expected=f"{feature.key!r} within {limits.min} to {limits.max} ({feature.dtype})",
            found=f"{low if low < limits.min else high}",
            **where,
        )


def _check_time(rows: EpisodeRows, fps: float, where: dict[str, Any]) -> Iterator[Finding]:
    order = list(_check_frame_index(rows, where))
    times = list(_check_timestamps(rows, fps, where))
    yield from order + times
    if order and any(found.severity == "error" for found in times):
        yield finding(
            "rows_misplaced",
            expected="frame_index or timestamps that tell which frame belongs to a row",
            found="both broken",
            **where,
        )


def _check_frame_index(rows: EpisodeRows, where: dict[str, Any]) -> Iterator[Finding]:
    count = len(rows.frame_index)
    wrong = np.flatnonzero(rows.frame_index != np.arange(count))
    if len(wrong):
        yield finding(
            "frame_index_broken",
            expected=f"frame_index 0 to {count - 1}",
            found=f"{rows.frame_index[wrong[0]]} at step {wrong[0]}",
            step=int(wrong[0]),
            **where,
        )


def _check_timestamps(rows: EpisodeRows, fps: float, where: dict[str, Any]) -> Iterator[Finding]:
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
            step=at,
            **where,
        )
        return
    ideal = np.arange(len(rows.timestamp)) / fps
    drift = np.abs(rows.timestamp - ideal)
    # LeRobot stores float32, whose neighbours are 1.2e-4 s apart after 17 minutes
    if (drift > TIMESTAMP_TOLERANCE_SECONDS + np.spacing(ideal.astype(np.float32))).any():
        at = int(drift.argmax())
        code = "timestamps_off_fps" if drift[at] >= 0.5 / fps else "timestamps_jitter"
        yield finding(
            code,
            expected=f"{ideal[at]:.6f} s at step {at} ({fps:g} fps)",
            found=f"{rows.timestamp[at]:.6f} s",
            step=at,
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
            step=int(early[0]),
            **where,
        )
    elif len(early):
        yield finding(
            "done_mid_episode",
            expected=f"one end, at step {len(done) - 1}",
            found=f"one at step {early[0]}",
            step=int(early[0]),
            **where,
        )
