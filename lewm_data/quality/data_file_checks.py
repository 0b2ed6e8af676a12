"""Whether a Parquet data file is readable and which columns it has, judged by its footer alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from lewm_data.catalog import LEAVE_OUT
from lewm_data.findings import Finding, finding
from lewm_data.machine_errors import machine_errors
from lewm_data.paths import is_file
from lewm_data.source.files import first_line, is_lfs_pointer, is_unfinished_parquet, link_out
from lewm_data.source.metadata import INDEX_COLUMNS
from lewm_data.source.rows import PARQUET_ERRORS, holds_numbers, oversized, reraise_arrow_oom

_UNFINISHED = f"This recording session was not finished: LeRobot closes the file when a session ends. {LEAVE_OUT}"


class FileProblem(NamedTuple):
    """Why a data file cannot be read: a finding without an episode."""

    code: str
    expected: str
    found: str
    remedy: str | None = None

    def finding(self, *, episode: int, file: str) -> Finding:
        """The finding about one episode of the file."""
        return finding(
            self.code, episode=episode, file=file, expected=self.expected, found=self.found, remedy=self.remedy
        )


def inspect_data_file(
    root: Path,
    file: str,
    *,
    required: Sequence[str],
    optional: Sequence[str],
    widths: Mapping[str, int],
    follow_links: bool = False,
) -> tuple[FileProblem | None, list[str]]:
    """Checks a data file's footer without reading rows.

    Args:
        root: The dataset's folder.
        file: The file, relative to it.
        required: Columns that a conversion needs.
        optional: Columns that follow from the order of the rows.
        widths: Column to the numbers in one row, if known.
        follow_links: Whether the file may be a link to a place outside the folder.

    Returns:
        Why the file cannot be read, or None; and the optional columns that are missing or unusable.

    Raises:
        MemoryError, MachineError: The machine cannot read it.
    """
    path = root / file
    if not is_file(path):
        return FileProblem("file_missing", "the file", "no such file"), []
    link = None if follow_links else link_out(root, path)
    if link is not None:
        return FileProblem("link_leads_out", *link), []
    if is_lfs_pointer(path):
        return FileProblem("lfs_pointer", "the file itself", "a Git LFS pointer"), []
    wanted = [*required, *optional]
    try:
        with machine_errors(path), reraise_arrow_oom(), pq.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
            too_much = oversized(parquet.metadata, {key: widths.get(key, 1) for key in wanted})
    except MemoryError:
        raise
    except PARQUET_ERRORS as error:
        remedy = _UNFINISHED if is_unfinished_parquet(path) else None
        return FileProblem("parquet_unreadable", "a Parquet file", first_line(error), remedy), []
    if too_much:
        return FileProblem("parquet_unreadable", "rows that fit into memory", too_much), []
    names = list(schema.names)
    missing = [key for key in required if names.count(key) == 0]
    if missing:
        return FileProblem("column_missing", f"columns {', '.join(missing)}", f"only {', '.join(sorted(names))}"), []
    repeated = [key for key in required if names.count(key) > 1]
    if repeated:
        return FileProblem("column_missing", "one column of each name", f"{', '.join(repeated)} more than once"), []
    absent = [
        key
        for key in optional
        if names.count(key) != 1 or (key in INDEX_COLUMNS and not holds_numbers(schema.field(key).type))
    ]
    return None, absent
