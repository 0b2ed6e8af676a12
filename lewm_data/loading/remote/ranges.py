"""Which byte ranges to ask an object store for, so that some chunks come in few requests and little is read in vain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """One range to ask for.

    Attributes:
        start: Its first byte.
        stop: First byte after it.
        chunks: Which of the chunks lie in it, by their position among those that were planned.
    """

    start: int
    stop: int
    chunks: list[int]


def plan_requests(
    offsets: NDArray[np.integer] | Sequence[int],
    sizes: NDArray[np.integer] | Sequence[int],
    *,
    most_gap_bytes: int,
    most_bytes: int,
) -> list[Request]:
    """Joins neighbouring chunks into requests.

    Args:
        offsets: (n,) byte at which each chunk begins, in any order, repeats allowed.
        sizes: (n,) bytes of each.
        most_gap_bytes: Bytes between two chunks that are read in vain rather than asked around.
        most_bytes: Bytes that a request joins up to; a larger chunk is still one request.

    Returns:
        Requests in the order of bytes; each chunk lies in exactly one of them.
    """
    begins, lengths = np.asarray(offsets, np.int64), np.asarray(sizes, np.int64)
    stops = (begins + lengths).tolist()
    requests: list[Request] = []
    start = stop = 0
    chunks: list[int] = []
    for position in np.argsort(begins, kind="stable").tolist():
        begin, end = int(begins[position]), stops[position]
        is_near = begin - stop <= most_gap_bytes and max(stop, end) - start <= most_bytes
        if chunks and (is_near or end <= stop):
            chunks.append(position)
            stop = max(stop, end)
            continue
        if chunks:
            requests.append(Request(start, stop, chunks))
        start, stop, chunks = begin, end, [position]
    if chunks:
        requests.append(Request(start, stop, chunks))
    return requests
