from __future__ import annotations

import contextlib
import os
import struct

import h5py
import imagecodecs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lewm_data.conversion.merge import merge
from lewm_data.errors import FormatError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.format.fixed_array import FixedArray, UnsupportedLayoutError, find_array, read_fixed_array
from lewm_data.loading.store import FrameStore
from tests.loading import files
from tests.loading.test_store import read_all

PAGE = 1024  # entries; HDF5's own choice, which h5py offers no way to change
FILTERS = {"compression": "lzf", "fletcher32": True}


def asked(dataset):
    """Offset, size and mask of every row, asked of the HDF5 library chunk by chunk; 0 where there is none."""
    table = np.zeros((len(dataset), 3), np.uint64)

    def note(info):
        table[info.chunk_offset[0]] = info.byte_offset, info.size, info.filter_mask & 0xFF

    dataset.id.chunk_iter(note)
    return table


def read(path, name="pixels"):
    """The same as this package reads it past the library, or None; and what the library says."""
    with h5py.File(path) as file:
        places = read_fixed_array(path, file[name])
        return None if places is None else np.stack(places, axis=1).astype(np.uint64), asked(file[name])


def write_chunks(
    path, num_rows, *, kept=None, filters=FILTERS, frame=(1, 2, 3), written=None, lacking=None, seed=0, **options
):
    """Writes rows of random stored sizes and filter masks in random order, then shrinks the dataset."""
    rng = np.random.default_rng(seed)
    file_options = {"libver": options.pop("libver", files.LIBVER), "userblock_size": options.pop("userblock_size", 0)}
    with h5py.File(path, "w", **file_options) as file:
        shape = (num_rows, *frame)
        maxshape = options.pop("maxshape", shape)
        pixels = file.create_dataset("pixels", shape, "u1", chunks=(1, *frame), maxshape=maxshape, **filters, **options)
        frame_bytes = int(np.prod(frame))
        for row in rng.permutation(num_rows if written is None else written):
            if row == lacking:
                continue
            size = int(rng.integers(1, 60)) if filters else frame_bytes
            mask = int(rng.choice([0, 1, 2, 3, 0x102])) if filters else 0
            pixels.id.write_direct_chunk((int(row), 0, 0, 0), rng.bytes(size), mask)
        if kept is not None:
            pixels.resize(kept, axis=0)


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("codec", files.CODECS)
def test_it_is_what_the_library_says_for_every_codec(tmp_path, codec, checksum):
    written = files.write(tmp_path / "a.h5", [9, 8], codec=codec, checksum=checksum, cameras=["wrist"])
    for name in ("pixels", "pixels_wrist"):
        ours, theirs = read(written.path, name)
        np.testing.assert_array_equal(ours, theirs)


near_a_page = st.builds(lambda pages, more: max(2, pages * PAGE + more), st.integers(0, 3), st.integers(-2, 2))


@settings(max_examples=30)
@example(num_rows=9 * PAGE + 1, dropped=0, filters=FILTERS, userblock_size=0, seed=0)
@given(
    num_rows=near_a_page,
    dropped=st.integers(0, 2 * PAGE + 1),
    filters=st.sampled_from([FILTERS, {}, {"fletcher32": True}]),
    userblock_size=st.sampled_from([0, 512, 1024]),
    seed=st.integers(0, 99),
)
def test_it_is_what_the_library_says_at_every_number_of_pages(
    tmp_path_factory, num_rows, dropped, filters, userblock_size, seed
):
    path = tmp_path_factory.getbasetemp() / "pages.h5"
    kept = max(1, num_rows - dropped)
    # As after an interruption or a dropped episode: rows that do not stay may never have been written.
    written = kept + (num_rows - kept) // 2
    options = {"filters": filters, "userblock_size": userblock_size, "seed": seed}
    write_chunks(path, num_rows, kept=kept, written=written, **options)
    ours, theirs = read(path)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("frame", [(1, 1, 1), (8, 8, 3), (32, 32, 3), (300, 300, 3)])  # sizes of 2, 2, 3 and 4 bytes
def test_sizes_of_every_width_are_read(tmp_path, frame):
    write_chunks(tmp_path / "a.h5", 5, frame=frame)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        stored = bytes(range(256)) * (int(np.prod(frame)) // 256 + 1)
        file["pixels"].id.write_direct_chunk((2, 0, 0, 0), stored, 1)
    ours, theirs = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(ours, theirs)
    assert ours[2, 1] == len(stored)


@pytest.mark.parametrize("options", [{"track_times": True}, {"track_order": True}])
def test_times_attributes_and_their_order_in_the_header_do_no_harm(tmp_path, options):
    write_chunks(tmp_path / "a.h5", 20, **options)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for number in range(20):
            file["pixels"].attrs[f"note {number}"] = np.arange(number)
    ours, theirs = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def no_scan(monkeypatch):
    def scan(dataset):
        raise AssertionError(f"{dataset.name} was scanned")

    monkeypatch.setattr(FrameIndex, "scan", scan)


@pytest.mark.usefixtures("no_scan")
def test_merged_and_virtual_files_are_read_without_the_library(tmp_path):
    shards = [
        files.write(
            tmp_path / f"s{i}.h5",
            [700, 600],
            height=8,
            width=8,
            seed=i,
            fingerprint=str(i),
            sources=files.sources(f"me/{i}", 2),
        )
        for i in range(2)
    ]
    frames = np.concatenate([shard.data["pixels"] for shard in shards])
    merge([shard.path for shard in shards], tmp_path / "merged.h5")
    files.write_virtual(tmp_path / "virtual.h5", shards)
    for name in ("merged.h5", "virtual.h5"):
        np.testing.assert_array_equal(read_all(FrameStore(tmp_path / name)), frames)


@pytest.mark.usefixtures("no_scan")
@pytest.mark.parametrize("options", [{"userblock_size": 2048}, {"checksum": False, "codec": "none"}])
def test_frames_are_read_where_it_says(tmp_path, options):
    written = files.write(tmp_path / "a.h5", [1500], height=8, width=8, **options)
    np.testing.assert_array_equal(read_all(FrameStore(written.path)), written.data["pixels"])


def test_frames_behind_a_link_to_another_file_are_refused(tmp_path):
    (tmp_path / "there").mkdir()
    written = files.write(tmp_path / "there" / "a.h5", codec="none")
    with h5py.File(written.path) as file, h5py.File(tmp_path / "b.h5", "w") as linked:
        for name in file:
            linked[name] = h5py.ExternalLink("there/a.h5", name)
        linked.attrs.update(file.attrs)
    with pytest.raises(FormatError, match="leads out of the file's folder"):
        FrameStore(tmp_path / "b.h5")


def write_implicit(path):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1, 2, 2, 3))
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(path, "w", libver=files.LIBVER) as file:
        space = h5py.h5s.create_simple((9, 2, 2, 3))
        h5py.Dataset(h5py.h5d.create(file.id, b"pixels", h5py.h5t.NATIVE_UINT8, space, creation))[:] = 7


def write_addresses_of_four_bytes(path):
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_sizes(4, 4)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    with h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, access)) as file:
        file.create_dataset("pixels", data=np.ones((9, 2, 2, 3), np.uint8), chunks=(1, 2, 2, 3), compression="lzf")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_chunks(path, 9, libver=None),  # a B-tree of version 1
        lambda path: write_chunks(path, 9, libver="latest"),  # a newer layout message
        lambda path: write_chunks(path, 9, maxshape=(None, 1, 2, 3)),  # an extensible array
        lambda path: write_chunks(path, 9, maxshape=(None, 1, None, 3)),  # a B-tree of version 2
        lambda path: write_chunks(path, 9, maxshape=(9, 2, 2, 3)),  # rows are not every chunk
        lambda path: write_chunks(path, 1),  # a single chunk
        lambda path: write_chunks(path, 3, frame=(2400, 2400, 3)),  # sizes of 5 bytes
        lambda path: write_chunks(path, 0, maxshape=(9, 1, 2, 3)),
        lambda path: write_chunks(path, 9, written=0),
        lambda path: write_chunks(path, 9, written=8),
        lambda path: write_chunks(path, 9, lacking=6),
        lambda path: write_chunks(path, 3 * PAGE, written=2 * PAGE - 1),
        lambda path: write_chunks(path, 3 * PAGE, written=2 * PAGE),  # a whole page was never written
        write_implicit,
        write_addresses_of_four_bytes,
    ],
)
def test_other_and_incomplete_indices_are_left_to_the_library(tmp_path, write):
    write(tmp_path / "a.h5")
    ours, theirs = read(tmp_path / "a.h5")
    assert ours is None
    with h5py.File(tmp_path / "a.h5") as file:
        index = FrameIndex.read(tmp_path / "a.h5", file["pixels"])
    np.testing.assert_array_equal(index.offset, theirs[:, 0])
    np.testing.assert_array_equal(index.size, theirs[:, 1])
    np.testing.assert_array_equal(0 if index.mask is None else index.mask, theirs[:, 2])


def test_a_file_that_is_open_for_writing_is_left_to_the_library(tmp_path):
    write_chunks(tmp_path / "a.h5", 9)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["pixels"].id.write_direct_chunk((3, 0, 0, 0), b"new and longer than what was there" * 9, 1)
        assert read_fixed_array(tmp_path / "a.h5", file["pixels"]) is None


def test_a_file_that_was_replaced_while_it_is_open_is_left_to_the_library(tmp_path):
    write_chunks(tmp_path / "a.h5", 9)
    write_chunks(tmp_path / "b.h5", 9, seed=1)
    with h5py.File(tmp_path / "a.h5") as file:
        os.replace(tmp_path / "b.h5", tmp_path / "a.h5")
        assert read_fixed_array(tmp_path / "a.h5", file["pixels"]) is None


def find_index(path):
    """Where the bytes of the index lie: object header, array header, data block; half-open."""
    content = path.read_bytes()
    header, block = content.index(b"FAHD"), content.index(b"FADB")
    entry_bytes, page_bits, num_entries = content[header + 6], content[header + 7], content[header + 8 : header + 16]
    num_entries = int.from_bytes(num_entries, "little")
    num_pages = -(-num_entries >> page_bits)
    paging_bytes = 0 if num_pages == 1 else (num_pages + 7) // 8 + 4 * num_pages
    with h5py.File(path) as file:
        info = h5py.h5o.get_info(file["pixels"].id)
    return (
        (info.addr, info.addr + info.hdr.space.total),
        (header, header + 28),
        (block, block + 14 + num_entries * entry_bytes + paging_bytes + 4),
    )


@contextlib.contextmanager
def flipped(path, place, bits):
    """A file with some bits of one byte flipped, and restored afterwards."""
    with open(path, "r+b", buffering=0) as file:
        old = os.pread(file.fileno(), 1, place)[0]
        os.pwrite(file.fileno(), bytes([old ^ bits]), place)
        yield
        os.pwrite(file.fileno(), bytes([old]), place)


@pytest.mark.parametrize("lengths", [[3, 2], [5 * PAGE, 3]])
def test_each_damaged_byte_of_the_index_is_refused(tmp_path, lengths):
    path = files.write(tmp_path / "a.h5", lengths, height=2, width=2).path
    rng = np.random.default_rng(0)
    for start, stop in find_index(path):
        places = np.arange(start, stop)
        if sum(lengths) > PAGE and len(places) > 150:  # all that steers, some of the entries
            places = np.concatenate([places[:50], rng.choice(places[50:-50], 50, replace=False), places[-50:]])
        for place in places.tolist():
            with flipped(path, place, 1 << rng.integers(8)), pytest.raises(FormatError):
                FrameStore(path)  # a checksum covers every one of these bytes


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (4, b"\x01"),  # version
        (5, b"\x00"),  # of chunks without filters
        (5, b"\x02"),
        (6, b"\x0b"),  # bytes of an entry
        (6, b"\x0c"),
        (6, b"\x0d"),
        (6, b"\x11"),
        (7, b"\x00"),  # page bits; more than needed do no harm
        (7, b"\x02"),
        (7, b"\xff"),
        (8, struct.pack("<Q", 0)),  # entries
        (8, struct.pack("<Q", 10)),
        (8, struct.pack("<Q", 1 << 63)),
        (16, struct.pack("<Q", 0)),  # address of the block
        (16, struct.pack("<Q", 1 << 40)),
        (16, b"\xff" * 8),
    ],
)
def test_a_header_that_says_otherwise_with_a_right_checksum_gives_no_places(tmp_path, place, value):
    path = tmp_path / "a.h5"
    write_chunks(path, 9)
    _, (start, stop), _ = find_index(path)
    content = bytearray(path.read_bytes())
    content[start + place : start + place + len(value)] = value
    content[stop - 4 : stop] = imagecodecs.h5checksum_lookup3(bytes(content[start : stop - 4])).to_bytes(4, "little")
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert read_fixed_array(path, file["pixels"]) is None


def test_a_page_that_counts_as_never_written_with_a_right_checksum_gives_no_places(tmp_path):
    path = tmp_path / "a.h5"
    write_chunks(path, 5 * PAGE)
    _, _, (start, _) = find_index(path)
    content = bytearray(path.read_bytes())
    assert content[start + 14] == 0b11111000
    content[start + 14] = 0b11101000
    content[start + 15 : start + 19] = imagecodecs.h5checksum_lookup3(bytes(content[start : start + 15])).to_bytes(
        4, "little"
    )
    path.write_bytes(content)
    ours, theirs = read(path)
    assert ours is None
    assert (theirs[3 * PAGE : 4 * PAGE] == 0).all()
    assert theirs[:, 1].astype(bool).sum() == 4 * PAGE


def test_entries_that_lie_with_a_right_checksum_are_found_out_where_they_are_sampled(tmp_path):
    path = tmp_path / "a.h5"
    write_chunks(path, 9)
    _, _, (start, stop) = find_index(path)
    content = bytearray(path.read_bytes())
    entry = start + 14
    with h5py.File(path) as file:  # the library keeps what it has read
        file["pixels"].id.read_direct_chunk((0, 0, 0, 0))
        content[entry : entry + 8] = content[entry + 14 : entry + 22]
        content[stop - 4 : stop] = imagecodecs.h5checksum_lookup3(bytes(content[start : stop - 4])).to_bytes(
            4, "little"
        )
        path.write_bytes(content)
        assert read_fixed_array(path, file["pixels"]) is None


@given(st.binary(min_size=24, max_size=24))
def test_no_bytes_make_a_header_fail_otherwise(header):
    for start in (b"", b"FAHD\0", b"FAHD\0\1\x0e\x0a"):
        with contextlib.suppress(UnsupportedLayoutError):
            assert FixedArray.parse(0, start + header[len(start) :]).entry_dtype.itemsize in (8, 13, 14, 15, 16)


@given(st.lists(st.tuples(st.sampled_from([1, 8]), st.binary(max_size=40)), max_size=3))
def test_no_messages_make_a_layout_fail_otherwise(messages):
    with contextlib.suppress(UnsupportedLayoutError):
        assert 0 <= find_array(messages) < 1 << 64
