"""Which episodes get pictures, which of their frames, and how large: so that a page stays small. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class StripShape(NamedTuple):
    """How a film strip is cut.

    Attributes:
        num_frames: Frames in it, at most; frames that a finding is about may come on top.
        height: Their height in pixels.
    """

    num_frames: int
    height: int


_SHAPES = ((24, StripShape(24, 192)), (100, StripShape(16, 112)), (400, StripShape(12, 72)))
_SMALLEST = StripShape(8, 56)


def strip_shape(num_strips: int) -> StripShape:
    """The largest shape in which so many strips stay within some ten megabytes."""
    return next((shape for most, shape in _SHAPES if num_strips <= most), _SMALLEST)


def choose_episodes(candidates: NDArray[np.int64], urgent: Iterable[int], max_episodes: int) -> list[int]:
    """Chooses the episodes that are shown with pictures.

    Args:
        candidates: Positions to choose from, ascending.
        urgent: Positions that come first, the most urgent first, repeats allowed.
        max_episodes: How many at most.

    Returns:
        Positions, ascending: at most half of the places go to urgent ones, unless all fit; the rest lies evenly.
    """
    if len(candidates) <= max_episodes:
        return candidates.tolist()
    allowed = set(candidates.tolist())
    first = [position for position in dict.fromkeys(urgent) if position in allowed]
    chosen = set(first[: (max_episodes + 1) // 2])
    rest = candidates[~np.isin(candidates, list(chosen))]
    places = np.linspace(0, len(rest) - 1, max_episodes - len(chosen)).round().astype(int)
    return sorted(chosen | set(rest[places].tolist()))


def strip_steps(length: int, num_frames: int, also: Iterable[int] = ()) -> list[int]:
    """Steps of a film strip: evenly spread, first and last included, and those that a finding is about.

    Args:
        length: Steps of the episode.
        num_frames: Frames to spread.
        also: Further steps; those outside of the episode are left out.
    """
    if length <= 0:
        return []
    even = np.linspace(0, length - 1, min(num_frames, length)).round().astype(int).tolist()
    return sorted({*even, *(step for step in also if 0 <= step < length)})


def run_steps(length: int, num_steps: int, frameskip: int, max_frames: int) -> tuple[int, list[int]]:
    """Steps of an example for windows: a stretch of neighbours from the middle, and all that the window keeps.

    Args:
        length: Steps of the episode, one window's at least.
        num_steps: Frames that a window keeps.
        frameskip: Steps from one kept frame to the next.
        max_frames: Neighbours at most.

    Returns:
        The first step of the example, and its steps, counted from there.
    """
    span = num_steps * frameskip
    stretch = min(length, max(span, max_frames))
    first = (length - stretch) // 2
    kept = range(0, span, frameskip)
    return first, sorted({*range(min(stretch, max_frames)), *kept[:max_frames]})


def examples(candidates: Sequence[int], count: int) -> list[int]:
    """So many of some positions, evenly spread."""
    if not candidates:
        return []
    places = np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int)
    return [candidates[place] for place in dict.fromkeys(places.tolist())]
