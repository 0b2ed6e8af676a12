"""The noise floor of each dimension, and which dimensions never move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOISE_RANGE = 8.0
"""A dimension whose range is at most this many times its noise never moves."""

_MAD_TO_STD = 1.4826
_HOLD_SECONDS = 0.5
_SMOOTH_SECONDS = 0.3
_ELSEWHERE_SHARE = 0.02


def noise_floor(values: NDArray[np.float64], episode: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard deviation of each dimension's noise, from the median absolute deviation of its second differences.

    First differences would call slow motion noise. Second differences of a motion that is smooth from step to step are
    small, so what is left is noise, which they enlarge by the square root of 6.

    Args:
        values: (N, D).
        episode: (N,) the episode of each step.

    Returns:
        (D,); 0 where most second differences vanish, as those of quantized values do.
    """
    same = episode[2:] == episode[:-2]
    second = (values[2:] - 2 * values[1:-1] + values[:-2])[same]
    if not len(second):
        return np.zeros(values.shape[1])
    spread = np.median(np.abs(second - np.median(second, axis=0)), axis=0)
    return np.asarray(_MAD_TO_STD * spread / np.sqrt(6))


def value_range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D,) range of each dimension, without the outermost half percent on each side."""
    low, high = np.percentile(values, [0.5, 99.5], axis=0)
    return np.asarray(high - low)


def moving_dimensions(values: NDArray[np.float64], episode: NDArray[np.int64], fps: float) -> NDArray[np.bool_]:
    """Which dimensions move: their range is more than ``NOISE_RANGE`` times their noise.

    Values with few levels need a second look, since a median of differences says nothing about them. A joint that rests
    between two counts of its encoder flickers and returns; a gripper that opens and closes stays where it goes. So such
    a dimension moves if, after a median filter, it holds its levels for half a second and leaves its usual one for 2 %
    of the time.

    Args:
        values: (N, D).
        episode: (N,) the episode of each step.
        fps: Steps per second.

    Returns:
        (D,) bool.
    """
    num_steps, width = values.shape
    if num_steps < 3 or not width:
        return np.zeros(width, np.bool_)
    noise = noise_floor(values, episode)
    extent = value_range(values)
    size = np.abs(values).max(axis=0)
    moves = (extent > NOISE_RANGE * noise) & (extent > 1e-6 * size) & (extent > 1e-9)
    for dimension in range(width):
        column = values[:, dimension]
        quantum = _quantum(column)
        if moves[dimension] and quantum is not None and extent[dimension] <= 1.01 * NOISE_RANGE * quantum:
            moves[dimension] = _holds_its_levels(column, episode, fps)
    return moves


def _quantum(column: NDArray[np.float64]) -> float | None:
    """The distance of neighboring levels, where a column has few of them; else None."""
    levels = np.unique(column)
    if not 2 <= len(levels) <= 4 * NOISE_RANGE:
        return None
    gaps = np.diff(levels)
    return float(gaps[gaps > 1e-6 * gaps.max()].min())


def _holds_its_levels(column: NDArray[np.float64], episode: NDArray[np.int64], fps: float) -> bool:
    """Whether a column of few levels changes for good, rather than flickers."""
    half = max(1, round(_SMOOTH_SECONDS * fps / 2))
    dwell: list[int] = []
    filtered: list[NDArray[np.float64]] = []
    for steps in np.split(np.arange(len(column)), np.flatnonzero(np.diff(episode)) + 1):
        padded = np.pad(column[steps], half, mode="edge")
        smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
        changes = np.flatnonzero(np.diff(smooth)) + 1
        filtered.append(smooth)
        dwell += np.diff(np.r_[0, changes, len(smooth)]).tolist()
    _, counts = np.unique(np.concatenate(filtered), return_counts=True)
    is_elsewhere = 1 - counts.max() / counts.sum() >= _ELSEWHERE_SHARE
    return is_elsewhere and float(np.median(dwell)) >= _HOLD_SECONDS * fps
