"""Trouble of the network and of this machine keeps its own name, and nothing calls it damage."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from lewm_data import RemoteConfig
from lewm_data.errors import AccessError, LewmDataError, ResourceError, UnreachableError
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.remote.object_store import Bucket, Fault
from tests.loading.test_store import read_all

DAMAGE = ("damaged", "truncated", "not a readable", "convert it again", "changed")


def assert_not_called_damage(error: LewmDataError) -> None:
    assert not [word for word in DAMAGE if word in str(error)], error


def error_of_opening(address: str, config: RemoteConfig) -> LewmDataError | None:
    try:
        FrameStore(address, remote=config)
    except LewmDataError as error:
        return error
    return None


def nth_range(number: int, fault: Fault) -> Any:
    """The fault for all range requests from the given one on."""
    count = iter(range(1, 1_000_000))
    return lambda method, headers: fault if "Range" in headers and next(count) >= number else None


@pytest.mark.parametrize("fault", ["drop", "cut", "refuse", "forbid"])
def test_a_failure_at_any_request_of_opening_is_not_damage(tmp_path: Path, bucket: Bucket, fault: Fault) -> None:
    written = files.write(tmp_path / "a.h5", [200, 200], cameras=["wrist"])
    address = bucket.put(written.path)
    num_failed = 0
    for number in range(1, 100):
        bucket.proxy.fault = nth_range(number, fault)
        config = bucket.proxy.config(retry_seconds=0, cache_dir=str(tmp_path / f"{number}"))
        error = error_of_opening(address, config)
        if error is None:
            break
        assert isinstance(error, (UnreachableError, AccessError))
        assert_not_called_damage(error)
        assert address in str(error)
        assert not list((tmp_path / f"{number}").rglob("*.metadata.h5"))
        num_failed += 1
    assert 2 <= num_failed < 99


@pytest.mark.parametrize(("fault", "error", "words"), [
    ("forbid", AccessError, "access is refused"),
    ("refuse", UnreachableError, "no answer after 1 attempt"),
    ("drop", UnreachableError, "no answer after 1 attempt"),
    ("stall", UnreachableError, "no answer after 1 attempt"),
])  # fmt: skip
def test_a_failure_while_reading_frames_keeps_its_name(
    tmp_path: Path, bucket: Bucket, fault: Fault, error: type[LewmDataError], words: str
) -> None:
    written = files.write(tmp_path / "a.h5")
    address = bucket.put(written.path)
    FrameStore(address, remote=bucket.proxy.config())
    config = bucket.proxy.config(retry_seconds=0, timeout_seconds=2 if fault == "stall" else 20)
    store = FrameStore(address, remote=config)
    bucket.proxy.stall_seconds = 6
    bucket.proxy.fault = lambda method, headers: fault
    with pytest.raises(error, match=words) as caught:
        read_all(store)
    assert_not_called_damage(caught.value)


@pytest.mark.parametrize("address", ["http://no-such-host.invalid/a.h5", "s3://bucket/a.h5"])
def test_a_host_that_does_not_resolve_is_unreachable(address: str) -> None:
    options = {"endpoint_url": "http://no-such-host.invalid", "key": "me", "secret": "x"}
    config = RemoteConfig(storage_options=options if address.startswith("s3") else {}, retry_seconds=0)
    with pytest.raises(UnreachableError, match=r"a\.h5: no answer after 1 attempt .*no-such-host\.invalid") as caught:
        FrameStore(address, remote=config)
    assert_not_called_damage(caught.value)


def use_unwritable_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    if how == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    elif how == "home on a read-only disk":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/proc/1")
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


@pytest.mark.parametrize("how", ["no home", "home on a read-only disk", "cache folder is a file"])
def test_reading_works_without_a_cache_folder(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    written = files.write(tmp_path / "a.h5")
    use_unwritable_cache(monkeypatch, tmp_path, how)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config(chunk_cache_bytes=1 << 30))
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert "the chunk cache is off" in caplog.text


def test_cached_metadata_on_a_read_only_disk_is_used(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = files.write(tmp_path / "a.h5")
    address, config = bucket.put(written.path), bucket.proxy.config()
    FrameStore(address, remote=config)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    bucket.proxy.forget()
    np.testing.assert_array_equal(read_all(FrameStore(address, remote=config)), written.data["pixels"])
    assert bucket.proxy.requests[0].startswith("HEAD")
    other = bucket.put(written.path, "b.h5")
    with pytest.raises(ResourceError, match=r"b\.h5: its metadata .*no folder can be written to .*cache_dir") as caught:
        FrameStore(other, remote=config)
    assert "Read-only file system" in str(caught.value)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Writing past this size of a file fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def in_memory(path: Path) -> str:
    """The address of a copy in a store without files, which the limit on file sizes does not reach."""
    fsspec.filesystem("memory").pipe_file(f"/{path.parent.name}/{path.name}", path.read_bytes())
    return f"memory://{path.parent.name}/{path.name}"


@pytest.mark.parametrize("num_bytes", [0, 1, 3000, 10_000])
def test_a_disk_without_room_for_the_metadata_is_one_sentence(tmp_path: Path, num_bytes: int) -> None:
    written = files.write(tmp_path / "a.h5")
    address = in_memory(written.path)
    with (
        files_of_at_most(num_bytes),
        pytest.raises(ResourceError, match=r"a\.h5: its metadata .*File too large.*cache_dir") as caught,
    ):
        FrameStore(address)
    assert_not_called_damage(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    np.testing.assert_array_equal(read_all(FrameStore(address)), written.data["pixels"])  # with room again


def test_a_disk_without_room_for_chunks_costs_only_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = files.write(tmp_path / "a.h5", [300, 300])
    store = FrameStore(in_memory(written.path), remote=RemoteConfig(chunk_cache_bytes=1 << 30))
    with files_of_at_most(20_000):
        for _ in range(2):
            np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert "no more chunks are cached" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_file_locks_holds_both_caches(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    written = files.write(tmp_path / "a.h5")
    address, config = bucket.put(written.path), bucket.proxy.config(chunk_cache_bytes=1 << 30)
    np.testing.assert_array_equal(read_all(FrameStore(address, remote=config)), written.data["pixels"])
    bucket.proxy.forget()
    np.testing.assert_array_equal(read_all(FrameStore(address, remote=config)), written.data["pixels"])
    assert bucket.proxy.ranges == []
