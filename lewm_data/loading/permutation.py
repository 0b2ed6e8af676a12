"""Randomness without state: numbers that depend on a key and a position only.

Nothing is drawn in sequence, so any process can compute any part of an order, and an order of a billion
windows takes no memory.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_NUM_ROUNDS = 6
_WORD = (1 << 64) - 1


def mix(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Hashes numbers under a key: the finaliser of splitmix64 (Steele, Lea and Flood, 2014), twice.

    Args:
        values: Any shape, uint64.
        key: Any integer; only its low 64 bits count.

    Returns:
        The same shape, uint64, evenly spread over all 64 bits.
    """
    with np.errstate(over="ignore"):
        x = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key & _WORD)
        for _ in range(2):
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
    return x


def derive_key(*parts: int) -> int:
    """One 64-bit key out of several integers, order respected."""
    key = 0
    for part in parts:
        key = int(mix(np.array([part & _WORD], np.uint64), key)[0])
    return key


def permute(positions: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Places under a keyed permutation of [0, size), without a table.

    A Feistel network over the grid a x b with a = ceil(sqrt(size)) and b = ceil(size / a): alternately, one
    coordinate is shifted by a hash of the other, which is a bijection whatever the hash. The few cells beyond
    ``size`` are walked on until they land inside (cycle walking).

    Args:
        positions: (n,) int64 in [0, size).
        size: Length of the sequence that is permuted, below 2**62.
        key: Another key, another permutation.

    Returns:
        (n,) int64 in [0, size); distinct positions give distinct results.
    """
    a = math.isqrt(max(size - 1, 0)) + 1
    b = -(-size // a)
    keys = [derive_key(key, number) for number in range(_NUM_ROUNDS)]

    def once(cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(cells, np.uint64(b))
        for number, round_key in enumerate(keys):
            if number % 2:
                left = (left + mix(right, round_key) % np.uint64(a)) % np.uint64(a)
            else:
                right = (right + mix(left, round_key) % np.uint64(b)) % np.uint64(b)
        return left * np.uint64(b) + right

    cells = once(positions.astype(np.uint64))
    while (outside := cells >= np.uint64(size)).any():
        cells[outside] = once(cells[outside])
    return cells.astype(np.int64)
