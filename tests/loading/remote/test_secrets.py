"""Credentials of object storage: in no message, log, representation or file that this package writes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from lewm_data import LeWMDataModule, RemoteConfig, WindowDataset
from lewm_data.errors import LewmDataError
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.remote.folder_server import serve
from tests.loading.test_store import read_all

SECRET = "TOPSECRET0"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A converted file behind an address with a signature."""
    (tmp_path / "served").mkdir()
    files.write(tmp_path / "served" / "a.h5", [20, 15])
    with serve(tmp_path / "served") as endpoint:
        yield f"{endpoint}/bucket/a.h5?X-Amz-Expires=60&X-Amz-Signature={SECRET}"


def test_a_presigned_url_reads_and_leaves_no_trace(tmp_path, served, caplog, recwarn):
    caplog.set_level("DEBUG", logger="lewm_data")
    config = RemoteConfig(cache_dir=str(tmp_path / "cache"), chunk_cache_bytes=1 << 30)
    store = FrameStore(served, remote=config)
    with h5py.File(tmp_path / "served" / "a.h5") as file:
        np.testing.assert_array_equal(read_all(store), file["pixels"][:])
    dataset = WindowDataset(store, num_steps=2, frameskip=2)
    module = LeWMDataModule(h5_path=served, remote=config, num_steps=2, frameskip=2, batch_size=2, cache="ram")
    module.setup()
    shown = [repr(store), str(store.path), repr(dataset), dataset.describe(0), repr(module), str(module), repr(config)]
    assert not [text for text in [*shown, caplog.text, *(str(w.message) for w in recwarn)] if SECRET in text]
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(written) >= 3
    for path in written:
        assert SECRET not in path.name
        assert SECRET.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_a_new_signature_finds_the_same_cached_metadata(tmp_path, served):
    config = RemoteConfig(cache_dir=str(tmp_path / "cache"))
    for signature in (SECRET, "another"):
        FrameStore(served.replace(SECRET, signature), remote=config)
    assert len(list((tmp_path / "cache").glob("*.metadata.h5"))) == 1


@pytest.mark.parametrize(
    "address",
    [
        f"http://user:{SECRET}@127.0.0.1:9/d.h5",
        f"http://127.0.0.1:9/d.h5?X-Amz-Signature={SECRET}",
        f"nosuch://user:{SECRET}@host/d.h5",
    ],
)
def test_an_error_and_its_traceback_hide_the_address_secrets(address):
    with pytest.raises(LewmDataError) as caught:
        FrameStore(address, remote=RemoteConfig(retry_seconds=0, timeout_seconds=1))
    assert SECRET not in "".join(traceback.format_exception_only(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
