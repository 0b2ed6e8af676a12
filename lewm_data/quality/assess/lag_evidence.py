"""How well motion in the picture matches motion of the robot, if the picture were late by so many frames.

There are three measures. The motion energy of the picture follows the speed of the joints. It needs no model, but it
counts joints that the camera barely shows like all others, and where a slow finger pushes a large block, energy is
not speed. For the other two, a ridge regression reads how far and in which direction each joint moves, in episodes
that it was not fitted to: from the optical flow, and from the change of the picture's features. These tell joints
apart, but they need a clear view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.features import frame_features, motion_features
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks, sample_steps
from lewm_data.quality.assess.response import holds_increments
from lewm_data.quality.assess.ridge import leave_one_episode_out

MAX_LAG = 12
"""Largest lag to try, in frames, in either direction."""

LAGS = range(-MAX_LAG, MAX_LAG + 1)

_HIGH_PASS = 41
"""Frames of the moving mean that is subtracted: the phase of a task moves slowly, and would smear the peak."""

_SHORTEST = 4 * MAX_LAG
_MAX_EPISODES = 40
_MAX_ROWS = 1000
_MIN_ROWS = 12
_GAP_SECONDS = 0.1
_MAX_DIMENSIONS = 12
_STRONGEST = 0.999

type Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The three measures of each episode at each lag.

    Attributes:
        measures: (E, 25, W) each, correlations after Fisher's transformation: of the energy with the speed (W is 1),
            or of each joint's motion as read from the picture with its true motion.
        speeds: (L,) for each episode, how the log of the joints' speed varies around its moving mean.
    """

    measures: tuple[Floats, ...]
    speeds: list[Floats]


def find_evidence(footage: Footage, track: CameraTrack) -> Evidence | None:
    """Takes the measures of one camera.

    Args:
        footage: The recording.
        track: The camera.

    Returns:
        The measures; None if the robot does not move, or no episode is long enough.
    """
    positions = joint_positions(footage)
    if positions is None:
        return None
    gap = max(1, round(_GAP_SECONDS * footage.fps))
    blocks = [steps for steps in footage.blocks() if _is_usable(track, steps)]
    blocks = [
        blocks[place]
        for place in np.unique(np.linspace(0, len(blocks) - 1, min(_MAX_EPISODES, len(blocks))).astype(int))
    ]
    rows = _rows(footage, track, blocks, gap)
    blocks = [steps for steps, own in zip(blocks, rows, strict=True) if len(own) >= _MIN_ROWS]
    rows = [own for own in rows if len(own) >= _MIN_ROWS]
    energies = [_energy(positions[steps], track.energy[steps]) for steps in blocks]
    if not energies:
        return None
    measures = [np.stack([curve for _, curve in energies])[:, :, None]]
    if len(blocks) > 1:
        measures += _readings(positions, track, rows, gap)
    return Evidence(measures=tuple(measures), speeds=[speed for speed, _ in energies])


def joint_positions(footage: Footage) -> Floats | None:
    """(N, D) the moving dimensions of the state, each with a standard deviation of 1; summed up if they are increments.

    Without a state, or with one that does not move, the action stands in.
    """
    for values in (footage.state, footage.action):
        moving = moving_dimensions(values, footage.episode, footage.fps)
        if moving.any():
            break
    else:
        return None
    positions = values[:, moving]
    if holds_increments(positions, footage.episode):
        # half of each increment on either side of its step: whether it leads to the step or away from it is not known
        sums = [np.cumsum(positions[steps], axis=0) - positions[steps] / 2 for steps in footage.blocks()]
        positions = np.concatenate(sums)
    return np.asarray(positions / (positions.std(axis=0) + 1e-12))


def _is_usable(track: CameraTrack, steps: NDArray[np.int64]) -> bool:
    return len(steps) > _SHORTEST and np.isfinite(track.energy[steps[1:]]).mean() >= 0.9


def _rows(footage: Footage, track: CameraTrack, blocks: list[NDArray[np.int64]], gap: int) -> list[NDArray[np.int64]]:
    """The steps of each episode whose motion is read from the picture."""
    if not blocks:
        return []
    place = np.repeat(np.arange(len(blocks)), np.array([len(steps) for steps in blocks]))
    chosen = sample_steps(place, _MAX_ROWS, before=MAX_LAG, after=MAX_LAG + gap)
    steps = np.concatenate(blocks)[chosen]
    known = track.is_known[steps] & track.is_known[steps + gap]
    return [steps[known & (place[chosen] == number)] for number in range(len(blocks))]


def _readings(positions: Floats, track: CameraTrack, rows: list[NDArray[np.int64]], gap: int) -> list[Floats]:
    """(E, 25, D) from the optical flow, and from the change of what the frames show."""
    episode = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    steps = np.concatenate(rows)
    moves = _main_dimensions(positions)
    targets = [moves[steps + gap - lag] - moves[steps - lag] for lag in LAGS]
    flow = motion_features(track.thumbnails[steps], track.thumbnails[steps + gap])
    shown, place = np.unique(np.concatenate([steps, steps + gap]), return_inverse=True)
    features = frame_features(track.thumbnails[shown])
    before, after = features[place[: len(steps)]], features[place[len(steps) :]]
    readings = []
    for inputs in (flow, after - before):
        fits = leave_one_episode_out(inputs, targets, episode)
        curves = [
            [_correlation(fit.predicted[own], target[own]) for fit, target in zip(fits, targets, strict=True)]
            for own in episode_blocks(episode)
        ]
        readings.append(_fisher(np.array(curves)))
    return readings


def _main_dimensions(positions: Floats) -> Floats:
    """At most 12 dimensions: of a humanoid with more, the principal components."""
    if positions.shape[1] <= _MAX_DIMENSIONS:
        return positions
    centered = positions - positions.mean(axis=0)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    return np.asarray(centered @ vectors[:, -_MAX_DIMENSIONS:])


def _energy(positions: Floats, energy: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Of one episode, the (L,) log speed without its slow part, and the (25,) curve over the lags."""
    known = np.isfinite(energy[1:])
    filled = np.interp(np.arange(len(known)), np.flatnonzero(known), energy[1:][known].astype(np.float64))
    speed = _smooth(np.abs(np.diff(positions, axis=0)).sum(axis=1), 3)
    filled = _smooth(filled, 3)
    speed = np.log(speed + np.quantile(speed, 0.1) + 1e-3 * speed.max() + 1e-9)
    filled = np.log(filled + 1e-2 * np.median(filled) + 1e-9)
    speed, filled = (_clipped(values - _smooth(values, _HIGH_PASS)) for values in (speed, filled))
    curve = []
    for lag in LAGS:
        before = speed[max(0, -lag) : len(speed) - max(0, lag)]
        after = filled[max(0, lag) : len(filled) - max(0, -lag)]
        curve.append(_correlation(before[:, None], after[:, None])[0])
    return speed - speed.mean(), _fisher(np.array(curve))


def _correlation(first: Floats, second: Floats) -> Floats:
    """(D,) correlation of each column; 0 for one that is constant."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    return np.asarray((a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0) + 1e-12))


def _fisher(correlations: Floats) -> Floats:
    return np.asarray(np.arctanh(correlations.clip(-_STRONGEST, _STRONGEST)))


def _smooth(values: Floats, width: int) -> Floats:
    """(L,) moving mean over an odd number of values, over fewer at the ends."""
    width = min(width, len(values) // 2 * 2 - 1)
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _clipped(values: Floats) -> Floats:
    """Values without outliers: the logarithm of a repeated frame's energy would outweigh all others."""
    middle = np.median(values)
    reach = 3 * 1.4826 * np.median(np.abs(values - middle))
    return np.asarray(values.clip(middle - reach, middle + reach))
