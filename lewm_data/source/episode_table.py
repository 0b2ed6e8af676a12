"""The table of episodes and the tasks: v3.0's Parquet files, v2.x's JSON lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from lewm_data.findings import finding
from lewm_data.paths import is_file, walk_files
from lewm_data.source.files import UnusableError, read_jsonl, read_table, unreadable
from lewm_data.source.metadata import NULL, CameraColumns, EpisodeTable
from lewm_data.source.rows import NotNumericError, to_vector

_TASK_TEXTS = ("task", "__index_level_0__")
MAX_TASK_TEXT = 1 << 26

# --- v3.0: meta/episodes/**.parquet, meta/tasks.parquet


def read_v3(root: Path, cameras: list[str]) -> tuple[EpisodeTable, dict[int, str] | None]:
    """The table of episodes and the tasks of a v3.0 dataset.

    Args:
        root: The dataset's folder.
        cameras: Keys of its video cameras.

    Returns:
        The table, sorted by episode_index, and task_index to text (None without a file of tasks).

    Raises:
        UnusableError: What tells one episode from another is missing or damaged.
    """
    files = [path for path in walk_files(root / "meta" / "episodes") if path.suffix == ".parquet"]
    if not files:
        raise UnusableError(finding("metadata_missing", file="meta/episodes", expected="Parquet files", found="none"))
    required = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    optional = ["dataset_from_index"]
    seconds = []
    for camera in cameras:  # what is missing here matters only if the camera is converted
        optional += [f"videos/{camera}/chunk_index", f"videos/{camera}/file_index"]
        seconds += [f"videos/{camera}/from_timestamp", f"videos/{camera}/to_timestamp"]
    names = [*required, *optional, *seconds]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in files:
        table = read_table(root, path, names)
        for name in names:
            file = path.relative_to(root).as_posix()
            if name in required and name not in table.column_names:
                raise unreadable(file, f"a column {name!r}", "none")
            parts[name].append(_numbers(table, name, np.float64 if name in seconds else np.int64, file))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    order = _by_index(columns["episode_index"], "meta/episodes")
    columns = {name: array[order] for name, array in columns.items()}
    table = EpisodeTable(
        index=columns["episode_index"],
        length=columns["length"],
        data_chunk=columns["data/chunk_index"],
        data_file=columns["data/file_index"],
        first_index=columns["dataset_from_index"],
        cameras={
            camera: CameraColumns(
                chunk=columns[f"videos/{camera}/chunk_index"],
                file=columns[f"videos/{camera}/file_index"],
                start_seconds=columns[f"videos/{camera}/from_timestamp"],
                stop_seconds=columns[f"videos/{camera}/to_timestamp"],
            )
            for camera in cameras
        },
    )
    return table, _read_v3_tasks(root)


def _read_v3_tasks(root: Path) -> dict[int, str] | None:
    path = root / "meta" / "tasks.parquet"
    if not is_file(path):
        return None
    # pandas keeps the text as the index: older versions name that column __index_level_0__
    table = read_table(root, path, (*_TASK_TEXTS, "task_index"), texts=_TASK_TEXTS)
    text = next((name for name in _TASK_TEXTS if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        raise unreadable("meta/tasks.parquet", "columns task and task_index", ", ".join(table.column_names))
    index = _numbers(table, "task_index", np.int64, "meta/tasks.parquet")
    tasks, size = {}, 0
    try:
        for task_index, scalar in zip(index.tolist(), table[text], strict=True):
            tasks[task_index] = str(scalar.as_py())
            size += len(tasks[task_index])
            if size > MAX_TASK_TEXT:
                raise unreadable("meta/tasks.parquet", f"{MAX_TASK_TEXT:,} letters at most", "more")
    except UnicodeDecodeError as error:
        raise unreadable("meta/tasks.parquet", "UTF-8 text", str(error)) from error
    return tasks


def _numbers(table: pa.Table, name: str, dtype: type[np.generic], file: str) -> np.ndarray:
    """A column of one number per row; what is absent, null or not finite is NULL, or NaN for ``float64``."""
    null = np.nan if dtype is np.float64 else NULL
    if name not in table.column_names:
        return np.full(table.num_rows, null, dtype)
    try:
        values = to_vector(table[name], null=null)
    except NotNumericError as error:
        raise unreadable(file, f"numbers in {name!r}", str(error)) from error
    if values.dtype.kind == "f":  # pandas makes floats of whole numbers that hold a null
        values = np.where(np.isfinite(values), values, null)
    return values.astype(dtype)


def _by_index(index: np.ndarray, file: str) -> np.ndarray:
    """The order that sorts episodes by their episode_index."""
    if len(index) and index.min() < 0:
        raise unreadable(file, "an episode_index of 0 or more for every episode", "null or less")
    return np.argsort(index, kind="stable")


# --- v2.1 and v2.0: meta/episodes.jsonl, meta/tasks.jsonl, one file per episode


def read_v2(root: Path, chunks_size: int, fps: float, cameras: list[str]) -> tuple[EpisodeTable, dict[int, str] | None]:
    """The table of episodes and the tasks of a v2.x dataset.

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
    records = list(read_jsonl(root, "meta/episodes.jsonl", integers=("episode_index", "length")))
    index = np.array([record["episode_index"] for record in records], np.int64)
    order = _by_index(index, "meta/episodes.jsonl")
    index = index[order]
    length = np.array([record["length"] for record in records], np.int64)[order]
    chunk = index // chunks_size
    columns = CameraColumns(chunk=chunk, file=index, start_seconds=np.zeros(len(index)), stop_seconds=length / fps)
    table = EpisodeTable(
        index=index,
        length=length,
        data_chunk=chunk,
        data_file=index,
        first_index=np.full(len(index), NULL, np.int64),
        cameras=dict.fromkeys(cameras, columns),
    )
    if not is_file(root / "meta" / "tasks.jsonl"):
        return table, None
    lines = read_jsonl(root, "meta/tasks.jsonl", integers=("task_index",), texts=("task",))
    return table, {line["task_index"]: line["task"] for line in lines}
