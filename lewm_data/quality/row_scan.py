"""Reads the numeric columns of every data file once, and checks the rows of each episode as they pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lewm_data.errors import machine_errors
from lewm_data.findings import Finding, finding
from lewm_data.paths import is_file
from lewm_data.quality import checks
from lewm_data.quality.checks import EpisodeRows
from lewm_data.source.files import first_line, is_lfs_pointer, leads_out
from lewm_data.source.metadata import NULL, LeRobotDataset
from lewm_data.source.rows import (
    NUMBER_ROWS,
    PARQUET_ERRORS,
    NotNumericError,
    RowCursor,
    UnevenRowsError,
    oversized,
    reraise_arrow_oom,
    to_numpy,
    to_vector,
)

INDEX_COLUMNS = ("episode_index", "frame_index", "timestamp", "index")
"""Columns that LeRobot writes into every Parquet file."""


class RowScan:
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
        except NotNumericError as error:
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
            with machine_errors(path):
                is_pointer = is_lfs_pointer(path)
            if is_pointer:
                return "lfs_pointer", "the file itself", "a Git LFS pointer"
            with machine_errors(path), reraise_arrow_oom(), pq.ParquetFile(path) as parquet:
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
            except NotNumericError as error:
                is_uneven = isinstance(error, UnevenRowsError)
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
