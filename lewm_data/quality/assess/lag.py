"""Is a camera out of step with the joints?

By how many frames motion in the picture follows motion of the robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks

MAX_LAG = 12
"""Lags that are tried, in frames, to either side."""

_HIGH_PASS = 41
"""Frames of the moving mean that is taken off: the phase of a task moves slowly, and would smear the peak."""

_NUM_RESAMPLES = 300
_SHORTEST = 4 * MAX_LAG
_RIVAL_DISTANCE = 3
_AGREE_FRAMES = 1.5

MIN_CORRELATION, MIN_LEAD, MAX_INTERVAL, MIN_AGREEMENT = 0.25, 0.08, 1.0, 0.75
FEW_EPISODES, FEW_CORRELATION = 4, 0.6
"""A lag needs all of the first four; with fewer episodes than this, the correlation must be higher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lag:
    """How far a camera is behind the joints; half a frame is as good as it gets.

    Attributes:
        frames: Frames by which the picture is late; negative where it is early. None: cannot tell.
        low: Lower end of the 95 % interval, from resampled episodes; None with ``frames``.
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

    Motion energy of the picture and speed of the joints are compared as logarithms, high-passed; correlations of all
    episodes are averaged by Fisher's transformation, and the peak is refined by a parabola.

    Args:
        footage: The recording.
        track: The camera.

    Returns:
        The lag, without a number where the evidence does not suffice.
    """
    speed = joint_speed(footage)
    if speed is None:
        return UNKNOWN
    curves, weights = _correlations(speed, track, footage.episode)
    if not len(curves):
        return UNKNOWN
    fisher = np.arctanh(np.clip(curves, -0.999, 0.999))
    mean = np.average(fisher, axis=0, weights=weights)
    peak = _peak(mean)
    correlation = float(np.tanh(mean.max()))
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)
    rival = float(np.tanh(mean[np.abs(lags - peak) > _RIVAL_DISTANCE].max()))
    agreement = float(np.mean([abs(_peak(curve) - peak) <= _AGREE_FRAMES for curve in fisher]))
    low, high = _interval(fisher, weights)
    enough = (
        abs(peak) < MAX_LAG
        and correlation >= MIN_CORRELATION
        and correlation - rival >= MIN_LEAD
        and high - low <= MAX_INTERVAL
        and (agreement >= MIN_AGREEMENT if len(curves) >= FEW_EPISODES else correlation >= FEW_CORRELATION)
    )
    if not enough:
        return Lag(frames=None, low=None, high=None, correlation=correlation, agreement=agreement)
    if len(curves) < FEW_EPISODES:  # resampling few episodes says too little
        low, high = min(low, peak - 0.5), max(high, peak + 0.5)
    return Lag(frames=peak, low=low, high=high, correlation=correlation, agreement=agreement)


def joint_speed(footage: Footage) -> NDArray[np.float64] | None:
    """(N,) sum of the changes of all moving dimensions of the state, in standard deviations; NaN at first steps.

    Without a state, or with one that does not move, the action stands in.
    """
    for values in (footage.state, footage.action):
        moving = moving_dimensions(values, footage.episode, footage.fps)
        if moving.any():
            break
    else:
        return None
    values = values[:, moving]
    std = values.std(axis=0)
    speed = np.full(len(values), np.nan)
    same = np.diff(footage.episode) == 0
    speed[1:][same] = (np.abs(np.diff(values, axis=0)) / std).sum(axis=1)[same]
    return speed


def _correlations(
    speed: NDArray[np.float64], track: CameraTrack, episode: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One correlation for each lag and each episode that is long enough and has motion; and their weights."""
    curves, weights = [], []
    for steps in episode_blocks(episode):
        v, e = speed[steps[1:]], track.energy[steps[1:]].astype(np.float64)
        known = np.isfinite(v) & np.isfinite(e)
        if len(v) < _SHORTEST or known.mean() < 0.9:
            continue
        v, e = (np.interp(np.arange(len(x)), np.flatnonzero(known), x[known]) for x in (v, e))
        v, e = _smooth(v, 3), _smooth(e, 3)
        v = np.log(v + np.quantile(v, 0.1) + 1e-3 * v.max() + 1e-9)
        e = np.log(e + 1e-2 * np.median(e) + 1e-9)
        v, e = (_clipped(x - _smooth(x, _HIGH_PASS)) for x in (v, e))
        if v.std() < 1e-6 or e.std() < 1e-6:
            continue
        curves.append([_correlation(v, e, lag) for lag in range(-MAX_LAG, MAX_LAG + 1)])
        weights.append(len(v))
    return np.array(curves), np.array(weights, np.float64)


def _correlation(speed: NDArray[np.float64], energy: NDArray[np.float64], lag: int) -> float:
    """Correlation of each speed with the energy ``lag`` frames later."""
    a = speed[max(0, -lag) : len(speed) - max(0, lag)]
    b = energy[max(0, lag) : len(energy) - max(0, -lag)]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))


def _smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Moving mean over an odd number of values, over fewer at the ends."""
    width = min(width, len(values) // 2 * 2 - 1)
    kernel = np.ones(width)
    return np.asarray(np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same"))


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


def _interval(fisher: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the peaks of resampled episodes."""
    random = np.random.default_rng(0)
    peaks = []
    for _ in range(_NUM_RESAMPLES):
        drawn = random.integers(0, len(fisher), len(fisher))
        peaks.append(_peak(np.average(fisher[drawn], axis=0, weights=weights[drawn])))
    low, high = np.percentile(peaks, [2.5, 97.5])
    return float(low), float(high)
