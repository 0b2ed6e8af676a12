"""Merging byte ranges, against their definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.loading.remote.reader import coalesce_ranges

CHUNKS = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), max_size=40)


@given(chunks=CHUNKS, gap=st.integers(0, 400), most=st.integers(1, 2000))
def test_each_chunk_lies_in_exactly_one_range_and_gaps_and_sizes_are_limited(chunks, gap, most):
    offsets, sizes = [c[0] for c in chunks], [c[1] for c in chunks]
    ranges = coalesce_ranges(
        np.array(offsets, np.uint64), np.array(sizes, np.uint32), max_gap_bytes=gap, max_request_bytes=most
    )
    assert sorted(i for found in ranges for i in found.chunks) == list(range(len(chunks)))
    for found in ranges:
        wanted = np.zeros(found.stop - found.start, bool)
        for i in found.chunks:
            assert found.start <= offsets[i]
            assert offsets[i] + sizes[i] <= found.stop
            wanted[offsets[i] - found.start :][: sizes[i]] = True
        assert wanted[0]
        assert wanted[-1]
        runs = "".join("x" if byte else "." for byte in wanted).split("x")
        assert max(map(len, runs)) <= gap
        largest = max(sizes[i] for i in found.chunks)
        assert found.stop - found.start <= max(most, largest)


def test_adjacent_and_repeated_chunks_share_a_range():
    [one] = coalesce_ranges([200, 0, 100, 100], [100] * 4, max_gap_bytes=0, max_request_bytes=1000)
    assert (one.start, one.stop, sorted(one.chunks)) == (0, 300, [0, 1, 2, 3])
    assert len(coalesce_ranges([0, 101], [100, 100], max_gap_bytes=0, max_request_bytes=1000)) == 2
    assert len(coalesce_ranges([0, 0], [100, 100], max_gap_bytes=0, max_request_bytes=10)) == 1
    assert coalesce_ranges([], [], max_gap_bytes=0, max_request_bytes=1) == []
