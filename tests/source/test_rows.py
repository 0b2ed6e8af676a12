from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm_data.source.rows import RowCursor, leaf_paths, minding_memory, oversized

NUM_ROWS = 50


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
def test_a_lack_of_memory_is_no_fault_of_a_file(words: str) -> None:
    with pytest.raises(MemoryError, match=re.escape(words)), minding_memory():
        raise pa.ArrowException(f"Unknown error: {words}")
    with pytest.raises(pa.ArrowInvalid), minding_memory():
        raise pa.ArrowInvalid("Parquet magic bytes not found")
