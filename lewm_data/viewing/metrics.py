"""How episodes differ: how still, how extreme and how jumpy they are, and which of them are odd.

Pure functions of numpy arrays. Extremes and jumps are in standard deviations of the whole dataset, so joints in degrees
and grippers in percent are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_data.format.schema import ACTION, STATE
from lewm_data.quality.assess.idle import MIN_IDLE_SECONDS, find_resting_rows

ODD_SCORE = 3.5
"""Modified z-scores above this are outliers (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)."""

MIN_EPISODES = 8
"""With fewer episodes than this, none is called odd."""


class Scale(NamedTuple):
    """Statistics of a column over the whole dataset: float64 arrays of shape (D,)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]


class ScaleSum:
    """Accumulates a column's scale block by block, ignoring NaN and infinite values."""

    def __init__(self, width: int) -> None:
        self._count = np.zeros(width)
        self._mean = np.zeros(width)
        self._squares = np.zeros(width)
        self._min, self._max = np.full(width, np.inf), np.full(width, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Adds a block of shape (n, D), with the parallel variance formula of Chan, Golub and LeVeque."""
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
        """Returns the scale of all blocks; zeros for a dimension without values."""
        is_empty = self._count == 0
        return Scale(
            mean=self._mean,
            std=np.sqrt(self._squares / np.maximum(self._count, 1)),
            min=np.where(is_empty, 0.0, self._min),
            max=np.where(is_empty, 0.0, self._max),
        )


class Peak(NamedTuple):
    """The largest value of an episode and its place.

    Attributes:
        deviations: Its size in standard deviations; NaN if there is nothing to measure.
        column: ``action`` or ``state``.
        dimension: Index of the dimension.
        step: Step of the episode.
    """

    deviations: float
    column: str = STATE
    dimension: int = 0
    step: int = 0


class EpisodeMetrics(NamedTuple):
    """The measurements of one episode.

    Attributes:
        still: Share of the steps at which the robot rests, as ``assess`` judges rows; NaN in an episode that is too
            short for a rest.
        extreme: The value farthest from its mean.
        jump: The largest change from one step to the next.
    """

    still: float
    extreme: Peak
    jump: Peak


def measure(rows: Mapping[str, NDArray[np.float64]], scales: Mapping[str, Scale]) -> tuple[Peak, Peak]:
    """Finds the most extreme value of one episode, and its largest jump.

    Args:
        rows: ``action`` and, if there is one, ``state``, each (L, D).
        scales: Scale of each of these columns; a standard deviation of 0 excludes a dimension.
    """
    names = [name for name in (ACTION, STATE) if name in rows]
    distances = {name: np.abs(rows[name] - scales[name].mean) for name in names}
    changes = {name: np.abs(np.diff(rows[name], axis=0)) for name in names}
    extreme = max((_peak(name, distances[name], scales[name].std, 0) for name in distances), key=_size)
    jump = max((_peak(name, changes[name], scales[name].std, 1) for name in changes), key=_size)
    return extreme, jump


def still_shares(
    episodes: Sequence[Mapping[str, NDArray[np.float64]]], fps: float, *, anything_moves: bool
) -> list[float]:
    """Measures how much each of some episodes rests, as ``assess`` judges rows.

    Args:
        episodes: Rows of each: ``action`` and, if there is one, ``state``, each (L, D). They are judged together.
        fps: Steps per second.
        anything_moves: Whether any dimension moves more than its noise, in any episode of the recording.

    Returns:
        One share for each, in [0, 1]; NaN for one that is too short for a rest, or holds NaN or infinite values.
    """
    shares = [float("nan")] * len(episodes)
    usable = [
        place
        for place, rows in enumerate(episodes)
        if len(rows[ACTION]) >= MIN_IDLE_SECONDS * fps
        and all(np.isfinite(rows[name]).all() for name in (ACTION, STATE) if name in rows)
    ]
    if not usable:
        return shares
    lengths = np.array([len(episodes[place][ACTION]) for place in usable], np.int64)
    stops = np.cumsum(lengths)
    columns = [
        np.concatenate([episodes[place][name] for place in usable])
        for name in (STATE, ACTION)
        if name in episodes[usable[0]]
    ]
    is_resting = (
        find_resting_rows(
            lambda start, stop: [values[start:stop] for values in columns],
            stops - lengths,
            lengths,
            num_rows=int(stops[-1]),
            fps=fps,
        )
        if anything_moves
        else np.ones(int(stops[-1]), np.bool_)
    )
    for place, part in zip(usable, np.split(is_resting, stops[:-1]), strict=True):
        shares[place] = float(part.mean())
    return shares


def odd(values: ArrayLike) -> NDArray[np.int64]:
    """Finds the values that stand out from the others.

    Args:
        values: (E,) one number per episode; NaN is never odd.

    Returns:
        (E,) -1 for a value far below the others, 1 for one far above them, otherwise 0.
    """
    values = np.asarray(values, np.float64)
    sides = np.zeros(len(values), np.int64)
    known = values[np.isfinite(values)]
    if len(known) < MIN_EPISODES:
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
    """The largest of (n, D) sizes in standard deviations, ignoring dimensions that never change."""
    with np.errstate(divide="ignore", invalid="ignore"):
        deviations = np.where(np.isfinite(sizes) & (std > 0), sizes / std, -1.0)
    if not deviations.size or deviations.max() < 0:
        return Peak(float("nan"), column)
    step, dimension = np.unravel_index(int(deviations.argmax()), deviations.shape)
    return Peak(float(deviations[step, dimension]), column, int(dimension), int(step) + first_step)


def _size(peak: Peak) -> float:
    return -1.0 if np.isnan(peak.deviations) else peak.deviations
