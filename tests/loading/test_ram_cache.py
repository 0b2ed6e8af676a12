from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile

import numpy as np
import pytest

from lewm_data.errors import DamagedChunkError, ResourceError, UsageError
from lewm_data.loading import ram_cache as cache_module
from lewm_data.loading.ram_cache import cache_frames, wants_cache
from lewm_data.loading.shared_memory import NodeMemory, find_or_create
from lewm_data.loading.store import FrameStore
from lewm_data.resources import silent
from tests.loading import files
from tests.loading.test_store import read_all

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def written(tmp_path):
    return files.write(tmp_path / "a.h5", [300, 270], cameras=["wrist"])


def test_frames_come_from_memory_and_stay_the_same(written):
    store = FrameStore(written.path)
    assert cache_frames(store, mode="ram", progress=silent)
    written.path.write_bytes(b"")  # the file is needed no more
    for column in ("pixels", "pixels_wrist"):
        assert store.is_resident(column)
        order = np.random.default_rng(0).permutation(570)
        np.testing.assert_array_equal(read_all(store, column, order), written.data[column][order])
    assert not cache_frames(store, mode="ram", progress=silent)  # nothing left to do


def test_memory_of_one_process_alone_serves_forks_and_is_not_sent(written):
    store = FrameStore(written.path)
    assert cache_frames(store, mode="ram", is_shared=False, progress=silent)
    assert store.reader_kind("pixels") == "memory"
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    sent = pickle.dumps(store)
    assert len(sent) < 6000
    np.testing.assert_array_equal(read_all(pickle.loads(sent)), written.data["pixels"])


def test_two_stores_of_one_file_share_one_copy(written):
    stores = [FrameStore(written.path) for _ in range(2)]
    for store in stores:
        assert cache_frames(store, mode="ram", columns=["pixels"], progress=silent)
    first, second = (store.shared_memory("pixels") for store in stores)
    assert first.address["inode"] == second.address["inode"]
    assert not stores[0].is_resident("pixels_wrist")


def child(sent, queue):
    store = pickle.loads(sent)
    queue.put((read_all(store).sum(), store.shared_memory("pixels").address["inode"]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_map_the_same_memory(written, method):
    store = FrameStore(written.path)
    cache_frames(store, mode="ram", progress=silent)
    sent = pickle.dumps(store)
    assert len(sent) < 6000
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child, args=(sent, queue))
    process.start()
    total, inode = queue.get(timeout=60)
    process.join()
    assert total == written.data["pixels"].sum()
    assert inode == store.shared_memory("pixels").address["inode"]


def hold(path, queue):
    store = FrameStore(path)
    cache_frames(store, mode="ram", progress=silent)
    queue.put(store.shared_memory("pixels").address["inode"])
    signal.pause()


def test_memory_of_a_killed_process_is_neither_used_nor_left_behind(written):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=hold, args=(written.path, queue))
    process.start()
    queue.get(timeout=60)
    store = FrameStore(written.path)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert cache_frames(store, mode="ram", progress=silent)
    assert store.shared_memory("pixels").address["pid"] == os.getpid()
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])


def test_a_note_that_lies_is_not_believed(tmp_path):
    def fill(memory):
        memory[:] = 7

    with open(tmp_path / "other", "wb") as other:
        other.truncate(100)
    notes = tmp_path / f"lewm_data-{os.getuid()}"
    notes.mkdir(mode=0o700)
    for note in ("nonsense", "{}", '{"pid": 1, "descriptor": 3, "inode": 1, "num_bytes": 100}', "[]"):
        (notes / "name.json").write_text(note)
        memory = find_or_create("name", 100, fill, may_create=lambda: True)
        assert (memory.array == 7).all()


def test_notes_go_with_their_memory(tmp_path):
    memory = find_or_create("name", 100, lambda memory: None, may_create=lambda: True)
    [folder] = tmp_path.glob("lewm_data-*")
    assert list(folder.glob("*.json"))
    del memory
    assert not list(folder.glob("*.json"))


def test_auto_caches_what_fits_half_of_what_is_available(written, monkeypatch):
    needed = sum(written.data[name].nbytes for name in ("pixels", "pixels_wrist"))
    for available, expected in ((2 * needed - 2, False), (2 * needed, True)):
        monkeypatch.setattr(cache_module, "available_memory_bytes", lambda available=available: available)
        assert cache_frames(FrameStore(written.path), mode="auto", progress=silent) is expected


@pytest.mark.parametrize("is_shared", [True, False])
def test_auto_takes_no_more_than_half_for_several_files_together(tmp_path, monkeypatch, is_shared):
    paths = [files.write(tmp_path / f"{number}.h5", [100]).path for number in range(3)]
    stores = [FrameStore(path) for path in paths]
    needed = 100 * 24 * 20 * 3
    remaining = iter([4 * needed, 3 * needed, 2 * needed])  # as each file takes its part
    monkeypatch.setattr(cache_module, "available_memory_bytes", lambda: next(remaining))
    assert cache_frames(*stores, mode="auto", is_shared=is_shared, progress=silent)
    assert [store.is_resident("pixels") for store in stores] == [True, True, False]


def test_auto_leaves_uncompressed_files_to_the_page_cache(tmp_path):
    written = files.write(tmp_path / "a.h5", codec="none")
    assert not cache_frames(FrameStore(written.path), mode="auto", progress=silent)
    assert cache_frames(FrameStore(written.path), mode="ram", progress=silent)


def test_none_caches_nothing(written):
    assert not cache_frames(FrameStore(written.path), mode="none")


def test_asking_for_more_than_there_is_is_refused():
    assert wants_cache("ram", needed_bytes=10, available_bytes=10)
    with pytest.raises(ResourceError, match=r"needs 3\.0 GB for the decoded frames, but 2\.0 GB"):
        wants_cache("ram", needed_bytes=3 * 10**9, available_bytes=2 * 10**9)
    with pytest.raises(UsageError, match="cache is 'disk', but must be auto, ram or none"):
        wants_cache("disk", needed_bytes=1, available_bytes=2)


def test_damage_stops_caching_with_its_place(written):
    files.damage(written.path, 303)
    store = FrameStore(written.path, verify_checksums=True)
    with pytest.raises(DamagedChunkError, match="episode 1, step 3"):
        cache_frames(store, mode="ram", progress=silent)
    assert not store.is_resident("pixels")


def test_slow_layouts_are_cached_too(tmp_path):
    written = files.write(tmp_path / "a.h5", codec="none", frame_filters={"compression": "gzip"})
    with pytest.warns(UserWarning, match="slower"):
        store = FrameStore(written.path)
    assert cache_frames(store, mode="auto", progress=silent)
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])


def test_progress_counts_every_frame_of_each_column(written):
    calls = []
    cache_frames(FrameStore(written.path), mode="ram", progress=lambda *call: calls.append(call))
    for column in ("pixels", "pixels_wrist"):
        done = [(done, total) for what, done, total in calls if what == f"{column} into RAM"]
        assert done == [(256, 570), (512, 570), (570, 570)]


def test_without_a_callback_nothing_reaches_stdout(written, capsys):
    cache_frames(FrameStore(written.path), mode="ram")
    assert capsys.readouterr().out == ""


def test_memory_that_cannot_be_had_is_a_resource_error():
    with pytest.raises(ResourceError, match="the RAM cache needs .* Use cache=.none."):
        NodeMemory.create(1 << 62)
