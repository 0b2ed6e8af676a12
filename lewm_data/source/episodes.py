"""One episode at a time: its rows as the file will hold them, and the decoding jobs for its frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lewm_data.config import StateDtype
from lewm_data.findings import Finding
from lewm_data.format.schema import ACTION, DONE, DONE_RUN, ROW_DTYPES, STATE
from lewm_data.source.crop import crop_end_flags, overlap, steps_with_frames
from lewm_data.source.decode import DecodeJob, lost_source
from lewm_data.source.metadata import NULL, Episode, LeRobotDataset
from lewm_data.source.rows import NotNumericError, RowCursor, holds_numbers, to_numpy
from lewm_data.source.selection import file_column
from lewm_data.source.video import VideoHeader

_UNTIMED_CODES = frozenset(
    {"timestamps_off_fps", "timestamps_not_increasing", "timestamps_offset", "timestamps_wall_clock"}
)
"""Findings of episodes whose timestamps do not match the frames: only position matches rows with frames."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings, and what conversion needs to know about the files.

    Attributes:
        findings: Everything found, in the order of the data.
        first_rows: episode_index to the row of its Parquet file where it begins.
        headers: Video file to its header, if it could be read.
        relocated: episode_index to the Parquet file that holds its rows, if the metadata names another.
    """

    findings: tuple[Finding, ...]
    first_rows: dict[int, int] = field(default_factory=dict)
    headers: dict[str, VideoHeader] = field(default_factory=dict)
    relocated: dict[int, str] = field(default_factory=dict)

    def locate(self, episode: Episode) -> Episode:
        """The episode with the Parquet file that really holds its rows."""
        file = self.relocated.get(episode.index)
        return episode if file is None else dataclasses.replace(episode, data_file=file)

    def done_source(self, dataset: LeRobotDataset) -> str:
        """Where ``done`` comes from: ``run`` if some episode flags several last steps, else the dataset's own."""
        return DONE_RUN if any(found.code == "done_run" for found in self.findings) else dataset.done_source


class EpisodeData(NamedTuple):
    """An episode, ready to be written.

    Attributes:
        episode: Where it comes from.
        length: Its steps: the rows that were found and are kept.
        columns: Small columns of the file, except the indices; shape (L,) or (L, width).
        jobs: One per camera.
        first_step: The source's step that comes first.
        digest: Digest of the bytes that its frames are decoded from; empty if unknown.
    """

    episode: Episode
    length: int
    columns: dict[str, np.ndarray]
    jobs: tuple[DecodeJob, ...]
    first_step: int = 0
    digest: str = ""


class EpisodeReader:
    """Reads episodes of a validated dataset.

    Args:
        dataset: The dataset.
        report: Its report, which says where rows begin.
        cameras: Frame column to LeRobot camera key.
        extra_columns: Further columns, by LeRobot's keys.
        state_dtype: dtype of action and state.
        shifts: Frame column to its shift in frames: step t gets frame t + shift. Steps without one are left out.
        kept_steps: episode_index to the only steps of it that are read.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        report: Report,
        cameras: Mapping[str, str],
        extra_columns: Sequence[str],
        *,
        state_dtype: StateDtype = "float32",
        shifts: Mapping[str, int] | None = None,
        kept_steps: Mapping[int, range] | None = None,
    ) -> None:
        self._state_dtype = state_dtype
        self._shifts = dict(shifts or {})
        self._kept_steps = dict(kept_steps or {})
        self._dataset = dataset
        self._report = report
        self._cameras = dict(cameras)
        self._keys = {
            name if name in ROW_DTYPES else file_column(name): keys
            for name, keys in dataset.row_columns(tuple(extra_columns)).items()
        }
        self._file: str | None = None
        self._cursor: RowCursor | None = None
        self._untimed = {found.episode for found in report.findings if found.code in _UNTIMED_CODES}

    def __enter__(self) -> EpisodeReader:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._cursor is not None:
            self._cursor.close()

    def read(self, episode: Episode) -> EpisodeData:
        """Reads the rows of one episode.

        Raises:
            SourceError: The file can no longer be read, or is not the one that was inspected.
        """
        episode = self._report.locate(episode)
        try:
            return self._read(episode)
        except MemoryError:  # Arrow's MemoryError is an ArrowException too
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
        if "episode_index" in table.column_names:  # else the file holds one episode (v2.x)
            index = to_numpy(table.column("episode_index"), null=NULL)
            table = table.slice(0, int((index == episode.index).sum()))  # fewer rows than promised, kept on request
        length = table.num_rows
        steps = steps_with_frames(length, self._shifts.values())
        steps = overlap(steps, self._kept_steps.get(episode.index, range(length)))
        return EpisodeData(
            episode=episode,
            length=len(steps),
            columns=self._file_columns(table, steps),
            jobs=self.jobs(episode, self._timestamps(table, episode.index), steps),
            first_step=steps.start,
        )

    def _timestamps(self, table: pa.Table, index: int) -> np.ndarray:
        """When each frame is due, in seconds since the episode's start."""
        grid: np.ndarray = np.arange(table.num_rows) / self._dataset.fps
        is_usable = table.column_names.count("timestamp") == 1 and holds_numbers(table.schema.field("timestamp").type)
        if index in self._untimed or not is_usable:
            return grid
        timestamps: np.ndarray = to_numpy(table.column("timestamp"), null=float("nan")).astype(np.float64).reshape(-1)
        return timestamps if np.isfinite(timestamps).all() else grid

    def jobs(self, episode: Episode, timestamps: np.ndarray, steps: range | None = None) -> tuple[DecodeJob, ...]:
        """One decoding job per camera.

        Args:
            episode: The episode.
            timestamps: Time of each of its frames, in seconds since its start.
            steps: The steps to decode, whose frames each camera has after its shift; None decodes all frames.
        """
        episode = self._report.locate(episode)
        jobs = []
        for column, camera in self._cameras.items():
            shift = self._shifts.get(column, 0) if steps is not None else 0
            wanted = range(len(timestamps)) if steps is None else range(steps.start + shift, steps.stop + shift)
            jobs.append(self._job(episode, column, camera, timestamps[wanted.start : wanted.stop], wanted.start))
        return tuple(jobs)

    def _job(self, episode: Episode, column: str, camera: str, timestamps: np.ndarray, first_step: int) -> DecodeJob:
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
            first_step=first_step,
        )

    def file_columns(self) -> dict[str, tuple[str, int | None]]:
        """Dtype and width of every small column except the indices, in the form of ``writer.FileShape``."""
        shapes: dict[str, tuple[str, int | None]] = {}
        for name, keys in self._keys.items():
            features = [self._dataset.features[key] for key in keys]
            width = sum(feature.width for feature in features)
            if name in (ACTION, STATE):
                shapes[name] = self._state_dtype, width
            elif name != DONE:
                shapes[name] = features[0].dtype, None if width == 1 else width
        return {**shapes, DONE: (ROW_DTYPES[DONE], None)}

    def _columns(self) -> list[str]:
        return list(
            dict.fromkeys(["episode_index", "timestamp", *(key for keys in self._keys.values() for key in keys)])
        )

    def _file_columns(self, table: pa.Table, steps: range) -> dict[str, np.ndarray]:
        length = table.num_rows
        columns: dict[str, np.ndarray] = {}
        for name, (dtype, width) in self.file_columns().items():
            if name == DONE:
                continue
            null = float("nan") if np.dtype(dtype).kind == "f" else 0
            parts = [to_numpy(table.column(key), null=null).reshape(length, -1) for key in self._keys[name]]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            with np.errstate(over="ignore"):  # an Inf that was kept on request
                values = values.reshape((length,) if width is None else (length, width))
                columns[name] = values[steps.start : steps.stop].astype(dtype)
        columns[DONE] = crop_end_flags(next(self._flags(table), np.arange(length) == length - 1), steps)
        return columns

    def _flags(self, table: pa.Table) -> Iterator[np.ndarray]:
        """The recorded end flags, bool of shape (L,), if any. An unbroken run up to the end becomes one flag."""
        for key in self._keys.get(DONE, ()):
            if table.column_names.count(key) == 1:
                flags = to_numpy(table.column(key), null=0).reshape(table.num_rows, -1)[:, 0].astype(bool)
                yield keep_last_of_run(flags)


def keep_last_of_run(flags: np.ndarray) -> np.ndarray:
    """Reduces an unbroken run of True up to the last step to the last step.

    Args:
        flags: bool, shape (L,).

    Returns:
        The flags unchanged if they are not such a run, such as True in the middle and then False.

    Example:
        >>> keep_last_of_run(np.array([False, True, True])).tolist()
        [False, False, True]
    """
    first = int(flags.argmax()) if flags.any() else len(flags)
    if first < len(flags) - 1 and flags[first:].all():
        return np.arange(len(flags)) == len(flags) - 1
    return flags
