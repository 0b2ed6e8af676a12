"""The table of episodes and the tasks: v3.0's Parquet files, v2.x's JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.conversion.arrow import NotNumeric, to_numpy
from lewm_data.conversion.catalogue import finding
from lewm_data.conversion.layout import NULL, CameraColumns, EpisodeTable
from lewm_data.conversion.source_info import Unusable, is_lfs_pointer, read_text

# --- v3.0: meta/episodes/**.parquet, meta/tasks.parquet


def read_v3(root: Path, cameras: list[str]) -> tuple[EpisodeTable, dict[int, str]]:
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise Unusable(finding("metadata_missing", file="meta/episodes", expected="Parquet files", found="none"))
    integers = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    optional = ["dataset_from_index"]
    floats = []
    for camera in cameras:
        integers += [f"videos/{camera}/chunk_index", f"videos/{camera}/file_index"]
        floats += [f"videos/{camera}/from_timestamp", f"videos/{camera}/to_timestamp"]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in integers + optional + floats}
    for path in files:
        table = _read_table(root, path, columns)
        for name, parts in columns.items():
            file = path.relative_to(root).as_posix()
            column = _column(table, name, required=name not in optional, file=file)
            dtype = np.float64 if name in floats else np.int64
            try:
                parts.append(_numbers(column, dtype, table.num_rows))
            except NotNumeric as error:
                raise Unusable(
                    finding("metadata_unreadable", file=file, expected=f"numbers in {name!r}", found=str(error))
                ) from error
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    order = np.argsort(arrays["episode_index"], kind="stable")
    arrays = {name: array[order] for name, array in arrays.items()}
    table = EpisodeTable(
        index=arrays["episode_index"],
        length=arrays["length"],
        data_chunk=arrays["data/chunk_index"],
        data_file=arrays["data/file_index"],
        first_index=arrays["dataset_from_index"],
        cameras={
            camera: CameraColumns(
                chunk=arrays[f"videos/{camera}/chunk_index"],
                file=arrays[f"videos/{camera}/file_index"],
                start_seconds=arrays[f"videos/{camera}/from_timestamp"],
                stop_seconds=arrays[f"videos/{camera}/to_timestamp"],
            )
            for camera in cameras
        },
    )
    return table, _read_v3_tasks(root)


def _read_v3_tasks(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.parquet"
    if not path.is_file():
        return {}
    table = _read_table(root, path, None)
    # pandas keeps the text as the index: older versions name that column __index_level_0__
    text = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        return {}
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def _read_table(root: Path, path: Path, columns: Iterable[str] | None) -> pa.Table:
    name = path.relative_to(root).as_posix()
    if is_lfs_pointer(path):
        raise Unusable(finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer"))
    try:
        with pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            return file.read(None if columns is None else [column for column in columns if column in present])
    except (pa.ArrowException, OSError) as error:
        raise Unusable(
            finding("metadata_unreadable", file=name, expected="a Parquet file", found=f"{error}".splitlines()[0])
        ) from error


def _column(table: pa.Table, name: str, *, required: bool, file: str) -> pa.ChunkedArray | None:
    if name in table.column_names:
        return table[name]
    if required:
        raise Unusable(finding("metadata_unreadable", file=file, expected=f"a column {name!r}", found="none"))
    return None


def _numbers(column: pa.ChunkedArray | None, dtype: type[np.generic], length: int) -> np.ndarray:
    null = np.nan if dtype is np.float64 else NULL
    if column is None:
        return np.full(length, null, dtype)
    return to_numpy(column, null=null).astype(dtype)


# --- v2.1 and v2.0: meta/episodes.jsonl, meta/tasks.jsonl, one file per episode


def read_v2(root: Path, chunks_size: int, fps: float, cameras: list[str]) -> tuple[EpisodeTable, dict[int, str]]:
    records = list(read_jsonl(root, "meta/episodes.jsonl", ("episode_index", "length")))
    index = np.array([record["episode_index"] for record in records], np.int64)
    order = np.argsort(index, kind="stable")
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
    tasks: dict[int, str] = {}
    if (root / "meta" / "tasks.jsonl").is_file():
        tasks = {r["task_index"]: str(r["task"]) for r in read_jsonl(root, "meta/tasks.jsonl", ("task_index", "task"))}
    return table, tasks


def read_jsonl(root: Path, name: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_text(root, name).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        integers = [key for key in keys if key != "task"]
        if not isinstance(record, dict) or not all(
            isinstance(record.get(key), int) and 0 <= record[key] < 1 << 62 for key in integers
        ):
            raise Unusable(
                finding(
                    "metadata_unreadable",
                    file=name,
                    expected=f"an object with {', '.join(keys)} in line {number}",
                    found=line[:80],
                )
            )
        yield record
