from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.loading.permutation import derive_key, hash_u64, permute


@given(st.integers(1, 3000), st.integers())
def test_a_permutation_hits_everything_once(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(st.integers(2**40, 2**61), st.integers(), st.integers(0, 2**39))
def test_huge_permutations_need_no_table_and_stay_in_range(size, key, start):
    places = permute(np.arange(start, start + 200), size, key)
    assert len(np.unique(places)) == 200
    assert places.min() >= 0
    assert places.max() < size


def test_all_orders_of_four_are_about_equally_likely():
    orders = Counter(tuple(permute(np.arange(4), 4, derive_key(7, number)).tolist()) for number in range(4800))
    assert len(orders) == 24
    assert 130 < min(orders.values()) < max(orders.values()) < 280


def test_neighbors_land_far_apart():
    places = permute(np.arange(50_000), 50_000, 3).astype(float)
    assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(places, np.arange(50_000))[0, 1]) < 0.02


def test_hashes_are_spread_over_all_bits():
    bits = np.unpackbits(hash_u64(np.arange(20_000, dtype=np.uint64), 1).view(np.uint8)).reshape(-1, 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


def test_keys_respect_order():
    assert len({derive_key(1, 2), derive_key(2, 1), derive_key(1), derive_key(1, 2, 0)}) == 4
