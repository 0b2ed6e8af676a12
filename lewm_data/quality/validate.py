"""Reports everything that metadata, Parquet and video headers show, before any frame is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lewm_data.config import StateDtype
from lewm_data.findings import Finding, finding
from lewm_data.paths import is_file
from lewm_data.quality import checks
from lewm_data.quality.clock import Frames, drift_remedy
from lewm_data.quality.row_scan import RowScan
from lewm_data.quality.video_checks import Spans, check_spans, check_video, frames_are_equal
from lewm_data.resources import Progress, silent
from lewm_data.source.episodes import Report
from lewm_data.source.files import link_out
from lewm_data.source.media import MediaError
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.video import VideoHeader, read_header


def validate(
    dataset: LeRobotDataset,
    *,
    cameras: Sequence[str],
    extra_columns: Sequence[str] = (),
    state_dtype: StateDtype = "float32",
    min_episode_steps: int = 1,
    whole: bool = True,
    progress: Progress = silent,
) -> Report:
    """Checks a dataset against the catalog of findings.

    Args:
        dataset: A dataset whose metadata has been read and whose files, those that exist, are on this machine.
        cameras: Keys of the cameras to convert.
        extra_columns: Further columns to convert, by LeRobot's keys.
        state_dtype: dtype that action and state will have in the file.
        min_episode_steps: Episodes shorter than this get a warning.
        whole: Whether the table holds all episodes; if not, frames between the chosen ones are no finding.
        progress: Called after each file.

    Returns:
        The report.

    Raises:
        MemoryError, OSError: The machine cannot read a file.
    """
    findings = list(checks.check_dataset(dataset, extra_columns))
    if any(found.code in ("column_missing", "column_dtype", "column_width") for found in findings):
        return Report(findings=tuple(findings))
    table = dataset.episodes
    data_files = _group(dataset.data_path(row) for row in range(len(table)))
    video_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "video"]
    video_files = {
        camera: _group(dataset.video_path(row, camera) for row in range(len(table))) for camera in video_cameras
    }
    total = len(data_files) + sum(map(len, video_files.values()))
    done = 0
    videos = _VideoScan(dataset, whole=whole, frames="equal" if video_cameras else "in_rows")
    for camera, files in video_files.items():
        for file, members in files.items():
            videos.file(camera, file, members)
            done += 1
            progress("video headers", done, total)
    scan = RowScan(dataset, cameras, tuple(extra_columns), frames=videos.frames, state_dtype=state_dtype, whole=whole)
    for index, length in zip(table.index.tolist(), table.length.tolist(), strict=True):
        findings += checks.check_length(index, length, min_episode_steps, scan.max_steps)
    for file, members in data_files.items():
        findings += scan.file(file, members)
        done += 1
        progress("rows", done, total)
    findings += scan.finish()
    findings = _with_drift(findings, scan.drifts, dataset, videos.frames)
    return Report(
        findings=(*findings, *videos.findings),
        first_rows=scan.first_rows,
        headers=videos.headers,
        relocated=scan.relocated,
    )


def _group(paths: Iterable[str | None]) -> dict[str | None, list[int]]:
    """File to the table's rows of its episodes, in order."""
    groups: dict[str | None, list[int]] = {}
    for row, path in enumerate(paths):
        groups.setdefault(path, []).append(row)
    return groups


def _with_drift(
    findings: list[Finding], drifts: dict[int, float], dataset: LeRobotDataset, frames: Mapping[int, Frames]
) -> list[Finding]:
    """Adds facts about the whole dataset and the remedy to each finding of drifting timestamps."""
    return [
        dataclasses.replace(
            found,
            remedy=drift_remedy(
                drifts,
                num_episodes=len(dataset.episodes),
                fps=dataset.fps,
                equal=frames[found.episode] == "equal",
            ),
        )
        if found.code == "timestamps_off_fps" and found.episode in drifts
        else found
        for found in findings
    ]


class _VideoScan:
    """Reads the headers of video files, and checks the spans that episodes have in them.

    Attributes:
        findings: What was found.
        headers: Video file to its header, if it is readable.
        frames: episode_index to the number of its frames compared with its rows, over all cameras.
    """

    def __init__(self, dataset: LeRobotDataset, *, whole: bool, frames: Frames) -> None:
        self.findings: list[Finding] = []
        self.headers: dict[str, VideoHeader] = {}
        self.frames: dict[int, Frames] = dict.fromkeys(dataset.episodes.index.tolist(), frames)
        self._dataset = dataset
        self._whole = whole

    def file(self, camera: str, file: str | None, members: Sequence[int]) -> None:
        """Checks one video file; ``members`` are rows of the episode table."""
        dataset = self._dataset
        table, rows = dataset.episodes, np.array(members)
        episodes = table.index[rows].tolist()
        if file is None:
            expected = f"chunk and file number of {camera!r}"
            self.findings += [
                finding("location_null", episode=index, expected=expected, found="null") for index in episodes
            ]
            return
        try:
            path = dataset.root / file
            link = link_out(dataset.root, path) if is_file(path) and not dataset.follow_links else None
            if link is not None:
                raise MediaError("link_leads_out", *link)
            header = self.headers[file] = read_header(path)
        except MediaError as problem:
            self.findings += [
                finding(problem.code, episode=index, file=file, expected=problem.expected, found=problem.found)
                for index in episodes
            ]
            return
        columns = table.cameras[camera].take(rows)
        spans = Spans(
            file=file,
            fps=dataset.fps,
            episodes=table.index[rows],
            lengths=table.length[rows],
            start_seconds=columns.start_seconds,
            stop_seconds=columns.stop_seconds,
            next_seconds=columns.next_seconds,
            is_declared=not dataset.is_legacy(),
            is_complete=self._whole,
        )
        self.findings += check_video(
            header, file=file, fps=dataset.fps, declared_shape=dataset.features[camera].shape, episodes=episodes
        )
        self.findings += check_spans(header, spans)
        for index, is_equal in zip(episodes, frames_are_equal(header, spans), strict=True):
            if not is_equal:
                self.frames[index] = "unequal"
