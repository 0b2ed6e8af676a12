"""Stateless randomness: hashes and permutations that depend only on a key and a position.

Any process can compute any part of an order, and an order of a billion windows takes no memory.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

_NUM_ROUNDS = 6
_WORD = (1 << 64) - 1


def hash_u64(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Hashes integers under a key with the finalizer of splitmix64 (Steele, Lea and Flood, 2014), applied twice.

    Args:
        values: uint64 of any shape.
        key: Any integer; only its low 64 bits count.

    Returns:
        uint64 of the same shape, uniform over all 64 bits.
    """
    with np.errstate(over="ignore"):
        x = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key & _WORD)
        for _ in range(2):
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
    return x


@functools.lru_cache(maxsize=1024)  # every batch of an epoch takes the same dozen, at 20 microseconds each
def derive_key(*parts: int) -> int:
    """Combines integers into one 64-bit key. Their order matters."""
    key = 0
    for part in parts:
        key = int(hash_u64(np.array([part & _WORD], np.uint64), key)[0])
    return key


def permute(positions: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Applies a keyed permutation of [0, size) to positions, without a table.

    The permutation is a Feistel network over a grid of a x b cells, with a = ceil(sqrt(size)) and b = ceil(size / a).
    Each round shifts one coordinate by a hash of the other, which is a bijection for any hash. Cells beyond ``size``
    go through the network again until they land inside (cycle walking).

    Args:
        positions: (n,) int64 in [0, size).
        size: Length of the permuted sequence, below 2**62.
        key: Selects the permutation.

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
                left = (left + hash_u64(right, round_key) % np.uint64(a)) % np.uint64(a)
            else:
                right = (right + hash_u64(left, round_key) % np.uint64(b)) % np.uint64(b)
        return left * np.uint64(b) + right

    cells = once(positions.astype(np.uint64))
    while (outside := cells >= np.uint64(size)).any():
        cells[outside] = once(cells[outside])
    return cells.astype(np.int64)
