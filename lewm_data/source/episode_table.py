"""The table of episodes and the tasks: v3.0's Parquet files, v2.x's JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lewm_data.findings import Finding, finding
from lewm_data.notation import episode_ranges
from lewm_data.paths import is_file
from lewm_data.source.data_files import EPISODES_FILE, parquet_files
from lewm_data.source.files import UnusableError, is_unfinished_parquet, read_jsonl, read_table, unreadable
from lewm_data.source.metadata import NULL, CameraColumns, EpisodeTable
from lewm_data.source.rows import NotNumericError, to_vector

MAX_TASK_LETTERS = 1 << 26
"""Maximum number of characters in all task texts together."""

_TASK_TEXTS = ("task", "__index_level_0__")
_OTHER_SCHEMA = (
    "Another version of LeRobot wrote this file: convert the dataset to v2.1 or v3.0 with LeRobot's own scripts first."
)


class EpisodeMetadata(NamedTuple):
    """What the metadata says about episodes.

    Attributes:
        table: The episodes, sorted by episode_index.
        tasks: task_index to text.
        findings: What is wrong with these files without affecting the episodes of ``table``.
    """

    table: EpisodeTable
    tasks: dict[int, str]
    findings: list[Finding]


def unfinished_session(file: str, expected: str, found: str, whole: np.ndarray) -> Finding:
    """Makes the finding for a metadata file that a killed recording session left without its end.

    Args:
        file: The file, relative to the dataset's folder.
        expected: What should have been there, in words.
        found: What was there, in words.
        whole: episode_index of the episodes that other files, or earlier lines, list; ascending, one or more.
    """
    first, last = int(whole[0]), int(whole[-1])
    selection = f"{first}:{last + 1}" if last - first + 1 == len(whole) else episode_ranges(whole.tolist())
    return finding(
        "metadata_unreadable",
        file=file,
        expected=expected,
        found=found,
        remedy=(
            f"This recording session was not finished. The {len(whole):,} episodes of the metadata that is whole "
            f"({episode_ranges(whole.tolist())}) can be converted: leave the others out with --dirty_episode_policy "
            f"skip, or with --episodes {selection}."
        ),
        is_skippable=True,
    )


# --- v3.0: meta/episodes/chunk-*/file-*.parquet, meta/tasks.parquet


def read_v3(root: Path, cameras: list[str]) -> EpisodeMetadata:
    """Reads the table of episodes and the tasks of a v3.0 dataset.

    Args:
        root: The dataset's folder.
        cameras: Keys of its video cameras.

    Raises:
        UnusableError: A file that tells one episode from another is missing or damaged.
    """
    files = parquet_files(root, "meta/episodes", EPISODES_FILE)
    if not files:
        raise UnusableError(
            finding(
                "metadata_missing",
                file="meta/episodes",
                expected="files chunk-*/file-*.parquet",
                found="none",
            )
        )
    parts: list[dict[str, np.ndarray]] = []
    unfinished: list[tuple[str, UnusableError]] = []
    for path in files:
        try:
            parts.append(_read_episodes_file(root, path, cameras))
        except UnusableError as error:
            if error.finding.code != "metadata_unreadable" or not is_unfinished_parquet(path):
                raise
            unfinished.append((path.relative_to(root).as_posix(), error))
    if not any(len(part["episode_index"]) for part in parts) and unfinished:
        raise unfinished[0][1]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = _by_index(columns["episode_index"], "meta/episodes")
    columns = {name: array[order] for name, array in columns.items()}
    table = EpisodeTable(
        index=columns["episode_index"],
        length=columns["length"],
        data_chunk=columns["data/chunk_index"],
        data_file=columns["data/file_index"],
        first_index=columns["dataset_from_index"],
        cameras={camera: _camera_columns(columns, camera) for camera in cameras},
    )
    findings = [
        unfinished_session(file, error.finding.expected, error.finding.found, np.unique(table.index))
        for file, error in unfinished
    ]
    tasks, problems = _read_v3_tasks(root)
    return EpisodeMetadata(table, tasks, [*findings, *problems])


def _read_episodes_file(root: Path, path: Path, cameras: list[str]) -> dict[str, np.ndarray]:
    """The columns of one file of ``meta/episodes``. Missing ones are NULL or NaN, except index and length."""
    required = ["episode_index", "length"]
    # Code that needs a missing one reports it: rows are found by episode_index, and cameras may be left out.
    optional = ["data/chunk_index", "data/file_index", "dataset_from_index"]
    seconds = []
    for camera in cameras:
        optional += [f"videos/{camera}/chunk_index", f"videos/{camera}/file_index"]
        seconds += [f"videos/{camera}/from_timestamp", f"videos/{camera}/to_timestamp"]
    names = [*required, *optional, *seconds]
    table = read_table(root, path, names)
    file = path.relative_to(root).as_posix()
    for name in required:
        if name not in table.column_names:
            raise unreadable(
                file, f"a column {name!r}", f"only {', '.join(table.column_names) or 'others'}", remedy=_OTHER_SCHEMA
            )
    return {name: _numbers(table, name, np.float64 if name in seconds else np.int64, file) for name in names}


def _camera_columns(columns: dict[str, np.ndarray], camera: str) -> CameraColumns:
    chunk, file = columns[f"videos/{camera}/chunk_index"], columns[f"videos/{camera}/file_index"]
    start = columns[f"videos/{camera}/from_timestamp"]
    following = np.full(len(start), np.inf)
    order = np.lexsort((start, file, chunk))
    is_same_file = (chunk[order][1:] == chunk[order][:-1]) & (file[order][1:] == file[order][:-1])
    following[order[:-1][is_same_file]] = start[order[1:][is_same_file]]
    return CameraColumns(
        chunk=chunk,
        file=file,
        start_seconds=start,
        stop_seconds=columns[f"videos/{camera}/to_timestamp"],
        next_seconds=following,
    )


def _read_v3_tasks(root: Path) -> tuple[dict[int, str], list[Finding]]:
    name = "meta/tasks.parquet"
    if not is_file(root / name):
        return {}, [_no_tasks(name, "no such file")]
    try:
        # pandas keeps the text as the index: older versions name that column __index_level_0__
        table = read_table(root, root / name, (*_TASK_TEXTS, "task_index"), texts=_TASK_TEXTS)
        text = next((column for column in _TASK_TEXTS if column in table.column_names), None)
        if text is None or "task_index" not in table.column_names:
            return {}, [_no_tasks(name, f"only {', '.join(table.column_names) or 'other columns'}")]
        index = _numbers(table, "task_index", np.int64, name)
        tasks, size = {}, 0
        for task_index, scalar in zip(index.tolist(), table[text], strict=True):
            tasks[task_index] = str(scalar.as_py())
            size += len(tasks[task_index])
            if size > MAX_TASK_LETTERS:
                return {}, [_no_tasks(name, f"more than {MAX_TASK_LETTERS:,} letters")]
    except UnicodeDecodeError as error:
        return {}, [_no_tasks(name, str(error))]
    except UnusableError as error:
        return {}, [_tasks_problem(name, error)]
    return tasks, []


def _no_tasks(file: str, found: str) -> Finding:
    return finding("tasks_missing", file=file, expected="a table of tasks", found=found)


def _tasks_problem(file: str, error: UnusableError) -> Finding:
    """Warns about damaged task texts, which nothing needs. A link that leads out or a Git LFS pointer is an error."""
    found = error.finding
    if found.code != "metadata_unreadable":
        raise error
    return _no_tasks(file, f"{found.found} instead of {found.expected}")


def _numbers(table: pa.Table, name: str, dtype: type[np.generic], file: str) -> np.ndarray:
    """A column of one number per row. Absent, null and infinite values become NULL, or NaN for ``float64``."""
    null = np.nan if dtype is np.float64 else NULL
    if name not in table.column_names:
        return np.full(table.num_rows, null, dtype)
    try:
        values = to_vector(table[name], null=null)
    except NotNumericError as error:
        raise unreadable(file, f"numbers in {name!r}", str(error)) from error
    if values.dtype.kind == "f":  # pandas turns whole numbers into floats if one of them is null
        values = np.where(np.isfinite(values), values, null)
    return values.astype(dtype)


def _by_index(index: np.ndarray, file: str) -> np.ndarray:
    """The order that sorts episodes by their episode_index."""
    if len(index) and index.min() < 0:
        raise unreadable(file, "an episode_index of 0 or more for every episode", "null or less")
    return np.argsort(index, kind="stable")


# --- v2.1 and v2.0: meta/episodes.jsonl, meta/tasks.jsonl, one file per episode


def read_v2(root: Path, chunks_size: int, fps: float, cameras: list[str]) -> EpisodeMetadata:
    """Reads the table of episodes and the tasks of a v2.x dataset.

    Args:
        root: The dataset's folder.
        chunks_size: Episodes per chunk folder.
        fps: Steps per second.
        cameras: Keys of its video cameras.

    Returns:
        As for ``read_v3``; every span begins at 0, since each episode has files of its own.

    Raises:
        UnusableError: A file is missing or damaged.
    """
    name = "meta/episodes.jsonl"
    lines = read_jsonl(root, name, integers=("episode_index", "length"))
    index = np.array([record["episode_index"] for record in lines.records], np.int64)
    findings = []
    if lines.cut_off is not None:
        expected = f"an object with episode_index, length in line {len(index) + 1}"
        if not len(index):
            raise unreadable(name, expected, lines.cut_off)
        findings.append(unfinished_session(name, expected, f"half a line: {lines.cut_off}", np.unique(index)))
    order = _by_index(index, name)
    index = index[order]
    length = np.array([record["length"] for record in lines.records], np.int64)[order]
    chunk = index // chunks_size
    columns = CameraColumns(
        chunk=chunk,
        file=index,
        start_seconds=np.zeros(len(index)),
        stop_seconds=length / fps,
        next_seconds=np.full(len(index), np.inf),
    )
    table = EpisodeTable(
        index=index,
        length=length,
        data_chunk=chunk,
        data_file=index,
        first_index=np.full(len(index), NULL, np.int64),
        cameras=dict.fromkeys(cameras, columns),
    )
    tasks, problems = _read_v2_tasks(root)
    return EpisodeMetadata(table, tasks, [*findings, *problems])


def _read_v2_tasks(root: Path) -> tuple[dict[int, str], list[Finding]]:
    name = "meta/tasks.jsonl"
    if not is_file(root / name):
        return {}, [_no_tasks(name, "no such file")]
    try:
        lines = read_jsonl(root, name, integers=("task_index",), texts=("task",))
    except UnusableError as error:
        return {}, [_tasks_problem(name, error)]
    problems = [] if lines.cut_off is None else [_no_tasks(name, f"half a line: {lines.cut_off}")]
    return {line["task_index"]: line["task"] for line in lines.records}, problems
