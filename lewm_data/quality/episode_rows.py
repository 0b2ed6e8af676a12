"""The Parquet rows of one episode as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lewm_data.findings import Finding, finding
from lewm_data.source.metadata import INDEX_COLUMNS, NULL
from lewm_data.source.rows import NotNumericError, UnevenRowsError, to_numpy, to_vector


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRows:
    """One episode's Parquet rows, in file order; L of them, one or more.

    Attributes:
        episode: episode_index.
        file: Parquet file, relative to the dataset's folder.
        length: L.
        frame_index: Shape (L,); None if the file has no usable column of that name.
        timestamp: Seconds since the episode's start, float64, shape (L,); None likewise.
        index: The dataset-wide row number, shape (L,); None likewise.
        columns: LeRobot's key to values of shape (L,) or (L, width).
    """

    episode: int
    file: str
    length: int
    frame_index: np.ndarray | None
    timestamp: np.ndarray | None
    index: np.ndarray | None
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def read_rows(
    table: pa.Table, widths: Mapping[str, int], *, episode: int, file: str
) -> tuple[EpisodeRows, list[Finding]]:
    """Converts the rows of one episode.

    Args:
        table: The rows, one or more.
        widths: LeRobot's key of each value column to the numbers that one row should hold.
        episode: episode_index.
        file: Parquet file, relative to the dataset's folder.

    Returns:
        The rows with the value columns that hold numbers, and a finding for each of the others.
    """
    columns, findings = {}, []
    for key, width in widths.items():
        if key not in table.column_names:  # absent, so derived
            continue
        try:
            columns[key] = to_numpy(table.column(key), null=float("nan"))
        except NotNumericError as error:
            is_uneven = isinstance(error, UnevenRowsError)
            findings.append(
                finding(
                    "column_width" if is_uneven else "column_dtype",
                    episode=episode,
                    file=file,
                    expected=f"{key!r} {width} wide" if is_uneven else f"numbers in {key!r}",
                    found=str(error),
                )
            )
    index = {
        name: to_vector(table.column(name), null=float("nan") if name == "timestamp" else NULL)
        for name in INDEX_COLUMNS[1:]
        if name in table.column_names
    }
    timestamp = index.get("timestamp")
    rows = EpisodeRows(
        episode=episode,
        file=file,
        length=table.num_rows,
        frame_index=index.get("frame_index"),
        timestamp=None if timestamp is None else timestamp.astype(np.float64),
        index=index.get("index"),
        columns=columns,
    )
    return rows, findings
