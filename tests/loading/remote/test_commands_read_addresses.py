"""Functions that only read a file take its address in object storage as well."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import fsspec
import h5py
import numpy as np
import pytest

import lewm_data
from lewm_data.errors import FormatError, ResourceError, UsageError
from tests.loading import files
from tests.loading.remote.object_store import Bucket


def test_verify_and_merge_read_an_address(recorded: Path, tmp_path: Path, bucket: Bucket) -> None:
    path = lewm_data.convert(recorded, tmp_path / "a.h5", camera="front", image_size=16).path
    address, remote = bucket.put(path), bucket.proxy.config()
    result = lewm_data.verify(address, remote=remote)
    assert str(result) == f"{address} is whole."
    assert lewm_data.verify(address, recorded, remote=remote).frames_compared == 54
    merged = lewm_data.merge([address], tmp_path / "merged.h5", remote=remote)
    assert merged.inputs == (address,)
    with h5py.File(path) as one, h5py.File(merged.path) as other:
        for name in one:
            np.testing.assert_array_equal(one[name][:], other[name][:])


def test_verify_finds_damage_at_an_address(recorded: Path, tmp_path: Path, bucket: Bucket) -> None:
    path = lewm_data.convert(recorded, tmp_path / "a.h5", camera="front", image_size=16).path
    files.damage(path, 20)
    result = lewm_data.verify(bucket.put(path), remote=bucket.proxy.config())
    assert len(result.problems) == 1
    assert result.problems[0].startswith("episode 2 step 1: 'pixels' is damaged")


def test_preview_reads_an_address(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    address = bucket.put(files.write(tmp_path / "a.h5", (30, 25)).path)
    monkeypatch.setattr("lewm_data.loading.data_files.RemoteConfig", lambda: bucket.proxy.config())
    result = lewm_data.preview(address, tmp_path / "page.html", num_steps=2)
    assert result.to_dict()["num_episodes_shown"] == 2
    assert result.preview.data["facts"][0][1].startswith("a.h5, ")


@pytest.fixture
def sharded(recorded_images: Path, tmp_path: Path) -> tuple[Path, str]:
    """A sharded file, and its address."""
    path = tmp_path / "a.h5"
    lewm_data.convert(recorded_images, path, camera="front", image_size=32, layout="sharded", shard_bytes=20_000)
    store = fsspec.filesystem("memory")
    for file in [path, *path.with_name("a.h5.shards").iterdir()]:
        store.pipe_file(f"/{tmp_path.name}/{file.relative_to(tmp_path)}", file.read_bytes())
    return path, f"memory://{tmp_path.name}/a.h5"


def test_commands_read_the_shards_of_an_address(
    sharded: tuple[Path, str], recorded_images: Path, tmp_path: Path
) -> None:
    path, address = sharded
    assert str(lewm_data.verify(address)) == f"{address} is whole."
    assert lewm_data.verify(address, recorded_images).frames_compared == 54
    mine, theirs = (lewm_data.assess(place).to_dict()["cameras"] for place in (address, path))
    assert mine == theirs
    merged = lewm_data.merge([address], tmp_path / "merged.h5").path
    with h5py.File(path) as one, h5py.File(merged) as other:
        np.testing.assert_array_equal(one["pixels"][:], other["pixels"][:])


def test_a_missing_shard_is_named_and_never_read_as_black_frames(sharded: tuple[Path, str], tmp_path: Path) -> None:
    path, address = sharded
    shard = "a.h5.shards/shard-00001.h5"
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}/{shard}")
    (tmp_path / shard).unlink()
    for place in (path, address):
        for read in (lewm_data.assess, lambda place: lewm_data.merge([place], tmp_path / "merged.h5")):
            with pytest.raises(FormatError, match=f"{place}: .*{shard} is missing"):
                read(place)


def test_a_file_that_does_not_fit_the_disk_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/a.h5", b"x" * 3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    with pytest.raises(ResourceError, match="3 MB must be downloaded, but only 2 MB are free .* set TMPDIR"):
        lewm_data.verify(f"memory://{tmp_path.name}/a.h5")


@pytest.mark.parametrize("function", [lewm_data.preview, lambda source, output: lewm_data.merge([source], output)])
def test_an_output_cannot_be_an_address(function, tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.h5").path
    with pytest.raises(UsageError, match="output is s3://bucket/b.html, an address"):
        function(path, "s3://bucket/b.html")
