"""One episode at a time: its rows as the file will hold them, and the decoding jobs for its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lewm_data.findings import Finding
from lewm_data.format.schema import ACTION, DONE, STATE
from lewm_data.source.decode import DecodeJob, lost_source
from lewm_data.source.metadata import ACTION_KEY, NULL, STATE_KEY, Episode, LeRobotDataset
from lewm_data.source.rows import NotNumericError, RowCursor, to_numpy
from lewm_data.source.selection import file_column
from lewm_data.source.video import VideoHeader

_TIME_CODES = frozenset({"timestamps_off_fps", "timestamps_not_increasing"})


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found, and what conversion needs to know of the files.

    Attributes:
        findings: Everything found, in the order of the data.
        first_rows: episode_index to the row of its Parquet file where it begins.
        headers: Video file to its header, where it could be read.
    """

    findings: tuple[Finding, ...]
    first_rows: dict[int, int] = field(default_factory=dict)
    headers: dict[str, VideoHeader] = field(default_factory=dict)


class EpisodeData(NamedTuple):
    """An episode, ready to be written.

    Attributes:
        episode: Where it comes from.
        length: Its steps: the rows that were found.
        columns: Small columns of the file, but the indices; shape (L,) or (L, width).
        jobs: One per camera.
    """

    episode: Episode
    length: int
    columns: dict[str, np.ndarray]
    jobs: tuple[DecodeJob, ...]


class EpisodeReader:
    """Reads episodes of a validated dataset.

    Args:
        dataset: The dataset.
        report: Its report, which knows where rows begin.
        cameras: Frame column to LeRobot camera key.
        extra_columns: Further columns, by LeRobot's keys.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        report: Report,
        cameras: Mapping[str, str],
        extra_columns: Sequence[str],
    ) -> None:
        self._dataset = dataset
        self._report = report
        self._cameras = dict(cameras)
        self._keys = {file_column(key): key for key in extra_columns}
        self._file: str | None = None
        self._cursor: RowCursor | None = None
        # rows whose own times are wrong, and kept on request, are matched by their number alone
        self._untimed = {found.episode for found in report.findings if found.code in _TIME_CODES}

    def __enter__(self) -> EpisodeReader:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._cursor is not None:
            self._cursor.close()

    def read(self, episode: Episode) -> EpisodeData:
        """Reads the rows of one episode.

        Raises:
            SourceError: The file cannot be read any more, or is another one than was inspected.
        """
        try:
            return self._read(episode)
        except MemoryError:  # Arrow's own is an ArrowException as well
            raise
        except (pa.ArrowException, OSError, KeyError, NotNumericError) as error:
            raise lost_source(episode.index, str(episode.data_file), error) from error

    def _read(self, episode: Episode) -> EpisodeData:
        assert episode.data_file is not None
        if self._cursor is None or self._file != episode.data_file:
            if self._cursor is not None:
                self._cursor.close()
            self._cursor = RowCursor(self._dataset.root / episode.data_file, self._columns())
            self._file = episode.data_file
        first_row = self._report.first_rows[episode.index]
        table = pa.Table.from_batches(list(self._cursor.read(first_row, first_row + episode.length)))
        index = to_numpy(table.column("episode_index"), null=NULL)
        table = table.slice(0, int((index == episode.index).sum()))  # fewer rows than promised, kept on request
        columns = self._file_columns(table)
        fps = self._dataset.fps
        timestamps: np.ndarray = to_numpy(table.column("timestamp"), null=float("nan")).astype(np.float64).reshape(-1)
        if episode.index in self._untimed:
            timestamps = np.arange(table.num_rows) / fps
        return EpisodeData(
            episode=episode,
            length=table.num_rows,
            columns=columns,
            jobs=self.jobs(episode, timestamps),
        )

    def jobs(self, episode: Episode, timestamps: np.ndarray) -> tuple[DecodeJob, ...]:
        """One decoding job per camera, for the frames at ``timestamps`` (seconds since the episode's begin)."""
        return tuple(self._job(episode, column, camera, timestamps) for column, camera in self._cameras.items())

    def _job(self, episode: Episode, column: str, camera: str, timestamps: np.ndarray) -> DecodeJob:
        is_image = self._dataset.features[camera].dtype == "image"
        file = episode.data_file if is_image else episode.videos[camera].file
        assert file is not None
        return DecodeJob(
            episode=episode.index,
            column=column,
            camera=camera,
            file=file,
            is_image=is_image,
            start_seconds=0.0 if is_image else episode.videos[camera].start_seconds,
            first_row=self._report.first_rows[episode.index],
            timestamps=timestamps,
            fps=self._dataset.fps,
        )

    def file_columns(self) -> dict[str, tuple[str, int | None]]:
        """Dtype and width of every small column but the indices, as ``writer.FileShape`` wants them."""
        features = self._dataset.features
        shapes: dict[str, tuple[str, int | None]] = {
            ACTION: ("float32", features[ACTION_KEY].width),
            STATE: ("float32", features[STATE_KEY].width),
            DONE: ("bool", None),
        }
        for name, key in self._keys.items():
            feature = features[key]
            shapes[name] = feature.dtype, None if feature.width == 1 else feature.width
        return shapes

    def _columns(self) -> list[str]:
        keys = ["episode_index", "timestamp", *self._dataset.row_columns(tuple(self._keys.values())).values()]
        return list(dict.fromkeys(keys))

    def _file_columns(self, table: pa.Table) -> dict[str, np.ndarray]:
        length = table.num_rows
        columns: dict[str, np.ndarray] = {}
        for name, (dtype, width) in self.file_columns().items():
            if name == DONE:
                continue
            key = {ACTION: ACTION_KEY, STATE: STATE_KEY}.get(name) or self._keys[name]
            values = to_numpy(table.column(key), null=float("nan") if np.dtype(dtype).kind == "f" else 0)
            with np.errstate(over="ignore"):  # an Inf that was kept on request
                columns[name] = values.reshape((length,) if width is None else (length, width)).astype(dtype)
        source = self._dataset.done_source
        if source in table.column_names:
            columns[DONE] = to_numpy(table.column(source), null=0).reshape(length, -1)[:, 0].astype(bool)
        else:
            columns[DONE] = np.arange(length) == length - 1
        return columns
