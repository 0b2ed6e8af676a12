"""Is a camera out of step with the joints?

By how many frames motion in the picture follows motion of the robot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.quality.assess.footage import CameraTrack, Footage
from lewm_data.quality.assess.lag_evidence import LAGS, MAX_LAG, find_evidence

_NUM_RESAMPLES = 300
_RIVAL_DISTANCE = 3
_AGREE_FRAMES = 1.5

MIN_CORRELATION, MIN_LEAD, MAX_INTERVAL, MIN_AGREEMENT = 0.25, 0.08, 1.0, 0.75
FEW_EPISODES, FEW_CORRELATION = 4, 0.6
"""A lag needs all of the first four; with fewer independent episodes than this, the correlation must be higher."""

type Floats = NDArray[np.float64]


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

    The correlations of each measure are averaged over the episodes by Fisher's transformation. Their log-likelihoods
    add up, so that the clearest measure counts most, and the peak of the sum is refined by a parabola.

    Args:
        footage: The recording.
        track: The camera.

    Returns:
        The lag, without a number if the evidence is not sufficient.
    """
    evidence = find_evidence(footage, track)
    if evidence is None:
        return UNKNOWN
    measures = evidence.measures
    num_episodes = len(evidence.speeds)
    curves = np.stack([_likelihood(measure.mean(axis=0)) for measure in measures])
    peak = _peak(curves.sum(axis=0))
    strengths = np.sqrt(1 - np.exp(-2 * curves))
    at_peak = strengths[:, round(peak) + MAX_LAG]
    # where every episode repeats one path, a regression knows the motion of any lag from the place on the path
    leads = at_peak - np.array([_rival(strength, peak) for strength in strengths]) >= MIN_LEAD
    correlation = float(at_peak[leads].max() if leads.any() else at_peak.max())
    own = np.array([_peak(_together(measures, np.array([episode]))) for episode in range(num_episodes)])
    agreement = float(np.mean(np.abs(own - peak) <= _AGREE_FRAMES))
    independent = num_independent(evidence.speeds)
    is_few = independent < FEW_EPISODES
    low, high = _interval(measures)
    if not is_few:
        low, high = (peak + _widening(independent) * (end - peak) for end in (low, high))
    enough = (
        abs(peak) < MAX_LAG
        and correlation >= MIN_CORRELATION
        and leads.any()
        and high - low <= MAX_INTERVAL
        and (num_episodes < FEW_EPISODES or agreement >= MIN_AGREEMENT)
        and (not is_few or correlation >= FEW_CORRELATION)
    )
    if not enough:
        return Lag(frames=None, low=None, high=None, correlation=correlation, agreement=agreement)
    if is_few:  # resampling episodes that are few, or alike, says too little
        low, high = min(low, peak - 0.5), max(high, peak + 0.5)
    return Lag(frames=peak, low=low, high=high, correlation=correlation, agreement=agreement)


def num_independent(speeds: Sequence[Floats]) -> float:
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
        row[: len(speed)] = speed / np.sqrt((speed * speed).sum() + 1e-12)
    total = np.square(rows.sum(axis=0)).sum()
    shared = max(0.0, float(total - count) / (count * (count - 1)))
    return count / (1 + (count - 1) * shared**2)


def _likelihood(fisher: Floats) -> Floats:
    """(25,) log-likelihood an observation, the mean of (25, W) correlations, which count where they are positive.

    A correlation r explains r squared of the variance, which is worth -log(1 - r ** 2) / 2: the logarithm of the
    hyperbolic cosine of Fisher's z.
    """
    return np.asarray(np.log(np.cosh(fisher.clip(min=0))).mean(axis=1))


def _together(measures: Sequence[Floats], episodes: NDArray[np.int64]) -> Floats:
    """(25,) log-likelihood of some episodes by all measures, each with the same weight."""
    return np.sum([_likelihood(measure[episodes].mean(axis=0)) for measure in measures], axis=0)


def _peak(curve: Floats) -> float:
    """Where a curve over the lags is highest, refined by the parabola through three points."""
    top = int(curve.argmax())
    if not 0 < top < len(curve) - 1:
        return float(top - MAX_LAG)
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return float(top - MAX_LAG + (0.5 * (left - right) / bend if bend < 0 else 0.0))


def _rival(curve: Floats, peak: float) -> float:
    """The highest other peak, more than three frames away; 0 if there is none."""
    padded = np.r_[-np.inf, curve, -np.inf]
    is_peak = (curve >= padded[:-2]) & (curve >= padded[2:])
    return float(curve[is_peak & (np.abs(np.array(LAGS) - peak) > _RIVAL_DISTANCE)].max(initial=0.0))


def _widening(num_episodes: float) -> float:
    """How much too narrow resampling few episodes is.

    Resampled means vary by (n - 1) / n of the variance, and their deviation follows Student's distribution, of which
    this is the expansion in 1 / (n - 1) (Abramowitz and Stegun, 26.7.5) at 97.5 %, over that of the normal one.
    """
    free, z = num_episodes - 1, 1.96
    student = 1 + (z**2 + 1) / (4 * free) + (5 * z**4 + 16 * z**2 + 3) / (96 * free**2)
    return float(student * np.sqrt(num_episodes / free))


def _interval(measures: Sequence[Floats]) -> tuple[float, float]:
    """95 % of the peaks of resampled episodes."""
    random = np.random.default_rng(0)
    num_episodes = len(measures[0])
    peaks = []
    for _ in range(_NUM_RESAMPLES):
        drawn = random.integers(0, num_episodes, num_episodes)
        peaks.append(_peak(_together(measures, drawn)))
    low, high = np.percentile(peaks, [2.5, 97.5])
    return float(low), float(high)
