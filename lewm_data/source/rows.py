"""Parquet rows, streamed in batches from files of any size, and Arrow arrays as NumPy arrays.

Arrow's own ``to_numpy`` imports pandas, which costs 50 MB here, so this module converts the arrays itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.machine_errors import machine_errors

PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a file that it cannot read; UnicodeDecodeError is for a damaged column name."""

_STARVED = ("Resource temporarily unavailable", "Cannot allocate memory")
"""Messages of Arrow errors that mean too little memory or too few threads but are not MemoryError."""

_BUFFER_BYTES = 1 << 16
"""Parquet pages are read through a buffer of this size, so that no row group is held whole."""

NUMBER_ROWS = 2048
"""Rows of numeric columns that are read at once."""

MAX_UNASKED_VALUES = 1 << 24
"""How many values a column may hold beyond those that its rows should have. The checks of the rows report them."""

MAX_SPARE_BYTES = 1 << 26


@contextmanager
def reraise_arrow_oom() -> Iterator[None]:
    """Turns Arrow's reports of too little memory into MemoryError, so that they are not taken for a damaged file.

    Raises:
        MemoryError: Arrow ran out of memory. Arrow's own error is an ArrowException as well.
        PARQUET_ERRORS: The file cannot be read.
    """
    try:
        yield
    except PARQUET_ERRORS as error:
        if not isinstance(error, MemoryError) and any(words in str(error) for words in _STARVED):
            raise MemoryError(str(error)) from error
        raise


def leaf_paths(metadata: pq.FileMetaData) -> list[str]:
    """Paths of a file's columns, in order; empty for a file without rows.

    ``metadata.schema`` has them too, but it ties itself and the footer into a cycle that only Python's collector
    frees: 7 MB stayed for every thousand row groups.

    Args:
        metadata: The file's footer.
    """
    if not metadata.num_row_groups:
        return []
    group = metadata.row_group(0)
    return [group.column(position).path_in_schema for position in range(metadata.num_columns)]


def oversized(metadata: pq.FileMetaData, widths: Mapping[str, int]) -> str | None:
    """Says why a file would fill the memory, or None. Runs of equal values take no space until they are read.

    Args:
        metadata: The file's footer.
        widths: Column to the numbers that one row should hold; a picture counts as one.
    """
    leaves = leaf_paths(metadata)
    looked_at = [
        (position, width)
        for position, leaf in enumerate(leaves)
        for key, width in widths.items()
        if leaf == key or leaf.startswith(f"{key}.")
    ]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for position, width in looked_at:
            column, rows = group.column(position), group.num_rows
            if column.num_values > 2 * rows * width + MAX_UNASKED_VALUES:
                return f"{column.num_values:,} values of {leaves[position]!r} in {rows:,} rows"
            limit = 16 * column.num_values + MAX_SPARE_BYTES
            if column.physical_type != "BYTE_ARRAY" and column.total_uncompressed_size > limit:
                return f"{column.total_uncompressed_size:,} bytes for {column.num_values:,} values"
    return None


class RowCursor:
    """Reads rows of one Parquet file forward, one batch in memory at a time.

    Args:
        path: The Parquet file.
        columns: Columns to read. Batches leave out those that the file lacks.
        batch_rows: Rows decoded at once.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, batch_rows: int = NUMBER_ROWS) -> None:
        self._path = path
        self._columns = list(columns)
        self._batch_rows = batch_rows
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._batch_start = 0

    def __enter__(self) -> RowCursor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. The next ``read`` opens it again."""
        self._batches, self._batch = iter(()), None
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yields the rows [start, stop) of the file, in batches.

        Args:
            start: First row. Reading continues where the last call ended; a smaller start reads from the beginning.
            stop: End, exclusive.

        Yields:
            Record batches with the chosen columns; fewer rows than requested if the file ends first.

        Raises:
            MemoryError: The machine has too little memory to read the file.
            PARQUET_ERRORS: The file cannot be read.
        """
        if self._file is None or start < self._batch_start:
            with machine_errors(self._path), reraise_arrow_oom():
                self._open(start)
        position = start
        while position < stop:
            while self._batch is None or position >= self._batch_start + self._batch.num_rows:
                if self._batch is not None:
                    self._batch_start += self._batch.num_rows
                    self._batch = None  # freed before the next one is decoded
                with machine_errors(self._path), reraise_arrow_oom():
                    self._batch = next(self._batches, None)
                if self._batch is None:
                    return
            offset = position - self._batch_start
            part = self._batch.slice(offset, stop - position)
            position += part.num_rows
            yield part

    def _open(self, start: int) -> None:
        """Opens the file at the row group that holds ``start``."""
        self.close()
        self._file = pq.ParquetFile(
            self._path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        )
        metadata = self._file.metadata
        first, passed = 0, 0
        while first < metadata.num_row_groups and passed + metadata.row_group(first).num_rows <= start:
            passed += metadata.row_group(first).num_rows
            first += 1
        self._batch_start = passed
        self._batches = self._file.iter_batches(
            batch_size=self._batch_rows,
            columns=self._columns,
            row_groups=range(first, metadata.num_row_groups),
            use_threads=False,
        )


class NotNumericError(TypeError):
    """A column does not hold numbers."""


class UnevenRowsError(NotNumericError):
    """The lists of a column differ in length, or some of them are null."""


def to_numpy(array: pa.Array | pa.ChunkedArray, *, null: float) -> np.ndarray:
    """Converts a column of numbers.

    Args:
        array: A column of numbers, of booleans, or of equally long lists (of lists) of them.
        null: Replaces a null. A value that the column's own dtype cannot hold turns the column into float64.

    Returns:
        Array of shape (rows,) for plain numbers and (rows, width) for lists, in the column's own dtype.

    Raises:
        UnevenRowsError: The lists differ in length, or a row is null instead of a list.
        NotNumericError: The column holds something else.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    rows = len(array)
    is_list = False
    if isinstance(array, pa.ExtensionArray):  # plain lists under type names of the ``datasets`` package
        array = array.storage
    while _is_list(array.type):
        is_list = True
        if array.null_count:
            raise UnevenRowsError(f"null in {array.null_count} of {rows} rows")
        if not pa.types.is_fixed_size_list(array.type) and len(array):
            lengths = np.diff(np.from_dlpack(array.offsets))
            if np.ptp(lengths):
                raise UnevenRowsError(f"rows {lengths.min()} to {lengths.max()} wide")
        array = array.flatten()
    values = _plain(array, null)
    return values.reshape(rows, len(values) // rows if rows else 0) if is_list else values


def to_vector(array: pa.Array | pa.ChunkedArray, *, null: float) -> np.ndarray:
    """Converts a column of one number per row, plain or as lists of one number.

    Arguments as for ``to_numpy``; the result has shape (rows,).

    Raises:
        NotNumericError: The column holds something else, or several numbers in a row.
    """
    values = to_numpy(array, null=null)
    if values.ndim == 2 and len(values) and values.shape[1] != 1:
        raise UnevenRowsError(f"rows {values.shape[1]} wide")
    return values.reshape(-1)


def holds_numbers(kind: pa.DataType) -> bool:
    """Whether ``to_numpy`` takes a type: numbers, booleans, nulls, or lists of them."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    while _is_list(kind):
        kind = kind.value_type
    return (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)


def _plain(array: pa.Array, null: float) -> np.ndarray:
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), null)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise NotNumericError(f"values of type {kind}")
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1] or b"", dtype, count=len(array), offset=array.offset * dtype.itemsize)
    if array.null_count:
        missing = np.from_dlpack(array.is_null().cast(pa.uint8())).view(bool)
        if dtype.kind != "f" and not (float(null).is_integer() and (null >= 0 or dtype.kind == "i")):
            values = values.astype(np.float64)
        values = np.where(missing, np.asarray(null, values.dtype), values)
    return values.astype(bool) if pa.types.is_boolean(kind) and values.dtype.kind != "f" else values
