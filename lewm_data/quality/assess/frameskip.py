"""Which frameskip? How far apart two frames must be for the actions between them to show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.features import frame_features, motion_features
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks, sample_steps
from lewm_data.quality.assess.ridge import centered_by_episode, from_another_episode, leave_one_episode_out

FRAMESKIPS = (1, 2, 3, 5, 8, 10, 15)
MIN_GAIN = 0.05
"""Below this gain over the control, no frameskip is recommended."""

MAX_COPY_R2 = 0.9
"""If repeating the frame explains more than this share of the next one, a model has little reason to learn more."""

_NEAR_BEST = 0.9
_MAX_ROWS = 400
_NUM_COMPONENTS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """What pairs of frames at one distance show.

    Attributes:
        copy_r2: Share of the later frame's features that repeating the earlier frame explains.
        action_gain: Share of the actions between that the pair explains beyond the earlier frame alone.
        null_gain: The same with pairs from another episode.
    """

    copy_r2: float
    action_gain: float
    null_gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameskipAdvice:
    """Frameskips compared.

    Attributes:
        recommended: The largest one with 90 % of the best gain, at which repeating the frame is not good enough; None:
            cannot tell.
        by_frameskip: Each that fits into the episodes.
    """

    recommended: int | None
    by_frameskip: dict[int, Skip]


def find_frameskip(footage: Footage, track: CameraTrack) -> FrameskipAdvice:
    """Predicts the actions between two frames from the pair, for several distances.

    Args:
        footage: The recording.
        track: The camera that the model will see.
    """
    moving = moving_dimensions(footage.action, footage.episode, footage.fps)
    shortest = min((len(steps) for steps in episode_blocks(footage.episode)), default=0)
    skips = [skip for skip in FRAMESKIPS if 2 * skip < shortest]
    if not moving.any() or footage.num_episodes < 2 or not skips:
        return FrameskipAdvice(recommended=None, by_frameskip={})
    anchors = sample_steps(footage.episode, _MAX_ROWS, after=skips[-1])
    needed = np.unique(np.concatenate([anchors + skip for skip in (0, *skips)]))
    anchors = anchors[track.is_known[anchors]]
    if len(anchors) < 60 or not track.is_known[needed].all():
        return FrameskipAdvice(recommended=None, by_frameskip={})
    features = frame_features(track.thumbnails[needed])
    place = {int(step): row for row, step in enumerate(needed)}

    def at(steps: NDArray[np.int64]) -> NDArray[np.float64]:
        return features[[place[int(step)] for step in steps]]

    action = footage.action[:, moving]
    action = (action - action.mean(axis=0)) / action.std(axis=0)
    sums = np.concatenate([np.zeros((1, action.shape[1])), np.cumsum(action, axis=0)])
    compared = {
        skip: _compare(
            at(anchors),
            at(anchors + skip),
            motion_features(track.thumbnails[anchors], track.thumbnails[anchors + skip]),
            (sums[anchors + skip] - sums[anchors]) / skip,
            footage.episode[anchors],
        )
        for skip in skips
    }
    return FrameskipAdvice(recommended=recommend(compared), by_frameskip=compared)


def recommend(by_frameskip: dict[int, Skip]) -> int | None:
    """The largest frameskip with 90 % of the best gain, and a copy R2 below 0.9; above 0, where there is a choice.

    Args:
        by_frameskip: What was measured of each.
    """
    gains = {skip: found.action_gain - max(0.0, found.null_gain) for skip, found in by_frameskip.items()}
    best = max(gains.values(), default=0.0)
    if best < MIN_GAIN:
        return None
    good = [s for s, gain in gains.items() if gain >= _NEAR_BEST * best and by_frameskip[s].copy_r2 < MAX_COPY_R2]
    if good:  # frames that have nothing in common any more are no better than those that do
        return max([s for s in good if by_frameskip[s].copy_r2 > 0] or good)
    # where the gain is best, repeating the frame is too good: take the next larger one at which it is not
    peak = max(gains, key=lambda skip: gains[skip])
    larger = [s for s, gain in gains.items() if s > peak and by_frameskip[s].copy_r2 < MAX_COPY_R2 and gain >= MIN_GAIN]
    return min(larger, default=None)


def _compare(
    now: NDArray[np.float64],
    later: NDArray[np.float64],
    motion: NDArray[np.float64],
    actions: NDArray[np.float64],
    episode: NDArray[np.int64],
) -> Skip:
    blocks = episode_blocks(episode)
    mean, std = now.mean(axis=0), now.std(axis=0)
    std = std + 1e-3 * max(float(std.max()), 1e-6)  # a frozen camera's features never vary
    change = (later - now) / std
    copy_r2 = 1 - (change**2).sum() / ((((later - mean) / std) ** 2).sum() + 1e-12)
    frame = (now - mean) / std
    _, vectors = np.linalg.eigh(frame.T @ frame)
    targets = centered_by_episode(actions / (actions.std(axis=0) + 1e-9), blocks)
    alone = centered_by_episode(frame @ vectors[:, -_NUM_COMPONENTS:], blocks)
    rest = targets - leave_one_episode_out(alone, targets, episode)[0].predicted
    pair = centered_by_episode(np.c_[motion, change], blocks)
    others = rest[from_another_episode(blocks, 1)]
    gains = [
        float(1 - ((values - fit.predicted) ** 2).sum() / ((values**2).sum() + 1e-12))
        for values, fit in zip((rest, others), leave_one_episode_out(pair, [rest, others], episode), strict=True)
    ]
    return Skip(copy_r2=float(copy_r2), action_gain=gains[0], null_gain=gains[1])
