"""How episodes differ from each other: how long, how still, how extreme, how jumpy; and which of them are odd.

Pure numpy: values in, values out. Everything is in standard deviations of the whole dataset, so that joints in degrees
and grippers in percent compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_data.format.schema import ACTION, STATE

STILL_SECONDS = 0.5
STILL_DEVIATIONS = 0.05
"""A robot is still where nothing moves by 5 % of its standard deviation within half a second.

On an arm whose joints have a standard deviation of 20 degrees that is 1 degree: above the jitter of its encoders (0.09
degrees on an SO-101), below any movement on purpose.
"""

ODD_SCORE = 3.5
"""Modified z-scores above this are outliers (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)."""

LEAST_EPISODES = 8
"""Among fewer episodes than this, nothing can be called odd."""


class Scale(NamedTuple):
    """What a column's dimensions are like over the whole dataset; arrays of shape (D,), float64."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]


class ScaleSum:
    """Adds up a column's scale, block after block; NaN and infinite values are left out."""

    def __init__(self, width: int) -> None:
        self._count = np.zeros(width)
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)
        self._min, self._max = np.full(width, np.inf), np.full(width, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Takes a block of shape (n, D). Chan, Golub and LeVeque's way to join variances."""
        known = np.where(np.isfinite(values), values, np.nan)
        count = np.isfinite(known).sum(axis=0)
        some = np.maximum(count, 1)
        mean = np.nansum(known, axis=0) / some
        squares = np.nansum((known - mean) ** 2, axis=0)
        total = np.maximum(self._count + count, 1)
        apart = mean - self._mean
        self._squares += squares + apart**2 * self._count * count / total
        self._mean += apart * count / total
        self._count += count
        self._min = np.fmin(self._min, np.where(np.isnan(known), np.inf, known).min(axis=0, initial=np.inf))
        self._max = np.fmax(self._max, np.where(np.isnan(known), -np.inf, known).max(axis=0, initial=-np.inf))

    def scale(self) -> Scale:
        """The scale of everything that was added; zeros where nothing was."""
        is_empty = self._count == 0
        return Scale(
            mean=self._mean,
            std=np.sqrt(self._squares / np.maximum(self._count, 1)),
            min=np.where(is_empty, 0.0, self._min),
            max=np.where(is_empty, 0.0, self._max),
        )


class Peak(NamedTuple):
    """Where something is largest.

    Attributes:
        deviations: How large, in standard deviations; NaN where there is nothing to measure.
        column: ``action`` or ``state``.
        dimension: Number of the dimension.
        step: Step of the episode.
    """

    deviations: float
    column: str = STATE
    dimension: int = 0
    step: int = 0


class EpisodeMetrics(NamedTuple):
    """What is measured of one episode.

    Attributes:
        still: Share of the time in which the robot is still, in [0, 1]; NaN where the episode is too short to tell.
        extreme: The value that is farthest from its mean.
        jump: The largest change from one step to the next.
    """

    still: float
    extreme: Peak
    jump: Peak


def measure(rows: Mapping[str, NDArray[np.float64]], scales: Mapping[str, Scale], fps: float) -> EpisodeMetrics:
    """Measures one episode.

    Args:
        rows: ``action`` and ``state``, each (L, D).
        scales: The same names to their scales.
        fps: Steps per second.
    """
    distances = {name: np.abs(rows[name] - scales[name].mean) for name in (ACTION, STATE)}
    changes = {name: np.abs(np.diff(rows[name], axis=0)) for name in (ACTION, STATE)}
    extreme = max((_peak(name, distances[name], scales[name].std, 0) for name in distances), key=_size)
    jump = max((_peak(name, changes[name], scales[name].std, 1) for name in changes), key=_size)
    return EpisodeMetrics(still_share(rows[STATE], scales[STATE].std, fps), extreme, jump)


def still_share(state: NDArray[np.float64], std: NDArray[np.float64], fps: float) -> float:
    """Share of the time in which no dimension moves; see ``STILL_DEVIATIONS``."""
    lag = max(1, round(STILL_SECONDS * fps))
    if len(state) <= lag:
        return float("nan")
    moved = np.abs(state[lag:] - state[:-lag])
    return float((moved <= STILL_DEVIATIONS * std).all(axis=1).mean())


def odd(values: ArrayLike) -> NDArray[np.int64]:
    """Which values stand out from the others.

    Args:
        values: (E,) one number per episode; NaN is never odd.

    Returns:
        (E,) -1 where it is far too small, 1 where it is far too large, else 0.
    """
    values = np.asarray(values, np.float64)
    sides = np.zeros(len(values), np.int64)
    known = values[np.isfinite(values)]
    if len(known) < LEAST_EPISODES:
        return sides
    apart = values - np.median(known)
    spread = np.median(np.abs(known - np.median(known))) / 0.6745
    if spread == 0:  # more than half of them are equal
        spread = 1.253314 * np.abs(known - np.median(known)).mean()
    if spread == 0:
        return sides
    scores = np.nan_to_num(apart / spread, nan=0.0, posinf=np.inf, neginf=-np.inf)
    sides[scores > ODD_SCORE] = 1
    sides[scores < -ODD_SCORE] = -1
    return sides


def _peak(column: str, sizes: NDArray[np.float64], std: NDArray[np.float64], first_step: int) -> Peak:
    """The largest of (n, D) sizes in standard deviations; dimensions that never change are left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = np.where(np.isfinite(sizes) & (std > 0), sizes / std, -1.0)
    if not deviations.size or deviations.max() < 0:
        return Peak(float("nan"), column)
    step, dimension = np.unravel_index(int(deviations.argmax()), deviations.shape)
    return Peak(float(deviations[step, dimension]), column, int(dimension), int(step) + first_step)


def _size(peak: Peak) -> float:
    return -1.0 if np.isnan(peak.deviations) else peak.deviations
