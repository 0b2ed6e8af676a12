"""Remote files for code that reads every byte: as an open HDF5 file, or as a temporary local copy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from lewm_data.errors import FormatError, ResourceError, UnreachableError, UsageError
from lewm_data.loading.data_files import local_copy, open_all
from tests.loading import files
from tests.loading.remote.object_store import Bucket, each


@pytest.mark.parametrize("codec", ["lzf", "blosc2"])
def test_every_byte_of_a_remote_file_is_readable(tmp_path: Path, bucket: Bucket, codec: str) -> None:
    written = files.write(tmp_path / "a.h5", codec=codec)
    for place in (written.path, bucket.put(written.path)):
        with open_all(place, bucket.proxy.config()) as file:
            for name, values in written.data.items():
                np.testing.assert_array_equal(file[name][:], values)


def test_a_remote_file_is_read_in_few_requests(tmp_path: Path, bucket: Bucket) -> None:
    written = files.write(tmp_path / "a.h5", [300, 300], codec="none", height=64, width=64)
    address = bucket.put(written.path)
    bucket.proxy.forget()
    with open_all(address, bucket.proxy.config()) as file:
        np.testing.assert_array_equal(file["pixels"][:], written.data["pixels"])
    assert len(bucket.proxy.ranges) < 20


def test_a_remote_file_that_needs_others_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    written = files.write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "a.h5", "w") as virtual:
        layout = h5py.VirtualLayout(written.data["state"].shape, "f4")
        layout[:] = h5py.VirtualSource(str(written.path), "state", written.data["state"].shape)
        virtual.create_virtual_dataset("state", layout)
    with pytest.raises(FormatError, match=r"a\.h5: other files hold 'state'"):
        open_all(bucket.put(tmp_path / "a.h5"), bucket.proxy.config())


def test_an_unreachable_store_is_named_in_mid_file(tmp_path: Path, bucket: Bucket) -> None:
    written = files.write(tmp_path / "a.h5", [300, 300], codec="none", height=64, width=64)
    with open_all(bucket.put(written.path), bucket.proxy.config(retry_seconds=0)) as file:
        bucket.proxy.fault = lambda method, headers: "drop"
        with pytest.raises(UnreachableError, match=r"a\.h5: no answer"):
            file["pixels"][:]


def test_a_local_copy_equals_the_object_and_is_removed(tmp_path: Path, bucket: Bucket) -> None:
    written = files.write(tmp_path / "a.h5", [300, 300], codec="none", height=128, width=128)  # several downloads
    assert written.path.stat().st_size > 16 << 20
    address = bucket.put(written.path)
    bucket.proxy.fault = each(2, "cut")
    seen: list[tuple[str, int, int]] = []
    with local_copy(address, tmp_path, bucket.proxy.config(), lambda *now: seen.append(now)) as path:
        assert path.name == "a.h5"
        assert path.read_bytes() == written.path.read_bytes()
    assert not path.parent.exists()
    assert seen[-1] == (address, written.path.stat().st_size, written.path.stat().st_size)
    with local_copy(written.path) as path:
        assert path == written.path


@pytest.mark.parametrize("room_bytes", [0, 1000])
def test_a_download_that_does_not_fit_is_a_lack_of_disk(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, room_bytes: int
) -> None:
    address = bucket.put(files.write(tmp_path / "a.h5").path)

    def write_to_full_disk(descriptor: int, data: memoryview, offset: int) -> int:
        if not room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return min(room_bytes, len(data))

    monkeypatch.setattr(os, "pwrite", write_to_full_disk)
    with (
        pytest.raises(ResourceError, match=r"a\.h5: No space left on device"),
        local_copy(address, tmp_path, bucket.proxy.config()),
    ):
        pass
    assert not list(tmp_path.glob("lewm_data-*"))


def test_a_copy_of_a_missing_object_is_refused(bucket: Bucket) -> None:
    with (
        pytest.raises(UsageError, match="there is no such object"),
        local_copy(f"s3://{bucket.name}/absent.h5", remote=bucket.proxy.config()),
    ):
        pass
