from __future__ import annotations

import h5py
import pytest

from lewm_data.format.chunk_index import FrameIndex
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
