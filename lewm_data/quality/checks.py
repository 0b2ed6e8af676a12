"""Checks of the metadata and of an episode's rows: values in, findings out. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lewm_data.config import StateDtype
from lewm_data.findings import Finding, finding
from lewm_data.format.schema import ACTION, DONE, ROW_DTYPES, STATE
from lewm_data.quality.clock import Frames, check_clock
from lewm_data.quality.episode_rows import EpisodeRows
from lewm_data.source.info import NUMBER_DTYPES, Feature
from lewm_data.source.metadata import LeRobotDataset

_FINEST_SHARE = 2.0**-22
"""float32 has 24 binary digits, so it loses changes below this share of a dimension's range, whatever the unit."""

_ROUNDING = 64
"""Differences of up to this many units in the last place come from rounding, not from motion."""

MAX_EPISODE_BYTES = 1 << 30
"""Maximum rows of one episode, which are in memory at once: ten days of a robot arm at 30 fps."""


def check_dataset(dataset: LeRobotDataset, extra_columns: Sequence[str]) -> Iterator[Finding]:
    """Reports what in ``meta/info.json`` prevents a conversion of the dataset as a whole."""
    where: dict[str, Any] = {"file": "meta/info.json"}
    for key in dict.fromkeys(key for keys in dataset.row_columns(tuple(extra_columns)).values() for key in keys):
        feature = dataset.features.get(key)
        if feature is None:
            yield finding("column_missing", expected=f"a feature {key!r}", found="none", **where)
        elif feature.dtype not in NUMBER_DTYPES:
            yield finding("column_dtype", expected=f"{key!r} of a number's dtype", found=repr(feature.dtype), **where)
        elif not feature.width:
            yield finding("column_width", expected=f"a shape of {key!r}", found="none, or an empty one", **where)
    if not dataset.cameras:
        yield finding("camera_none", expected="a camera (dtype video or image)", found="none", **where)


def check_length(episode: int, length: int, min_steps: int, max_steps: int) -> Iterator[Finding]:
    """Reports an episode without steps, with too few for a training window, or with too many for memory."""
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
    rows: EpisodeRows,
    *,
    length: int,
    first_index: int,
    fps: float,
    features: Mapping[str, Feature],
    columns: Mapping[str, Sequence[str]],
    frames: Frames,
    state_dtype: StateDtype = "float32",
) -> Iterator[Finding]:
    """Reports everything that the Parquet rows of one episode show.

    Args:
        rows: The rows found under the episode's index, one or more.
        length: Rows that the metadata promises.
        first_index: The ``index`` that the metadata gives its first row; negative if it gives none.
        fps: Steps per second.
        features: LeRobot's key to its entry in ``meta/info.json``.
        columns: Our column name to the keys that make it up.
        frames: How the episode's frames relate to its rows.
        state_dtype: dtype that action and state will have in the file.
    """
    where: dict[str, Any] = {"episode": rows.episode, "file": rows.file}
    count = rows.length
    if count != length:
        code = "rows_missing" if count < length else "rows_extra"
        yield finding(code, expected=f"{length} rows", found=f"{count}", **where)
    if first_index >= 0 and rows.index is not None:
        wrong = np.flatnonzero(rows.index != first_index + np.arange(count))
        if len(wrong):
            yield finding(
                "index_mismatch",
                expected=f"index {first_index + wrong[0]} at step {wrong[0]}",
                found=f"{rows.index[wrong[0]]}",
                step=int(wrong[0]),
                **where,
            )
    yield from check_clock(rows.timestamp, rows.frame_index, length=length, fps=fps, frames=frames, where=where)
    for name, keys in columns.items():
        for key in keys:
            if key in rows.columns:
                values = rows.columns[key].reshape(count, -1)
                stored = np.dtype(state_dtype if name in (ACTION, STATE) else ROW_DTYPES.get(name, features[key].dtype))
                yield from _check_values(values, stored, features[key], where)
                yield from _check_precision(values, stored, features[key], where)
    yield from _check_motion(rows, columns, where)
    for key in columns.get(DONE, ()):
        if key in rows.columns and rows.columns[key].size:
            done = np.nan_to_num(rows.columns[key].reshape(count, -1)[:, 0]).astype(bool)
            yield from _check_done(done, key, where)


def _check_values(values: np.ndarray, stored: np.dtype, feature: Feature, where: dict[str, Any]) -> Iterator[Finding]:
    """Width, finiteness and dtype of a column's values, shape (L, width)."""
    if values.shape[1] != feature.width:
        yield finding(
            "column_width", expected=f"{feature.key!r} {feature.width} wide", found=f"{values.shape[1]}", **where
        )
    if values.dtype.kind != "f":
        yield from _check_range(values, stored, feature, where)
        return
    limit = np.finfo(stored if stored.kind == "f" else values.dtype).max  # larger values become Inf in the file
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
    """Whether whole numbers fit into their stored dtype; otherwise they would wrap around."""
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


def _check_precision(
    values: np.ndarray, stored: np.dtype, feature: Feature, where: dict[str, Any]
) -> Iterator[Finding]:
    """Reports dimensions whose changing values become equal in the stored dtype."""
    for lost in lost_precision(values, stored):
        name = feature.names[lost.dimension] if lost.dimension < len(feature.names) else f"number {lost.dimension}"
        yield finding(
            "precision_lost",
            expected=f"{feature.key!r} ({name}) to keep its {lost.num_distinct} distinct values",
            found=f"{lost.num_left} of them left as {stored}, because neighbors such as {lost.example[0]!r} and "
            f"{lost.example[1]!r} become equal",
            step=lost.step,
            **where,
        )


class LostPrecision(NamedTuple):
    """A dimension that a dtype is too coarse for.

    Attributes:
        dimension: Its number.
        num_distinct: Distinct values in the source.
        num_left: Distinct values once they are stored.
        step: The first step whose value differs from the step before, but not once stored.
        example: Both values.
    """

    dimension: int
    num_distinct: int
    num_left: int
    step: int
    example: tuple[float, float]


def lost_precision(values: np.ndarray, stored: np.dtype) -> list[LostPrecision]:
    """Finds dimensions that change from step to step, but no longer once they are stored.

    Of whole numbers, one lost change is enough. Of floating-point numbers, a quarter of the changes must be lost, and
    changes by the rounding of float64 arithmetic do not count: a joint at rest trembles in its last digits. Neither do
    changes below ``_FINEST_SHARE`` of the dimension's range: a simulated joint settles over billionths of it.

    Args:
        values: (L, D) numbers, as the source has them. NaN and infinite values are left out.
        stored: The dtype that they will be stored as.

    Example:
        >>> clock = 1.7e9 + 0.1 * np.arange(50)[:, None]
        >>> [(lost.num_distinct, lost.num_left) for lost in lost_precision(clock, np.dtype("float32"))]
        [(50, 1)]
        >>> lost_precision(clock, np.dtype("float64"))
        []
    """
    if stored.kind != "f" or values.dtype.kind not in "iuf" or np.can_cast(values.dtype, stored) or len(values) < 2:
        return []
    is_float = values.dtype.kind == "f"
    with np.errstate(over="ignore", invalid="ignore"):
        kept = values.astype(stored)
        before, after = values[:-1], values[1:]
        is_change = before != after
        if is_float:
            size = np.maximum(np.abs(before), np.abs(after))
            is_change &= np.abs(after - before) > _ROUNDING * np.finfo(values.dtype).eps * size
            is_change &= np.isfinite(before) & np.isfinite(after)
            finite = np.where(np.isfinite(values), values, np.nan)
            extent = np.fmax.reduce(finite, axis=0) - np.fmin.reduce(finite, axis=0)
            is_change &= np.abs(after - before) > _FINEST_SHARE * extent
        is_lost = is_change & (kept[:-1] == kept[1:])
    num_lost, num_changes = is_lost.sum(axis=0), is_change.sum(axis=0)
    found = []
    for dimension in np.flatnonzero(num_lost * 4 >= num_changes if is_float else num_lost > 0).tolist():
        if num_lost[dimension]:
            step = int(is_lost[:, dimension].argmax()) + 1
            column, left = values[:, dimension], kept[:, dimension]
            distinct, num_left = np.unique(column[np.isfinite(column)]), np.unique(left[np.isfinite(left)])
            pair = column[step - 1].item(), column[step].item()
            found.append(LostPrecision(dimension, len(distinct), len(num_left), step, pair))
    return found


def _check_motion(rows: EpisodeRows, columns: Mapping[str, Sequence[str]], where: dict[str, Any]) -> Iterator[Finding]:
    if rows.length < 2:
        return
    if _is_constant(rows, columns.get(ACTION, ())):
        is_zero = not any(rows.columns[key].any() for key in columns[ACTION])
        yield finding(
            "action_zero" if is_zero else "action_constant",
            expected="actions that differ",
            found=f"the same in {rows.length} steps",
            **where,
        )
    if _is_constant(rows, columns.get(STATE, ())):
        yield finding("state_frozen", expected="states that differ", found=f"the same in {rows.length} steps", **where)


def _is_constant(rows: EpisodeRows, keys: Sequence[str]) -> bool:
    """Whether all these columns hold the same values in every row; False if one of them could not be read."""
    parts = [rows.columns[key] for key in keys if key in rows.columns]
    return len(parts) == len(keys) > 0 and all(part.size > 0 and (part == part[0]).all() for part in parts)


def _check_done(done: np.ndarray, key: str, where: dict[str, Any]) -> Iterator[Finding]:
    last = len(done) - 1
    early = np.flatnonzero(done[:-1])
    if not done.any():
        yield finding("done_never", expected=f"an end at step {last}", found="none", **where)
    elif not done[-1]:
        yield finding(
            "done_not_last",
            expected=f"the end at step {last}",
            found=f"it at step {early[0]}",
            step=int(early[0]),
            **where,
        )
    elif len(early):
        is_run = bool(done[early[0] :].all())
        yield finding(
            "done_run" if is_run else "done_mid_episode",
            expected=f"one end, at step {last}",
            found=f"{key} true on the last {len(early) + 1} steps" if is_run else f"one at step {early[0]}",
            step=int(early[0]),
            **where,
        )
