"""Which steps of an episode stay when a camera is shifted or idle steps are cut. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def steps_with_frames(length: int, shifts: Iterable[int]) -> range:
    """Steps of an episode that have a frame in every camera.

    Args:
        length: Steps of the episode, each with a frame in every camera.
        shifts: Shift of each camera, in frames: step t is paired with frame t + shift.

    Returns:
        The steps [start, stop); empty if the shifts leave none.

    Example:
        >>> steps_with_frames(10, [2, -1])
        range(1, 8)
    """
    every = [0, *shifts]
    start = -min(every)
    return range(start, max(start, length - max(every)))


def without_idle(length: int, *, head: int, tail: int, margin: int, least: int) -> range:
    """Steps of an episode without its idle head and tail.

    Args:
        length: Steps of the episode.
        head: Idle steps at its beginning.
        tail: Idle steps at its end.
        margin: Idle steps that stay on each side.
        least: Steps that an episode keeps, if it has as many; further idle steps on both sides make up for it.

    Returns:
        The steps [start, stop).

    Example:
        >>> without_idle(100, head=20, tail=10, margin=5, least=20)
        range(15, 95)
    """
    start, stop = max(0, head - margin), min(length, length - tail + margin)
    least = min(least, length)
    if stop - start < least:
        start = max(0, start - (least - (stop - start)) // 2)
        stop = min(length, start + least)
        start = stop - least
    return range(start, stop)


def overlap(first: range, second: range) -> range:
    """The steps that are in both ranges of consecutive steps."""
    start = max(first.start, second.start)
    return range(start, max(start, min(first.stop, second.stop)))


def crop_end_flags(flags: np.ndarray, steps: range) -> np.ndarray:
    """End flags of the steps that stay. An end that is cut off moves to the last of them.

    Args:
        flags: bool, shape (L,).
        steps: The steps that stay.

    Returns:
        bool, one for each of ``steps``.

    Example:
        >>> crop_end_flags(np.array([False, False, False, True]), range(1, 3)).tolist()
        [False, True]
    """
    kept = flags[steps.start : steps.stop].copy()
    if len(kept):
        kept[-1] |= flags[steps.stop :].any()
    return kept
