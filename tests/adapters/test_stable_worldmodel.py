"""The format ``lewm`` in stable-worldmodel: its own HDF5 reader is the oracle, sample by sample."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from lewm_data.errors import DamagedChunkError, UsageError
from tests.loading.files import damage, write

pytest.importorskip("stable_worldmodel")
pytestmark = pytest.mark.filterwarnings("ignore")  # what stable-worldmodel imports is not about this file

LENGTHS = (30, 25, 7, 21)


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "swm"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "demo.h5", LENGTHS, cameras=("top",), extra={"reward": np.arange(83.0)}).path


def load(path: Path, format: str, **options: Any) -> Any:
    import stable_worldmodel as swm

    import lewm_data.adapters.stable_worldmodel  # noqa: F401  registers the format

    return swm.data.load_dataset(str(path), format=format, **options)


def assert_same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert list(mine) == list(theirs)
    for name, values in theirs.items():
        if not isinstance(values, torch.Tensor):
            assert mine[name] == values, name
            continue
        assert mine[name].dtype == values.dtype, name
        assert mine[name].shape == values.shape, name
        assert torch.equal(mine[name], values), name


@pytest.mark.parametrize(
    "options",
    [
        {"num_steps": 4, "frameskip": 5},
        {"num_steps": 1, "frameskip": 1},
        {"num_steps": 3, "frameskip": 2, "keys_to_load": ["pixels_top", "action"]},
        {"num_steps": 2, "frameskip": 3, "keys_to_cache": ["pixels"]},
        {"num_steps": 2, "frameskip": 3, "keys_to_merge": {"both": ["action", "state"]}},
        {"num_steps": 30, "frameskip": 2},
    ],
    ids=str,
)
def test_every_sample_is_what_their_reader_gives(file: Path, options: dict[str, Any]) -> None:
    mine, theirs = load(file, "lewm", **options), load(file, "hdf5", **options)
    assert len(mine) == len(theirs)
    assert mine.column_names == theirs.column_names
    together = mine.__getitems__(list(range(len(mine))))
    for number in range(len(theirs)):
        assert_same(mine[number], theirs[number])
        assert_same(together[number], theirs[number])


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd", "blosc2"])
def test_every_codec_is_read(codec: str, tmp_path: Path) -> None:
    path = write(tmp_path / "demo.h5", LENGTHS, codec=codec).path
    mine, theirs = load(path, "lewm", num_steps=2, frameskip=2), load(path, "hdf5", num_steps=2, frameskip=2)
    for number in (0, 13, len(theirs) - 1):
        assert_same(mine[number], theirs[number])


def test_their_own_uncompressed_files_gain_as_well(tmp_path: Path) -> None:
    text = np.array([b"push"] * 83, dtype="S8")
    path = write(
        tmp_path / "theirs.h5",
        LENGTHS,
        codec="none",
        ours=False,
        frame_chunks=None,
        checksum=False,
        extra={"task": text},
    ).path
    mine, theirs = load(path, "lewm", num_steps=2, frameskip=2), load(path, "hdf5", num_steps=2, frameskip=2)
    assert_same(mine[5], theirs[5])
    assert mine[5]["task"] == "push"


def test_episodes_chunks_columns_and_rows_are_theirs_too(file: Path) -> None:
    options = {"num_steps": 2, "frameskip": 3}
    mine, theirs = load(file, "lewm", **options), load(file, "hdf5", **options)
    assert_same(mine.load_episode(2), theirs.load_episode(2))
    places = np.array([0, 3]), np.array([2, 5]), np.array([8, 11])
    for one, other in zip(mine.load_chunk(*places), theirs.load_chunk(*places), strict=True):
        assert_same(one, other)
    for name in theirs.column_names:
        np.testing.assert_array_equal(mine.get_col_data(name), theirs.get_col_data(name))
        assert mine.get_dim(name) == theirs.get_dim(name)
    for name, values in theirs.get_row_data([3, 40]).items():
        np.testing.assert_array_equal(mine.get_row_data([3, 40])[name], values)


def test_a_transform_sees_what_theirs_would(file: Path) -> None:
    seen: dict[str, list[tuple[int, ...]]] = {"lewm": [], "hdf5": []}

    def noting(who: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def transform(sample: dict[str, Any]) -> dict[str, Any]:
            seen[who].append(tuple(sample["action"].shape))
            return {**sample, "action": sample["action"] * 2}

        return transform

    mine, theirs = (load(file, who, num_steps=2, frameskip=3, transform=noting(who)) for who in ("lewm", "hdf5"))
    assert_same(mine[4], theirs[4])
    assert_same(mine.__getitems__([4])[0], theirs[4])
    assert set(seen["lewm"]) == set(seen["hdf5"]) == {(6, 2)}


def test_samples_may_be_changed_without_changing_the_next_ones(file: Path) -> None:
    dataset = load(file, "lewm", num_steps=2, frameskip=3)
    before = dataset[0]["state"].clone()
    dataset[0]["state"].zero_()
    assert torch.equal(dataset[0]["state"], before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_their_trainer_s_loader_gets_batches_through_a_split(file: Path, num_workers: int) -> None:
    mine, theirs = load(file, "lewm", num_steps=2, frameskip=3), load(file, "hdf5", num_steps=2, frameskip=3)
    part = list(range(0, len(theirs), 3))
    loaders = [DataLoader(Subset(dataset, part), batch_size=8, num_workers=num_workers) for dataset in (mine, theirs)]
    for one, other in zip(*loaders, strict=True):
        assert_same(one, other)


def test_it_survives_pickling(file: Path) -> None:
    dataset = load(file, "lewm", num_steps=2, frameskip=3)
    assert_same(pickle.loads(pickle.dumps(dataset))[7], dataset[7])


def test_a_batch_reads_only_the_frames_that_windows_keep(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load(file, "lewm", num_steps=4, frameskip=5)
    read: list[int] = []
    original = dataset._store.read_frames
    monkeypatch.setattr(
        dataset._store, "read_frames", lambda name, rows, *rest: (read.append(len(rows)), original(name, rows, *rest))
    )
    dataset.__getitems__([0, 1, 2])
    assert read == [12, 12]  # 3 windows of 4 frames, from each of two cameras


def test_a_damaged_frame_is_reported_and_not_served(file: Path) -> None:
    damage(file, 3)
    dataset = load(file, "lewm", num_steps=2, frameskip=3, verify_checksums=True)
    with pytest.raises(DamagedChunkError, match="episode 0, step 3"):
        dataset.__getitems__(range(len(dataset)))


def test_a_folder_as_stable_worldmodel_downloads_into(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "me--demo"
    folder.mkdir()
    with pytest.raises(UsageError, match="holds 0 HDF5 files"):
        load(folder, "lewm")
    file.rename(folder / "demo.h5")
    assert len(load(folder, "lewm", num_steps=1)) == 83
    (folder / "second.hdf5").touch()
    with pytest.raises(UsageError, match="holds 2 HDF5 files"):
        load(folder, "lewm")


def test_only_files_of_ours_are_recognized(file: Path, tmp_path: Path) -> None:
    from lewm_data.adapters.stable_worldmodel import Lewm

    other = write(tmp_path / "other.h5", ours=False).path
    (tmp_path / "text.h5").write_text("not HDF5")
    assert [Lewm.detect(path) for path in (file, other, tmp_path / "text.h5", tmp_path)] == [True, False, False, False]
