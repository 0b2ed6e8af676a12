"""Arrow arrays as numpy arrays, without ``Array.to_numpy``: that imports pandas, which costs 50 MB here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


class NotNumeric(TypeError):
    """A column that holds no numbers, or lists of different lengths."""


def to_numpy(array: pa.Array | pa.ChunkedArray, *, null: float) -> np.ndarray:
    """Numbers of a column.

    Args:
        array: A column of numbers, of booleans, or of lists (of lists) of them that are all equally long.
        null: Stands for a null; in columns of whole numbers it must be a whole number.

    Returns:
        Array of shape (rows,) for plain numbers and (rows, width) for lists, with the column's own dtype
        (booleans as bool); with a fractional or NaN ``null``, whole numbers that hold nulls become float64.

    Raises:
        NotNumeric: It holds something else, or lists of different lengths.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    rows = len(array)
    is_list = False
    while _is_list(array.type):
        is_list = True
        if array.null_count:
            raise NotNumeric(f"{array.null_count} of {rows} rows are null, where lists of numbers should be")
        flat = array.flatten()
        if rows and len(flat) % rows:
            raise NotNumeric("rows of different widths")
        if not pa.types.is_fixed_size_list(array.type) and len(array):
            offsets = np.from_dlpack(array.offsets)
            if np.ptp(np.diff(offsets)):
                raise NotNumeric("rows of different widths")
        array = flat
    values = _plain(array, null)
    return values.reshape(rows, -1 if rows else 0) if is_list else values


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
        if dtype.kind != "f" and not float(null).is_integer():
            values = values.astype(np.float64)
        values = np.where(missing, np.asarray(null, values.dtype), values)
    return values.astype(bool) if pa.types.is_boolean(kind) else values
