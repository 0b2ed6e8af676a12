"""A dataset's data and video files: which LeRobot reads, which are strays, how to fetch them and see changes."""

from __future__ import annotations

import hashlib
import os
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from lewm_data.findings import Finding, finding
from lewm_data.machine_errors import machine_errors
from lewm_data.paths import is_file, sorted_entries
from lewm_data.source.hub import Location
from lewm_data.source.info import INFO_FILE
from lewm_data.source.metadata import DatasetPaths, LeRobotDataset
from lewm_data.source.rows import PARQUET_ERRORS, leaf_paths

EPISODES_FILE = re.compile(r"chunk-\d+/file-\d+\.parquet")
"""Name of a file below ``meta/episodes`` (v3.0)."""

_MIN_PICTURE_BYTES = 32
"""The smallest PNG, JPEG and WebP files are larger."""

_MAX_NAMED = 5
"""Stray files that a finding names."""

_CHECKPOINTS = ".ipynb_checkpoints/"

# "._x": a Mac on another file system; "x (1)": a browser; "x copy" and "x - Copy": file managers
_COPY = re.compile(r"\._.*|.*( \(\d+\)| copy( \d+)?| - Copy( \(\d+\))?)\.\w+")


def parquet_files(root: Path, folder: str, pattern: re.Pattern[str]) -> list[Path]:
    """The Parquet files below a folder that LeRobot reads, in order.

    Args:
        root: The dataset's folder.
        folder: Relative to it, such as ``meta/episodes``.
        pattern: Of a path relative to ``folder``, such as ``EPISODES_FILE``.
    """
    names = (name for name in _walk(root / folder, "", pattern.pattern.count("/") + 1) if pattern.fullmatch(name))
    return sorted(root / folder / name for name in names)


def data_files(root: Path, template: str) -> list[str]:
    """The files of a local folder that match a path template, relative to the folder, in order."""
    folder, pattern = template.split("/", 1)[0], data_pattern(template)
    if "{" in folder:
        return []
    return [name for name in _walk(root / folder, f"{folder}/", template.count("/")) if pattern.fullmatch(name)]


def data_pattern(template: str) -> re.Pattern[str]:
    """The pattern of paths that a template of ``info.json`` produces, relative to the dataset's folder."""
    return re.compile(
        "".join(
            re.escape(text) + ("" if field is None else r"[^/]+" if field == "video_key" else r"\d+")
            for text, field, *_ in string.Formatter().parse(template)
        )
    )


def stray_files(root: Path, paths: DatasetPaths, *, is_legacy: bool) -> list[Finding]:
    """Reports files of a local folder that look like the dataset's but are read neither by LeRobot nor by us.

    Args:
        root: The dataset's folder.
        paths: Its path templates.
        is_legacy: Whether it is v2.x.

    Returns:
        One warning that names some of them; nothing if there are none.
    """
    found: list[str] = []
    if not is_legacy:
        names = _walk(root / "meta/episodes", "", 3)
        found += [f"meta/episodes/{name}" for name in names if _is_like(name, ".parquet", EPISODES_FILE)]
    found += [f"meta/{name}" for name in _walk(root / "meta", "", 2) if _COPY.fullmatch(name) or _CHECKPOINTS in name]
    for template in (paths.data, paths.video):
        folder, suffix = template.split("/", 1)[0], os.path.splitext(template)[1]
        if "{" in folder or folder == "meta":
            continue
        pattern, depth = data_pattern(template), template.count("/") + 1
        found += [name for name in _walk(root / folder, f"{folder}/", depth) if _is_like(name, suffix, pattern)]
    if not found:
        return []
    found.sort()
    named = ", ".join(found[:_MAX_NAMED]) + (f" and {len(found) - _MAX_NAMED:,} more" if found[_MAX_NAMED:] else "")
    return [finding("files_ignored", file=found[0], expected="only files that LeRobot writes", found=named)]


def _is_like(name: str, suffix: str, pattern: re.Pattern[str]) -> bool:
    return name.endswith(suffix) and not pattern.fullmatch(name)


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    """Paths of the files in ``depth`` levels of folders, after ``prefix``. Links to folders are not followed."""
    for entry in sorted_entries(folder):
        if not entry.is_dir(follow_symlinks=False):
            yield prefix + entry.name
        elif depth > 1:
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth - 1)


def fetch_files(location: Location, dataset: LeRobotDataset, cameras: Iterable[str], *, all_episodes: bool) -> None:
    """Downloads the Parquet and video files of the chosen episodes and cameras from the Hub, and nothing else."""
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    if all_episodes:
        patterns = {_pattern(dataset.paths.data, "*")}
        patterns |= {_pattern(dataset.paths.video, _glob_escape(camera)) for camera in video_cameras}
        location.fetch(sorted(patterns), ())
    else:
        location.fetch((), sorted(set(needed_files(dataset, tuple(cameras)))))


def identity(dataset: LeRobotDataset, files: Iterable[str]) -> str:
    """Identifies the content of a dataset: the commit sha, or a hash of a local folder.

    Args:
        dataset: The dataset.
        files: Data, video and picture files that matter, relative to its folder.

    Returns:
        The sha; for a folder, a hash of its name, the bytes of the metadata files that are read, the names of ignored
        files (the findings name them), and the size and modification time of each other file.
    """
    if dataset.revision is not None:
        return f"{dataset.repo_id}@{dataset.revision}"
    digest = hashlib.sha256()
    for name in _metadata_files(dataset):
        path = dataset.root / name
        if not is_file(path):
            continue
        digest.update(os.fsencode(name))
        with machine_errors(path), path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    for stray in stray_files(dataset.root, dataset.paths, is_legacy=dataset.is_legacy()):
        digest.update(os.fsencode(stray.found))
    digest.update(os.fsencode(dataset.repo_id))
    elsewhere = () if dataset.is_legacy() else data_files(dataset.root, dataset.paths.data)  # may hold rows
    for name in sorted({*files, *elsewhere}):
        path = dataset.root / name
        if not is_file(path):  # the inspection reports it
            continue
        with machine_errors(path):
            stat = path.stat()
        digest.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0"))
    return digest.hexdigest()


def _metadata_files(dataset: LeRobotDataset) -> list[str]:
    """The files under ``meta/`` that decide what a conversion makes, relative to the folder."""
    if dataset.is_legacy():
        return [INFO_FILE, "meta/episodes.jsonl", "meta/tasks.jsonl"]
    episodes = parquet_files(dataset.root, "meta/episodes", EPISODES_FILE)
    return [INFO_FILE, *(path.relative_to(dataset.root).as_posix() for path in episodes), "meta/tasks.parquet"]


def needed_files(dataset: LeRobotDataset, cameras: Sequence[str]) -> Iterator[str]:
    """Every data and video file of the chosen episodes and cameras, relative to the folder; repeats included."""
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    for row in range(len(dataset.episodes)):
        paths = [dataset.data_path(row), *(dataset.video_path(row, camera) for camera in video_cameras)]
        yield from (path for path in paths if path is not None)


def picture_files(dataset: LeRobotDataset, cameras: Sequence[str]) -> Iterator[str]:
    """Every picture file that the rows of the chosen episodes and cameras name, relative to the folder.

    Reads no pictures: the statistics of a Parquet file show whether its cells hold their bytes.
    """
    image_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "image"]
    if not image_cameras:
        return
    for name in dict.fromkeys(dataset.data_path(row) for row in range(len(dataset.episodes))):
        if name is None or not is_file(dataset.root / name):
            continue
        try:
            with machine_errors(dataset.root / name), pq.ParquetFile(dataset.root / name) as file:
                for leaf in _path_leaves(file.metadata, image_cameras):
                    yield from _texts(file, leaf)
        except PARQUET_ERRORS:  # the inspection reports it
            continue


def _path_leaves(metadata: pq.FileMetaData, cameras: Sequence[str]) -> Iterator[str]:
    """The columns that hold paths of pictures, of those cameras whose cells do not all hold pictures."""
    leaves = leaf_paths(metadata)
    for camera in cameras:
        if camera in leaves:  # only one of bytes and path
            yield camera
        elif f"{camera}.path" in leaves:
            position = leaves.index(f"{camera}.bytes") if f"{camera}.bytes" in leaves else None
            groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
            if position is None or not all(_holds_pictures(group.column(position)) for group in groups):
                yield f"{camera}.path"


def _holds_pictures(column: pq.ColumnChunkMetaData) -> bool:
    """Whether every cell of a column of bytes holds a picture, not null or an empty value."""
    statistics = column.statistics
    has_nulls = statistics is None or not statistics.has_null_count or statistics.null_count > 0
    return not has_nulls and column.total_uncompressed_size >= _MIN_PICTURE_BYTES * column.num_values


def _texts(file: pq.ParquetFile, leaf: str) -> Iterator[str]:
    for batch in file.iter_batches(columns=[leaf], use_threads=False):
        for value in batch.column(0).to_pylist():
            text = value.get("path") if isinstance(value, dict) else value
            if isinstance(text, str):
                yield text


def _pattern(template: str, camera: str) -> str:
    return "".join(
        text + ("" if field is None else camera if field == "video_key" else "*")
        for text, field, *_ in string.Formatter().parse(template)
    )


def _glob_escape(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)
