"""The local cache of stored chunks, over a filesystem in memory that counts requests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import h5py
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.test_store import read_all


class CountingFileSystem(MemoryFileSystem):
    """fsspec's filesystem in memory, which records the size of each range that is read."""

    protocol = "counting"
    cachable = False
    sizes: ClassVar[list[int]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("counting://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        data: bytes = super().cat_file(path, start, end, **options)
        self.sizes.append(len(data))
        return data


fsspec.register_implementation("counting", CountingFileSystem, clobber=True)


@pytest.fixture
def requested() -> list[int]:
    """Bytes of each request."""
    CountingFileSystem.sizes.clear()
    return CountingFileSystem.sizes


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Path], str]:
    def upload(path: Path, name: str = "a.h5") -> str:
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", path.read_bytes())
        return f"counting://{tmp_path.name}/{name}"

    return upload


def config(tmp_path: Path, limit: int = 1 << 30) -> RemoteConfig:
    return RemoteConfig(chunk_cache_bytes=limit, cache_dir=str(tmp_path / "cache"), max_gap_bytes=0)


def used(tmp_path: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache" / "chunks").iterdir())


@pytest.mark.parametrize("codec", ["none", "lzf", "blosc2"])
def test_each_chunk_is_requested_once_even_after_reopening(tmp_path, put, requested, codec):
    written = files.write(tmp_path / "a.h5", codec=codec, cameras=["wrist"])
    address = put(written.path)
    for number in range(3):
        store = FrameStore(address, remote=config(tmp_path), verify_checksums=True)
        requested.clear()
        order = np.random.default_rng(number).permutation(store.num_rows)
        for column in ("pixels", "pixels_wrist"):
            np.testing.assert_array_equal(read_all(store, column, order), written.data[column][order])
        assert (sum(requested) == 0) == (number > 0)


@pytest.mark.parametrize("cache", ["chunks and metadata", "metadata"])
def test_nothing_is_cached_of_an_object_whose_changes_do_not_show(tmp_path, put, monkeypatch, caplog, cache):
    info = MemoryFileSystem.info
    monkeypatch.setattr(
        CountingFileSystem, "info", lambda self, path, **options: {**info(self, path, **options), "created": None}
    )
    for seed in (0, 1):
        written = files.write(tmp_path / f"{seed}.h5", codec="none", seed=seed)
        address = put(written.path)
        store = FrameStore(address, remote=config(tmp_path, 1 << 30 if "chunks" in cache else 0))
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
        np.testing.assert_array_equal(store.read_column("action", 0, store.num_rows), written.data["action"])
    assert (tmp_path / "0.h5").stat().st_size == (tmp_path / "1.h5").stat().st_size
    assert ("the chunk cache is off" in caplog.text) == ("chunks" in cache)


def test_two_stores_share_one_cache(tmp_path, put, requested):
    written = files.write(tmp_path / "a.h5")
    address = put(written.path)
    first, second = (FrameStore(address, remote=config(tmp_path)) for _ in range(2))
    read_all(first, order=np.arange(40))
    read_all(second, order=np.arange(40, 83))
    requested.clear()
    for store in (first, second):
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert requested == []


@pytest.mark.parametrize("spoil", ["flip", "zero", "cut"])
def test_a_damaged_cached_chunk_is_requested_again(tmp_path, put, requested, spoil):
    written = files.write(tmp_path / "a.h5", codec="none", checksum=False)
    store = FrameStore(put(written.path), remote=config(tmp_path))
    read_all(store)
    [kept] = (tmp_path / "cache" / "chunks").glob("*.chunks")
    with h5py.File(written.path, "r") as file:
        offset = file["pixels"].id.get_chunk_info(5).byte_offset
    if spoil == "cut":
        os.truncate(kept, offset + 100)
    else:
        with open(kept, "r+b") as file:
            file.seek(offset + 7)
            file.write(bytes([written.data["pixels"][5].reshape(-1)[7] ^ 1]) if spoil == "flip" else bytes(1000))
    for attempt in range(2):
        requested.clear()
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
        assert (requested == []) == (attempt == 1)


def test_chunks_beyond_the_limit_are_requested_every_time(tmp_path, put, requested):
    frames = {"height": 64, "width": 64}
    written = files.write(tmp_path / "a.h5", codec="none", **frames)
    limit = 400_000
    store = FrameStore(put(written.path), remote=config(tmp_path, limit))
    for _ in range(3):
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
        assert used(tmp_path) <= limit
    requested.clear()
    read_all(store)
    assert 0.4 * written.path.stat().st_size < sum(requested) < 0.8 * written.path.stat().st_size


def test_unused_and_outdated_files_are_removed(tmp_path, put, requested):
    frames = {"height": 64, "width": 64}
    sizes = 1_300_000
    folder = tmp_path / "cache" / "chunks"
    paths = [files.write(tmp_path / f"{i}.h5", codec="none", seed=i, **frames).path for i in range(3)]
    first = FrameStore(put(paths[0], "a.h5"), remote=config(tmp_path, sizes))
    read_all(first)
    [of_first] = folder.glob("*.chunks")
    second = FrameStore(put(paths[1], "b.h5"), remote=config(tmp_path, sizes))
    read_all(second)
    assert of_first.exists()  # in use
    del first
    third = FrameStore(put(paths[2], "b.h5"), remote=config(tmp_path, sizes))
    assert not of_first.exists()
    read_all(third)
    assert used(tmp_path) <= sizes
    del second
    FrameStore(f"counting://{tmp_path.name}/b.h5", remote=config(tmp_path, sizes))
    assert len(list(folder.glob("*.chunks"))) == 1


def test_a_full_disk_turns_the_cache_off(tmp_path, put, requested, monkeypatch, caplog):
    written = files.write(tmp_path / "a.h5")
    real = os.pwrite

    def full(file, data, offset):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lewm_data.loading.remote.chunk_cache.os.pwrite", full)
    store = FrameStore(put(written.path), remote=config(tmp_path))
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert "no more chunks are cached" in caplog.text
    monkeypatch.setattr("lewm_data.loading.remote.chunk_cache.os.pwrite", real)
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
