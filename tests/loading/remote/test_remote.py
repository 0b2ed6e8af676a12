"""Files in object storage (moto's S3 server on loopback) read like local ones, whatever the network does."""

from __future__ import annotations

import gc
import pickle
import resource
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import psutil
import pytest
import torch

from lewm_data import LeWMDataModule, WindowDataset
from lewm_data.errors import AccessError, DamagedChunkError, FormatError, ResourceError, UnreachableError, UsageError
from lewm_data.loading.loader import WindowLoader
from lewm_data.loading.remote import range_client
from lewm_data.loading.remote.config import RemoteConfig
from lewm_data.loading.sampler import WindowOrder, WindowSampler
from lewm_data.loading.store import FrameStore
from tests.hub import StandIn, serve
from tests.loading import files
from tests.loading.remote import object_store
from tests.loading.remote.object_store import each
from tests.loading.test_store import read_all


def loader_of(
    place: str | Path, *, config: RemoteConfig | None = None, batch_size: int = 4, **options: Any
) -> WindowLoader:
    dataset = WindowDataset(place, num_steps=3, frameskip=2, remote=config)
    order = WindowOrder(num_windows=len(dataset), batch_size=batch_size, seed=3)
    return WindowLoader(dataset, WindowSampler(order), **options)


@contextmanager
def at_the_limit_of_open_files() -> Iterator[None]:
    """Within it, this process cannot open any file, however many others are closed."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def assert_same_batches(ours: Any, theirs: Any) -> None:
    num = 0
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.keys() == wanted.keys()
        for name in wanted:
            assert torch.equal(mine[name], wanted[name])
        num += 1
    assert num > 3


@pytest.mark.parametrize("codec", files.CODECS)
def test_frames_of_every_codec_equal_what_was_written(tmp_path, bucket, codec):
    written = files.write(tmp_path / "a.h5", codec=codec, cameras=["wrist"])
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config(), verify_checksums=True)
    order = np.random.default_rng(0).permutation(store.num_rows)
    for column in ("pixels", "pixels_wrist"):
        np.testing.assert_array_equal(read_all(store, column, order), written.data[column][order])
    for column in ("action", "state", "done", "step_idx"):
        np.testing.assert_array_equal(store.read_column(column), written.data[column])
    assert store.header == FrameStore(written.path).header
    assert str(store.path).startswith("s3://")


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 2},
        {"num_workers": 1, "worker_type": "process", "multiprocessing_context": "fork"},
        pytest.param(
            {"num_workers": 1, "worker_type": "process", "multiprocessing_context": "spawn"}, marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forks while the server's threads run
def test_batches_equal_those_of_the_local_file_also_after_a_resume(tmp_path, bucket, options):
    written = files.write(tmp_path / "a.h5", [20, 14])
    address, config = bucket.put(written.path), bucket.proxy.config()
    ours = loader_of(address, config=config, **options)
    assert_same_batches(ours, loader_of(written.path))
    epoch = iter(ours)
    next(epoch)
    state = pickle.loads(pickle.dumps(ours.state_dict()))
    missing = list(epoch)
    ours.close()  # a process forked during a request would hold the server's end of its connection open
    rest = loader_of(address, config=config, **options)
    rest.load_state_dict(state)
    assert_same_batches(rest, missing)
    rest.close()


def test_only_the_needed_chunks_are_requested_and_several_at_once(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5", [60], codec="none")
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config(num_connections=4))
    bucket.proxy.forget()
    bucket.proxy.fault = each(1, "slow")
    rows = np.array([50, 3, 3, 10, 4, 30, 20, 40, 25])
    np.testing.assert_array_equal(read_all(store, order=rows), written.data["pixels"][rows])
    requested = [tuple(map(int, text.removeprefix("bytes=").split("-"))) for text in bucket.proxy.ranges]
    frame = 24 * 20 * 3 + 4
    assert sorted(last + 1 - first for first, last in requested) == [frame] * 6 + [2 * frame]
    assert 2 <= bucket.proxy.max_at_once <= 4


def test_goals_cost_at_most_their_share_of_requests(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5", [60], codec="none")
    address, config = bucket.put(written.path), bucket.proxy.config(max_gap_bytes=0)
    counts = []
    for goal in (None, "uniform"):
        dataset = WindowDataset(address, num_steps=4, frameskip=2, columns=["pixels"], goal=goal, remote=config)
        bucket.proxy.forget()
        dataset.read(np.arange(0, 50, 10), draws=np.arange(5, dtype=np.uint64) << np.uint64(61))
        counts.append(len(bucket.proxy.ranges))
    assert counts[0] == 5 * 4
    assert counts[0] < counts[1] <= 5 * 5


@pytest.mark.parametrize("fault", ["drop", "cut", "refuse", "slow", "stall"])
def test_dropped_truncated_refused_and_slow_responses_are_retried(tmp_path, bucket, fault):
    written = files.write(tmp_path / "a.h5", codec="none")
    bucket.proxy.stall_seconds = 4
    bucket.proxy.fault = each(9, fault)
    config = bucket.proxy.config(timeout_seconds=1.5 if fault == "stall" else 20)
    store = FrameStore(bucket.put(written.path), remote=config)
    order = np.random.default_rng(0).permutation(store.num_rows)[:40]
    np.testing.assert_array_equal(read_all(store, order=order), written.data["pixels"][order])
    assert len(bucket.proxy.ranges) > 20


def test_an_unreachable_server_is_named_and_may_come_back(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5")
    address = bucket.put(written.path)
    store = FrameStore(address, remote=bucket.proxy.config(retry_seconds=0.5))
    bucket.proxy.fault = lambda method, headers: "drop"
    with pytest.raises(UnreachableError, match=rf"{address}: no answer after \d+ attempts? in 0.5 s"):
        read_all(store)
    bucket.proxy.fault = lambda method, headers: None
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])


@pytest.mark.parametrize("worker_type", ["thread", "process"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_object_that_changes_under_a_running_loader_is_an_error(tmp_path, bucket, worker_type):
    written = files.write(tmp_path / "a.h5", [20, 14], codec="none")
    other = files.write(tmp_path / "b.h5", [20, 14], codec="none", seed=9)
    assert written.path.stat().st_size == other.path.stat().st_size
    wanted = iter(loader_of(written.path, batch_size=4))
    loader = loader_of(
        bucket.put(written.path, "a.h5"), config=bucket.proxy.config(), batch_size=4, worker_type=worker_type
    )

    def train() -> None:
        for number, batch in enumerate(loader):
            assert torch.equal(batch["pixels"], next(wanted)["pixels"])
            if number == 1:
                bucket.put(other.path, "a.h5")

    with pytest.raises(FormatError, match=r"a\.h5: the object changed while it was in use\. Open it again"):
        train()
    loader.close()
    again = FrameStore(f"s3://{bucket.name}/a.h5", remote=bucket.proxy.config())
    np.testing.assert_array_equal(read_all(again), other.data["pixels"])
    bucket.client.delete_object(Bucket=bucket.name, Key="a.h5")
    with pytest.raises(FormatError, match="changed"):
        read_all(again)


def test_metadata_is_read_once_until_the_object_changes(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5")
    address, config = bucket.put(written.path), bucket.proxy.config()
    FrameStore(address, remote=config)
    for _ in range(2):
        bucket.proxy.forget()
        store = FrameStore(address, remote=config)
        np.testing.assert_array_equal(store.read_column("action"), written.data["action"])
        assert [request.split()[0] for request in bucket.proxy.requests] == ["HEAD"]
    other = files.write(tmp_path / "b.h5", [11, 12, 13], codec="zstd", seed=5)
    bucket.put(other.path, "a.h5")
    with pytest.raises(FormatError, match="changed"):
        read_all(store)
    fresh = FrameStore(address, remote=config)
    np.testing.assert_array_equal(read_all(fresh), other.data["pixels"])
    with pytest.raises(FormatError, match="changed while it was in use"):
        store.read_column("action")


def test_damaged_cached_metadata_is_read_again(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5")
    address, config = bucket.put(written.path), bucket.proxy.config(cache_dir=str(tmp_path / "here"))
    FrameStore(address, remote=config)
    [cached] = (tmp_path / "here").glob("*.metadata.h5")
    for damage in (b"", b"nonsense", cached.read_bytes()[:5000]):
        cached.write_bytes(damage)
        np.testing.assert_array_equal(read_all(FrameStore(address, remote=config)), written.data["pixels"])


def test_a_damaged_frame_is_named_by_address_episode_and_step(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5", [30, 25])
    files.damage(written.path, 30 + 4)
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config(), verify_checksums=True)
    with pytest.raises(DamagedChunkError, match=r"s3://\S+a\.h5: column 'pixels', episode 1, step 4: .*checksum"):
        read_all(store)


def test_a_pickled_store_reads_the_same_frames(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5")
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config())
    np.testing.assert_array_equal(read_all(pickle.loads(pickle.dumps(store))), written.data["pixels"])


def test_the_data_module_decodes_an_address_into_ram_once(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5", [20, 15, 15])
    settings: dict[str, Any] = {"num_steps": 2, "frameskip": 2, "batch_size": 4, "num_workers": 2, "normalize": False}
    modules = []
    for place in (str(written.path), bucket.put(written.path)):
        module = LeWMDataModule(h5_path=place, remote=bucket.proxy.config(), cache="ram", **settings)
        module.prepare_data()
        module.setup()
        modules.append(module)
    bucket.proxy.forget()
    for _ in range(2):
        assert_same_batches(modules[1].train_dataloader(), modules[0].train_dataloader())
    assert bucket.proxy.requests == []
    assert list(modules[0].val_positions) == list(modules[1].val_positions)


def test_a_virtual_dataset_reads_from_shards_in_the_same_folder(tmp_path, bucket):
    shards = [files.write(tmp_path / f"s{i}.h5", lengths, seed=i) for i, lengths in enumerate(([9, 8], [7, 12]))]
    num = [len(shard.data["pixels"]) for shard in shards]
    with h5py.File(tmp_path / "virtual.h5", "w") as virtual:
        for name, values in shards[0].data.items():
            layout = h5py.VirtualLayout((sum(num), *values.shape[1:]), values.dtype)
            layout[: num[0]] = h5py.VirtualSource("s0.h5", name, values.shape)
            layout[num[0] :] = h5py.VirtualSource("s1.h5", name, (num[1], *values.shape[1:]))
            virtual.create_virtual_dataset(name, layout)
        lengths = np.array([9, 8, 7, 12])
        virtual["ep_len"], virtual["ep_offset"] = lengths, np.cumsum(lengths) - lengths
    for shard in shards:
        bucket.put(shard.path)
    address = bucket.put(tmp_path / "virtual.h5")
    store = FrameStore(address, remote=bucket.proxy.config())
    order = np.random.default_rng(0).permutation(store.num_rows)
    for column in ("pixels", "action"):
        wanted = np.concatenate([shard.data[column] for shard in shards])
        got = read_all(store, order=order) if column == "pixels" else store.read_column(column)[order]
        np.testing.assert_array_equal(got, wanted[order])
    bucket.put(files.write(tmp_path / "s1.h5", [7, 12], seed=7).path)  # a shard of another conversion
    with pytest.raises(FormatError, match=r"s1\.h5: the object changed"):
        read_all(store)


def test_unreadable_addresses_name_the_reason(tmp_path, bucket, monkeypatch):
    config = bucket.proxy.config()
    written = files.write(tmp_path / "a.h5")
    bucket.put(written.path, "folder/a.h5")
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    cut = tmp_path / "cut.h5"
    shutil.copy(written.path, cut)
    with open(cut, "r+b") as file:
        file.truncate(cut.stat().st_size - 3000)
    options = {"frame_chunks": (100, 24, 20, 3), "frame_filters": {"compression": "gzip"}}
    slow = files.write(tmp_path / "slow.h5", [60, 70], codec="none", **options)
    for address, error, words in (
        (f"s3://{bucket.name}/absent.h5", UsageError, "there is no such object"),
        ("s3://nobodys-bucket/a.h5", UsageError, "there is no such object"),
        (f"s3://{bucket.name}/folder", UsageError, "is a folder, not a file"),
        ("nosuch://a/b.h5", UsageError, "fsspec cannot open this address"),
        (bucket.put(text), FormatError, "not a readable HDF5 file"),
        (bucket.put(cut), FormatError, "truncated"),
        (bucket.put(slow.path), FormatError, "not stored one per chunk"),
    ):
        with pytest.raises(error, match=words):
            FrameStore(address, remote=config)


def test_a_missing_filesystem_package_names_its_remedy(monkeypatch):
    from fsspec.registry import known_implementations

    monkeypatch.setitem(known_implementations, "s3a", {"class": "absent_package.S3", "err": "Install s3fs"})
    with pytest.raises(UsageError, match=r"s3a://b/a\.h5: .* not installed\. pip install 'lewm_data\[s3\]'"):
        FrameStore("s3a://b/a.h5")


def test_refused_access_is_not_retried(bucket):
    bucket.proxy.fault = lambda method, headers: "forbid"
    with pytest.raises(AccessError, match=r"access is refused .*storage_options"):
        FrameStore(f"s3://{bucket.name}/a.h5", remote=bucket.proxy.config(retry_seconds=1000))


def test_plain_http_works_and_a_server_without_ranges_is_named(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5")
    bucket.put(written.path, ACL="public-read")
    address = f"{bucket.proxy.endpoint}/{bucket.name}/a.h5"
    bucket.proxy.fault = each(7, "drop")
    store = FrameStore(address)
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    bucket.proxy.fault = lambda method, headers: "whole"
    with pytest.raises(UsageError, match="does not support range requests"):
        read_all(store)


def test_a_hub_file_is_read_from_the_commit_that_was_opened(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    root = tmp_path / "repo"
    root.mkdir()
    written = files.write(root / "a.h5")
    with serve(StandIn(root)) as hub:
        config = RemoteConfig(storage_options={"endpoint": hub.endpoint, "token": False}, retry_seconds=2)
        store = FrameStore(f"hf://datasets/{hub.repo_id}/a.h5", remote=config)
        order = np.random.default_rng(0).permutation(store.num_rows)
        hub.requests.clear()
        np.testing.assert_array_equal(read_all(store, order=order), written.data["pixels"][order])
        assert all(f"/resolve/{hub.sha}/a.h5" in request for request in hub.requests)
        with pytest.raises(UsageError, match="there is no such object"):
            FrameStore(f"hf://datasets/{hub.repo_id}/absent.h5", remote=config)


@pytest.mark.parametrize(("settings", "words"), [
    ({"num_connections": 0}, "num_connections is 0, but must be 1 or more"),
    ({"retry_seconds": -1}, "retry_seconds"),
    ({"chunk_cache_bytes": -1}, "chunk_cache_bytes"),
    ({"timeout_seconds": 0}, "timeout_seconds is 0, but must be more than 0"),
])  # fmt: skip
def test_invalid_settings_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        RemoteConfig(**settings)


def test_storage_options_are_not_in_the_repr():
    assert "hidden" not in repr(RemoteConfig(storage_options={"secret": "hidden"}))


def test_a_link_to_a_local_file_is_not_followed(tmp_path, bucket):
    secret = files.write(tmp_path / "secret.h5")
    files.write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["state"]
        file["state"] = h5py.ExternalLink(str(secret.path), "state")
    with pytest.raises(FormatError, match="'state' links to another file"):
        FrameStore(bucket.put(tmp_path / "a.h5"), remote=bucket.proxy.config())
    assert not list((tmp_path / "cache").rglob("*.metadata.h5"))


@pytest.mark.parametrize("is_allowed", [True, False])
def test_ranges_use_a_presigned_url_or_fall_back_to_s3fs(tmp_path, bucket, is_allowed):
    written = files.write(tmp_path / "a.h5")
    has_authorization: list[bool] = []

    def look(method: str, headers: Any) -> object_store.Fault:
        if "Range" not in headers:
            return None
        has_authorization.append("Authorization" in headers)
        return None if is_allowed or has_authorization[-1] else "forbid"

    bucket.proxy.fault = look
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config())
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert len(has_authorization) > 10
    assert has_authorization == (
        [False] * len(has_authorization) if is_allowed else [False, *[True] * (len(has_authorization) - 1)]
    )


def test_many_files_share_connections(tmp_path, bucket):
    addresses = [bucket.put(files.write(tmp_path / f"s{i}.h5", [9, 8], seed=i).path) for i in range(6)]
    config = bucket.proxy.config(num_connections=4)
    stores = [FrameStore(address, remote=config) for address in addresses]
    before = psutil.Process().num_fds()
    for store in stores:
        read_all(store)
    assert psutil.Process().num_fds() <= before + 16


def test_requests_through_a_proxy_are_left_to_s3fs(tmp_path, bucket, monkeypatch):
    written = files.write(tmp_path / "a.h5")
    address = bucket.put(written.path)
    monkeypatch.setenv("HTTP_PROXY", bucket.proxy.endpoint)
    requests: list[str] = []
    monkeypatch.setattr(range_client.RangeClient, "read", lambda *arguments: requests.append("bypassed the proxy"))
    store = FrameStore(address, remote=bucket.proxy.config())
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert requests == []


def test_reaching_the_limit_on_open_files_is_named(tmp_path, bucket):
    written = files.write(tmp_path / "a.h5")
    store = FrameStore(bucket.put(written.path), remote=bucket.proxy.config(num_connections=2))
    read_all(store)
    bucket.proxy.fault = lambda method, headers: "drop"  # closes the connections, so that new ones are needed
    with at_the_limit_of_open_files(), pytest.raises(ResourceError, match="too many files and connections are open"):
        read_all(store)


def test_external_storage_is_refused(tmp_path):
    """The HDF5 library would read it from the local disk, wherever the file itself lies."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"TOP-SECRET-KEY!!" * 1000)
    written = files.write(tmp_path / "a.h5", [30, 25])
    with h5py.File(written.path, "r+") as file:
        del file["state"]
        file.create_dataset("state", (55, 3), "f4", external=[(str(secret), 0, 55 * 12)])
    fsspec.filesystem("memory").pipe("/a.h5", written.path.read_bytes())
    with pytest.raises(FormatError, match="'state' lies in another file"):
        FrameStore("memory://a.h5")


def test_a_shard_with_external_storage_is_refused(tmp_path, bucket):
    secret = tmp_path / "secret"
    secret.write_bytes(b"S" * 55 * 24 * 20 * 3)
    written = files.write(tmp_path / "s0.h5", [30, 25])
    for name, values in (("pixels", written.data["pixels"]), ("state", written.data["state"])):
        shard = tmp_path / f"of-{name}.h5"
        shutil.copy(written.path, shard)
        with h5py.File(shard, "r+") as file:
            del file[name]
            file.create_dataset(name, values.shape, values.dtype, external=[(str(secret), 0, values.nbytes)])
        with h5py.File(tmp_path / "virtual.h5", "w") as virtual:
            for column, kept in written.data.items():
                if column != name:
                    virtual[column] = kept
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(shard.name, name, values.shape)
            virtual.create_virtual_dataset(name, layout)
            virtual["ep_len"], virtual["ep_offset"] = np.array([30, 25]), np.array([0, 30])
        with pytest.raises(FormatError, match=rf"of-{name}\.h5: {name!r} leads out of the file"):
            FrameStore(tmp_path / "virtual.h5")
        bucket.put(shard)
        with pytest.raises(FormatError, match=rf"of-{name}\.h5: {name!r} leads out of the file"):
            FrameStore(bucket.put(tmp_path / "virtual.h5"), remote=bucket.proxy.config())


def test_a_failed_reader_is_freed_without_the_garbage_collector(tmp_path, bucket):
    """Otherwise its threads would stay until the collector happens to run."""
    store = FrameStore(bucket.put(files.write(tmp_path / "a.h5").path), remote=bucket.proxy.config(retry_seconds=0))
    bucket.proxy.fault = each(3, "drop")
    gc.collect()
    before = set(threading.enumerate())
    gc.disable()
    try:
        with pytest.raises(UnreachableError):
            read_all(store)
        gone = weakref.ref(store)
        del store
        assert gone() is None
        deadline = time.monotonic() + 10
        while any("lewm_data-remote" in thread.name for thread in set(threading.enumerate()) - before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        gc.enable()
