"""Opens a dataset: v3.0, v2.1 and v2.0 are each read natively. Metadata that cannot be understood becomes a finding.

Episodes and tasks are looked up by value, never by position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lewm_data.errors import SourceError
from lewm_data.findings import Finding, finding
from lewm_data.notation import episode_ranges, parse_episodes
from lewm_data.paths import is_file
from lewm_data.source.data_files import data_files, stray_files
from lewm_data.source.episode_table import EpisodeMetadata, read_v2, read_v3
from lewm_data.source.files import UnusableError, read_json
from lewm_data.source.hub import Location, locate
from lewm_data.source.info import (
    INFO_FILE,
    check_layout,
    read_count,
    read_feature,
    read_mapping,
    read_template,
)
from lewm_data.source.metadata import DatasetPaths, EpisodeTable, LeRobotDataset
from lewm_data.source.selection import choose_columns

SUPPORTED_VERSIONS = ("v2.0", "v2.1", "v3.0")


class Opened(NamedTuple):
    """A source's metadata, as far as it is readable.

    Attributes:
        dataset: None if the metadata is too damaged to go on.
        findings: What is wrong with the metadata.
        location: Where the files are.
    """

    dataset: LeRobotDataset | None
    findings: list[Finding]
    location: Location


def open_source(
    source: str,
    *,
    revision: str | None = None,
    episodes: str | None = None,
    action: str | None = None,
    state: str | None = None,
    follow_links: bool = False,
) -> Opened:
    """Reads a dataset's metadata; opens no Parquet data and no video.

    Args:
        source: Folder, or Hub repo id ``owner/name``.
        revision: Branch, tag or commit on the Hub.
        episodes: Which episodes, by episode_index, in the form that ``notation.parse_episodes`` reads; None means all.
        action: Columns that make up ``action``, as ``ConvertConfig.action``.
        state: Columns that make up ``state``, as ``ConvertConfig.state``.
        follow_links: Whether data and video files may be links to places outside the folder.

    Returns:
        The dataset and the findings of its metadata.

    Raises:
        SourceError: The dataset does not exist, cannot be reached, or has none of the requested episodes.
        UsageError: ``action`` or ``state`` names a column that the dataset does not have.
    """
    location = locate(source, revision=revision)
    findings: list[Finding] = []
    try:
        dataset = _read_metadata(location, episodes, action, state, findings)
    except UnusableError as unusable:
        return Opened(None, [*findings, unusable.finding], location)
    return Opened(dataclasses.replace(dataset, follow_links=follow_links), findings, location)


def _read_metadata(
    location: Location, selection: str | None, action: str | None, state: str | None, findings: list[Finding]
) -> LeRobotDataset:
    root = location.root
    info = read_json(root, INFO_FILE)
    version = str(info.get("codebase_version"))
    if version not in SUPPORTED_VERSIONS:
        raise UnusableError(
            finding(
                "version_unknown",
                file=INFO_FILE,
                expected=f"codebase_version {', '.join(SUPPORTED_VERSIONS)}",
                found=repr(info.get("codebase_version")),
            )
        )
    features = {key: read_feature(key, value) for key, value in read_mapping(info, "features").items()}
    fps = info.get("fps")
    if not isinstance(fps, (int, float)) or not 0 < fps < 100_000:
        raise UnusableError(finding("fps_invalid", file=INFO_FILE, expected="fps above 0", found=f"fps {fps!r}"))
    paths = DatasetPaths(read_template(info, "data_path"), read_template(info, "video_path"))
    check_layout(root, version)
    chunks_size = read_count(info, "chunks_size") or 1000
    video_cameras = [key for key, feature in features.items() if feature.dtype == "video" and feature.is_camera]
    is_legacy = version.startswith("v2")
    findings += stray_files(root, paths, is_legacy=is_legacy)
    episodes = _read_episodes(location, info, chunks_size, float(fps), video_cameras)
    table = episodes.table
    listed_episodes, listed_steps = len(table), int(table.length.sum())
    episodes_file = "meta/episodes.jsonl" if is_legacy else "meta/episodes"
    if selection is None:
        findings += [*episodes.findings, *_holes(table.index, episodes_file)]
    else:  # the selection leaves out the episodes of an unfinished session, as skip would
        findings += [
            dataclasses.replace(found, severity="warning") if found.is_skippable else found
            for found in episodes.findings
        ]
        table = _select(table, selection, location.repo_id)
    findings += _repeats(table.index, episodes_file)
    totals = {"total_episodes": listed_episodes, "total_frames": listed_steps}
    claimed = {name: read_count(info, name) for name in totals}
    if listed_episodes == 0:
        findings.append(nothing_recorded(episodes_file))
    is_known = any(found.is_skippable for found in episodes.findings)
    findings += _wrong_totals(
        claimed, totals, episodes_file, table.index, is_selected=selection is not None, is_known=is_known
    )
    columns = choose_columns(features, action=action, state=state)
    findings += columns.findings
    dataset = LeRobotDataset(
        root=root,
        repo_id=location.repo_id,
        revision=location.revision,
        codebase_version=version,
        fps=float(fps),
        features=features,
        paths=paths,
        episodes=table,
        tasks=episodes.tasks,
        total_episodes=claimed["total_episodes"],
        total_steps=claimed["total_frames"],
        listed_episodes=listed_episodes,
        listed_steps=listed_steps,
        chunks_size=chunks_size,
        action=columns.action,
        state=columns.state,
    )
    absent = _absent_cameras(dataset, video_cameras)
    findings += [
        finding("camera_absent", file=INFO_FILE, expected=f"videos of camera {key!r}", found="no file at all")
        for key in absent
    ]
    return dataclasses.replace(dataset, absent_cameras=absent)


def _read_episodes(
    location: Location, info: dict[str, Any], chunks_size: int, fps: float, cameras: list[str]
) -> EpisodeMetadata:
    """The episodes and tasks.

    Raises:
        UnusableError: Their files are missing or damaged, or nothing has been recorded yet.
    """
    try:
        if str(info["codebase_version"]).startswith("v2"):
            return read_v2(location.root, chunks_size, fps, cameras)
        return read_v3(location.root, cameras)
    except UnusableError as error:
        found = error.finding
        if found.code != "metadata_missing" or read_count(info, "total_episodes") != 0:
            raise
        raise UnusableError(nothing_recorded(found.file or INFO_FILE)) from error


def nothing_recorded(file: str) -> Finding:
    """Makes the error for a dataset that has no episode yet."""
    return finding(
        "metadata_missing",
        file=file,
        expected="an episode",
        found="none: nothing was recorded",
        remedy="The dataset is empty. Record an episode into it, or choose another dataset.",
    )


def _absent_cameras(dataset: LeRobotDataset, video_cameras: Sequence[str]) -> tuple[str, ...]:
    """Video cameras that have no file at all; empty for the Hub, whose videos are downloaded later."""
    if dataset.revision is not None:
        return ()

    def has_file(camera: str) -> bool:
        paths = (dataset.video_path(row, camera) for row in range(len(dataset.episodes)))
        named = dict.fromkeys(path for path in paths if path is not None)
        if named:
            return any(is_file(dataset.root / path) for path in named)
        return bool(data_files(dataset.root, dataset.paths.video.replace("{video_key}", camera)))

    absent = [camera for camera in video_cameras if len(dataset.episodes) and not has_file(camera)]
    # if no camera is left, report the missing files instead
    return tuple(absent) if len(absent) < sum(feature.is_camera for feature in dataset.features.values()) else ()


def _repeats(index: np.ndarray, file: str) -> list[Finding]:
    """Reports values that occur more than once in a sorted episode_index."""
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
    """Reports values that are missing from a sorted episode_index."""
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
            found=f"{last + 1 - len(values)} of them are missing, first {first}",
        )
    ]


def _wrong_totals(
    claimed: dict[str, int | None],
    listed: dict[str, int],
    file: str,
    index: np.ndarray,
    *,
    is_selected: bool,
    is_known: bool,
) -> Iterator[Finding]:
    """Reports totals of ``info.json`` that differ from the listed episodes.

    LeRobot counts an episode in ``info.json`` before it writes the episode's metadata. A recorder that is killed in
    between leaves totals that are too large, and the listed episodes are whole.

    Args:
        claimed: Name of a total to its value in ``info.json``; None if absent.
        listed: Name of a total to the sum over the listed episodes.
        file: Where the episodes are listed.
        index: Their episode_index.
        is_selected: Whether the user chose episodes, so that totals that are too large do not matter.
        is_known: Whether another finding already says that a session was not finished.
    """
    ran_ahead = (claimed["total_episodes"] or 0) > listed["total_episodes"] > 0
    if ran_ahead and (is_selected or is_known):
        return
    remedy = (
        f"The last recording session was not finished, or files are missing. The {len(index):,} listed episodes "
        f"({episode_ranges(np.unique(index).tolist())}) can be converted with --dirty_episode_policy skip or keep, or "
        "chosen with --episodes."
    )
    for name, number in listed.items():
        if claimed[name] is not None and claimed[name] != number:
            yield finding(
                "total_mismatch",
                file=INFO_FILE,
                expected=f"{name} {claimed[name]:,}",
                found=f"{number:,} in {file}",
                remedy=remedy if ran_ahead else None,
                is_skippable=ran_ahead,
            )


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
    return table.take(chosen)
