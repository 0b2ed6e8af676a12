from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil

import h5py
import hdf5plugin
import numpy as np
import pytest

from lewm_data.errors import DamagedChunkError, FormatError, ResourceError, UsageError
from lewm_data.format.hdf5 import register_codecs, wrap_hdf5_errors
from lewm_data.loading.store import FrameStore
from tests.loading import files


def read_all(store: FrameStore, column: str = "pixels", order: np.ndarray | None = None) -> np.ndarray:
    rows = np.arange(store.num_rows) if order is None else order
    out = np.full((len(rows), *store.columns[column].shape), 99, np.uint8)
    store.read_frames(column, rows, out)
    return out


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("codec", files.CODECS)
def test_every_codec_reads_as_h5py_does(tmp_path, codec, checksum):
    register_codecs()
    written = files.write(tmp_path / "a.h5", codec=codec, checksum=checksum, cameras=["wrist"])
    with h5py.File(written.path) as file:
        for column in ("pixels", "pixels_wrist"):
            np.testing.assert_array_equal(file[column][:], written.data[column])
    store = FrameStore(written.path, verify_checksums=True)
    order = np.random.default_rng(0).permutation(store.num_rows)
    for column in ("pixels", "pixels_wrist"):
        assert store.reader_kind(column) == "chunks"
        np.testing.assert_array_equal(read_all(store, column, order), written.data[column][order])


@pytest.mark.parametrize("codec", ["lzf", "lz4", "zstd", "blosc2", "jpeg"])
def test_frames_that_no_codec_shrinks_are_stored_raw_and_read(tmp_path, codec):
    written = files.write(tmp_path / "a.h5", codec=codec)
    with h5py.File(written.path, "r+") as file:
        frame = written.data["pixels"][5]
        stored = frame.tobytes()
        file["pixels"].id.write_direct_chunk((5, 0, 0, 0), stored + files.fletcher32(stored), 0b1)
        np.testing.assert_array_equal(file["pixels"][5], frame)
    np.testing.assert_array_equal(read_all(FrameStore(written.path, verify_checksums=True)), written.data["pixels"])


def test_blosc2_frames_of_hdf5plugins_own_writer_are_read(tmp_path):
    written = files.write(tmp_path / "a.h5", codec="blosc2", cframes=False)
    np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])


@pytest.mark.parametrize("codec", files.CODECS)
def test_a_flipped_bit_is_an_error_that_names_episode_and_step(tmp_path, codec):
    written = files.write(tmp_path / "a.h5", [30, 25], codec=codec)
    files.damage(written.path, 30 + 4)
    store = FrameStore(written.path, verify_checksums=True)
    with pytest.raises(DamagedChunkError, match=r"a\.h5: column 'pixels', episode 1, step 4: .*checksum"):
        read_all(store)


@pytest.mark.parametrize("codec", ["lzf", "lz4", "zstd", "blosc2"])
def test_a_chunk_that_does_not_decode_to_a_frame_is_an_error_unasked(tmp_path, codec):
    written = files.write(tmp_path / "a.h5", [30, 25], codec=codec)
    with h5py.File(written.path, "r+") as file:
        small = np.zeros((1, 4, 4, 3), np.uint8)
        with h5py.File(tmp_path / "small.h5", "w") as other:
            options = files.filters(codec)
            tiny = other.create_dataset("p", data=small, chunks=small.shape, fletcher32=True, **options)
            _, stored = tiny.id.read_direct_chunk((0, 0, 0, 0))
        file["pixels"].id.write_direct_chunk((31, 0, 0, 0), stored, 0)
        file["pixels"].id.write_direct_chunk((32, 0, 0, 0), b"\x00\x01garbage\xff" * 9 + b"\0\0\0\0", 0)
        file["pixels"].id.write_direct_chunk((33, 0, 0, 0), b"\0", 0)
    store = FrameStore(written.path)
    for row, step in ((31, 1), (32, 2), (33, 3)):
        with pytest.raises(DamagedChunkError, match=f"episode 1, step {step}: its chunk is damaged"):
            read_all(store, order=np.array([0, row]))


def test_a_chunk_of_zstd_without_content_leaves_no_old_picture(tmp_path):
    import imagecodecs

    written = files.write(tmp_path / "a.h5", codec="zstd", checksum=False)
    with h5py.File(written.path, "r+") as file:
        file["pixels"].id.write_direct_chunk((2, 0, 0, 0), imagecodecs.zstd_encode(b""), 0)
    with pytest.raises(DamagedChunkError, match=r"step 2: .*holds 0 bytes where a frame has 1440"):
        read_all(FrameStore(written.path))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"frame_chunks": None, "checksum": False}, "chunks"),  # contiguous: one copy away as well
        ({"frame_chunks": (100, 24, 20, 3), "frame_filters": dict(hdf5plugin.Blosc())}, "library"),
        ({"frame_chunks": (100, 24, 20, 3), "frame_filters": {"compression": "lzf"}}, "library"),
        ({"frame_chunks": (1, 24, 20, 3), "frame_filters": {"compression": "gzip"}}, "library"),
        ({"frame_chunks": (1, 24, 20, 3), "frame_filters": {"compression": "lzf", "shuffle": True}}, "library"),
        ({"frame_chunks": (1, 12, 20, 3)}, "library"),
    ],
)
def test_other_layouts_are_read_correctly_and_slow_ones_warn(tmp_path, options, kind):
    written = files.write(tmp_path / "a.h5", [60, 70], codec="none", ours=False, **options)
    if kind == "library":
        with pytest.warns(UserWarning, match=r"many times slower\. To make this fast, convert"):
            store = FrameStore(written.path)
    else:
        store = FrameStore(written.path)
    assert store.reader_kind("pixels") == kind
    assert store.header is None
    order = np.random.default_rng(1).permutation(store.num_rows)
    np.testing.assert_array_equal(read_all(store, order=order), written.data["pixels"][order])


def test_damage_is_named_when_the_hdf5_library_reads(tmp_path):
    options = {"frame_chunks": (1, 24, 20, 3), "frame_filters": {"compression": "gzip"}}
    written = files.write(tmp_path / "a.h5", [30, 25], codec="none", **options)
    files.damage(written.path, 30)
    with pytest.warns(UserWarning, match="slower"):
        store = FrameStore(written.path)
    with pytest.raises(DamagedChunkError, match="episode 1, step 0: the HDF5 library cannot read it"):
        read_all(store)


def test_shards_of_several_codecs_are_read_without_the_library(tmp_path):
    shards = [
        files.write(tmp_path / "s0.h5", [30, 25], codec="lzf", seed=1),
        files.write(tmp_path / "s1.h5", [22], codec="zstd", seed=2),
        files.write(tmp_path / "s2.h5", [21, 40], codec="none", seed=3),
    ]
    files.write_virtual(tmp_path / "virtual.h5", shards)
    store = FrameStore(tmp_path / "virtual.h5")
    assert store.reader_kind("pixels") == "chunks"
    expected = np.concatenate([shard.data["pixels"] for shard in shards])
    order = np.random.default_rng(1).permutation(store.num_rows)
    np.testing.assert_array_equal(read_all(store, order=order), expected[order])
    files.damage(shards[1].path, 3)
    with pytest.raises(DamagedChunkError, match=r"s1\.h5: column 'pixels', episode 2, step 3"):
        read_all(FrameStore(tmp_path / "virtual.h5", verify_checksums=True))


def broken(path, change):
    written = files.write(path)
    with h5py.File(path, "r+") as file:
        change(file)
    return written


def replace(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.attrs.modify("format_version", 99), "format version 99"),
        (lambda file: file.attrs.__delitem__("fps"), "incomplete or malformed"),
        (lambda file: file.__delitem__("ep_len"), "'ep_len' is missing"),
        (lambda file: file.__delitem__("action"), "'action' is missing"),
        (lambda file: file.attrs.modify("columns", '{"force": ["force"]}'), "'force' is missing"),
        (
            replace("ep_len", np.array([30, 25, 7, 20], np.int32)),
            "'ep_len' adds up to 82 steps, but 'pixels' has 83 rows",
        ),
        (replace("ep_len", np.array([30, 25, 28], np.int32)), "'ep_len' has 3 episodes, 'ep_offset' has 4"),
        (
            replace("ep_len", np.array([30, 25, -7, 35], np.int32)),
            "'ep_len' holds -7, but an episode has 0 steps",
        ),
        (replace("ep_offset", np.array([0, 30, 55, 60], np.int64)), "'ep_offset' is not the running sum of 'ep_len'"),
        (replace("action", np.zeros((83, 2), np.int64)), "'action' is int64, not float32 or float64"),
        (replace("state", np.zeros((82, 2), np.float32)), "'state' has 82 rows, but 'pixels' has 83"),
        (replace("pixels", np.zeros((83, 8, 8, 4), np.uint8)), r"'pixels' is uint8 \(8, 8, 4\), not uint8"),
    ],
)
def test_a_broken_invariant_is_named(tmp_path, change, words):
    broken(tmp_path / "a.h5", change)
    with pytest.raises(FormatError, match=words):
        FrameStore(tmp_path / "a.h5")


def test_missing_truncated_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.h5: no such file"):
        FrameStore(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FormatError, match=r"text\.h5: not a readable HDF5 file"):
        FrameStore(tmp_path / "text.h5")
    written = files.write(tmp_path / "a.h5")
    with open(written.path, "r+b") as file:
        file.truncate(written.path.stat().st_size // 2)
    with pytest.raises(FormatError, match="truncated"):
        FrameStore(written.path)


@pytest.mark.parametrize("column", ["pixels", "action", "force", "ep_len"])
def test_a_column_whose_header_is_damaged_is_named_and_not_left_out(tmp_path, column):
    written = files.write(tmp_path / "a.h5", extra={"force": np.zeros(83)})
    with h5py.File(written.path) as file:
        place = h5py.h5o.get_info(file[column].id).addr + 20
    content = bytearray(written.path.read_bytes())
    content[place] ^= 1
    written.path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"a\.h5: '{column}' cannot be opened; the file is damaged"):
        FrameStore(written.path)


def test_a_file_that_shrinks_while_it_is_open_is_an_error_not_a_crash(tmp_path):
    written = files.write(tmp_path / "a.h5", [30, 25])
    store = FrameStore(written.path)
    with h5py.File(written.path) as file:
        offset = file["pixels"].id.get_chunk_info_by_coord((31, 0, 0, 0)).byte_offset
    with open(written.path, "r+b") as file:
        file.truncate(offset)
    with pytest.raises(DamagedChunkError, match="episode 1, step [0-9]+: .*the file ends within it"):
        read_all(store)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise")
def test_a_cold_file_is_announced_to_the_kernel_and_a_cached_one_is_not(tmp_path, monkeypatch):
    written = files.write(tmp_path / "a.h5")
    announced = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, offset, size, advice: announced.append((offset, size)))
    store = FrameStore(written.path)
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert len(announced) == 83
    for _ in range(3):  # the page cache holds the file: it was written just now, and has been read once
        np.testing.assert_array_equal(read_all(store), written.data["pixels"])
    assert len(announced) < 4 * 83


def test_a_frame_that_was_never_written_is_an_error(tmp_path):
    def change(file):
        del file["pixels"]
        file.create_dataset("pixels", (83, 24, 20, 3), "u1", chunks=(1, 24, 20, 3))[:50] = 1

    broken(tmp_path / "a.h5", change)
    with pytest.raises(FormatError, match="stores 50 of its 83 frames"):
        FrameStore(tmp_path / "a.h5")


def test_read_frames_refuses_memory_and_rows_that_do_not_fit(tmp_path):
    store = FrameStore(files.write(tmp_path / "a.h5").path)
    good = np.empty((2, 24, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="must be contiguous uint8"):
        store.read_frames("pixels", np.arange(3), good)
    with pytest.raises(ValueError, match="must be contiguous uint8"):
        store.read_frames("pixels", np.arange(2), np.empty((4, 24, 20, 3), np.uint8)[::2])
    for rows in ([-1, 0], [0, 83]):
        with pytest.raises(IndexError, match=r"\[0, 83\)"):
            store.read_frames("pixels", np.array(rows), good)
    store.read_frames("pixels", np.arange(0), good[:0])
    with pytest.raises(UsageError, match="no column 'joints'. It has: action"):
        store.read_column("joints")


def test_pickling_is_cheap_and_opens_again(tmp_path):
    written = files.write(tmp_path / "a.h5", [300])
    store = FrameStore(written.path)
    sent = pickle.dumps(store)
    assert len(sent) < 5000
    np.testing.assert_array_equal(read_all(pickle.loads(sent)), written.data["pixels"])
    shutil.copy(files.write(tmp_path / "b.h5", [300], codec="none").path, written.path)
    with pytest.raises(FormatError, match="changed while it was in use"):
        read_all(pickle.loads(sent))


def child(store, queue):
    queue.put(read_all(store).sum())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", ["chunks", "library"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reading_after_fork_and_after_spawn(tmp_path, method, kind):
    options = {} if kind == "chunks" else {"frame_filters": {"compression": "gzip"}, "codec": "none"}
    written = files.write(tmp_path / "a.h5", **options)
    if kind == "chunks":
        store = FrameStore(written.path)
    else:
        with pytest.warns(UserWarning, match="slower"):
            store = FrameStore(written.path)
    read_all(store)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child, args=(store, queue))
    process.start()
    assert queue.get(timeout=60) == written.data["pixels"].sum()
    process.join()
    assert process.exitcode == 0


def test_stable_worldmodels_own_files_are_accepted(tmp_path):
    written = files.write(tmp_path / "a.h5", ours=False, codec="none", checksum=False)
    with h5py.File(written.path, "r+") as file:
        del file["done"], file["episode_idx"]
        file["reward"] = np.zeros(83)
    store = FrameStore(written.path)
    assert "reward" in store.columns
    assert "done" not in store.columns
    np.testing.assert_array_equal(read_all(store), written.data["pixels"])


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_damaged():
    with pytest.raises(ResourceError, match=r"a\.h5: too many files .*ulimit -n"), wrap_hdf5_errors("a.h5"):
        raise OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(FormatError, match="the file is damaged"), wrap_hdf5_errors("a.h5"):
        raise OSError("bad symbol table")


def test_a_file_that_other_code_has_open_with_locks_can_be_read(tmp_path):
    written = files.write(tmp_path / "demo.h5", (5, 7))
    with h5py.File(written.path, "r"):
        np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])
