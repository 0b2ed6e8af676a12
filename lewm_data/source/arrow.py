"""Arrow arrays as numpy arrays, without ``Array.to_numpy``: that imports pandas, which costs 50 MB here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


class NotNumeric(TypeError):
    """A column that holds no numbers."""


class UnevenRows(NotNumeric):
    """A column of lists that are not all equally long, or of which some are null."""


def to_numpy(array: pa.Array | pa.ChunkedArray, *, null: float) -> np.ndarray:
    """Numbers of a column.

    Args:
        array: A column of numbers, of booleans, or of lists (of lists) of them that are all equally long.
        null: Stands for a null; one that the column's own dtype cannot hold makes it float64.

    Returns:
        Array of shape (rows,) for plain numbers and (rows, width) for lists, with the column's own dtype
        (booleans as bool).

    Raises:
        UnevenRows: It holds lists of different lengths, or null where a list should be.
        NotNumeric: It holds something else.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    rows = len(array)
    is_list = False
    if isinstance(
        array, pa.ExtensionArray
    ):  # lists all the same, once ``datasets`` has registered its own names for them
        array = array.storage
    while _is_list(array.type):
        is_list = True
        if array.null_count:
            raise UnevenRows(f"null in {array.null_count} of {rows} rows")
        if not pa.types.is_fixed_size_list(array.type) and len(array):
            lengths = np.diff(np.from_dlpack(array.offsets))
            if np.ptp(lengths):
                raise UnevenRows(f"rows {lengths.min()} to {lengths.max()} wide")
        array = array.flatten()
    values = _plain(array, null)
    return values.reshape(rows, len(values) // rows if rows else 0) if is_list else values


def to_vector(array: pa.Array | pa.ChunkedArray, *, null: float) -> np.ndarray:
    """One number per row: as ``to_numpy``, with lists of one number as that number; shape (rows,).

    Raises:
        NotNumeric: It holds something else, or more than one number in a row.
    """
    values = to_numpy(array, null=null)
    if values.ndim == 2 and len(values) and values.shape[1] != 1:
        raise UnevenRows(f"rows {values.shape[1]} wide")
    return values.reshape(-1)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)


def _plain(array: pa.Array, null: float) -> np.ndarray:
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), null)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise NotNumeric(f"values of type {kind}")
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1] or b"", dtype, count=len(array), offset=array.offset * dtype.itemsize)
    if array.null_count:
        missing = np.from_dlpack(array.is_null().cast(pa.uint8())).view(bool)
        if dtype.kind != "f" and not (float(null).is_integer() and (null >= 0 or dtype.kind == "i")):
            values = values.astype(np.float64)
        values = np.where(missing, np.asarray(null, values.dtype), values)
    return values.astype(bool) if pa.types.is_boolean(kind) and values.dtype.kind != "f" else values
