"""Source in, findings out: everything that metadata, Parquet and video headers can tell. Reads, never writes.

One report of everything wrong, for all chosen episodes, before any frame is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lewm_data.findings import Finding, finding
from lewm_data.quality import checks
from lewm_data.quality.row_scan import RowScan
from lewm_data.quality.video_checks import check_spans, check_video
from lewm_data.resources import Progress
from lewm_data.source.episodes import Report
from lewm_data.source.files import leads_out
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.video import MediaError, VideoHeader, read_header


def validate(
    dataset: LeRobotDataset,
    *,
    cameras: Sequence[str],
    extra_columns: Sequence[str] = (),
    min_episode_steps: int = 1,
    whole: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Checks a dataset against the catalogue of DESIGN section 7.

    Args:
        dataset: A dataset whose metadata was read and whose files are there, as far as they can be.
        cameras: Keys of the cameras to convert.
        extra_columns: Further columns to convert, by LeRobot's keys.
        min_episode_steps: Episodes shorter than this get a warning.
        whole: Whether the table holds all episodes; else frames between the chosen ones mean nothing.
        progress: Called after each file.

    Returns:
        The report.
    """
    findings = list(checks.check_dataset(dataset, extra_columns))
    if any(found.code in ("column_missing", "column_dtype", "column_width") for found in findings):
        return Report(findings=tuple(findings))
    table = dataset.episodes
    scan = RowScan(dataset, cameras, tuple(extra_columns), whole)
    for index, length in zip(table.index.tolist(), table.length.tolist(), strict=True):
        findings += checks.check_length(index, length, min_episode_steps, scan.max_steps)
    data_files = _group(dataset.data_path(row) for row in range(len(table)))
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    video_files = {
        camera: _group(dataset.video_path(row, camera) for row in range(len(table))) for camera in video_cameras
    }
    total = len(data_files) + sum(map(len, video_files.values()))
    done = 0
    for file, members in data_files.items():
        findings += scan.file(file, members)
        done += 1
        progress("rows", done, total)
    findings += scan.absent()
    headers: dict[str, VideoHeader] = {}
    for camera, files in video_files.items():
        for file, members in files.items():
            findings += _check_video_file(dataset, camera, file, members, headers, whole)
            done += 1
            progress("video headers", done, total)
    return Report(findings=tuple(findings), first_rows=scan.first_rows, headers=headers)


def _group(paths: Iterable[str | None]) -> dict[str | None, list[int]]:
    """File to the table's rows whose episodes are in it, in the order of the episodes."""
    groups: dict[str | None, list[int]] = {}
    for row, path in enumerate(paths):
        groups.setdefault(path, []).append(row)
    return groups


def _check_video_file(
    dataset: LeRobotDataset,
    camera: str,
    file: str | None,
    members: list[int],
    headers: dict[str, VideoHeader],
    whole: bool,
) -> list[Finding]:
    table = dataset.episodes
    rows = np.array(members)
    episodes = table.index[rows]
    if file is None:
        return [
            finding(
                "location_null",
                episode=int(index),
                expected=f"chunk and file number of {camera!r}",
                found="null",
            )
            for index in episodes
        ]
    try:
        if leads_out(dataset.root, dataset.root / file):
            raise MediaError("path_unsafe", "a file in the dataset's folder", "a link that leads out")
        header = headers[file] = read_header(dataset.root / file)
    except MediaError as problem:
        return [
            finding(problem.code, episode=int(index), file=file, expected=problem.expected, found=problem.found)
            for index in episodes
        ]
    columns = table.cameras[camera]
    return [
        *check_video(
            header,
            file=file,
            fps=dataset.fps,
            declared_shape=dataset.features[camera].shape,
            episodes=episodes.tolist(),
        ),
        *check_spans(
            header,
            file=file,
            episodes=episodes,
            lengths=table.length[rows],
            start_seconds=columns.start_seconds[rows],
            stop_seconds=columns.stop_seconds[rows],
            fps=dataset.fps,
            complete=whole,
        ),
    ]
