"""One file behaves the same in every place: on the disk, sharded, in object storage, and sharded there."""

from __future__ import annotations

import gc
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py._objects import phil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lewm_data import WindowDataset
from lewm_data.errors import DamagedChunkError, FormatError, LewmDataError, UsageError
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.remote import object_store
from tests.loading.test_store import read_all

SHARD_LENGTHS = ([30, 25], [7, 21])
LENGTHS = [30, 25, 7, 21]


@dataclass
class Place:
    """A file in one of the places that a store reads from.

    Attributes:
        kind: ``local``, ``sharded``, ``remote`` or ``remote sharded``.
        folder: Where it was written.
        address: What a user passes.
        shards: The files that hold its frames.
        data: Everything that was written, by column.
        remote: How to reach it.
        proxy: Between reader and store, for those in object storage.
        upload: Puts a file of the folder where the store finds it; returns its address.
    """

    kind: str
    folder: Path
    address: str | Path
    shards: list[files.Written]
    data: dict[str, np.ndarray]
    remote: RemoteConfig | None
    upload: Callable[[Path], str | Path]
    proxy: object_store.Proxy | None = None

    def open(self, **options: Any) -> FrameStore:
        return FrameStore(self.address, remote=self.remote, **options)

    def change(self, change: Callable[[h5py.File], None]) -> None:
        """Changes the file that the user names."""
        path = self.folder / "data.h5"
        with h5py.File(path, "r+") as file:
            change(file)
        self.upload(path)

    def damage(self, row: int) -> None:
        """Flips a bit of a frame, in whichever file holds it."""
        for shard in self.shards:
            if row < len(shard.data["pixels"]):
                files.damage(shard.path, row)
                self.upload(shard.path)
                return
            row -= len(shard.data["pixels"])


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[int, Any]]:
    with object_store.server() as running:
        yield running


def write(folder: Path, *, is_sharded: bool, seed: int = 0) -> tuple[list[files.Written], dict[str, np.ndarray]]:
    if not is_sharded:
        written = files.write(folder / "data.h5", LENGTHS, codec="zstd", cameras=["wrist"], seed=seed)
        return [written], written.data
    shards = [
        files.write(folder / f"s{number}.h5", lengths, codec=codec, cameras=["wrist"], seed=seed + number)
        for number, (lengths, codec) in enumerate(zip(SHARD_LENGTHS, ("lzf", "none"), strict=True))
    ]
    return shards, files.write_virtual(folder / "data.h5", shards).data


@pytest.fixture(params=["local", "sharded", "remote", "remote sharded"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    shards, data = write(tmp_path, is_sharded="sharded" in request.param)
    if "remote" not in request.param:
        yield Place(request.param, tmp_path, tmp_path / "data.h5", shards, data, None, lambda path: path)
        return
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    port, client = request.getfixturevalue("s3")
    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    client.create_bucket(Bucket=name)
    with object_store.proxy_of(port) as proxy:
        bucket = object_store.Bucket(proxy, client, name)
        for shard in shards:
            bucket.put(shard.path)
        address = bucket.put(tmp_path / "data.h5")
        yield Place(request.param, tmp_path, address, shards, data, proxy.config(), bucket.put, proxy)


@pytest.mark.parametrize("place", ["remote", "remote sharded"], indirect=True)
def test_nothing_waits_for_the_store_while_a_collection_could_wait_for_h5py(place: Place) -> None:
    """The collector may run in the thread that asks the store, and free an h5py object: that takes h5py's lock."""
    assert place.proxy is not None
    could_deadlock: list[str] = []

    def look(method: str, headers: Any) -> None:
        is_free = phil.acquire(blocking=False)
        if is_free:
            phil.release()
        elif gc.isenabled():
            could_deadlock.append(method)

    place.proxy.fault = look
    place.open()
    assert len(place.proxy.requests) > 1
    assert could_deadlock == []
    assert gc.isenabled()


def test_every_column_holds_what_was_written(place: Place) -> None:
    store = place.open(verify_checksums=True)
    assert store.frame_columns == ["pixels", "pixels_wrist"]
    assert set(store.columns) == set(place.data)
    assert store.ep_len.tolist() == LENGTHS
    assert store.ep_offset.tolist() == [0, 30, 55, 62]
    for name, values in place.data.items():
        read = read_all(store, name) if name.startswith("pixels") else store.read_column(name)
        assert read.dtype == values.dtype
        np.testing.assert_array_equal(read, values)
    np.testing.assert_array_equal(store.read_column("state", 50, 70), place.data["state"][50:70])
    assert store.reader_kind("pixels") == ("remote" if "remote" in place.kind else "chunks")


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_frames_go_where_they_are_asked_to(place: Place, data: st.DataObject) -> None:
    store = place.open()
    rows = np.array(data.draw(st.lists(st.integers(0, 82), min_size=1, max_size=20)), np.int64)
    num_out = data.draw(st.integers(len(rows), len(rows) + 3))
    out_indices = np.array(data.draw(st.permutations(range(num_out)))[: len(rows)], np.int64)
    out = np.full((num_out, 24, 20, 3), 77, np.uint8)
    store.read_frames("pixels", rows, out, out_indices)
    expected = np.full_like(out, 77)
    expected[out_indices] = place.data["pixels"][rows]
    np.testing.assert_array_equal(out, expected)


def test_windows_are_those_of_the_batch_contract(place: Place) -> None:
    dataset = WindowDataset(place.open(), num_steps=3, frameskip=2)
    written = files.Written(place.folder, np.array(LENGTHS), place.data)
    starts = written.starts(6)
    assert len(dataset) == len(starts)
    for window in (0, len(starts) // 2, len(starts) - 1):
        sample = dataset[window]
        for name, values in written.window(*starts[window], 3, 2).items():
            found = sample[name].numpy()
            found = np.moveaxis(found, 1, -1) if name.startswith("pixels") else found
            np.testing.assert_array_equal(found, values)


def test_goals_are_read_with_their_windows(place: Place) -> None:
    dataset = WindowDataset(place.open(), num_steps=3, frameskip=2, goal="uniform", columns=["pixels", "step_idx"])
    batch = dataset.read(np.arange(len(dataset)), draws=np.arange(len(dataset), dtype=np.uint64) << np.uint64(57))
    rows = dataset.windows.rows(np.arange(len(dataset))) + 2 * 2 + batch["goal_steps"].numpy()
    np.testing.assert_array_equal(batch["goal_pixels"][:, 0].permute(0, 2, 3, 1), place.data["pixels"][rows])
    np.testing.assert_array_equal(batch["goal_step_idx"][:, 0], place.data["step_idx"][rows])


def test_the_header_is_read(place: Place) -> None:
    header = place.open().header
    assert header is not None
    assert header.cameras["pixels"] == "observation.images.top"
    assert [record.episodes for record in header.sources] == [(0, 1, 2, 3)]


@pytest.mark.parametrize(("row", "words"), [(30 + 4, "episode 1, step 4"), (62 + 20, "episode 3, step 20")])
def test_a_flipped_bit_names_file_episode_and_step(place: Place, row: int, words: str) -> None:
    place.damage(row)
    store = place.open(verify_checksums=True)
    np.testing.assert_array_equal(read_all(store, order=np.arange(30)), place.data["pixels"][:30])
    with pytest.raises(DamagedChunkError, match=rf"\.h5: column 'pixels', {words}: .*checksum"):
        read_all(store)


def test_a_store_in_another_process_reads_the_same(place: Place) -> None:
    store = pickle.loads(pickle.dumps(place.open()))
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(read_all(store), place.data["pixels"])
    np.testing.assert_array_equal(store.read_column("done"), place.data["done"])


def test_a_file_that_changes_under_a_store_is_an_error_and_not_wrong_frames(place: Place) -> None:
    sent = pickle.dumps(place.open())
    write(place.folder, is_sharded="sharded" in place.kind, seed=9)
    for shard in place.shards:
        place.upload(shard.path)
    place.change(lambda file: file.attrs.modify("fps", 11.0))
    with pytest.raises(FormatError, match="changed while it was in use"):
        read_all(pickle.loads(sent))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.attrs.modify("format_version", 99), "format version 99"),
        (lambda file: file.attrs.__delitem__("fps"), "incomplete or malformed"),
        (lambda file: file.__delitem__("ep_len"), "'ep_len' is missing"),
        (lambda file: file["ep_len"].__setitem__(0, 29), "'ep_offset' is not the running sum of 'ep_len'"),
        (lambda file: file["ep_offset"].__setitem__(1, 29), "'ep_offset' is not the running sum of 'ep_len'"),
        (
            lambda file: file.attrs.modify("cameras", '{"pixels": "top", "pixels_side": "side"}'),
            "'pixels_side' is missing",
        ),
    ],
)
def test_a_broken_rule_of_the_format_is_named(place: Place, change: Callable[[h5py.File], None], words: str) -> None:
    place.change(change)
    with pytest.raises(FormatError, match=rf"data\.h5: .*{words}"):
        place.open()


def test_a_missing_file_or_column_is_a_usage_error(place: Place) -> None:
    with pytest.raises(UsageError, match="no column 'joints'. It has: action"):
        place.open().read_column("joints")
    with pytest.raises(UsageError, match="no such"):
        FrameStore(f"{place.address}.absent", remote=place.remote)


@pytest.mark.parametrize("place", ["sharded", "remote sharded"], indirect=True)
def test_a_missing_shard_is_an_error_and_not_black_frames(place: Place) -> None:
    def point_elsewhere(file: h5py.File) -> None:
        del file["pixels"]
        layout = h5py.VirtualLayout((83, 24, 20, 3), np.uint8)
        layout[:55] = h5py.VirtualSource("s0.h5", "pixels", (55, 24, 20, 3))
        layout[55:] = h5py.VirtualSource("absent.h5", "pixels", (28, 24, 20, 3))
        file.create_virtual_dataset("pixels", layout)

    place.change(point_elsewhere)
    with pytest.raises(LewmDataError, match=r"absent\.h5.* (is missing|no such)"):
        place.open()


@pytest.mark.parametrize("place", ["sharded", "remote sharded"], indirect=True)
def test_rows_that_no_shard_holds_are_an_error_and_not_black_frames(place: Place) -> None:
    def leave_a_gap(file: h5py.File) -> None:
        del file["pixels"]
        layout = h5py.VirtualLayout((83, 24, 20, 3), np.uint8)
        layout[:50] = h5py.VirtualSource("s0.h5", "pixels", (55, 24, 20, 3))[:50]
        layout[55:] = h5py.VirtualSource("s1.h5", "pixels", (28, 24, 20, 3))
        file.create_virtual_dataset("pixels", layout)

    place.change(leave_a_gap)
    with pytest.raises(FormatError, match="no shard of '/pixels' holds the rows from 50 to 55"):
        place.open()
