"""Files of format version 1 that an earlier lewm_data wrote read bit for bit, by this package and by plain h5py.

``version1/`` was written by lewm_data 0.1.0 before its modules were reorganized. The hashes below were taken then, from
what h5py and hdf5plugin read.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # registers the codecs with HDF5
import numpy as np
import pytest

from lewm_data.conversion.merge import merge
from lewm_data.conversion.verify import verify_file
from lewm_data.loading.store import FrameStore
from tests.loading.test_store import read_all

FOLDER = Path(__file__).parent / "version1"
SINGLE = {
    "action": "8a131cec2cda04bc",
    "done": "15f2f1a4339f5f2a",
    "ep_len": "2594b6a92ebfb1c3",
    "ep_offset": "af5570f5a1810b7a",
    "episode_idx": "de47c9b27eb8d300",
    "pixels": "277f4a81b0643972",
    "state": "954b0874cca68a8e",
    "step_idx": "e528f4309e1413e6",
}
SHARDED = {
    "action": "e6098e5bdda24c27",
    "done": "af2bfbc48a0891f0",
    "ep_len": "48f7a9d7300307ea",
    "ep_offset": "df065f4871e06699",
    "episode_idx": "37cd6611d7634fcd",
    "pixels": "943c7e184a3f8c45",
    "state": "ef10b20be3ebb4b4",
    "step_idx": "dac6c76aab49b77b",
}
"""SHA-256 of each dataset's bytes, the first 16 digits."""

CODECS = ("lzf", "none", "lz4", "zstd", "blosc2")
FILES = [(f"{codec}.h5", SINGLE) for codec in CODECS] + [("sharded.h5", SHARDED)]


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "hashes"), FILES)
def test_every_value_and_frame_is_what_was_written(name: str, hashes: dict[str, str]) -> None:
    store = FrameStore(FOLDER / name, verify_checksums=True)
    assert store.reader_kind("pixels") == "chunks"
    read = {column: store.read_column(column) for column in store.columns if column != "pixels"}
    read |= {
        "pixels": read_all(store),
        "ep_len": store.ep_len.astype(np.int32),
        "ep_offset": store.ep_offset.astype(np.int64),
    }
    assert {column: digest(values) for column, values in read.items()} == hashes
    with h5py.File(FOLDER / name) as file:
        assert {column: digest(file[column][:]) for column in file} == hashes


@pytest.mark.parametrize(("name", "hashes"), FILES)
def test_the_file_still_verifies(name: str, hashes: dict[str, str]) -> None:
    assert verify_file(FOLDER / name) == []


@pytest.mark.parametrize("codec", CODECS)
def test_the_header_says_what_it_said(codec: str) -> None:
    header = FrameStore(FOLDER / f"{codec}.h5").header
    assert header is not None
    [source] = header.sources
    assert (source.repo_id, source.revision, source.codebase_version) == ("recorded", None, "v3.0")
    assert source.episodes == (2,)
    assert (header.format_version, header.lewm_data_version, header.compression) == (1, "0.1.0", codec)
    assert (header.fps, header.image_height, header.image_width, header.resize) == (30.0, 32, 32, "stretch")
    assert header.cameras == {"pixels": "observation.images.front"}
    assert header.done_source == "next.done"
    assert header.feature_names["action"] == tuple(f"goal_{i}" for i in range(6))
    assert header.tasks == {0: "push the block", 1: "lift the block"}
    assert header.statistics["state"].count == 5
    assert [found.code for found in header.findings] == ["episode_short"]


def test_a_sharded_file_merges_into_one_file(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "old")
    merge([tmp_path / "old" / "sharded.h5"], tmp_path / "one.h5")
    with h5py.File(tmp_path / "one.h5") as file:
        assert {column: digest(file[column][:]) for column in file} == SHARDED
