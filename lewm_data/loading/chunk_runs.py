"""Cuts a list of frames into runs that one call can copy or read: pure arithmetic on their places in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def even_runs(offsets: Sequence[int], out_indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts frames into runs that one copy can take.

    Args:
        offsets: Where each frame lies in the file.
        out_indices: Where each frame goes.

    Yields:
        [start, stop) of each run: its offsets rise by the same distance, and its indices by 1.

    Example:
        >>> list(even_runs([0, 50, 100, 70, 10, 20], [0, 1, 2, 3, 4, 5]))
        [(0, 3), (3, 4), (4, 6)]
    """
    start, last = 0, len(offsets) - 1
    while start <= last:
        stop = start + 1
        if start < last:
            distance = offsets[stop] - offsets[start]
            while (
                stop <= last
                and distance > 0
                and offsets[stop] - offsets[stop - 1] == distance
                and out_indices[stop] == out_indices[stop - 1] + 1
            ):
                stop += 1
        yield start, stop
        start = stop


def adjacent_runs(offsets: Sequence[int], sizes: Sequence[int], *, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Cuts chunks into runs that one read can take.

    Args:
        offsets: First byte of each chunk.
        sizes: Bytes of each chunk.
        max_bytes: Limit on the bytes of a run of several chunks.

    Yields:
        [start, stop) of each run: each chunk begins where the one before it ends.

    Example:
        >>> list(adjacent_runs([0, 10, 25, 30], [10, 15, 4, 9], max_bytes=100))
        [(0, 3), (3, 4)]
    """
    start = 0
    for stop in range(1, len(offsets) + 1):
        if (
            stop == len(offsets)
            or offsets[stop] != offsets[stop - 1] + sizes[stop - 1]
            or offsets[stop] + sizes[stop] - offsets[start] > max_bytes
        ):
            yield start, stop
            start = stop
