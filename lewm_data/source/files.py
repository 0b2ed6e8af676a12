"""Files under ``meta/``, read with care: missing, cut off, absurdly large, or not the file itself."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.findings import Finding, finding
from lewm_data.machine_errors import machine_errors
from lewm_data.paths import is_file
from lewm_data.source.rows import PARQUET_ERRORS, leaf_paths, reraise_arrow_oom

MAX_ROWS = 1 << 22
"""Maximum number of episodes or tasks in one file: fifty times as many as DROID has."""

MAX_TEXT_BYTES = 1 << 30
"""A million episodes as JSON lines take a tenth of it."""

PARQUET_MAGIC = b"PAR1"
_LFS_PREFIX = b"version https://git-lfs"
_MAX_QUOTED = 120


class UnusableError(Exception):
    """Metadata that the reader needs is missing or damaged. Carries the finding."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.sentence())
        self.finding = found


def unreadable(file: str, expected: str, found: str, *, remedy: str | None = None) -> UnusableError:
    """Makes the error for metadata that exists but cannot be understood."""
    return UnusableError(
        finding("metadata_unreadable", file=file, expected=expected, found=found[:_MAX_QUOTED], remedy=remedy)
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's name if it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer: a checkout has them until ``git lfs pull``."""
    with machine_errors(path), path.open("rb") as file:
        return file.read(len(_LFS_PREFIX)) == _LFS_PREFIX


def is_unfinished_parquet(path: Path) -> bool:
    """Whether a Parquet file was started and never closed: it is empty, or has the first mark but not the last.

    LeRobot writes the footer when a recording session ends, so a session that was killed leaves such a file.
    """
    with machine_errors(path), path.open("rb") as file:
        head = file.read(len(PARQUET_MAGIC))
        size = file.seek(0, 2)
        file.seek(max(0, size - len(PARQUET_MAGIC)))
        tail = file.read()
    return size == 0 or (head == PARQUET_MAGIC and (tail != PARQUET_MAGIC or size <= 2 * len(PARQUET_MAGIC)))


def leads_out(root: Path, path: Path) -> bool:
    """Whether a path, links followed, ends outside the dataset's folder (for a Hub snapshot: outside its cache)."""
    home = root.resolve()
    if home.parent.name == "snapshots":  # its files are links into the cache's "blobs"
        home = home.parent.parent
    try:
        return not path.resolve().is_relative_to(home)
    except (OSError, RuntimeError, ValueError):  # links in a circle, impossible names
        return True


class LinkOut(NamedTuple):
    """A link out of a dataset's folder: the ``expected`` and ``found`` of its finding."""

    expected: str
    found: str


def link_out(root: Path, path: Path) -> LinkOut | None:
    """Describes the link that leads from a dataset's folder to a file outside it; None if the file is inside.

    Args:
        root: The dataset's folder.
        path: A file of the dataset that exists.
    """
    if not leads_out(root, path):
        return None
    target = path.resolve()
    owned = "you own" if target.stat().st_uid == os.geteuid() else "another user owns"
    return LinkOut("a file in the dataset's folder", f"a link to {target}, which {owned}")


def check_inside(root: Path, name: str) -> None:
    """Refuses a file that is a link out of the dataset's folder.

    Raises:
        UnusableError: The file is such a link.
    """
    if leads_out(root, root / name):
        raise UnusableError(
            finding("path_unsafe", file=name, expected="a file in the dataset's folder", found="a link that leads out")
        )


def read_json(root: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        root: The dataset's folder.
        name: The file, relative to it.

    Raises:
        UnusableError: It is missing, a Git LFS pointer, or not a JSON object.
        MachineError: The machine does not let it be read.
    """
    text = read_text(root, name)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "a JSON object", str(error)) from error
    if not isinstance(value, dict):
        raise unreadable(name, "a JSON object", type(value).__name__)
    return value


def read_text(root: Path, name: str) -> str:
    """Reads a UTF-8 text file, with or without a byte order mark; arguments and errors as for ``read_json``."""
    path = root / name
    if not is_file(path):
        raise UnusableError(finding("metadata_missing", file=name, expected="the file", found="no such file"))
    check_inside(root, name)
    with machine_errors(path):
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise unreadable(name, f"{MAX_TEXT_BYTES:,} bytes at most", f"{size:,}")
        if is_lfs_pointer(path):
            raise _lfs_pointer(name)
        content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise unreadable(
            name, "UTF-8 text", "UTF-16, by its byte order mark", remedy="Save it as UTF-8 (Windows editors offer it)."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise unreadable(name, "UTF-8 text", str(error)) from error


class JsonLines(NamedTuple):
    """A file of JSON lines.

    Attributes:
        records: The object of each whole line.
        cut_off: The last line if only part of it was written; else None.
    """

    records: list[dict[str, Any]]
    cut_off: str | None


def read_jsonl(root: Path, name: str, *, integers: tuple[str, ...], texts: tuple[str, ...] = ()) -> JsonLines:
    """Reads a file of JSON lines.

    Args:
        root: The dataset's folder.
        name: The file, relative to it.
        integers: Keys that must hold whole numbers of 0 or more.
        texts: Keys that must hold text.

    Returns:
        The objects. A killed writer leaves a last line that is not JSON and has no line break; it is kept separately.

    Raises:
        UnusableError: The file is missing, or another line is something else.
        MachineError: The machine does not let it be read.
    """
    records: list[dict[str, Any]] = []
    # not splitlines(): JSON text may contain U+2028 and similar characters unescaped
    lines = read_text(root, name).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip("\0 \t\r"):
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                return JsonLines(records, line[:_MAX_QUOTED])
            record = None
        if not (
            isinstance(record, dict)
            and all(_is_count(record.get(key)) for key in integers)
            and all(isinstance(record.get(key), str) for key in texts)
        ):
            wanted = ", ".join((*integers, *texts))
            raise unreadable(name, f"an object with {wanted} in line {number}", line[:80])
        records.append({**record, **{key: int(record[key]) for key in integers}})
    return JsonLines(records, None)


def _is_count(value: object) -> bool:
    """Whether a JSON value is a whole number of 0 or more, as 416 or, as pandas writes it, 416.0."""
    if isinstance(value, float):
        return value.is_integer() and 0 <= value < 1 << 53
    return isinstance(value, int) and 0 <= value < 1 << 62


def read_table(root: Path, path: Path, columns: Iterable[str], *, texts: Sequence[str] = ()) -> pa.Table:
    """Reads some columns of a small Parquet file.

    Args:
        root: The dataset's folder.
        path: The file.
        columns: Columns to read. The table leaves out those that the file lacks.
        texts: Text columns to keep dictionary-encoded, so that a repeated text takes memory once.

    Raises:
        UnusableError: It is damaged, a Git LFS pointer, or claims too many rows.
        MemoryError, MachineError: The machine does not let it be read.
    """
    name = path.relative_to(root).as_posix()
    check_inside(root, name)
    if is_lfs_pointer(path):
        raise _lfs_pointer(name)
    try:
        with machine_errors(path), reraise_arrow_oom(), pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            leaves = leaf_paths(file.metadata)
            if file.metadata.num_rows > MAX_ROWS:  # a run of equal values takes no space until it is read
                raise unreadable(name, f"{MAX_ROWS:,} rows at most", f"{file.metadata.num_rows:,}")
        dictionaries = [text for text in texts if text in leaves]
        with machine_errors(path), reraise_arrow_oom(), pq.ParquetFile(path, read_dictionary=dictionaries) as file:
            # one thread: if the machine refuses another, Arrow reports a file that it cannot read
            return file.read([column for column in columns if column in present], use_threads=False)
    except MemoryError:
        raise
    except PARQUET_ERRORS as error:
        raise unreadable(name, "a Parquet file", first_line(error)) from error


def _lfs_pointer(file: str) -> UnusableError:
    return UnusableError(finding("lfs_pointer", file=file, expected="the file itself", found="a Git LFS pointer"))
