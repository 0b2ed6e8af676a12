"""Statistics of the small columns over the whole file. Sharding does not change them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from lewm_data.format.attributes import as_list, as_object
from lewm_data.format.schema import is_value, rows_per_chunk

_BLOCK_VALUES = 1 << 18
"""Values to read at once, unless one chunk has more: 2 MB in float64, and a few times that during a sum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnStatistics:
    """Statistics over all N steps of one numeric column, per dimension, in float64.

    Attributes:
        count: Steps that went in; NaN and infinite values are left out of the rest.
        mean: Arithmetic mean, one value per flattened dimension.
        std: Population standard deviation.
        min: Smallest value.
        max: Largest value.
    """

    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]

    @classmethod
    def from_json(cls, value: Any) -> ColumnStatistics:
        """Reads statistics from a file's root attributes, which may hold anything.

        Raises:
            KeyError: A field is missing.
            ValueError: A field is malformed.
        """
        stated = as_object(value)
        if not isinstance(stated["count"], int):
            raise ValueError(f"statistics: count is {stated['count']!r}")
        return cls(
            count=stated["count"],
            mean=tuple(as_list(stated["mean"])),
            std=tuple(as_list(stated["std"])),
            min=tuple(as_list(stated["min"])),
            max=tuple(as_list(stated["max"])),
        )


def file_statistics(file: h5py.File) -> dict[str, ColumnStatistics]:
    """Count, mean, standard deviation, minimum and maximum of every numeric column except frames and indices.

    Args:
        file: An open file of this format.

    Returns:
        Column name to statistics, per flattened dimension. The block size depends only on the column's width, so the
        result depends only on the rows.
    """
    return {name: column_statistics(file[name]) for name in file if is_value(name) and file[name].dtype.kind in "iuf"}


def column_statistics(column: h5py.Dataset | np.ndarray) -> ColumnStatistics:
    """Statistics of one column of shape (N, ...), in two passes. NaN and infinite values are left out."""
    num_rows = len(column)
    width = math.prod(column.shape[1:])
    counts = np.zeros(width, np.int64)
    total = np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for block in _blocks(column, num_rows, width):
        finite = np.isfinite(block)
        counts += finite.sum(axis=0)
        total += np.where(finite, block, 0).sum(axis=0)
        low = np.minimum(low, np.where(finite, block, np.inf).min(axis=0, initial=np.inf))
        high = np.maximum(high, np.where(finite, block, -np.inf).max(axis=0, initial=-np.inf))
    some = np.maximum(counts, 1)
    mean = total / some
    squares = np.zeros(width)
    for block in _blocks(column, num_rows, width):
        squares += (np.where(np.isfinite(block), block - mean, 0) ** 2).sum(axis=0)
    empty = counts == 0
    return ColumnStatistics(
        count=num_rows,
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(squares / some).tolist()),
        min=tuple(np.where(empty, 0.0, low).tolist()),
        max=tuple(np.where(empty, 0.0, high).tolist()),
    )


def rows_at_once(column: h5py.Dataset | np.ndarray) -> int:
    """Rows of a small column to read at once: a number of whole chunks that bounds the memory of wide columns."""
    width = math.prod(column.shape[1:])
    unit = rows_per_chunk(column.dtype.itemsize * width)
    return max(unit, _BLOCK_VALUES // max(1, width) // unit * unit)


def _blocks(column: h5py.Dataset | np.ndarray, num_rows: int, width: int) -> Iterator[np.ndarray]:
    step = rows_at_once(column)
    for start in range(0, num_rows, step):
        yield np.asarray(column[start : start + step], np.float64).reshape(-1, width)
