"""Which byte ranges to request, so that nearby chunks share a request and few bytes are read in vain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One range to request, the bytes [start, stop).

    Attributes:
        start: First byte.
        stop: First byte after the range.
        chunks: Positions of the chunks that lie in it, among those passed to ``coalesce_ranges``.
    """

    start: int
    stop: int
    chunks: list[int]


def coalesce_ranges(
    offsets: NDArray[np.integer] | Sequence[int],
    sizes: NDArray[np.integer] | Sequence[int],
    *,
    max_gap_bytes: int,
    max_request_bytes: int,
) -> list[ByteRange]:
    """Merges nearby chunks into ranges.

    Args:
        offsets: (n,) first byte of each chunk, in any order; repeats are allowed.
        sizes: (n,) bytes of each chunk.
        max_gap_bytes: Largest gap between two chunks of one range. The bytes in the gap are read and dropped.
        max_request_bytes: Size up to which a range grows. A chunk larger than this still makes one range.

    Returns:
        Ranges in byte order. Each chunk lies in exactly one of them.

    Example:
        >>> found = coalesce_ranges([0, 120, 900], [100, 100, 100], max_gap_bytes=50, max_request_bytes=512)
        >>> [(r.start, r.stop) for r in found]
        [(0, 220), (900, 1000)]
    """
    begins, lengths = np.asarray(offsets, np.int64), np.asarray(sizes, np.int64)
    stops = (begins + lengths).tolist()
    ranges: list[ByteRange] = []
    start = stop = 0
    chunks: list[int] = []
    for position in np.argsort(begins, kind="stable").tolist():
        begin, end = int(begins[position]), stops[position]
        is_near = begin - stop <= max_gap_bytes and max(stop, end) - start <= max_request_bytes
        if chunks and (is_near or end <= stop):
            chunks.append(position)
            stop = max(stop, end)
            continue
        if chunks:
            ranges.append(ByteRange(start, stop, chunks))
        start, stop, chunks = begin, end, [position]
    if chunks:
        ranges.append(ByteRange(start, stop, chunks))
    return ranges
