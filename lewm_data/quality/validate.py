"""Source in, findings out: everything that metadata, Parquet and video headers can tell. Reads, never writes.

One report of everything wrong, for all chosen episodes, before any frame is decoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.findings import CATALOGUE, DirtyEpisodePolicy, Finding, Handling, finding
from lewm_data.quality import checks
from lewm_data.quality.checks import EpisodeRows
from lewm_data.resources import Progress
from lewm_data.source.arrow import NotNumeric, UnevenRows, to_numpy, to_vector
from lewm_data.source.episodes import Report
from lewm_data.source.info import first_line, is_file, is_lfs_pointer, leads_out
from lewm_data.source.metadata import NULL, LeRobotDataset
from lewm_data.source.rows import NUMBER_ROWS, PARQUET_ERRORS, RowCursor, minding_memory, oversized
from lewm_data.source.video import VideoHeader, VideoProblem, read_header

INDEX_COLUMNS = ("episode_index", "frame_index", "timestamp", "index")
"""Columns that LeRobot writes into every Parquet file."""


class Decision(NamedTuple):
    """What a dirty-episode policy makes of findings.

    Attributes:
        findings: The same findings, each with its handling.
        dropped: episode_index of every episode that is left out.
        refused: Whether the dataset is not converted at all.
    """

    findings: tuple[Finding, ...]
    dropped: frozenset[int]
    refused: bool


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
    scan = _RowScan(dataset, cameras, tuple(extra_columns), whole)
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


def decide(findings: Iterable[Finding], policy: DirtyEpisodePolicy) -> Decision:
    """Applies a dirty-episode policy. Dataset-wide errors are never skippable.

    Args:
        findings: All findings of a dataset.
        policy: ``fail`` refuses on any error; ``skip`` drops the episodes that have one; ``keep`` keeps what the
            catalogue says can still be aligned, and drops the rest.
    """
    handled: list[Finding] = []
    dropped: set[int] = set()
    refused = False
    for found in findings:
        handling: Handling = "recorded"
        if found.severity == "error":
            if policy == "fail" or (found.episode is None and not (policy == "keep" and _keepable(found))):
                handling, refused = "refused", True
            elif policy == "keep" and _keepable(found):
                handling = "kept"
            else:
                handling = "dropped"
                assert found.episode is not None
                dropped.add(found.episode)
        handled.append(dataclasses.replace(found, handling=handling))
    return Decision(tuple(handled), frozenset(dropped), refused)


def _keepable(found: Finding) -> bool:
    return CATALOGUE[found.code].keepable


def _group(paths: Iterable[str | None]) -> dict[str | None, list[int]]:
    """File to the table's rows whose episodes are in it, in the order of the episodes."""
    groups: dict[str | None, list[int]] = {}
    for row, path in enumerate(paths):
        groups.setdefault(path, []).append(row)
    return groups


class _RowScan:
    """Reads the numeric columns of every data file once, and checks each episode's rows as they pass.

    Args:
        dataset: The dataset.
        cameras: Cameras to convert.
        extra_columns: Further columns to convert.
        whole: Whether the table holds all episodes, so that rows of others mean something.
    """

    def __init__(
        self, dataset: LeRobotDataset, cameras: Sequence[str], extra_columns: tuple[str, ...], whole: bool
    ) -> None:
        self.first_rows: dict[int, int] = {}
        self._dataset = dataset
        self._columns = dataset.row_columns(extra_columns)
        self._features = {name: dataset.features[key] for name, key in self._columns.items()}
        self._widths = {key: dataset.features[key].width for key in self._columns.values()}
        self.max_steps = checks.MAX_EPISODE_BYTES // (8 * (len(INDEX_COLUMNS) + sum(self._widths.values())))
        self._image_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "image"]
        self._listed = frozenset(dataset.episodes.index.tolist()) if whole else None
        self._absent: dict[int, tuple[str, int]] = {}  # episode_index to the file that lacks it, and its length
        self._elsewhere: dict[int, str] = {}  # episode_index to a file that has rows of it and should not

    def file(self, file: str | None, members: list[int]) -> list[Finding]:
        """Checks the episodes that a data file should hold; ``members`` are rows of the episode table."""
        table = self._dataset.episodes
        wanted = {int(table.index[row]): row for row in members}
        if file is None:
            return [
                finding("location_null", episode=index, expected="chunk and file number of its rows", found="null")
                for index in wanted
            ]
        problem = self._problem(file)
        if problem is not None:
            code, expected, found = problem
            return [finding(code, episode=index, file=file, expected=expected, found=found) for index in wanted]
        findings: list[Finding] = []
        seen: set[int] = set()
        try:
            for rows in self._episodes(file, wanted, findings):
                if rows.episode in seen:
                    findings.append(
                        finding(
                            "rows_misplaced",
                            episode=rows.episode,
                            file=file,
                            expected="rows that follow each other",
                            found="rows of other episodes between",
                        )
                    )
                    continue
                seen.add(rows.episode)
                row = wanted[rows.episode]
                findings += checks.check_rows(
                    rows,
                    length=int(table.length[row]),
                    first_index=int(table.first_index[row]),
                    fps=self._dataset.fps,
                    features=self._features,
                )
        except NotNumeric as error:
            return findings + [
                finding("column_dtype", episode=index, file=file, expected="numbers in every row", found=str(error))
                for index in wanted.keys() - seen
            ]
        except MemoryError:
            raise
        except PARQUET_ERRORS as error:
            return findings + [
                finding(
                    "parquet_unreadable", episode=index, file=file, expected="readable rows", found=first_line(error)
                )
                for index in wanted.keys() - seen
            ]
        for index, row in wanted.items():
            if index not in seen and table.length[row] > 0:
                self._absent[index] = file, int(table.length[row])
        return findings

    def absent(self) -> list[Finding]:
        """After all files: the episodes of which no row is where it should be."""
        return [
            finding(
                "rows_misplaced",
                episode=index,
                file=file,
                expected=f"{length} rows with episode_index {index}",
                found=f"them in {self._elsewhere[index]}" if index in self._elsewhere else "none",
            )
            for index, (file, length) in self._absent.items()
        ]

    def _problem(self, file: str) -> tuple[str, str, str] | None:
        """What is wrong with a file as such, as (code, expected, found)."""
        path = self._dataset.root / file
        if not is_file(path):
            return "file_missing", "the file", "no such file"
        if leads_out(self._dataset.root, path):
            return "path_unsafe", "a file in the dataset's folder", "a link that leads out"
        wanted = [*INDEX_COLUMNS, *self._columns.values(), *self._image_cameras]
        try:
            if is_lfs_pointer(path):
                return "lfs_pointer", "the file itself", "a Git LFS pointer"
            with minding_memory(), pq.ParquetFile(path) as parquet:
                present = set(parquet.schema_arrow.names)
                too_much = oversized(parquet.metadata, {key: self._widths.get(key, 1) for key in wanted})
        except MemoryError:
            raise
        except PARQUET_ERRORS as error:
            return "parquet_unreadable", "a Parquet file", first_line(error)
        if too_much:
            return "parquet_unreadable", "rows that fit into memory", too_much
        absent = [key for key in wanted if key not in present]
        if absent:
            return "column_missing", f"columns {', '.join(absent)}", f"only {', '.join(sorted(present))}"
        return None

    def _episodes(self, file: str, wanted: dict[int, int], findings: list[Finding]) -> Iterator[EpisodeRows]:
        """Yields each run of rows with one wanted episode_index; rows of other episodes pass by."""
        keys = [*INDEX_COLUMNS, *self._columns.values()]
        parts: list[pa.RecordBatch] = []
        current, position, start = NULL, 0, 0
        unlisted, example, held = 0, NULL, 0
        table = self._dataset.episodes
        with RowCursor(self._dataset.root / file, keys) as cursor:
            for batch in cursor.read(0, 1 << 62):
                index = to_vector(batch.column("episode_index"), null=NULL)
                index = np.where(np.isfinite(index), index, NULL)
                cuts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
                for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
                    if int(index[begin]) != current:
                        yield from self._finish(file, current, start, parts, findings)
                        current, start, parts, held = int(index[begin]), position + begin, [], 0
                    if current in wanted:
                        held += end - begin
                        most = min(int(table.length[wanted[current]]), self.max_steps)
                        if held - NUMBER_ROWS <= most:  # beyond that, more are as wrong as many more
                            parts.append(batch.slice(begin, end - begin))
                    elif self._listed is not None and current in self._listed:
                        self._elsewhere.setdefault(current, file)
                    elif self._listed is not None:
                        unlisted, example = unlisted + end - begin, current
                position += len(index)
        yield from self._finish(file, current, start, parts, findings)
        if unlisted:
            findings.append(
                finding(
                    "rows_unlisted",
                    file=file,
                    expected="rows of the episodes that the metadata lists",
                    found=f"{unlisted} others, such as of episode {'null' if example == NULL else example}",
                )
            )

    def _finish(
        self, file: str, episode: int, start: int, parts: list[pa.RecordBatch], findings: list[Finding]
    ) -> Iterator[EpisodeRows]:
        if not parts:
            return
        table = pa.Table.from_batches(parts)
        self.first_rows.setdefault(episode, start)
        columns = {}
        for name, key in self._columns.items():
            try:
                columns[name] = to_numpy(table.column(key), null=float("nan"))
            except NotNumeric as error:
                is_uneven = isinstance(error, UnevenRows)
                findings.append(
                    finding(
                        "column_width" if is_uneven else "column_dtype",
                        episode=episode,
                        file=file,
                        expected=f"{key!r} {self._features[name].width} wide" if is_uneven else f"numbers in {key!r}",
                        found=str(error),
                    )
                )
        yield EpisodeRows(
            episode=episode,
            file=file,
            frame_index=to_vector(table.column("frame_index"), null=NULL),
            timestamp=to_vector(table.column("timestamp"), null=float("nan")).astype(np.float64),
            index=to_vector(table.column("index"), null=NULL),
            columns=columns,
        )


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
            raise VideoProblem("path_unsafe", "a file in the dataset's folder", "a link that leads out")
        header = headers[file] = read_header(dataset.root / file)
    except VideoProblem as problem:
        return [
            finding(problem.code, episode=int(index), file=file, expected=problem.expected, found=problem.found)
            for index in episodes
        ]
    columns = table.cameras[camera]
    return [
        *checks.check_video(
            header,
            file=file,
            fps=dataset.fps,
            declared_shape=dataset.features[camera].shape,
            episodes=episodes.tolist(),
        ),
        *checks.check_spans(
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
