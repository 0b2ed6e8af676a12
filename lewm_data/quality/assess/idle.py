"""What stands still: the robot (by state, action and picture together), and single dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lewm_data.format.motion import moving_dimensions, noise_floor, value_range
from lewm_data.quality.assess.footage import CameraTrack, Footage, episode_blocks

MIN_IDLE_SECONDS = 0.5
"""A shorter rest is part of a movement, such as its turning point."""

_BLOCK_ROWS = 100_000
_WINDOW_SECONDS = 0.15
_SLOW_SHARE = 0.05
"""A step slower than this share of the fast movements (their 90th percentile) is at rest."""

_PICTURE_SHARE = 0.10
_BUSY_PIXELS = 0.05
"""Share of the pixels to look at, those that change most: a gripper covers few pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Idleness:
    """Where the robot stands still.

    Attributes:
        is_idle: (N,) bool, each step.
        head: (E,) steps at the beginning of each episode in which nothing moves.
        tail: (E,) steps at the end of each.
    """

    is_idle: NDArray[np.bool_]
    head: NDArray[np.int64]
    tail: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of all steps."""
        return float(self.is_idle.mean()) if len(self.is_idle) else 0.0


def find_idle(footage: Footage) -> Idleness:
    """Finds the steps at which state, action and every camera that shows motion rest for half a second or more.

    Dimensions that never move are left out, so that a jittering joint neither hides nor feigns motion. A camera only
    speaks against rest where its change is clearly above what it shows at its quietest.

    Args:
        footage: The recording.
    """
    episode, fps = footage.episode, footage.fps
    resting = _slow_rows((footage.state, footage.action), episode, fps)
    if resting is None:  # nothing moves in any row: whether anything happened is for the cameras to say
        resting = np.ones(len(episode), np.bool_)
    for track in footage.cameras.values():
        resting &= ~_shows_motion(track, episode, fps)
    return _idleness(_runs(resting, episode, max(2, round(MIN_IDLE_SECONDS * fps))), episode)


def find_resting_rows(
    read_columns: Callable[[int, int], Sequence[NDArray[np.generic]]],
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    num_rows: int,
    fps: float,
) -> NDArray[np.bool_]:
    """Finds the rows in which state and action rest for half a second or more, as ``find_idle`` does without cameras.

    Reads about 100,000 rows at a time, and judges each such block of episodes by its own noise and speed.

    Args:
        read_columns: Returns state and action, each (n, ...), of the rows [start, stop).
        offsets: (E,) first row of each episode to look at, ascending.
        lengths: (E,) steps of each.
        num_rows: Rows of the file.
        fps: Steps per second.

    Returns:
        (num_rows,) bool; False in all other episodes, and where no dimension moves in a block.
    """
    is_resting = np.zeros(num_rows, np.bool_)
    block = np.cumsum(lengths) // _BLOCK_ROWS
    for number in np.unique(block):
        chosen = np.flatnonzero(block == number)
        rows = np.concatenate([np.arange(offsets[e], offsets[e] + lengths[e]) for e in chosen])
        first = int(rows[0])
        read = read_columns(first, int(rows[-1]) + 1)
        columns = [values[rows - first].reshape(len(rows), -1).astype(np.float64) for values in read]
        episode = np.repeat(np.arange(len(chosen)), lengths[chosen])
        slow = _slow_rows(columns, episode, fps)
        if slow is not None:
            is_resting[rows] = _runs(slow, episode, max(2, round(MIN_IDLE_SECONDS * fps)))
    return is_resting


def _slow_rows(
    columns: Iterable[NDArray[np.float64]], episode: NDArray[np.int64], fps: float
) -> NDArray[np.bool_] | None:
    """(N,) where every column is slow, compared with its fast movements; None if no dimension of any column moves."""
    slow: NDArray[np.bool_] | None = None
    for values in columns:
        speed = motion_speed(values, episode, fps)
        if speed is not None:
            of_column = speed < _SLOW_SHARE * _fast(speed)
            slow = of_column if slow is None else slow & of_column
    return slow


def motion_speed(values: NDArray[np.float64], episode: NDArray[np.int64], fps: float) -> NDArray[np.float64] | None:
    """How fast the fastest quarter of the dimensions moves, above its noise, as a share of its range.

    Args:
        values: (N, D).
        episode: (N,) the episode of each step.
        fps: Steps per second.

    Returns:
        (N,) change over 0.3 seconds around each step; None if no dimension moves.
    """
    moving = moving_dimensions(values, episode, fps)
    if not moving.any():
        return None
    values = values[:, moving]
    noise, extent = noise_floor(values, episode), value_range(values)
    extent = np.where(extent > 0, extent, 1.0)
    before, after = _around(episode, fps)
    change = np.abs(values[after] - values[before])
    change = np.maximum(change - 3 * np.sqrt(2) * noise, 0) / extent
    count = max(1, change.shape[1] // 4)
    return np.asarray(np.sort(change, axis=1)[:, -count:].mean(axis=1))


def _fast(speed: NDArray[np.float64]) -> float:
    """The 90th percentile of the speeds that are not plain rest, so that long rests do not lower it."""
    moving = speed[speed > 0.02 * speed.max(initial=0.0)]
    return float(np.percentile(moving, 90)) if len(moving) else 0.0


def _around(episode: NDArray[np.int64], fps: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The steps 0.15 seconds before and after each step, kept inside the episode."""
    reach = max(1, round(_WINDOW_SECONDS * fps))
    before, after = np.empty(len(episode), np.int64), np.empty(len(episode), np.int64)
    for steps in episode_blocks(episode):
        before[steps] = np.maximum(steps - reach, steps[0])
        after[steps] = np.minimum(steps + reach, steps[-1])
    return before, after


def _shows_motion(track: CameraTrack, episode: NDArray[np.int64], fps: float) -> NDArray[np.bool_]:
    """(N,) where a camera's picture changes clearly more than at its quietest."""
    gray = np.empty((len(track.thumbnails), int(np.prod(track.thumbnails.shape[1:3]))), np.int16)
    for begin in range(0, len(gray), 1024):  # all at once would take twice the thumbnails' own memory more
        block = track.thumbnails[begin : begin + 1024].astype(np.int16) @ np.array([1, 2, 1], np.int16) // 4
        gray[begin : begin + 1024] = block.reshape(len(block), -1)
    before, after = _around(episode, fps)
    busiest = max(1, round(_BUSY_PIXELS * gray.shape[1]))
    change = np.empty(len(gray))
    for begin in range(0, len(gray), 1024):
        rows = slice(begin, begin + 1024)
        difference = np.abs(gray[after[rows]] - gray[before[rows]])
        change[rows] = np.partition(difference, -busiest, axis=1)[:, -busiest:].mean(axis=1)
    # near an episode's ends the distance is shorter, so less changes: scale it up
    reach = max(1, round(_WINDOW_SECONDS * fps))
    known = track.is_known[before] & track.is_known[after] & (after - before == 2 * reach)
    if not known.any():
        return np.zeros(len(gray), np.bool_)
    quiet, busy = np.percentile(change[known], [2, 90])
    spread = np.median(np.abs(change[known] - np.median(change[known])))
    threshold = quiet + max(_PICTURE_SHARE * (busy - quiet), 0.5 * min(spread, quiet), 1.0)
    return np.asarray(track.is_known[before] & track.is_known[after] & (change > threshold))


def _runs(flags: NDArray[np.bool_], episode: NDArray[np.int64], shortest: int) -> NDArray[np.bool_]:
    """Keeps only flags in long enough runs within an episode."""
    kept = np.zeros(len(flags), np.bool_)
    for steps in episode_blocks(episode):
        edges = np.flatnonzero(np.diff(np.r_[False, flags[steps], False].astype(np.int8)))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            if end - begin >= shortest:
                kept[steps[begin:end]] = True
    return kept


def _idleness(is_idle: NDArray[np.bool_], episode: NDArray[np.int64]) -> Idleness:
    heads, tails = [], []
    for steps in episode_blocks(episode):
        moving = np.flatnonzero(~is_idle[steps])
        heads.append(int(moving[0]) if len(moving) else len(steps))
        tails.append(len(steps) - 1 - int(moving[-1]) if len(moving) else 0)
    return Idleness(is_idle=is_idle, head=np.array(heads, np.int64), tail=np.array(tails, np.int64))


MAX_NAMES = 8


def still_words(still: Mapping[str, Sequence[str]]) -> str:
    """Names the dimensions that never move, such as ``wrist_roll.pos in action and state; aux in state``.

    Args:
        still: ``action`` and ``state`` to the names of their dimensions that never move.

    Returns:
        Each name once, the first ``MAX_NAMES`` of them; empty if all dimensions move.
    """
    columns_of: dict[str, list[str]] = {}
    for column, names in still.items():
        for name in dict.fromkeys(names):
            columns_of.setdefault(name, []).append(column)
    groups: dict[str, list[str]] = {}
    for name, columns in list(columns_of.items())[:MAX_NAMES]:
        groups.setdefault(" and ".join(columns), []).append(name)
    more = f"; and {len(columns_of) - MAX_NAMES} more" if len(columns_of) > MAX_NAMES else ""
    return "; ".join(f"{', '.join(names)} in {columns}" for columns, names in groups.items()) + more


def num_still(still: Mapping[str, Sequence[str]]) -> int:
    """Counts the dimensions that never move, each name once."""
    return len({name for names in still.values() for name in names})
