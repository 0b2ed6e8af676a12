"""Statistics of small columns: numpy's, in blocks that stay small however long and wide a column is."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from lewm_data.format.statistics import column_statistics
from lewm_data.format.writer import FileShape, FileWriter
from tests.format.test_header import HEADER


@pytest.mark.parametrize("width", [1, 7, 100, 5000])
def test_statistics_are_numpys_wherever_blocks_end(width: int) -> None:
    values = np.random.default_rng(0).normal(3, 2, (max(400, 90_000 // width), width)).astype(np.float32)
    values[7, 0] = np.nan
    found = column_statistics(values)
    exact = values.astype(np.float64)
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, np.nanmean(exact, axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.std, np.nanstd(exact, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(found.min, np.nanmin(exact, axis=0))
    np.testing.assert_array_equal(found.max, np.nanmax(exact, axis=0))


@pytest.mark.parametrize(("num_rows", "width"), [(70_000, 130), (1_000, 9_000)])
def test_a_long_or_wide_column_takes_little_memory(tmp_path: Path, num_rows: int, width: int) -> None:
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file.create_dataset("state", data=np.ones((num_rows, width), np.float32), chunks=(100, width))
        tracemalloc.start()
        try:
            column_statistics(file["state"])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 16 << 20  # the column itself takes 36 MB


@pytest.mark.parametrize("width", [6, 4096, 480 * 640])
def test_a_chunk_of_a_small_column_is_one_that_hdf5_keeps(tmp_path: Path, width: int) -> None:
    columns: dict[str, tuple[str, int | None]] = {"depth": ("float32", width), "done": ("bool", None)}
    shape = FileShape(cameras=("pixels",), height=8, width=8, columns=columns, compression="none")
    with FileWriter(tmp_path / "out.h5", shape, num_rows=5000) as writer:
        writer.finish(HEADER)
    with h5py.File(tmp_path / "out.h5") as file:
        rows = file["depth"].chunks[0]
    assert rows == 1 or 4 * rows * width <= 1 << 20
    assert rows <= 4096
