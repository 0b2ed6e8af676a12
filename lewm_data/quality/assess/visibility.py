"""What does each camera see? How well state and action can be read from its picture, in episodes that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.excitation import distinct_steps
from lewm_data.quality.assess.features import frame_features, motion_features
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks, sample_steps
from lewm_data.quality.assess.ridge import Fit, controls, leave_one_episode_out

SEES, BLIND = 0.05, 0.02
"""A camera sees if its score is at least the first; it is blind if it is at most the second; between: cannot tell."""

GAP_SECONDS = 0.3
ONE_FRAME, TWO_FRAMES = ("state",), ("state change", "action", "action change")
"""What is read from one frame, and what from two that are 0.3 seconds apart."""

_MAX_ROWS = 1000
_MIN_ROWS = 60
_MAX_CONTROLS = 12
_SLOW = frozenset({"state", "action"})
"""Positions change slowly, so that pictures of anything may match a few episodes by chance; changes hardly can."""

_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """What one camera shows of the robot; R2 in left-out episodes, the mean over moving dimensions, each at least 0.

    Attributes:
        score: The best of the four kinds minus what permuted episodes reach of it. None: cannot tell, since there is
            too little to judge by, or a large difference that may be chance.
        state_r2: Of the state from one frame; None where there is no state that moves.
        state_change_r2: Of the state's change over 0.3 seconds from two frames.
        action_r2: Of the action from two frames.
        null_r2: The best that pictures of other episodes reach.
        within_r2: Of the state, after each episode's own mean is removed: slow drift between episodes explains nothing.
    """

    score: float | None
    state_r2: float | None
    state_change_r2: float | None
    action_r2: float | None
    null_r2: float | None
    within_r2: float | None


UNKNOWN = Visibility(score=None, state_r2=None, state_change_r2=None, action_r2=None, null_r2=None, within_r2=None)


class Look(NamedTuple):
    """Pictures of one camera as features, computed once for every question about them.

    Attributes:
        anchors: (n,) steps, spread evenly over the episodes that are no copies.
        one: (n, 832) features of the frame at each step.
        two: (n, 1048) motion and change from there to the frame 0.3 seconds later.
    """

    anchors: NDArray[np.int64]
    one: NDArray[np.float64]
    two: NDArray[np.float64]


def look(footage: Footage, track: CameraTrack, alike: Sequence[tuple[int, int]] | None = None) -> Look:
    """Computes the features of one camera, in episodes that are no copies of each other.

    Args:
        footage: The recording.
        track: The camera.
        alike: What ``near_duplicates`` returned for the recording; None computes it.
    """
    gap = max(1, round(GAP_SECONDS * footage.fps))
    steps = np.flatnonzero(distinct_steps(footage, alike))
    anchors = steps[sample_steps(footage.episode[steps], _MAX_ROWS, after=gap)]
    anchors = anchors[track.is_known[anchors] & track.is_known[anchors + gap]]
    if not len(anchors):
        return Look(anchors, np.empty((0, 1)), np.empty((0, 1)))
    first, second = track.thumbnails[anchors], track.thumbnails[anchors + gap]
    both = frame_features(np.concatenate([first, second]))
    one, later = both[: len(anchors)], both[len(anchors) :]
    return Look(anchors, one, np.c_[motion_features(first, second), later - one])


def find_visibility(footage: Footage, seen: Look) -> Visibility:
    """Scores one camera.

    Args:
        footage: The recording.
        seen: What the camera shows.

    Returns:
        The scores; without numbers where there are too few episodes or steps to tell.
    """
    gap = max(1, round(GAP_SECONDS * footage.fps))
    anchors = seen.anchors
    episode = footage.episode[anchors]
    if len(anchors) < _MIN_ROWS or len(np.unique(episode)) < 2:
        return UNKNOWN
    targets = _targets(footage, anchors, gap)
    if not targets:
        return UNKNOWN
    blocks = episode_blocks(episode)
    wrong = controls(blocks, _MAX_CONTROLS)
    own: dict[str, float] = {}
    certain: dict[str, float] = {}
    null: dict[str, float] = {}
    within: float | None = None
    for inputs, names in ((seen.one, ONE_FRAME), (seen.two, TWO_FRAMES)):
        present = [name for name in names if name in targets]
        if not present:
            continue
        # pairing pictures with the rows of another episode keeps everything but what the pictures say
        pairings = [targets[name][rows] for name in present for rows in (np.arange(len(anchors)), *wrong)]
        fits = iter(leave_one_episode_out(inputs, pairings, episode))
        for name in present:
            fit = next(fits)
            own[name] = _clipped_mean(fit.r2)
            certain[name] = _beyond_chance(fit) if name in _SLOW else own[name]
            within = _clipped_mean(fit.r2_within) if name == "state" else within
            null[name] = max(_clipped_mean(next(fits).r2) for _ in wrong)
    seen_well = [own[name] - null[name] for name in own if certain[name] - null[name] >= SEES]
    score = max(seen_well or [own[name] - null[name] for name in own])
    return Visibility(
        score=score if seen_well or score < SEES else None,
        state_r2=own.get("state"),
        state_change_r2=own.get("state change"),
        action_r2=own.get("action"),
        null_r2=max(null.values()),
        within_r2=within,
    )


def learning_curve(footage: Footage, seen: Look, score: float | None) -> list[tuple[float, float]]:
    """The score of a camera over a quarter, half, three quarters and all of the episodes.

    Args:
        footage: The recording.
        seen: What the camera shows.
        score: Its score over all of the episodes.

    Returns:
        Pairs of (share of the episodes that are no copies, score); only shares of two episodes or more for which there
        is a score.
    """
    curve: list[tuple[float, float]] = []
    counts: set[int] = set()
    episode = footage.episode[seen.anchors]
    known = np.unique(episode)
    for share in _SHARES:
        count = round(share * len(known))
        if count < 2 or count in counts:
            continue
        counts.add(count)
        if count == len(known):
            curve += [] if score is None else [(1.0, score)]
            continue
        # take episodes at even intervals: conditions drift during a session
        chosen = known[np.linspace(0, len(known) - 1, count).round().astype(np.int64)]
        rows = np.isin(episode, chosen)
        part = find_visibility(footage, Look(seen.anchors[rows], seen.one[rows], seen.two[rows])).score
        if part is not None:
            curve.append((count / len(known), part))
    return curve


def _targets(footage: Footage, anchors: NDArray[np.int64], gap: int) -> dict[str, NDArray[np.float64]]:
    """The values to read from the pictures, standardized; empty for a column that does not move."""
    targets: dict[str, NDArray[np.float64]] = {}
    for name, values in (("state", footage.state), ("action", footage.action)):
        moving = moving_dimensions(values, footage.episode, footage.fps)
        if not moving.any():
            continue
        scaled = values[:, moving] / values[:, moving].std(axis=0)
        # actions of the coming gap, as a mean: a camera cannot see one command
        now = scaled[anchors] if name == "state" else np.mean([scaled[anchors + k] for k in range(gap)], axis=0)
        targets[name] = now
        targets[f"{name} change"] = scaled[anchors + gap] - scaled[anchors]
    return {name: values for name, values in targets.items() if (values.std(axis=0) > 1e-9).all()}


def _beyond_chance(fit: Fit) -> float:
    """What is left of the R2 within episodes, and after one standard error over episodes (jackknife)."""
    without = np.clip(fit.r2_without, 0, 1).mean(axis=1)
    error = np.sqrt((len(without) - 1) * without.var())
    return min(_clipped_mean(fit.r2), _clipped_mean(fit.r2_within)) - float(error)


def _clipped_mean(r2: NDArray[np.float64]) -> float:
    return float(np.clip(r2, 0, 1).mean())


def change_over_noise(thumbnails: NDArray[np.uint8], episode: NDArray[np.int64], gap: int) -> float | None:
    """How much more a picture changes over ``gap`` frames than from one frame to the next.

    Motion adds up over time, and sensor noise does not: it is as large from one frame to the next as over a second.

    Args:
        thumbnails: (N, h, w, 3) uint8.
        episode: (N,) the episode of each step.
        gap: In frames, more than 1 to mean anything.

    Returns:
        The ratio of the mean squared changes of the pixels that change most; about 1 where all is noise. None where
        nothing changes at all, or there is too little to compare.
    """
    steps = np.flatnonzero(episode[gap:] == episode[:-gap]) if len(episode) > gap > 1 else np.empty(0, np.int64)
    if len(steps) < 50:
        return None
    steps = steps[np.linspace(0, len(steps) - 1, min(len(steps), 500)).astype(np.int64)]

    def gray(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return thumbnails[rows].sum(axis=-1, dtype=np.float64).reshape(len(rows), -1)

    far, near = ((gray(steps + distance) - gray(steps)) ** 2 for distance in (gap, 1))
    busiest = np.argsort(-far.mean(axis=0))[: max(1, far.shape[1] // 20)]
    if near[:, busiest].mean() < 1.0:
        return None
    return float(far[:, busiest].mean() / near[:, busiest].mean())
