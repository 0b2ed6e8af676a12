"""Functions that only read a file take its address in object storage as well."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import lewm_data
from lewm_data.errors import UsageError
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


@pytest.mark.parametrize("function", [lewm_data.preview, lambda source, output: lewm_data.merge([source], output)])
def test_an_output_cannot_be_an_address(function, tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.h5").path
    with pytest.raises(UsageError, match="output is s3://bucket/b.html, an address"):
        function(path, "s3://bucket/b.html")
