"""Do the actions say anything that the state does not?

If not, one habit was recorded, and no model can tell causes from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions
from lewm_data.quality.assess.footage import Footage, episode_blocks, sample_steps
from lewm_data.quality.assess.ridge import leave_one_episode_out

MAX_PREDICTABLE = 0.9

_AHEAD_SECONDS = 0.5
_HISTORY_SECONDS = (0.0, 0.1, 0.3)
_NUM_WAVES = 300
_MAX_ROWS = 1500
_MIN_EPISODES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Excitation:
    """How much the actions vary by themselves.

    Attributes:
        action_r2_from_state: Share of the coming half second's change of the action that the state's past explains in
            episodes that were left out. Near 1: the actions are a function of the state. None: cannot tell.
        effective_dimensions: Dimensions in which actions vary independently (participation ratio of their covariance).
    """

    action_r2_from_state: float | None
    effective_dimensions: float


def find_excitation(footage: Footage) -> Excitation:
    """Predicts how the action changes in the next half second from the state's past.

    The action itself would be predictable in any recording of a position-controlled arm: it is the state, a little
    later. A half second ahead, only a repeated habit is.

    Args:
        footage: The recording. Without a state, past actions take its place.
    """
    moving = moving_dimensions(footage.action, footage.episode, footage.fps)
    action = footage.action[:, moving]
    if not action.shape[1]:
        return Excitation(action_r2_from_state=None, effective_dimensions=0.0)
    action = (action - action.mean(axis=0)) / action.std(axis=0)
    eigenvalues = np.linalg.eigvalsh(np.cov(action.T).reshape(action.shape[1], action.shape[1]))
    effective = float(eigenvalues.sum() ** 2 / ((eigenvalues**2).sum() + 1e-12))
    return Excitation(action_r2_from_state=_predictability(footage, action), effective_dimensions=effective)


def _predictability(footage: Footage, action: NDArray[np.float64]) -> float | None:
    ahead = max(1, round(_AHEAD_SECONDS * footage.fps))
    delays = sorted({round(seconds * footage.fps) for seconds in _HISTORY_SECONDS})
    anchors = sample_steps(footage.episode, _MAX_ROWS, before=delays[-1], after=ahead)
    episode = footage.episode[anchors]
    if len(anchors) < 100 or len(np.unique(episode)) < _MIN_EPISODES:
        return None
    moving = moving_dimensions(footage.state, footage.episode, footage.fps)
    values = footage.state[:, moving] if moving.any() else action
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    past = np.concatenate([values[anchors - delay] for delay in delays], axis=1)
    targets = action[anchors + ahead] - action[anchors]
    (fit,) = leave_one_episode_out(np.c_[past, _waves(past)], targets, episode)
    spread = targets.var(axis=0)
    return float(np.average(np.clip(fit.r2, 0, 1), weights=spread)) if spread.sum() > 0 else None


def _waves(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007): a habit need not be linear."""
    random = np.random.default_rng(0)
    distance = np.sqrt(2 * values.var(axis=0).sum())
    frequencies = random.normal(size=(values.shape[1], _NUM_WAVES)) * (2.0 / max(distance, 1e-9))
    return np.cos(values @ frequencies + random.uniform(0, 2 * np.pi, _NUM_WAVES))


def near_duplicates(footage: Footage, *, num_points: int = 50, share: float = 0.1) -> list[tuple[int, int]]:
    """Pairs of episodes whose rows are nearly the same.

    Args:
        footage: The recording.
        num_points: Points in time to which each episode is stretched.
        share: A pair is nearly the same if its distance is below this share of the median distance of all pairs, or
            within the noise of the rows.

    Returns:
        Pairs of episode numbers, ascending.
    """
    columns = []
    for values in (footage.state, footage.action):
        moving = moving_dimensions(values, footage.episode, footage.fps)
        columns.append((values[:, moving] - values[:, moving].mean(axis=0)) / values[:, moving].std(axis=0))
    rows = np.concatenate(columns, axis=1)
    blocks = episode_blocks(footage.episode)
    if not rows.shape[1] or len(blocks) < 2:
        return []
    curves = np.stack([rows[b[np.linspace(0, len(b) - 1, num_points).round().astype(int)]].ravel() for b in blocks])
    lengths = np.array([len(b) for b in blocks])
    squares = (curves**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * curves @ curves.T, 0) / curves.shape[1])
    first, second = np.triu_indices(len(blocks), 1)
    pairs = distance[first, second]
    # 0.05 standard deviations: two demonstrations by hand never come as close as that at every moment
    alike = (pairs < max(0.05, share * float(np.median(pairs)) if len(pairs) > 3 else 0.0)) & (
        np.abs(lengths[first] - lengths[second]) <= 0.1 * lengths[first]
    )
    numbers = footage.numbers
    return [(int(numbers[a]), int(numbers[b])) for a, b in zip(first[alike], second[alike], strict=True)]


def distinct_steps(footage: Footage, alike: Sequence[tuple[int, int]] | None = None) -> NDArray[np.bool_]:
    """The steps of the episodes that are no near-duplicates of an earlier one.

    A copy is no control for its original, and gives away what a left-out episode holds.

    Args:
        footage: The recording.
        alike: What ``near_duplicates`` returned for it; None computes it.

    Returns:
        (N,) bool.
    """
    pairs = set(near_duplicates(footage) if alike is None else alike)
    numbers = footage.numbers.tolist()
    kept: list[int] = []
    for number in numbers:
        if not any((earlier, number) in pairs for earlier in kept):
            kept.append(number)
    return np.isin(footage.numbers, kept)[footage.episode]
