from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.source.rows import (
    NotNumericError,
    RowCursor,
    UnevenRowsError,
    leaf_paths,
    oversized,
    reraise_arrow_oom,
    to_numpy,
    to_vector,
)

NUM_ROWS = 50
NAN = float("nan")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows 0 to 49 in row groups of 7."""
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(
        pa.table({"row": range(NUM_ROWS), "unused": ["x"] * NUM_ROWS}),
        path,
        row_group_size=7,
        use_dictionary=False,
        compression="none",
        write_page_checksum=True,
    )
    return path


def read(cursor: RowCursor, start: int, stop: int) -> list[int]:
    return [row for batch in cursor.read(start, stop) for row in batch.column("row").to_pylist()]


ranges = st.tuples(st.integers(0, NUM_ROWS + 5), st.integers(0, NUM_ROWS)).map(lambda pair: (pair[0], sum(pair)))


@settings(deadline=None)
@given(reads=st.lists(ranges, max_size=6), batch_rows=st.integers(1, 60))
def test_any_ranges_in_any_order_are_the_rows_of_the_file(
    file: Path, reads: list[tuple[int, int]], batch_rows: int
) -> None:
    with RowCursor(file, ["row"], batch_rows=batch_rows) as cursor:
        for start, stop in reads:
            assert read(cursor, start, stop) == list(range(NUM_ROWS))[start:stop]


def test_only_the_chosen_columns_are_read(file: Path) -> None:
    with RowCursor(file, ["row"]) as cursor:
        assert all(batch.schema.names == ["row"] for batch in cursor.read(0, NUM_ROWS))


def test_a_closed_cursor_opens_its_file_anew(file: Path) -> None:
    with RowCursor(file, ["row"]) as cursor:
        read(cursor, 0, 10)
        cursor.close()
        assert read(cursor, 10, 12) == [10, 11]


def test_a_page_that_is_not_what_was_written_is_refused(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index((17).to_bytes(8, "little") + (18).to_bytes(8, "little"))
    content[place] ^= 0xFF
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(content)
    with RowCursor(damaged, ["row"]) as cursor, pytest.raises(OSError, match="CRC"):
        read(cursor, 0, NUM_ROWS)


def test_columns_are_named_as_parquet_names_them(file: Path) -> None:
    with pq.ParquetFile(file) as parquet:
        schema = parquet.metadata.schema
        assert leaf_paths(parquet.metadata) == [schema.column(i).path for i in range(parquet.metadata.num_columns)]


def test_a_footer_is_freed_once_it_was_looked_at(file: Path) -> None:
    """Without Python's collector: a dataset has thousands, and each may take megabytes."""
    gc.disable()
    try:
        with pq.ParquetFile(file) as parquet:
            footer = weakref.ref(parquet.metadata)
            assert oversized(parquet.metadata, {"row": 1}) is None
        del parquet
        assert footer() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("words", [
    "Failed to launch worker thread: Resource temporarily unavailable",  # seen under a limit on address space
    "[Errno 12] Cannot allocate memory",
])  # fmt: skip
def test_lack_of_memory_is_not_reported_as_a_damaged_file(words: str) -> None:
    with pytest.raises(MemoryError, match=re.escape(words)), reraise_arrow_oom():
        raise pa.ArrowException(f"Unknown error: {words}")
    with pytest.raises(pa.ArrowInvalid), reraise_arrow_oom():
        raise pa.ArrowInvalid("Parquet magic bytes not found")


# --- Arrow columns as NumPy arrays


@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3)), st.booleans(), st.integers(0, 3))
def test_lists_of_numbers_come_out_as_they_went_in(rows: list[list[float]], fixed: bool, skip: int) -> None:
    kind = pa.list_(pa.float32(), 3) if fixed else pa.list_(pa.float32())
    array = pa.array(rows, kind).slice(min(skip, len(rows)))
    expected = np.array(rows[skip:], np.float32)
    result = to_numpy(array, null=NAN)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected.reshape(len(expected), -1 if len(expected) else 0))


@given(st.lists(st.one_of(st.none(), st.integers(-(2**50), 2**50))))
def test_a_null_becomes_what_was_asked_for(values: list[int | None]) -> None:
    array = pa.array(values, pa.int64())
    expected = [-1 if value is None else value for value in values]
    assert to_numpy(array, null=-1).tolist() == expected
    assert to_numpy(array, null=-1).dtype == np.int64


@pytest.mark.parametrize(
    ("array", "null", "expected", "dtype"),
    [
        (pa.array([1, None], pa.int32()), NAN, [1, NAN], np.float64),
        (pa.array([1, None], pa.uint64()), -1, [1, -1], np.float64),
        (pa.array([1, None], pa.uint8()), 0, [1, 0], np.uint8),
        (pa.array([True, None]), NAN, [1, NAN], np.float64),
        (pa.array([True, None]), 0, [True, False], np.bool_),
        (pa.array([True, False]), NAN, [True, False], np.bool_),
        (pa.array([1.5, None], pa.float32()), NAN, [1.5, NAN], np.float32),
        (pa.array([1.5, 2.5], pa.float16()), NAN, [1.5, 2.5], np.float16),
        (pa.array([None, None], pa.null()), NAN, [NAN, NAN], np.float64),
    ],
)
def test_dtypes(array: pa.Array, null: float, expected: list[float], dtype: type) -> None:
    result = to_numpy(array, null=null)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)


def test_chunks_are_joined() -> None:
    array = pa.chunked_array([pa.array([[1, 2]]), pa.array([[3, 4], [5, 6]])])
    assert to_numpy(array, null=0).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_no_rows_have_no_values() -> None:
    assert to_numpy(pa.array([], pa.list_(pa.float32(), 6)), null=0).shape == (0, 0)
    assert to_numpy(pa.chunked_array([], pa.float32()), null=0).shape == (0,)


def test_lists_of_lists_are_flattened() -> None:
    assert to_numpy(pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]), null=0).shape == (2, 4)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array([[1, 2], [3]]), "rows 1 to 2 wide"),
        (pa.array([[1, 2, 3], [4]]), "rows 1 to 3 wide"),
        (pa.array([[1], None, [2]]), "null in 1 of 3 rows"),
    ],
)
def test_uneven_rows_are_refused(array: pa.Array, words: str) -> None:
    with pytest.raises(UnevenRowsError, match=words):
        to_numpy(array, null=0)


@pytest.mark.parametrize("array", [pa.array(["a"]), pa.array([["a"]]), pa.array([{"a": 1}])])
def test_a_column_without_numbers_is_refused(array: pa.Array) -> None:
    with pytest.raises(NotNumericError, match="values of type"):
        to_numpy(array, null=0)


def test_a_vector_takes_lists_of_one() -> None:
    assert to_vector(pa.array([[1], [2]]), null=0).tolist() == [1, 2]
    with pytest.raises(UnevenRowsError, match="rows 2 wide"):
        to_vector(pa.array([[1, 2]]), null=0)


def test_a_name_that_another_library_registered_for_a_list_changes_nothing() -> None:
    """``import datasets`` registers such names, and Parquet files of LeRobot's bear them."""

    class Named(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.list_(pa.list_(pa.float32())), "lewm_data.test")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Named:
            return cls()

    storage = pa.array([[[1.0, 2.0], [3.0, 4.0]]] * 3, pa.list_(pa.list_(pa.float32())))
    named = pa.ExtensionArray.from_storage(Named(), storage)
    for array in (named, named.slice(1), pa.chunked_array([named, named])):
        np.testing.assert_array_equal(to_numpy(array, null=0), np.tile([1.0, 2.0, 3.0, 4.0], (len(array), 1)))
