"""Files under ``meta/``, read with care: missing, cut off, absurdly large, or not the file itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.errors import machine_errors
from lewm_data.findings import Finding, finding
from lewm_data.paths import is_file
from lewm_data.source.rows import PARQUET_ERRORS, leaf_paths, reraise_arrow_oom

MAX_ROWS = 1 << 22
"""Episodes or tasks in one file: fifty times what DROID has."""

MAX_TEXT_BYTES = 1 << 30
"""A million episodes take a tenth of it as JSON lines."""

_LFS_PREFIX = b"version https://git-lfs"


class UnusableError(Exception):
    """Metadata without which nothing can be said; carries the finding."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.sentence())
        self.finding = found


def unreadable(file: str, expected: str, found: str) -> UnusableError:
    """Metadata that is there but cannot be understood."""
    return UnusableError(finding("metadata_unreadable", file=file, expected=expected, found=found[:120]))


def _lfs_pointer(file: str) -> UnusableError:
    return UnusableError(finding("lfs_pointer", file=file, expected="the file itself", found="a Git LFS pointer"))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in a checkout that was never pulled."""
    with path.open("rb") as file:
        return file.read(len(_LFS_PREFIX)) == _LFS_PREFIX


def leads_out(root: Path, path: Path) -> bool:
    """Whether a path, links followed, ends outside of the dataset's folder (of a Hub snapshot: of its repo's cache)."""
    home = root.resolve()
    if home.parent.name == "snapshots":  # whose files are links into the cache's "blobs"
        home = home.parent.parent
    try:
        return not path.resolve().is_relative_to(home)
    except (OSError, RuntimeError, ValueError):  # links in a circle, names that no file can have
        return True


def check_inside(root: Path, name: str) -> None:
    """Refuses a file that is a link out of the dataset's folder.

    Raises:
        UnusableError: It is.
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
        UnusableError: It is missing, a Git LFS pointer, or no JSON object.
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
    """Reads a text file; arguments and errors as for ``read_json``."""
    path = root / name
    if not is_file(path):
        raise UnusableError(finding("metadata_missing", file=name, expected="the file", found="no such file"))
    check_inside(root, name)
    try:
        with machine_errors(path):
            if path.stat().st_size > MAX_TEXT_BYTES:
                raise unreadable(name, f"{MAX_TEXT_BYTES:,} bytes at most", f"{path.stat().st_size:,}")
            if is_lfs_pointer(path):
                raise UnusableError(
                    finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer")
                )
            return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(name, "UTF-8 text", str(error)) from error


def read_jsonl(
    root: Path, name: str, *, integers: tuple[str, ...], texts: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Reads a file of JSON lines.

    Args:
        root: The dataset's folder.
        name: The file, relative to it.
        integers: Keys that must hold whole numbers of 0 or more.
        texts: Keys that must hold text.

    Yields:
        The object of each line.

    Raises:
        UnusableError: The file is missing, or a line is something else.
    """
    # not splitlines(): JSON text may hold U+2028 and its like as they are
    for number, line in enumerate(read_text(root, name).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not (
            isinstance(record, dict)
            and all(isinstance(record.get(key), int) and 0 <= record[key] < 1 << 62 for key in integers)
            and all(isinstance(record.get(key), str) for key in texts)
        ):
            wanted = ", ".join((*integers, *texts))
            raise unreadable(name, f"an object with {wanted} in line {number}", line[:80])
        yield record


def read_table(root: Path, path: Path, columns: Iterable[str], *, texts: Sequence[str] = ()) -> pa.Table:
    """Some columns of a small Parquet file; ``texts`` are held as they are stored, each repeated text once."""
    name = path.relative_to(root).as_posix()
    try:
        check_inside(root, name)
        with machine_errors(path):
            is_pointer = is_lfs_pointer(path)
        if is_pointer:
            raise UnusableError(
                finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer")
            )
        with machine_errors(path), reraise_arrow_oom(), pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            leaves = leaf_paths(file.metadata)
            if file.metadata.num_rows > MAX_ROWS:  # a run of equal values takes no space, until it is read
                raise unreadable(name, f"{MAX_ROWS:,} rows at most", f"{file.metadata.num_rows:,}")
        dictionaries = [text for text in texts if text in leaves]
        with machine_errors(path), reraise_arrow_oom(), pq.ParquetFile(path, read_dictionary=dictionaries) as file:
            # one thread: where no other can be had, Arrow says that the file cannot be read
            return file.read([column for column in columns if column in present], use_threads=False)
    except MemoryError:
        raise
    except PARQUET_ERRORS as error:
        raise unreadable(name, "a Parquet file", first_line(error)) from error
