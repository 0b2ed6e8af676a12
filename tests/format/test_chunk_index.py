from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from lewm_data.format import chunk_index as module
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.test_store import read_all


@pytest.fixture(autouse=True)
def keep_all(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "KEPT_FROM_CHUNKS", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def readings(monkeypatch):
    """Counts how often a file's own index is read."""
    calls = []
    read = FrameIndex.read
    monkeypatch.setattr(FrameIndex, "read", lambda path, dataset: calls.append(dataset.name) or read(path, dataset))
    return calls


@pytest.mark.parametrize("libver", [files.LIBVER, None])
@pytest.mark.parametrize("codec", ["lzf", "none"])
def test_an_index_is_what_h5py_says_of_each_chunk(tmp_path, codec, libver):
    written = files.write(tmp_path / "a.h5", codec=codec, libver=libver)
    with h5py.File(written.path) as file:
        index = FrameIndex.read(written.path, file["pixels"])
        infos = [file["pixels"].id.get_chunk_info(i) for i in range(83)]
    for info in infos:
        row = info.chunk_offset[0]
        mask = 0 if index.mask is None else index.mask[row]
        assert (index.offset[row], index.size[row], mask) == (info.byte_offset, info.size, info.filter_mask)


def test_the_index_of_large_files_is_read_once_and_again_when_they_changed(tmp_path, readings):
    written = files.write(tmp_path / "a.h5", cameras=["wrist"])
    for _ in range(2):
        np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
        assert len(readings) == 2
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == [
        "a.h5.pixels.index.npz",
        "a.h5.pixels_wrist.index.npz",
    ]
    other = files.write(tmp_path / "b.h5", codec="zstd", cameras=["wrist"], seed=5)
    os.replace(other.path, written.path)
    np.testing.assert_array_equal(read_all(FrameStore(written.path)), other.data["pixels"])
    assert len(readings) == 4


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 truncated"])
def test_an_index_file_that_is_broken_is_replaced(tmp_path, readings, content):
    written = files.write(tmp_path / "a.h5")
    (tmp_path / "a.h5.pixels.index.npz").write_bytes(content)
    for _ in range(2):
        np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
    assert len(readings) == 1


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path, readings, monkeypatch):
    written = files.write(tmp_path / "a.h5")
    beside, cached = module._index_paths(written.path, "pixels")
    beside.mkdir()  # so that nothing can be put there, even by root
    for _ in range(2):
        np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
    assert len(readings) == 1
    assert cached.is_file()
    cached.unlink()
    cached.mkdir()
    np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
    assert not list(tmp_path.rglob("*.part"))


def test_small_files_keep_no_index(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_FROM_CHUNKS", 1000)
    FrameStore(files.write(tmp_path / "a.h5").path)
    assert not list(tmp_path.rglob("*.npz"))


def test_an_index_of_another_users_making_cannot_run_code(tmp_path):
    written = files.write(tmp_path / "a.h5")
    np.savez(tmp_path / "a.h5.pixels.index.npz", stamp=np.array([object()], dtype=object))
    np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
