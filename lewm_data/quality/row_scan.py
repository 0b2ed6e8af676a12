"""Reads the numeric columns of every data file once, and checks the rows of each episode as they pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from lewm_data.config import StateDtype
from lewm_data.findings import Finding, finding
from lewm_data.format.schema import ACTION, DONE, STATE
from lewm_data.quality import checks
from lewm_data.quality.clock import Frames, read_clock
from lewm_data.quality.data_file_checks import inspect_data_file
from lewm_data.quality.episode_rows import EpisodeRows, read_rows
from lewm_data.quality.motion import MotionSample
from lewm_data.source.data_files import data_files
from lewm_data.source.files import first_line
from lewm_data.source.metadata import INDEX_COLUMNS, NULL, LeRobotDataset
from lewm_data.source.rows import (
    NUMBER_ROWS,
    PARQUET_ERRORS,
    NotNumericError,
    RowCursor,
    to_vector,
)


class RowScan:
    """Scans data files, and collects what conversion needs to know about them.

    Args:
        dataset: The dataset.
        cameras: Cameras to convert.
        extra_columns: Further columns to convert.
        frames: episode_index to the number of its frames compared with its rows.
        state_dtype: dtype that action and state will have in the file.
        whole: Whether the table holds all episodes. If so, rows of other episodes get a warning.

    Attributes:
        first_rows: episode_index to the row of its file where it begins.
        relocated: episode_index to the file that holds its rows, if the metadata names another.
        drifts: episode_index to the largest distance of its timestamps from the grid, in seconds; positive is late.
        max_steps: Maximum steps of an episode whose rows fit into memory.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        cameras: Sequence[str],
        extra_columns: tuple[str, ...],
        *,
        frames: Mapping[int, Frames],
        state_dtype: StateDtype,
        whole: bool,
    ) -> None:
        self.first_rows: dict[int, int] = {}
        self.relocated: dict[int, str] = {}
        self.drifts: dict[int, float] = {}
        self._dataset = dataset
        self._frames, self._state_dtype = frames, state_dtype
        self._whole = whole
        self._columns = dataset.row_columns(extra_columns)
        self._motion = MotionSample(dataset.episodes.index, dataset.episodes.length)
        keys = dict.fromkeys(key for keys in self._columns.values() for key in keys)
        self._widths = {key: dataset.features[key].width for key in keys}
        self.max_steps = checks.MAX_EPISODE_BYTES // (8 * (len(INDEX_COLUMNS) + sum(self._widths.values())))
        # columns that follow from the order of the rows may be missing
        optional = [*INDEX_COLUMNS[1:], *self._columns.get(DONE, ())]
        optional += ["episode_index"] if dataset.is_legacy() else []
        needed_twice = {key for name, keys in self._columns.items() if name != DONE for key in keys}
        self._optional = [key for key in optional if key not in needed_twice]
        self._required = [key for key in [*INDEX_COLUMNS[:1], *keys] if key not in self._optional]
        self._image_cameras = [camera for camera in cameras if dataset.features[camera].dtype == "image"]
        self._row_of = {int(index): row for row, index in enumerate(dataset.episodes.index)}
        self._scanned: set[str] = set()
        self._pending: dict[int, Finding] = {}  # episodes whose rows are not where the metadata says
        self._elsewhere: dict[int, dict[str, None]] = {}  # episode_index to other files that hold rows of it
        self._lacking: dict[str, dict[str, None]] = {}  # column to the files that lack it

    def file(self, file: str | None, members: Sequence[int]) -> list[Finding]:
        """Checks the episodes that a data file should hold; ``members`` are rows of the episode table."""
        table = self._dataset.episodes
        wanted = {int(table.index[row]): row for row in members}
        if file is None:
            for index in wanted:
                self._pending[index] = finding(
                    "location_null", episode=index, expected="chunk and file number of its rows", found="null"
                )
            return []
        self._scanned.add(file)
        problem, absent = inspect_data_file(
            self._dataset.root,
            file,
            required=[*self._required, *self._image_cameras],
            optional=self._optional,
            widths=self._widths,
            follow_links=self._dataset.follow_links,
        )
        if problem is not None:
            findings = [problem.finding(episode=index, file=file) for index in wanted]
            if problem.code != "file_missing":
                return findings
            self._pending.update(zip(wanted, findings, strict=True))
            return []
        for key in absent:
            self._lacking.setdefault(key, {})[file] = None
        return self._scan(file, wanted, absent)

    def finish(self) -> list[Finding]:
        """Reports, after all files, episodes whose rows are elsewhere or missing, and columns that files lack."""
        findings = self._relocate() if self._pending and not self._dataset.is_legacy() else []
        for index, pending in self._pending.items():
            if index in self._elsewhere and pending.code == "rows_misplaced":
                places = " and ".join(self._elsewhere[index])
                findings.append(dataclasses.replace(pending, found=f"them in {places}"))
            else:
                findings.append(pending)
        for key, files in self._lacking.items():
            findings.append(
                finding(
                    "column_derived",
                    file=next(iter(files)),
                    expected=f"a column {key!r} of numbers",
                    found=f"none in {len(files):,} of {len(self._scanned):,} files",
                )
            )
        names = {name: self._dataset.dimension_names(self._columns.get(name, ())) for name in (ACTION, STATE)}
        return findings + self._motion.findings(self._dataset.fps, names)

    def _relocate(self) -> list[Finding]:
        """Looks for the rows of pending episodes in other files, and accepts them if exactly one file has them."""
        findings: list[Finding] = []
        for name in data_files(self._dataset.root, self._dataset.paths.data):
            if name not in self._scanned:
                findings += self.file(name, ())
        places: dict[str, list[int]] = {}
        for index in self._pending:
            files = list(self._elsewhere.get(index, ()))
            if len(files) == 1:
                places.setdefault(files[0], []).append(index)
        for file, indices in places.items():
            named = {index: self._pending.pop(index) for index in indices}
            found = self.file(file, [self._row_of[index] for index in indices])
            findings += [one for one in found if one.code != "rows_unlisted"]  # reported by the first scan
            for index, pending in named.items():
                if index in self._pending:  # its rows are unreadable there too
                    continue
                self.relocated[index] = file
                where = "no file" if pending.code == "location_null" else str(pending.file)
                findings.append(
                    finding(
                        "rows_relocated", episode=index, file=file, expected=f"rows in {where}", found=f"them in {file}"
                    )
                )
        return findings

    def _scan(self, file: str, wanted: dict[int, int], absent: Sequence[str]) -> list[Finding]:
        """Checks the rows of the wanted episodes of a file that can be opened."""
        table = self._dataset.episodes
        findings: list[Finding] = []
        seen: set[int] = set()
        try:
            for rows in self._episodes(file, wanted, absent, findings):
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
                found = list(
                    checks.check_rows(
                        rows,
                        length=int(table.length[row]),
                        first_index=int(table.first_index[row]),
                        fps=self._dataset.fps,
                        features=self._dataset.features,
                        columns=self._columns,
                        frames=self._frames.get(rows.episode, "equal"),
                        state_dtype=self._state_dtype,
                    )
                )
                findings += found
                self._motion.add(rows.episode, rows.columns, self._columns)
                if any(one.code == "timestamps_off_fps" for one in found):
                    clock = read_clock(rows.timestamp, self._dataset.fps)
                    if clock.kind == "drift":
                        self.drifts[rows.episode] = clock.seconds
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
                expected = f"{int(table.length[row])} rows with episode_index {index}"
                self._pending[index] = finding(
                    "rows_misplaced", episode=index, file=file, expected=expected, found="none"
                )
        return findings

    def _episodes(
        self, file: str, wanted: dict[int, int], absent: Sequence[str], findings: list[Finding]
    ) -> Iterator[EpisodeRows]:
        """Yields each run of rows with one wanted episode_index; rows of other episodes are skipped."""
        keys = [key for key in dict.fromkeys([*self._required, *self._optional]) if key not in absent]
        parts: list[pa.RecordBatch] = []
        current, position, start = NULL, 0, 0
        unlisted, example, held = 0, NULL, 0
        table = self._dataset.episodes
        with RowCursor(self._dataset.root / file, keys) as cursor:
            for batch in cursor.read(0, 1 << 62):
                index = self._episode_index(batch, wanted)
                cuts = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), len(index)]
                for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
                    if int(index[begin]) != current:
                        yield from self._finish(file, current, start, parts, findings)
                        current, start, parts, held = int(index[begin]), position + begin, [], 0
                    if current in wanted:
                        held += end - begin
                        limit = min(int(table.length[wanted[current]]), self.max_steps)
                        if held - NUMBER_ROWS <= limit:  # beyond that, the exact number does not matter
                            parts.append(batch.slice(begin, end - begin))
                    elif current in self._row_of:
                        self._elsewhere.setdefault(current, {})[file] = None
                    elif self._whole:
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

    def _episode_index(self, batch: pa.RecordBatch, wanted: dict[int, int]) -> np.ndarray:
        """episode_index of each row; a v2.x file without the column holds the one episode of its name."""
        if "episode_index" not in batch.schema.names:
            return np.full(batch.num_rows, next(iter(wanted), NULL))
        index = to_vector(batch.column("episode_index"), null=NULL)
        return np.where(np.isfinite(index), index, NULL)

    def _finish(
        self, file: str, episode: int, start: int, parts: list[pa.RecordBatch], findings: list[Finding]
    ) -> Iterator[EpisodeRows]:
        if not parts:
            return
        self.first_rows.setdefault(episode, start)
        rows, problems = read_rows(pa.Table.from_batches(parts), self._widths, episode=episode, file=file)
        findings += problems
        yield rows
