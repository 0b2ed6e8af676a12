"""Is a camera out of step with the joints?

By how many frames motion in the picture follows motion of the robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks
from lewm_data.quality.assess.joint_weights import joint_weights, paired

MAX_LAG = 12
"""Largest lag to try, in frames, in either direction."""

_HIGH_PASS = 41
"""Frames of the moving mean that is subtracted: the phase of a task moves slowly, and would smear the peak."""

_NUM_RESAMPLES = 300
_SHORTEST = 4 * MAX_LAG
_RIVAL_DISTANCE = 3
_AGREE_FRAMES = 1.5

MIN_CORRELATION, MIN_LEAD, MAX_INTERVAL, MIN_AGREEMENT = 0.25, 0.08, 1.0, 0.75
FEW_EPISODES, FEW_CORRELATION = 4, 0.6
"""A lag needs all of the first four; with fewer independent episodes than this, the correlation must be higher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lag:
    """How far a camera is behind the joints, accurate to half a frame at best.

    Attributes:
        frames: Frames by which the picture is late; negative where it is early. None: cannot tell.
        low: Lower end of the 95 % interval, from resampled episodes, wider where they are few; None with ``frames``.
        high: Upper end.
        correlation: Peak correlation of motion in the picture with motion of the robot.
        agreement: Share of the episodes whose own peak is within 1.5 frames.
    """

    frames: float | None
    low: float | None
    high: float | None
    correlation: float | None
    agreement: float | None


UNKNOWN = Lag(frames=None, low=None, high=None, correlation=None, agreement=None)


def find_lag(footage: Footage, track: CameraTrack) -> Lag:
    """Finds the lag of one camera.

    Motion energy of the picture and speed of the joints, each weighted by how much it moves the picture, are compared
    as logarithms, high-passed; correlations of all episodes are averaged by Fisher's transformation, and the peak is
    refined by a parabola.

    Args:
        footage: The recording.
        track: The camera.

    Returns:
        The lag, without a number if the evidence is not sufficient.
    """
    speed, energy = _motion(footage, track)
    if not speed:
        return UNKNOWN
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)
    curves = np.array([[_correlation(v, e, lag) for lag in lags.tolist()] for v, e in zip(speed, energy, strict=True)])
    weights = np.array([len(v) for v in speed], np.float64)
    fisher = np.arctanh(np.clip(curves, -0.999, 0.999))
    mean = np.average(fisher, axis=0, weights=weights)
    peak = _peak(mean)
    correlation = float(np.tanh(mean.max()))
    rival = float(np.tanh(mean[np.abs(lags - peak) > _RIVAL_DISTANCE].max()))
    agreement = float(np.mean([abs(_peak(curve) - peak) <= _AGREE_FRAMES for curve in fisher]))
    independent = num_independent(speed)
    is_few = independent < FEW_EPISODES
    low, high = _interval(fisher, weights)
    if not is_few:
        low, high = (peak + _widening(independent) * (end - peak) for end in (low, high))
    enough = (
        abs(peak) < MAX_LAG
        and correlation >= MIN_CORRELATION
        and correlation - rival >= MIN_LEAD
        and high - low <= MAX_INTERVAL
        and (len(curves) < FEW_EPISODES or agreement >= MIN_AGREEMENT)
        and (not is_few or correlation >= FEW_CORRELATION)
    )
    if not enough:
        return Lag(frames=None, low=None, high=None, correlation=correlation, agreement=agreement)
    if is_few:  # resampling episodes that are few, or alike, says too little
        low, high = min(low, peak - 0.5), max(high, peak + 0.5)
    return Lag(frames=peak, low=low, high=high, correlation=correlation, agreement=agreement)


def joint_speeds(footage: Footage) -> NDArray[np.float64] | None:
    """(N, D) changes of the moving dimensions of the state, in standard deviations; NaN at first steps.

    Without a state, or with one that does not move, the action stands in.
    """
    for values in (footage.state, footage.action):
        moving = moving_dimensions(values, footage.episode, footage.fps)
        if moving.any():
            break
    else:
        return None
    values = values[:, moving]
    speeds = np.full(values.shape, np.nan)
    same = np.diff(footage.episode) == 0
    speeds[1:][same] = (np.abs(np.diff(values, axis=0)) / values.std(axis=0))[same]
    return speeds


def num_independent(speeds: list[NDArray[np.float64]]) -> float:
    """How many independent episodes are worth as much evidence as these.

    Episodes that repeat one path repeat its chance matches, too. Correlations of two episodes have errors that
    correlate by about the square of what their speeds do, of which the mean over all pairs counts.

    Args:
        speeds: (L,) for each episode, of zero mean.
    """
    count = len(speeds)
    if count < 2:
        return float(count)
    rows = np.zeros((count, max(len(speed) for speed in speeds)))
    for row, speed in zip(rows, speeds, strict=True):
        row[: len(speed)] = speed / np.sqrt((speed * speed).sum())
    total = np.square(rows.sum(axis=0)).sum()
    shared = max(0.0, float(total - count) / (count * (count - 1)))
    return count / (1 + (count - 1) * shared**2)


def _motion(footage: Footage, track: CameraTrack) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Log speed and log energy of each episode that is long enough and has motion."""
    everything = joint_speeds(footage)
    if everything is None:
        return [], []
    speeds, energies = [], []
    for steps in episode_blocks(footage.episode):
        v, e = everything[steps[1:]], track.energy[steps[1:]].astype(np.float64)
        known = np.isfinite(v).all(axis=1) & np.isfinite(e)
        if len(v) < _SHORTEST or known.mean() < 0.9:
            continue
        v, e = (_smooth(np.stack([_filled(x, known) for x in column.T], axis=1), 3) for column in (v, e[:, None]))
        speeds.append(v)
        energies.append(e[:, 0])
    if not speeds:
        return [], []
    weights = joint_weights(
        [v - _smooth(v, _HIGH_PASS) for v in speeds],
        [e - _smooth(e, _HIGH_PASS) for e in energies],
        range(-MAX_LAG, MAX_LAG + 1),
    )
    matched = []
    for v, e, weight in zip(speeds, energies, weights, strict=True):
        speed = v @ weight
        speed = np.log(speed + np.quantile(speed, 0.1) + 1e-3 * speed.max() + 1e-9)
        energy = np.log(e + 1e-2 * np.median(e) + 1e-9)
        speed, energy = (_clipped(x - _smooth(x, _HIGH_PASS)) for x in (speed, energy))
        if speed.std() >= 1e-6 and energy.std() >= 1e-6:
            matched.append((speed - speed.mean(), energy))
    return [speed for speed, _ in matched], [energy for _, energy in matched]


def _correlation(speed: NDArray[np.float64], energy: NDArray[np.float64], lag: int) -> float:
    """Correlation of each speed with the energy ``lag`` frames later."""
    a, b = paired(speed, energy, lag)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))


def _filled(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values with those that are not known drawn in as straight lines."""
    return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])


def _smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Moving mean along time over an odd number of values, over fewer at the ends; values are (L,) or (L, D)."""
    width = min(width, len(values) // 2 * 2 - 1)
    kernel = np.ones(width)
    counts = np.convolve(np.ones(len(values)), kernel, "same")
    columns = values.reshape(len(values), -1).T
    smoothed = [np.convolve(column, kernel, "same") / counts for column in columns]
    return np.stack(smoothed, axis=1).reshape(values.shape)


def _clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values without outliers: the logarithm of a repeated frame's energy would outweigh all others."""
    middle = np.median(values)
    reach = 3 * 1.4826 * np.median(np.abs(values - middle))
    return np.asarray(values.clip(middle - reach, middle + reach))


def _peak(curve: NDArray[np.float64]) -> float:
    """Where a curve over the lags is highest, refined by the parabola through three points."""
    top = int(curve.argmax())
    if not 0 < top < len(curve) - 1:
        return float(top - MAX_LAG)
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return float(top - MAX_LAG + (0.5 * (left - right) / bend if bend < 0 else 0.0))


def _widening(num_episodes: float) -> float:
    """How much too narrow resampling few episodes is.

    Resampled means vary by (n - 1) / n of the variance, and their deviation follows Student's distribution, of which
    this is the expansion in 1 / (n - 1) (Abramowitz and Stegun, 26.7.5) at 97.5 %, over that of the normal one.
    """
    free, z = num_episodes - 1, 1.96
    student = 1 + (z**2 + 1) / (4 * free) + (5 * z**4 + 16 * z**2 + 3) / (96 * free**2)
    return float(student * np.sqrt(num_episodes / free))


def _interval(fisher: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the peaks of resampled episodes."""
    random = np.random.default_rng(0)
    peaks = []
    for _ in range(_NUM_RESAMPLES):
        drawn = random.integers(0, len(fisher), len(fisher))
        peaks.append(_peak(np.average(fisher[drawn], axis=0, weights=weights[drawn])))
    low, high = np.percentile(peaks, [2.5, 97.5])
    return float(low), float(high)
