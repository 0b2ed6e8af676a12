"""The only file that knows LeRobot's layouts: v3.0, v2.1 and v2.0, each read natively.

Episodes and tasks are looked up by value, never by position. What cannot be understood becomes a finding.
"""

from __future__ import annotations

import hashlib
import os
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lewm_data.config import parse_episodes
from lewm_data.errors import SourceError, machine_errors
from lewm_data.findings import Finding, finding
from lewm_data.paths import is_file, walk_files
from lewm_data.source.episode_table import read_v2, read_v3
from lewm_data.source.files import UnusableError, read_json
from lewm_data.source.hub import Location, locate
from lewm_data.source.info import INFO_FILE, check_layout, read_count, read_feature, read_mapping, read_template
from lewm_data.source.metadata import (
    CameraColumns,
    DatasetPaths,
    EpisodeTable,
    LeRobotDataset,
)

SUPPORTED_VERSIONS = ("v2.0", "v2.1", "v3.0")


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
    except UnusableError as unusable:
        return Opened(None, [*findings, unusable.finding], location)
    return Opened(dataset, findings, location)


def fetch_files(location: Location, dataset: LeRobotDataset, cameras: Iterable[str], *, all_episodes: bool) -> None:
    """Brings the Parquet and video files of the chosen episodes and cameras from the Hub, and nothing else."""
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
        The sha; for a folder, a hash of the metadata's bytes and of each file's size and modification time.
    """
    if dataset.revision is not None:
        return f"{dataset.repo_id}@{dataset.revision}"
    digest = hashlib.sha256()
    for path in walk_files(dataset.root / "meta"):
        digest.update(os.fsencode(path.relative_to(dataset.root)))
        with machine_errors(path), path.open("rb") as file:  # v2.1's statistics of episodes grow with the dataset
            while block := file.read(1 << 20):
                digest.update(block)
    for name in sorted(set(files)):
        path = dataset.root / name
        if not is_file(path):  # the inspection reports it
            continue
        with machine_errors(path):
            stat = path.stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def needed_files(dataset: LeRobotDataset, cameras: Sequence[str]) -> Iterator[str]:
    """Every data and video file of the chosen episodes and cameras, relative to the folder; repeats included."""
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    for row in range(len(dataset.episodes)):
        paths = [dataset.data_path(row), *(dataset.video_path(row, camera) for camera in video_cameras)]
        yield from (path for path in paths if path is not None)


def _read_metadata(location: Location, selection: str | None, findings: list[Finding]) -> LeRobotDataset:
    info = read_json(location.root, "meta/info.json")
    version = str(info.get("codebase_version"))
    if version not in SUPPORTED_VERSIONS:
        raise UnusableError(
            finding(
                "version_unknown",
                file="meta/info.json",
                expected=f"codebase_version {', '.join(SUPPORTED_VERSIONS)}",
                found=repr(info.get("codebase_version")),
            )
        )
    features = {key: read_feature(key, value) for key, value in read_mapping(info, "features").items()}
    fps = info.get("fps")
    if not isinstance(fps, (int, float)) or not 0 < fps < 100_000:
        raise UnusableError(finding("fps_invalid", file=INFO_FILE, expected="fps above 0", found=f"fps {fps!r}"))
    paths = DatasetPaths(read_template(info, "data_path"), read_template(info, "video_path"))
    check_layout(location.root, version)
    chunks_size = read_count(info, "chunks_size") or 1000
    video_cameras = [key for key, feature in features.items() if feature.dtype == "video" and feature.is_camera]
    if version.startswith("v2"):
        episodes_file, tasks_file = "meta/episodes.jsonl", "meta/tasks.jsonl"
        table, tasks = read_v2(location.root, chunks_size, float(fps), video_cameras)
    else:
        episodes_file, tasks_file = "meta/episodes", "meta/tasks.parquet"
        table, tasks = read_v3(location.root, video_cameras)
    if tasks is None:
        findings.append(finding("tasks_missing", file=tasks_file, expected="the file", found="no such file"))
    listed_episodes, listed_steps = len(table), int(table.length.sum())
    if selection is None:
        findings += _holes(table.index, episodes_file)
    else:
        table = _select(table, selection, location.repo_id)
    findings += _repeats(table.index, episodes_file)
    return LeRobotDataset(
        root=location.root,
        repo_id=location.repo_id,
        revision=location.revision,
        codebase_version=version,
        fps=float(fps),
        features=features,
        paths=paths,
        episodes=table,
        tasks=tasks or {},
        total_episodes=read_count(info, "total_episodes"),
        total_steps=read_count(info, "total_frames"),
        listed_episodes=listed_episodes,
        listed_steps=listed_steps,
        chunks_size=chunks_size,
    )


def _repeats(index: np.ndarray, file: str) -> list[Finding]:
    """Values that episode_index (sorted) has more than once."""
    values, counts = np.unique(index, return_counts=True)
    return [
        finding(
            "episode_index_repeated",
            episode=int(value),
            file=file,
            expected="one entry for this episode_index",
            found=f"{count}",
        )
        for value, count in zip(values[counts > 1], counts[counts > 1], strict=True)
    ]


def _holes(index: np.ndarray, file: str) -> list[Finding]:
    """Values that episode_index (sorted) leaves out."""
    values = np.unique(index)
    last = int(values[-1]) if len(values) else -1
    if last + 1 == len(values):
        return []
    first = int(np.flatnonzero(values != np.arange(len(values)))[0])
    return [
        finding(
            "episode_index_hole",
            file=file,
            expected=f"episode_index 0 to {last}",
            found=f"{last + 1 - len(values)} of them absent, the first is {first}",
        )
    ]


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
