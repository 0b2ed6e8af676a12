from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.loading.chunk_runs import adjacent_runs, even_runs
from lewm_data.loading.store import FrameStore
from tests.loading import files

places = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 3)), max_size=30)


@given(places)
def test_even_runs_cover_all_frames_and_are_as_long_as_they_can_be(frames):
    offsets, out_indices = [10 * place for place, *_ in frames], [index for _, index, _ in frames]
    runs = list(even_runs(offsets, out_indices))
    assert [number for start, stop in runs for number in range(start, stop)] == list(range(len(frames)))
    for start, stop in runs:
        distances = set(np.diff(offsets[start:stop]).tolist())
        assert len(distances) <= 1
        assert all(distance > 0 for distance in distances)
        assert set(np.diff(out_indices[start:stop]).tolist()) <= {1}
    for (start, stop), (_, next_stop) in zip(runs, runs[1:], strict=False):
        longer = np.diff(offsets[start : stop + 1])
        is_even = len(set(longer.tolist())) == 1 and longer[0] > 0
        assert not is_even or out_indices[stop] != out_indices[stop - 1] + 1, (start, next_stop)


@given(places, st.integers(1, 12))
def test_adjacent_runs_cover_all_chunks_without_a_gap_and_within_the_limit(chunks, max_bytes):
    offsets, sizes = [place for place, *_ in chunks], [size for *_, size in chunks]
    runs = list(adjacent_runs(offsets, sizes, max_bytes=max_bytes))
    assert [number for start, stop in runs for number in range(start, stop)] == list(range(len(chunks)))
    for start, stop in runs:
        for number in range(start + 1, stop):
            assert offsets[number] == offsets[number - 1] + sizes[number - 1]
        assert stop == start + 1 or offsets[stop - 1] + sizes[stop - 1] - offsets[start] <= max_bytes
    for (start, stop), _ in zip(runs, runs[1:], strict=False):
        has_gap = offsets[stop] != offsets[stop - 1] + sizes[stop - 1]
        assert has_gap or offsets[stop] + sizes[stop] - offsets[start] > max_bytes


@pytest.fixture
def reads(monkeypatch):
    """The sizes of all reads."""
    sizes = []
    original = os.preadv

    def preadv(file, buffers, offset):
        sizes.append(sum(map(len, buffers)))
        return original(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    return sizes


@pytest.mark.parametrize("codec", ["lzf", "none", "lz4"])
def test_neighboring_chunks_take_one_read_and_others_one_each(tmp_path, reads, codec):
    written = files.write(tmp_path / "a.h5", [40], codec=codec)
    store = FrameStore(written.path, verify_checksums=True)  # uncompressed frames are read, too, to be checked
    out = np.empty((40, 24, 20, 3), np.uint8)
    reads.clear()
    store.read_frames("pixels", np.arange(40), out)
    assert len(reads) < 20  # HDF5 keeps a few blocks of its own between the chunks
    np.testing.assert_array_equal(out, written.data["pixels"])
    reads.clear()
    store.read_frames("pixels", np.arange(0, 40, 5), out[:8])
    assert len(reads) == 8
    np.testing.assert_array_equal(out[:8], written.data["pixels"][::5])


@given(st.lists(st.integers(0, 39), min_size=1, max_size=12), st.data())
def test_uncompressed_frames_go_where_they_should_in_any_order(uncompressed, rows, data):
    store, frames = uncompressed
    out_indices = np.array(data.draw(st.permutations(range(len(rows)))))
    out = np.empty((len(rows), 24, 20, 3), np.uint8)
    store.read_frames("pixels", np.array(rows), out, out_indices)
    np.testing.assert_array_equal(out[out_indices], frames[rows])


@pytest.fixture(scope="module")
def uncompressed(tmp_path_factory):
    written = files.write(tmp_path_factory.mktemp("data") / "a.h5", [40], codec="none")
    return FrameStore(written.path), written.data["pixels"]
