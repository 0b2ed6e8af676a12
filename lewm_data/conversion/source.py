"""The only file that knows LeRobot's layouts: v3.0, v2.1 and v2.0, each read natively.

Episodes and tasks are looked up by value, never by position. What cannot be understood becomes a finding.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.config import parse_episodes
from lewm_data.conversion.arrow import NotNumeric, to_numpy
from lewm_data.conversion.catalogue import finding
from lewm_data.conversion.hub import Location, locate
from lewm_data.conversion.layout import (
    NULL,
    CameraColumns,
    DatasetPaths,
    EpisodeTable,
    Feature,
    LeRobotDataset,
)
from lewm_data.errors import SourceError
from lewm_data.schema import Finding

SUPPORTED_VERSIONS = ("v2.0", "v2.1", "v3.0")
_LFS_PREFIX = b"version https://git-lfs"
_PATH_FIELDS = {"chunk_index", "file_index", "episode_chunk", "episode_index", "video_key"}


class Opened(NamedTuple):
    """A source's metadata, as far as it could be read.

    Attributes:
        dataset: None where the metadata is too damaged to go on.
        findings: What is wrong with the metadata.
        location: Where the files are.
    """

    dataset: LeRobotDataset | None
    findings: list[Finding]
    location: Location


class _Unusable(Exception):
    """Metadata without which nothing can be said; carries the finding."""

    def __init__(self, found: Finding) -> None:
        super().__init__(found.sentence())
        self.finding = found


def open_source(source: str, *, revision: str | None = None, episodes: str | None = None) -> Opened:
    """Reads a dataset's metadata; opens no Parquet data and no video.

    Args:
        source: Folder, or Hub repo id ``owner/name``.
        revision: Branch, tag or commit on the Hub.
        episodes: Which episodes, by episode_index, as ``config.parse_episodes`` reads it; None means all.

    Returns:
        The dataset and the findings of its metadata.

    Raises:
        SourceError: No dataset there, it cannot be reached, or it has none of the episodes asked for.
    """
    location = locate(source, revision=revision)
    findings: list[Finding] = []
    try:
        dataset = _read_metadata(location, episodes, findings)
    except _Unusable as unusable:
        return Opened(None, [*findings, unusable.finding], location)
    return Opened(dataset, findings, location)


def fetch_files(location: Location, dataset: LeRobotDataset, cameras: Iterable[str], *, all_episodes: bool) -> None:
    """Brings the Parquet and video files of the chosen episodes and cameras from the Hub, and nothing else."""
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    if all_episodes:
        patterns = {_pattern(dataset.paths.data, "*")}
        patterns |= {_pattern(dataset.paths.video, _glob_escape(camera)) for camera in video_cameras}
    else:
        patterns = set()
        for row in range(len(dataset.episodes)):
            paths = [dataset.data_path(row), *(dataset.video_path(row, camera) for camera in video_cameras)]
            patterns |= {_glob_escape(path) for path in paths if path is not None}
    location.fetch(sorted(patterns))


def identity(dataset: LeRobotDataset, files: Iterable[str]) -> str:
    """What tells this dataset from every other: the commit sha, or a hash of a local folder.

    Args:
        dataset: The dataset.
        files: Data and video files that matter, relative to its folder.

    Returns:
        The sha; for a folder, a hash of the metadata's bytes and of each file's size and modification time.
    """
    if dataset.revision is not None:
        return f"{dataset.repo_id}@{dataset.revision}"
    digest = hashlib.sha256()
    for path in sorted(p for p in (dataset.root / "meta").rglob("*") if p.is_file()):
        digest.update(path.relative_to(dataset.root).as_posix().encode() + path.read_bytes())
    for name in sorted(set(files)):
        try:
            stat = (dataset.root / name).stat()
        except OSError:
            continue
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def needed_files(dataset: LeRobotDataset, cameras: Sequence[str]) -> Iterator[str]:
    """Every data and video file of the chosen episodes and cameras, relative to the folder; repeats included."""
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    for row in range(len(dataset.episodes)):
        paths = [dataset.data_path(row), *(dataset.video_path(row, camera) for camera in video_cameras)]
        yield from (path for path in paths if path is not None)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in a checkout that was never pulled."""
    with path.open("rb") as file:
        return file.read(len(_LFS_PREFIX)) == _LFS_PREFIX


def _read_metadata(location: Location, selection: str | None, findings: list[Finding]) -> LeRobotDataset:
    info = _read_json(location.root, "meta/info.json")
    version = str(info.get("codebase_version"))
    if version not in SUPPORTED_VERSIONS:
        raise _Unusable(
            finding(
                "version_unknown",
                file="meta/info.json",
                expected=f"codebase_version {', '.join(SUPPORTED_VERSIONS)}",
                found=repr(info.get("codebase_version")),
            )
        )
    features = {key: _feature(key, value) for key, value in _mapping(info, "features").items()}
    fps = info.get("fps")
    if not isinstance(fps, (int, float)) or not 0 < fps < 100_000:
        raise _Unusable(finding("fps_invalid", file="meta/info.json", expected="fps above 0", found=f"fps {fps!r}"))
    has_video = any(feature.dtype == "video" for feature in features.values())
    paths = DatasetPaths(_template(info, "data_path"), _template(info, "video_path") if has_video else "")
    legacy = version.startswith("v2")
    _check_layout(location.root, version)
    chunks_size = int(info.get("chunks_size") or 1000)
    video_cameras = [key for key, feature in features.items() if feature.dtype == "video" and feature.is_camera]
    if legacy:
        table, tasks = _read_v2(location.root, chunks_size, float(fps), video_cameras)
    else:
        table, tasks = _read_v3(location.root, video_cameras)
    listed_episodes, listed_steps = len(table), int(table.length.sum())
    findings += _index_findings(table.index)
    if selection is not None:
        table = _select(table, selection, location.repo_id)
    return LeRobotDataset(
        root=location.root,
        repo_id=location.repo_id,
        revision=location.revision,
        codebase_version=version,
        fps=float(fps),
        features=features,
        paths=paths,
        episodes=table,
        tasks=tasks,
        total_episodes=_optional_int(info.get("total_episodes")),
        total_steps=_optional_int(info.get("total_frames")),
        listed_episodes=listed_episodes,
        listed_steps=listed_steps,
        chunks_size=chunks_size,
    )


# --- meta/info.json


def _read_json(root: Path, name: str) -> dict[str, Any]:
    text = _read_text(root, name)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _Unusable(
            finding("metadata_unreadable", file=name, expected="a JSON object", found=f"{error}")
        ) from error
    if not isinstance(value, dict):
        raise _Unusable(finding("metadata_unreadable", file=name, expected="a JSON object", found=type(value).__name__))
    return value


def _read_text(root: Path, name: str) -> str:
    path = root / name
    if not path.is_file():
        raise _Unusable(finding("metadata_missing", file=name, expected="the file", found="no such file"))
    if is_lfs_pointer(path):
        raise _Unusable(finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer"))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _Unusable(finding("metadata_unreadable", file=name, expected="UTF-8 text", found=f"{error}")) from error


def _mapping(info: dict[str, Any], key: str) -> dict[str, Any]:
    value = info.get(key)
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise _Unusable(
            finding(
                "metadata_unreadable",
                file="meta/info.json",
                expected=f"an object {key!r}",
                found=repr(value)[:80],
            )
        )
    return value


def _feature(key: str, spec: dict[str, Any]) -> Feature:
    shape = spec.get("shape")
    dtype = spec.get("dtype")
    if (
        not isinstance(dtype, str)
        or not isinstance(shape, (list, tuple))
        or not all(isinstance(side, int) and 0 <= side < 1 << 31 for side in shape)
    ):
        raise _Unusable(
            finding(
                "metadata_unreadable",
                file="meta/info.json",
                expected=f"dtype and shape of feature {key!r}",
                found=f"dtype {dtype!r}, shape {shape!r}"[:120],
            )
        )
    if dtype in ("video", "image") and ("/" in key or "\\" in key or ".." in key or "\0" in key):
        raise _Unusable(finding("path_unsafe", file="meta/info.json", expected="a plain camera name", found=f"{key!r}"))
    info = spec.get("info") or spec.get("video_info") or {}
    names = spec.get("names")
    if isinstance(names, dict):  # LeRobot before 0.2 nested them under one key: {"motors": [...]}
        names = next(iter(names.values()), None)
    flat = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return Feature(
        key=key,
        dtype=dtype,
        shape=tuple(shape),
        names=tuple(names) if flat and names else (),
        is_depth=bool(info.get("is_depth_map") or info.get("video.is_depth_map")),
    )


def _template(info: dict[str, Any], key: str) -> str:
    """A path template, refused where formatting it could leave the folder or reach into objects."""
    template = info.get(key)
    try:
        parts = list(string.Formatter().parse(template)) if isinstance(template, str) else []
    except ValueError:
        parts = []
    literal = "".join(text for text, *_ in parts)
    safe = bool(parts) and all(
        field is None or (field in _PATH_FIELDS and not conversion and re.fullmatch(r"(\d{1,2}d)?", spec or ""))
        for _, field, spec, conversion in parts
    )
    if not safe or literal.startswith(("/", "\\", "~")) or ".." in literal or re.search(r"[\\:\0]", literal):
        raise _Unusable(
            finding(
                "path_unsafe",
                file="meta/info.json",
                expected=f"{key} inside the dataset's folder, made of {', '.join(sorted(_PATH_FIELDS))}",
                found=repr(template)[:120],
            )
        )
    return str(template)


def _check_layout(root: Path, version: str) -> None:
    """Version and folder must agree: nobody can tell which of them is right."""
    v3 = (root / "meta" / "episodes").is_dir()
    v2 = (root / "meta" / "episodes.jsonl").is_file()
    if (version == "v3.0" and not v3 and v2) or (version != "v3.0" and v3 and not v2):
        raise _Unusable(
            finding(
                "version_mismatch",
                file="meta/info.json",
                expected=f"the layout of {version}",
                found="meta/episodes/ as in v3.0" if v3 else "meta/episodes.jsonl as in v2.x",
            )
        )


def _optional_int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


# --- v3.0: meta/episodes/**.parquet, meta/tasks.parquet


def _read_v3(root: Path, cameras: list[str]) -> tuple[EpisodeTable, dict[int, str]]:
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise _Unusable(finding("metadata_missing", file="meta/episodes", expected="Parquet files", found="none"))
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
                raise _Unusable(
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
        raise _Unusable(finding("lfs_pointer", file=name, expected="the file itself", found="a Git LFS pointer"))
    try:
        with pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            return file.read(None if columns is None else [column for column in columns if column in present])
    except (pa.ArrowException, OSError) as error:
        raise _Unusable(
            finding("metadata_unreadable", file=name, expected="a Parquet file", found=f"{error}".splitlines()[0])
        ) from error


def _column(table: pa.Table, name: str, *, required: bool, file: str) -> pa.ChunkedArray | None:
    if name in table.column_names:
        return table[name]
    if required:
        raise _Unusable(finding("metadata_unreadable", file=file, expected=f"a column {name!r}", found="none"))
    return None


def _numbers(column: pa.ChunkedArray | None, dtype: type[np.generic], length: int) -> np.ndarray:
    null = np.nan if dtype is np.float64 else NULL
    if column is None:
        return np.full(length, null, dtype)
    return to_numpy(column, null=null).astype(dtype)


# --- v2.1 and v2.0: meta/episodes.jsonl, meta/tasks.jsonl, one file per episode


def _read_v2(root: Path, chunks_size: int, fps: float, cameras: list[str]) -> tuple[EpisodeTable, dict[int, str]]:
    records = list(_read_jsonl(root, "meta/episodes.jsonl", ("episode_index", "length")))
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
        tasks = {r["task_index"]: str(r["task"]) for r in _read_jsonl(root, "meta/tasks.jsonl", ("task_index", "task"))}
    return table, tasks


def _read_jsonl(root: Path, name: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_text(root, name).splitlines(), start=1):
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
            raise _Unusable(
                finding(
                    "metadata_unreadable",
                    file=name,
                    expected=f"an object with {', '.join(keys)} in line {number}",
                    found=line[:80],
                )
            )
        yield record


# --- both


def _index_findings(index: np.ndarray) -> list[Finding]:
    """Holes and repeats in episode_index (sorted)."""
    values, counts = np.unique(index, return_counts=True)
    findings = [
        finding(
            "episode_index_repeated",
            episode=int(value),
            file="meta/episodes",
            expected="one entry for this episode_index",
            found=f"{count}",
        )
        for value, count in zip(values[counts > 1], counts[counts > 1], strict=True)
    ]
    if len(values) and int(values[-1]) + 1 != len(values):
        missing = int(values[-1]) + 1 - len(values)
        first = int(np.flatnonzero(values != np.arange(len(values)))[0])
        findings.append(
            finding(
                "episode_index_hole",
                file="meta/episodes",
                expected=f"episode_index 0 to {int(values[-1])}",
                found=f"{missing} of them absent, the first is {first}",
            )
        )
    return findings


def _select(table: EpisodeTable, selection: str, repo_id: str) -> EpisodeTable:
    ranges = parse_episodes(selection)
    chosen = np.zeros(len(table), bool)
    for part in ranges:
        inside = (table.index >= part.start) & (table.index < part.stop)
        if not inside.any():
            have = f"{table.index[0]} to {table.index[-1]}" if len(table) else "none"
            raise SourceError(
                f"{repo_id}: --episodes {selection} asks for {part.start}:{part.stop}, but the dataset has "
                f"episodes {have}. Choose among those."
            )
        chosen |= inside

    def pick(array: np.ndarray) -> np.ndarray:
        return array[chosen]

    return EpisodeTable(
        index=pick(table.index),
        length=pick(table.length),
        data_chunk=pick(table.data_chunk),
        data_file=pick(table.data_file),
        first_index=pick(table.first_index),
        cameras={
            camera: CameraColumns(
                chunk=pick(c.chunk),
                file=pick(c.file),
                start_seconds=pick(c.start_seconds),
                stop_seconds=pick(c.stop_seconds),
            )
            for camera, c in table.cameras.items()
        },
    )


def _pattern(template: str, camera: str) -> str:
    return "".join(
        text + ("" if field is None else camera if field == "video_key" else "*")
        for text, field, *_ in string.Formatter().parse(template)
    )


def _glob_escape(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)
