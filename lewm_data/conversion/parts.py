"""A dataset cut into parts for several machines: the same cut for everybody who makes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lewm_data.errors import UsageError


def cut_part(lengths: Sequence[int], number: int, num_parts: int) -> range:
    """One of n runs of whole episodes with about as many steps each.

    Depends on the lengths only, so that jobs which never speak to each other cut alike. An episode belongs to the part
    in which its middle step lies; parts that this leaves empty take an episode of a neighbour.

    Args:
        lengths: Steps of each episode, 1 or more.
        number: Which part, in [0, num_parts).
        num_parts: How many there are.

    Returns:
        Positions [start, stop) in ``lengths``; all parts follow each other and cover all. None is empty.

    Raises:
        UsageError: There are fewer episodes than parts.
    """
    if num_parts > len(lengths):
        raise UsageError(
            f"shard is {number}/{num_parts}, but there are only {len(lengths)} episodes to convert, and a part holds "
            "one or more. Ask for fewer parts."
        )
    ends = np.cumsum(lengths, dtype=np.float64)
    middles = ends - np.asarray(lengths) / 2
    starts = np.searchsorted(middles, ends[-1] * np.arange(num_parts + 1) / num_parts)
    starts[0], starts[-1] = 0, len(lengths)
    parts = np.arange(num_parts + 1)
    starts = np.maximum.accumulate(starts - parts) + parts  # each part begins after the one before it,
    starts = np.minimum(starts, len(lengths) - num_parts + parts)  # and leaves one episode to each that follows
    return range(int(starts[number]), int(starts[number + 1]))
