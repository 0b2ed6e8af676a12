"""Does the state follow the action?

Lag, gain and offset of each joint, and whether the actions move anything at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions, value_range
from lewm_data.quality.assess.excitation import distinct_steps
from lewm_data.quality.assess.footage import Footage, episode_blocks, sample_steps
from lewm_data.quality.assess.ridge import centered_by_episode, from_another_episode, leave_one_episode_out

MAX_RESPONSE_STEPS = 15
MIN_FOLLOWING = 0.035
"""Actions move something if they explain this share more of the coming change than actions of other episodes do.

Of 72 drawn arms 18 had less, and 17 of the models trained on these were blind (benchmarks/assess_prediction.py).
"""

_HORIZON_SECONDS = 0.3
_MAX_ROWS = 1500
_MIN_CORRELATION = 0.5
_UNIT_GAIN = (0.8, 1.25)
_INCREMENT_CORRELATION = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class JointResponse:
    """How one dimension of the state follows the action of the same name.

    Attributes:
        lag_steps: Steps by which the state follows.
        gain: Change of the state for a change of the action by one.
        offset: State minus action where both have settled, in their unit; None where the gain is not near 1, so that
            they have no common unit.
        offset_share: The offset as a share of the joint's range.
    """

    lag_steps: int
    gain: float
    offset: float | None
    offset_share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """How the robot answers its actions.

    Attributes:
        joints: Name of each dimension that state and action share, and that moves, to its response.
        following: What the actions explain of the coming change of the state beyond the state itself, minus what
            actions of other episodes do; None: cannot tell.
        action_is_state: Action and state are equal at every step: one was recorded in place of the other.
        state_is_increments: The state holds changes rather than positions.
    """

    joints: dict[str, JointResponse]
    following: float | None
    action_is_state: bool
    state_is_increments: bool


def find_response(footage: Footage, alike: Sequence[tuple[int, int]] | None = None) -> Response:
    """Compares state and action.

    Args:
        footage: The recording.
        alike: What ``near_duplicates`` returned for it; None computes it.
    """
    moving_state = moving_dimensions(footage.state, footage.episode, footage.fps)
    moving_action = moving_dimensions(footage.action, footage.episode, footage.fps)
    pairs = [(n, a, s) for n, a, s in shared_dimensions(footage) if moving_state[s] and moving_action[a]]
    joints = {}
    for name, action, state in pairs:
        found = _joint(footage.action[:, action], footage.state[:, state], footage.episode)
        if found is not None:
            joints[name] = found
    equal = [
        np.allclose(footage.action[:, a], footage.state[:, s], rtol=1e-6, atol=1e-6 * _extent(footage.state[:, s]))
        for _, a, s in pairs
    ]
    return Response(
        joints=joints,
        following=_following(footage, moving_state, moving_action, alike),
        action_is_state=bool(equal) and all(equal),
        state_is_increments=holds_increments(footage.state[:, moving_state], footage.episode),
    )


def shared_dimensions(footage: Footage) -> list[tuple[str, int, int]]:
    """Dimensions that state and action share: (name, dimension of the action, dimension of the state).

    By name where names agree, ignoring a prefix such as ``action.``; else by position where both are equally wide.
    """
    actions, states = ([name.rsplit("/", 1)[-1] for name in footage.names[key]] for key in ("action", "state"))
    by_name = [(name, a, states.index(name)) for a, name in enumerate(actions) if states.count(name) == 1]
    if by_name and len(set(actions)) == len(actions):
        return by_name
    if footage.action.shape[1] != footage.state.shape[1]:
        return []
    return [(states[d], d, d) for d in range(footage.state.shape[1])]


def holds_increments(state: NDArray[np.float64], episode: NDArray[np.int64]) -> bool:
    """Whether a state changes its value from step to step more freely than a position could."""
    same = np.diff(episode) == 0
    if not state.shape[1] or not same.any():
        return False
    before, after = state[:-1][same], state[1:][same]
    before, after = before - before.mean(axis=0), after - after.mean(axis=0)
    scale = np.sqrt((before**2).sum(axis=0) * (after**2).sum(axis=0)) + 1e-12
    return bool(np.median((before * after).sum(axis=0) / scale) < _INCREMENT_CORRELATION)


def _extent(values: NDArray[np.float64]) -> float:
    return float(value_range(values[:, None])[0])


def _joint(action: NDArray[np.float64], state: NDArray[np.float64], episode: NDArray[np.int64]) -> JointResponse | None:
    """The lag at which changes correlate best, then gain and offset at that lag."""
    blocks = episode_blocks(episode)
    best, best_lag = -1.0, 0
    for lag in range(MAX_RESPONSE_STEPS + 1):
        a, s = _at_lag(action, state, blocks, lag, changes=True)
        if len(a) < 20 or a.std() == 0 or s.std() == 0:
            break
        correlation = float(np.corrcoef(a, s)[0, 1])
        if correlation > best + 1e-6:
            best, best_lag = correlation, lag
    if best < _MIN_CORRELATION:
        return None
    a, s = _at_lag(action, state, blocks, best_lag, changes=False)
    centered_a = a - a.mean()
    gain = float((centered_a * (s - s.mean())).sum() / (centered_a**2).sum())
    if not _UNIT_GAIN[0] <= gain <= _UNIT_GAIN[1]:
        return JointResponse(lag_steps=best_lag, gain=gain, offset=None, offset_share=None)
    offset = float(np.median(s - a))
    extent = _extent(state)
    return JointResponse(
        lag_steps=best_lag, gain=gain, offset=offset, offset_share=abs(offset) / extent if extent else None
    )


def _at_lag(
    action: NDArray[np.float64], state: NDArray[np.float64], blocks: list[NDArray[np.int64]], lag: int, *, changes: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each action with the state ``lag`` steps later; both as changes over three steps where asked for."""
    actions, states = [], []
    for steps in blocks:
        a, s = action[steps], state[steps]
        if changes:
            a, s = a[3:] - a[:-3], s[3:] - s[:-3]
        if len(a) > lag:
            actions.append(a[: len(a) - lag])
            states.append(s[lag:])
    if not actions:
        return np.empty(0), np.empty(0)
    return np.concatenate(actions), np.concatenate(states)


def _following(
    footage: Footage,
    moving_state: NDArray[np.bool_],
    moving_action: NDArray[np.bool_],
    alike: Sequence[tuple[int, int]] | None,
) -> float | None:
    """What actions add to the prediction of the state's change over 0.3 seconds."""
    if footage.num_episodes < 2 or not moving_state.any():
        return None
    if not moving_action.any():
        return 0.0
    reach = max(2, round(_HORIZON_SECONDS * footage.fps))
    state = footage.state[:, moving_state] / footage.state[:, moving_state].std(axis=0)
    action = footage.action[:, moving_action] / footage.action[:, moving_action].std(axis=0)
    steps = np.flatnonzero(distinct_steps(footage, alike))
    anchors = steps[sample_steps(footage.episode[steps], _MAX_ROWS, before=1, after=reach)]
    if len(anchors) < 60 or len(np.unique(footage.episode[anchors])) < 2:
        return None
    episode = footage.episode[anchors]
    blocks = episode_blocks(episode)
    change = centered_by_episode(state[anchors + reach] - state[anchors], blocks)
    known = np.c_[state[anchors], state[anchors] - state[anchors - 1]]
    offsets = sorted({0, reach // 2, reach - 1})
    actions = np.concatenate([action[anchors + offset] for offset in offsets], axis=1)
    own = _explained(known, actions, change, episode)
    controls = [
        _explained(known, actions[from_another_episode(blocks, distance)], change, episode)
        for distance in range(1, min(3, len(blocks) - 1) + 1)
    ]
    return own - max(controls)


def _explained(
    known: NDArray[np.float64], actions: NDArray[np.float64], change: NDArray[np.float64], episode: NDArray[np.int64]
) -> float:
    (fit,) = leave_one_episode_out(np.c_[known, actions], change, episode)
    return float(np.clip(fit.r2, 0, 1).mean())
