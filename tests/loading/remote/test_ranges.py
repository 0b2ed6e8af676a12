from __future__ import annotations

import io
import random

import h5py
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lewm_data.loading.remote import range_file
from lewm_data.loading.remote.range_file import RangeFile
from lewm_data.loading.remote.ranges import plan_requests

CHUNKS = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), max_size=40)


@given(chunks=CHUNKS, gap=st.integers(0, 400), most=st.integers(1, 2000))
def test_each_chunk_lies_in_exactly_one_request_and_no_gap_or_request_is_too_large(chunks, gap, most):
    offsets, sizes = [c[0] for c in chunks], [c[1] for c in chunks]
    requests = plan_requests(
        np.array(offsets, np.uint64), np.array(sizes, np.uint32), most_gap_bytes=gap, most_bytes=most
    )
    assert sorted(i for request in requests for i in request.chunks) == list(range(len(chunks)))
    for request in requests:
        wanted = np.zeros(request.stop - request.start, bool)
        for i in request.chunks:
            assert request.start <= offsets[i]
            assert offsets[i] + sizes[i] <= request.stop
            wanted[offsets[i] - request.start :][: sizes[i]] = True
        assert wanted[0]
        assert wanted[-1]
        runs = "".join("x" if byte else "." for byte in wanted).split("x")
        assert max(map(len, runs)) <= gap
        largest = max(sizes[i] for i in request.chunks)
        assert request.stop - request.start <= max(most, largest)


def test_neighbours_come_in_one_request_and_repeats_are_asked_for_once():
    [one] = plan_requests([200, 0, 100, 100], [100] * 4, most_gap_bytes=0, most_bytes=1000)
    assert (one.start, one.stop, sorted(one.chunks)) == (0, 300, [0, 1, 2, 3])
    assert len(plan_requests([0, 101], [100, 100], most_gap_bytes=0, most_bytes=1000)) == 2
    assert len(plan_requests([0, 0], [100, 100], most_gap_bytes=0, most_bytes=10)) == 1
    assert plan_requests([], [], most_gap_bytes=0, most_bytes=1) == []


class Object:
    """Bytes that count what is asked of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.data)
        self.asked.append((start, stop))
        return self.data[start:stop]

    def file(self) -> RangeFile:
        return RangeFile(self.fetch, len(self.data))


def test_a_range_file_reads_as_a_file_does(monkeypatch):
    monkeypatch.setattr(range_file, "BLOCK_BYTES", 100)
    monkeypatch.setattr(range_file, "_MOST_BLOCKS", 40)
    data = random.Random(0).randbytes(12_345)
    ours, theirs = Object(data).file(), io.BytesIO(data)
    choose = random.Random(1)
    for _ in range(500):
        place, whence = choose.choice(
            [(choose.randrange(13_000), 0), (choose.randrange(50), 1), (-choose.randrange(999), 2)]
        )
        assert ours.seek(place, whence) == theirs.seek(place, whence)
        size = choose.choice([0, 1, 7, 99, 100, 101, 5000])
        assert ours.read(size) == theirs.read(size)
        assert ours.tell() == theirs.tell()


def test_what_was_read_is_kept_and_reading_in_order_takes_ever_larger_steps():
    seen = Object(bytes(40 * range_file.BLOCK_BYTES + 5))
    file = seen.file()
    file.read(10)
    file.seek(0)
    file.read(100)
    assert seen.asked == [(0, range_file.BLOCK_BYTES)]
    file.seek(0)
    file.readall()
    assert len(seen.asked) == 6
    assert sum(stop - start for start, stop in seen.asked) == len(seen.data)


def test_hdf5_reads_its_metadata_through_it():
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_dataset("a", data=np.arange(5000), chunks=(10,))
    with h5py.File(Object(memory.getvalue()).file(), "r") as file:
        np.testing.assert_array_equal(file["a"][:], np.arange(5000))
