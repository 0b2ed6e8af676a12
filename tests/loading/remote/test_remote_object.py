"""A file over byte ranges, against ``io.BytesIO`` and the HDF5 library."""

from __future__ import annotations

import io
import random

import h5py
import numpy as np

from lewm_data.loading.remote.range_file import BLOCK_BYTES, RangeFile


class Object:
    """Bytes that record which ranges are read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.data)
        self.reads.append((start, stop))
        return self.data[start:stop]

    def file(self, **options: int) -> RangeFile:
        return RangeFile(self.read, len(self.data), **options)


def test_a_range_file_reads_like_a_file():
    data = random.Random(0).randbytes(12_345)
    ours, theirs = Object(data).file(block_bytes=100, max_blocks=40), io.BytesIO(data)
    choose = random.Random(1)
    for _ in range(500):
        offset, whence = choose.choice(
            [(choose.randrange(13_000), 0), (choose.randrange(50), 1), (-choose.randrange(999), 2)]
        )
        assert ours.seek(offset, whence) == theirs.seek(offset, whence)
        size = choose.choice([0, 1, 7, 99, 100, 101, 5000])
        assert ours.read(size) == theirs.read(size)
        assert ours.tell() == theirs.tell()


def test_blocks_are_cached_and_sequential_reads_grow():
    source = Object(bytes(40 * BLOCK_BYTES + 5))
    file = source.file()
    file.read(10)
    file.seek(0)
    file.read(100)
    assert source.reads == [(0, BLOCK_BYTES)]
    file.seek(0)
    file.readall()
    assert len(source.reads) == 6
    assert sum(stop - start for start, stop in source.reads) == len(source.data)


def test_hdf5_reads_through_it():
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_dataset("a", data=np.arange(5000), chunks=(10,))
    with h5py.File(Object(memory.getvalue()).file(), "r") as file:
        np.testing.assert_array_equal(file["a"][:], np.arange(5000))
