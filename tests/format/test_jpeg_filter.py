"""JPEG chunks through h5py, in processes that have nothing registered yet."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from lewm_data.format.jpeg_filter import filter_parameters, register
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.test_store import read_all


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_h5py_needs_the_filter_and_the_loader_does_not(tmp_path: Path) -> None:
    written = files.write(tmp_path / "a.h5", [9, 8], codec="jpeg")
    np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
    np.save(tmp_path / "frames.npy", written.data["pixels"])
    read = "import h5py, sys; file = h5py.File(sys.argv[1]); frames = file['pixels'][:]"
    without = run(f"import hdf5plugin; {read}", written.path)
    assert "OSError: Can't synchronously read data" in without.stderr
    code = f"from lewm_data.format import jpeg_filter; jpeg_filter.register(); {read}"
    done = run(
        f"{code}; import numpy; assert (frames == numpy.load(sys.argv[2])).all()", written.path, tmp_path / "frames.npy"
    )
    assert done.returncode == 0, done.stderr


def test_the_header_says_how_other_programs_read_the_frames(tmp_path: Path) -> None:
    written = files.write(tmp_path / "a.h5", [9], codec="jpeg")
    raw = 0
    with h5py.File(written.path) as file:
        assert "read_direct_chunk((row, 0, 0, 0))" in file.attrs["reading"]
        for row, expected in enumerate(written.data["pixels"]):
            mask, stored = file["pixels"].id.read_direct_chunk((row, 0, 0, 0))
            raw += mask % 2
            if mask % 2:
                frame = np.frombuffer(stored[:-4], np.uint8).reshape(expected.shape)
            else:
                frame = np.asarray(Image.open(io.BytesIO(stored[:-4])))
            np.testing.assert_array_equal(frame, expected)
    assert 0 < raw < 9
    with h5py.File(files.write(tmp_path / "b.h5", [9], codec="lzf").path) as file:
        assert "reading" not in file.attrs


def test_h5py_writes_what_the_loader_reads(tmp_path: Path) -> None:
    register()
    frames = files.make_frames(9, 24, 20, 0)
    frames[0] = 200
    with h5py.File(tmp_path / "a.h5", "w") as file:
        pixels = file.create_dataset(
            "pixels", frames.shape, "uint8", chunks=(1, 24, 20, 3), compression=32019,
            compression_opts=filter_parameters(90, 24, 20), fletcher32=True,
        )  # fmt: skip
        pixels[:] = frames
        file["ep_len"], file["ep_offset"] = np.array([9]), np.array([0])
    with h5py.File(tmp_path / "a.h5") as file:
        expected = file["pixels"][:]
    np.testing.assert_array_equal(read_all(FrameStore(tmp_path / "a.h5", verify_checksums=True)), expected)
    assert np.abs(expected[0].astype(int) - 200).max() <= 1
    assert not np.array_equal(expected, frames)


def test_damage_is_an_error_also_through_h5py(tmp_path: Path) -> None:
    register()
    written = files.write(tmp_path / "a.h5", [9, 8], codec="jpeg", checksum=False)
    with h5py.File(written.path, "r+") as file:
        _, stored = file["pixels"].id.read_direct_chunk((1, 0, 0, 0))
        file["pixels"].id.write_direct_chunk((1, 0, 0, 0), stored[:-10], 0)
        file["pixels"].id.write_direct_chunk((2, 0, 0, 0), files.jpeg(np.zeros((8, 8, 3), np.uint8)), 0)
        for row in (1, 2):
            with pytest.raises(OSError, match="filter"):
                file["pixels"][row]
