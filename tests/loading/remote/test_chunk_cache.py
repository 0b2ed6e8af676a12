"""Chunks that are kept on the local disk, against a filesystem in memory that counts what is asked of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from lewm_data.config import RemoteConfig
from lewm_data.loading.remote import filesystems
from lewm_data.loading.remote import reader as remote
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.test_store import read_all


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each request."""
    sizes: list[int] = []
    read_range = filesystems.read_range

    def counting(fs, path, start, stop, config):
        sizes.append(stop - start)
        return read_range(fs, path, start, stop, config)

    monkeypatch.setattr("lewm_data.loading.remote.remote_object.read_range", counting)
    monkeypatch.setattr(remote, "MOST_GAP_BYTES", 0)
    return sizes


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Path], str]:
    def upload(path: Path, name: str = "a.h5") -> str:
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/{name}", path.read_bytes())
        return f"memory://{tmp_path.name}/{name}"

    return upload


def config(tmp_path: Path, limit: int = 1 << 30) -> RemoteConfig:
    return RemoteConfig(chunk_cache_bytes=limit, cache_dir=str(tmp_path / "cache"))


def used(tmp_path: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache" / "chunks").iterdir())


@pytest.mark.parametrize("codec", ["none", "lzf", "blosc2"])
def test_a_chunk_is_asked_for_once_also_after_reopening(tmp_path, put, asked, codec):
    written = files.write(tmp_path / "a.h5", codec=codec, cameras=["wrist"])
    address = put(written.path)
    for number in range(3):
        store = FrameStore(address, remote=config(tmp_path), verify_checksums=True)
        asked.clear()
        order = np.random.default_rng(number).permutation(store.num_rows)
        for column in ("pixels", "pixels_wrist"):
            np.testing.assert_array_equal(read_all(store, column, order), written.data[column][order])
        assert (sum(asked) == 0) == (number > 0)


def test_two_stores_share_what_either_has_read(tmp_path, put, asked):
    written = files.write(tmp_path / "a.h5")
    address = put(written.path)
    first, second = (FrameStore(address, remote=config(tmp_path)) for _ in range(2))
    read_all(first, order=np.arange(40))
    read_all(second, order=np.arange(40, 83))
    asked.clear()
    for store in (first, second):
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert asked == []


@pytest.mark.parametrize("spoil", ["flip", "zero", "cut"])
def test_a_kept_chunk_that_is_not_as_it_was_is_asked_for_again(tmp_path, put, asked, spoil):
    written = files.write(tmp_path / "a.h5", codec="none", checksum=False)
    store = FrameStore(put(written.path), remote=config(tmp_path))
    read_all(store)
    [kept] = (tmp_path / "cache" / "chunks").glob("*.chunks")
    offset = int(store._readers["pixels"]._parts[0].index.offset[5])
    if spoil == "cut":
        os.truncate(kept, offset + 100)
    else:
        with open(kept, "r+b") as file:
            file.seek(offset + 7)
            file.write(bytes([written.data["pixels"][5].reshape(-1)[7] ^ 1]) if spoil == "flip" else bytes(1000))
    for _ in range(2):
        asked.clear()
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
        assert (asked == []) == (_ == 1)


def test_the_limit_holds_and_what_is_over_it_is_asked_for_each_time(tmp_path, put, asked):
    frames = {"height": 64, "width": 64}
    written = files.write(tmp_path / "a.h5", codec="none", **frames)
    limit = 400_000
    store = FrameStore(put(written.path), remote=config(tmp_path, limit))
    for _ in range(3):
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
        assert used(tmp_path) <= limit
    asked.clear()
    read_all(store)
    assert 0.4 * written.path.stat().st_size < sum(asked) < 0.8 * written.path.stat().st_size


def test_unused_files_make_room_and_those_of_an_older_version_go(tmp_path, put, asked):
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
    FrameStore(f"memory://{tmp_path.name}/b.h5", remote=config(tmp_path, sizes))
    assert len(list(folder.glob("*.chunks"))) == 1


def test_a_folder_that_cannot_be_written_to_keeps_nothing(tmp_path, put, asked, monkeypatch, caplog):
    written = files.write(tmp_path / "a.h5")
    real = os.pwrite

    def full(file, data, offset):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lewm_data.loading.remote.chunk_cache.os.pwrite", full)
    store = FrameStore(put(written.path), remote=config(tmp_path))
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert "no more chunks are kept" in caplog.text
    monkeypatch.setattr("lewm_data.loading.remote.chunk_cache.os.pwrite", real)
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
