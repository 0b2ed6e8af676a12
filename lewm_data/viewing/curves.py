"""Curves for a page: as few points as a plot can show, without losing a spike, in two bytes each."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 240
ABSENT = 65_535
"""Stands for NaN and infinite values."""


def thinned(values: NDArray[np.float64], max_points: int = MAX_POINTS) -> NDArray[np.float64]:
    """Thins curves out: of each stretch of steps, the smallest and the largest value stay, in the order they came in.

    Args:
        values: (L, D).
        max_points: Points to keep, at most; an even number.

    Returns:
        (P, D); all of it where L is not above ``max_points``, else two points per stretch.
    """
    length = len(values)
    if length <= max_points:
        return values
    edges = np.linspace(0, length, max_points // 2 + 1).round().astype(int)
    thin = np.empty((max_points, values.shape[1]))
    for number, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = values[start:stop]
        low, high = _arg(part, np.inf).argmin(axis=0), _arg(part, -np.inf).argmax(axis=0)
        first, second = np.minimum(low, high), np.maximum(low, high)
        thin[2 * number] = np.take_along_axis(part, first[None], axis=0)[0]
        thin[2 * number + 1] = np.take_along_axis(part, second[None], axis=0)[0]
    return thin


def packed(values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """Writes curves as numbers from 0 to 65534 between two limits, little-endian uint16, in base64.

    Args:
        values: (P, D).
        low: (D,) what becomes 0.
        high: (D,) what becomes 65534.

    Returns:
        The D curves, one after the other.
    """
    width = np.where(high > low, high - low, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.clip((values - low) / width, 0, 1)
    numbers = np.where(np.isfinite(values), np.nan_to_num(share) * (ABSENT - 1), ABSENT)
    return base64.b64encode(numbers.round().astype("<u2").T.tobytes()).decode("ascii")


def _arg(part: NDArray[np.float64], instead: float) -> NDArray[np.float64]:
    return np.where(np.isnan(part), instead, part)
