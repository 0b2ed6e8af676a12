from __future__ import annotations

import struct

import h5py
import pytest

from lewm_data.errors import FormatError
from lewm_data.format.chunk_index import FrameIndex
from lewm_data.loading.store import FrameStore
from tests.loading import files


@pytest.mark.parametrize("libver", [files.LIBVER, None])
@pytest.mark.parametrize("codec", ["lzf", "none"])
def test_the_index_equals_what_h5py_reports_for_each_chunk(tmp_path, codec, libver):
    written = files.write(tmp_path / "a.h5", codec=codec, libver=libver)
    with h5py.File(written.path) as file:
        index = FrameIndex.read(written.path, file["pixels"])
        infos = [file["pixels"].id.get_chunk_info(i) for i in range(83)]
    for info in infos:
        row = info.chunk_offset[0]
        mask = 0 if index.mask is None else index.mask[row]
        assert (index.offset[row], index.size[row], mask) == (info.byte_offset, info.size, info.filter_mask)


def test_an_index_that_names_a_row_that_does_not_exist_is_damaged(tmp_path):
    """HDF5's older chunk index, a B-tree of version 1, has no checksum."""
    written = files.write(tmp_path / "a.h5", [6, 5], libver=("earliest", "v108"))
    content = bytearray(written.path.read_bytes())
    node = content.index(b"TREE\x01")  # node type 1: a key has size, mask and five offsets; a child is an address
    second_key = node + 24 + 8 + 5 * 8 + 8
    assert struct.unpack_from("<Q", content, second_key + 8) == (1,)
    struct.pack_into("<Q", content, second_key + 8, 1 << 40)
    written.path.write_bytes(content)
    with pytest.raises(FormatError, match="the chunk index of '/pixels' cannot be read"):
        FrameStore(written.path)
