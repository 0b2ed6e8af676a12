"""The data and video files that a conversion reads: which ones, how to fetch them, and what tells them from others."""

from __future__ import annotations

import hashlib
import os
import re
import string
from collections.abc import Iterable, Iterator, Sequence

from lewm_data.errors import machine_errors
from lewm_data.paths import is_file
from lewm_data.source.hub import Location
from lewm_data.source.info import INFO_FILE
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.strays import EPISODES_FILE, parquet_files


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
    """What tells this dataset from every other: the commit sha, or a hash of a local folder.

    Args:
        dataset: The dataset.
        files: Data and video files that matter, relative to its folder.

    Returns:
        The sha; for a folder, a hash of the bytes of the metadata files that are read, and of each data and video
        file's size and modification time.
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
    for name in sorted(set(files)):
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


def _pattern(template: str, camera: str) -> str:
    return "".join(
        text + ("" if field is None else camera if field == "video_key" else "*")
        for text, field, *_ in string.Formatter().parse(template)
    )


def _glob_escape(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)
