"""Checks a converted file: against its own checksums and the format's rules, or frame by frame against its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import Inspection, inspect_source
from lewm_data.errors import LewmDataError, UsageError, raise_machine_error
from lewm_data.format.data_file import LocalFile
from lewm_data.format.hdf5 import HDF5_ERRORS, first_line, open_file, refuse_references
from lewm_data.format.header import ColumnStatistics, FileHeader
from lewm_data.format.invariants import broken_rules, storage_problems
from lewm_data.format.schema import (
    ACTION,
    DONE,
    EP_LEN,
    EP_OFFSET,
    EPISODE_DTYPES,
    EPISODE_IDX,
    PIXELS,
    ROW_DTYPES,
    STATE,
    STEP_IDX,
    is_pixels,
    is_value,
)
from lewm_data.format.statistics import column_statistics, rows_at_once
from lewm_data.quality.checks import lost_precision
from lewm_data.resources import Progress
from lewm_data.source.decode import DecodedFrame, Decoder
from lewm_data.source.episodes import EpisodeData, EpisodeReader
from lewm_data.source.open import open_source
from lewm_data.source.scale import SCALER_VERSIONS, Scaler
from lewm_data.source.selection import NO_STATE, column_name

MAX_PROBLEMS = 100
"""Problems that are reported; the rest of the file is not checked after so many."""


def verify_file(
    path: Path,
    *,
    content: bool = True,
    alone: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> list[str]:
    """Checks every rule of the format and every checksum of a file.

    Args:
        path: The file.
        content: Read all rows and frames. Without it, only columns, dtypes, episodes and the number of stored frames
            are checked, in milliseconds.
        alone: Refuse a file that needs its shards, because it will be passed on without them.
        progress: Called after each frame.

    Returns:
        Each problem as one sentence; empty if the file is whole.

    Raises:
        FormatError: It is not a file of this format, or of a newer version, or it refers to other files.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        problems = [] if FileHeader.is_as_written(file.attrs) else ["the root attributes do not match their checksum"]
        try:
            problems += _limited(_structure_problems(path, file, header))
            if alone and not problems:
                refuse_references(file, path)
            if content and not problems:
                problems = _limited(_content_problems(file, header, progress))
        except LewmDataError:
            raise
        except HDF5_ERRORS as error:
            raise_machine_error(error, path)
            return [*problems, f"the HDF5 structure is damaged ({first_line(error)})"]
        return problems


def verify_against(
    path: Path, source: str, *, progress: Progress = lambda what, done, total: None
) -> tuple[list[str], int]:
    """Decodes the source again and compares every frame and every row with a file.

    Args:
        path: The file.
        source: Dataset folder or Hub repo id that it was converted from.
        progress: Called after each frame.

    Returns:
        Each difference as one sentence, and the number of frames that were compared.

    Raises:
        UsageError: The file was merged from several sources, or it was not converted from this one.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        if len(header.sources) != 1:
            raise UsageError(
                f"{path}: merged from {len(header.sources)} sources, but verify --against takes a file of one source. "
                "Verify the files before you merge them."
            )
        if header.scaler_version not in SCALER_VERSIONS:
            raise UsageError(
                f"{path}: version {header.scaler_version} of the scaler made its frames, but this lewm_data has "
                f"versions {SCALER_VERSIONS[0]} to {SCALER_VERSIONS[-1]}. Upgrade lewm_data, then verify again."
            )
        inspection = inspect_source(source, _settings(file, header, source))
        problems = _source_problems(inspection, header)
        if problems:
            return problems, 0
        comparison = _Comparison(file, header, inspection, progress)
        return _limited(comparison.differences()), comparison.num_compared


def _limited(problems: Iterator[str]) -> list[str]:
    found = []
    for problem in problems:
        found.append(problem)
        if len(found) >= MAX_PROBLEMS:
            found.append("there may be more problems")
            break
    return found


def _structure_problems(path: Path, file: h5py.File, header: FileHeader) -> Iterator[str]:
    is_sound = True
    for rule in broken_rules(file, header):
        is_sound = is_sound and not rule.is_fatal
        yield rule.words
    if is_sound:
        yield from storage_problems(LocalFile.at(path), file, header)


def _content_problems(file: h5py.File, header: FileHeader, progress: Progress) -> Iterator[str]:
    offsets = file[EP_OFFSET][:]
    for name in file:
        if not is_pixels(name) and name not in EPISODE_DTYPES:
            try:
                yield from _column_problems(file[name], name, offsets, header.statistics.get(name))
            except HDF5_ERRORS as error:
                raise_machine_error(error, file.filename)
                yield f"column {name!r} cannot be read: {first_line(error)}"
    num_steps = len(file[PIXELS])
    total = num_steps * len(header.cameras)
    for camera, name in enumerate(header.cameras):
        out = np.empty(file[name].shape[1:], np.uint8)
        for row in range(num_steps):
            try:
                file[name].read_direct(out, np.s_[row])
            except HDF5_ERRORS as error:
                raise_machine_error(error, file.filename)
                episode = int(np.searchsorted(offsets, row, side="right")) - 1
                step = row - int(offsets[episode])
                yield f"episode {episode} step {step}: {name!r} is damaged ({first_line(error)})"
            progress("verify", camera * num_steps + row + 1, total)


def _column_problems(
    column: h5py.Dataset, name: str, offsets: np.ndarray, statistics: ColumnStatistics | None
) -> Iterator[str]:
    """Reads a small column and checks the indices and statistics."""
    block_rows = rows_at_once(column)
    for start in range(0, len(column), block_rows):
        values = column[start : start + block_rows]
        steps = np.arange(start, start + len(values))
        episode = np.searchsorted(offsets, steps, side="right") - 1
        if name == EPISODE_IDX and not np.array_equal(values, episode):
            yield f"'episode_idx' is wrong in rows {start} to {start + len(values) - 1}"
        if name == STEP_IDX and not np.array_equal(values, steps - offsets[episode]):
            yield f"'step_idx' is wrong in rows {start} to {start + len(values) - 1}"
    if statistics is not None and not _are_close(column_statistics(column), statistics):
        yield f"the statistics of {name!r} are not those of its rows"


def _are_close(found: ColumnStatistics, stated: ColumnStatistics) -> bool:
    """Equal except for rounding, which may differ between versions of numpy."""
    return found.count == stated.count and all(
        np.allclose(getattr(found, name), getattr(stated, name), rtol=1e-9, atol=1e-12, equal_nan=True)
        for name in ("mean", "std", "min", "max")
    )


def _settings(file: h5py.File, header: FileHeader, source: str) -> ConvertConfig:
    """The settings of the conversion, as far as the file states them."""
    record = header.sources[0]
    revision = None if Path(source).exists() else record.revision
    dataset = open_source(source, revision=revision).dataset
    keys: Iterable[str] = dataset.features if dataset is not None else ()
    present = set(dataset.episodes.index.tolist()) if dataset is not None else set()
    episodes = sorted(present.intersection(record.episodes))
    if present and not episodes:
        raise UsageError(
            f"{source}: has none of the file's episodes, which were converted from {record.repo_id}. Pass that source."
        )
    extra = [name for name in file if is_value(name) and name not in ROW_DTYPES]
    return ConvertConfig(
        image_size=f"{header.image_height}x{header.image_width}",
        resize=header.resize,  # type: ignore[arg-type]
        compression=header.compression,  # type: ignore[arg-type]
        camera=header.cameras[PIXELS],
        cameras=",".join(key for column, key in header.cameras.items() if column != PIXELS) or None,
        dirty_episode_policy="keep",
        action=",".join(header.columns.get(ACTION, ())) or None,
        state=_state_setting(header),
        state_dtype=file[ACTION].dtype.name,
        extra_columns=tuple(next((key for key in keys if column_name(key) == name), name) for name in extra),
        revision=revision,
        episodes=",".join(map(str, episodes)) or None if len(episodes) < len(present) else None,
    )


def _state_setting(header: FileHeader) -> str | None:
    """``ConvertConfig.state`` of the conversion; None for a file that does not record its columns."""
    if not header.columns:
        return None
    return ",".join(header.columns.get(STATE, ())) or NO_STATE


def _source_problems(inspection: Inspection, header: FileHeader) -> list[str]:
    """Why a source cannot be compared with a file at all."""
    findings = inspection.report.findings
    unusable = [found.sentence() for found in findings if found.severity == "error" and found.episode is None]
    if inspection.dataset is None or (unusable and not inspection.report.first_rows):
        return unusable
    if inspection.cameras != header.cameras:
        return [f"cameras: the file has {header.cameras}, the source has {inspection.cameras}"]
    return []


class _Comparison:
    """Compares the episodes of a file with those of its source.

    Attributes:
        num_compared: Frames compared so far.
    """

    def __init__(self, file: h5py.File, header: FileHeader, inspection: Inspection, progress: Progress) -> None:
        self.num_compared = 0
        self._file = file
        self._header = header
        self._inspection = inspection
        self._progress = progress
        self._lengths, self._offsets = file[EP_LEN][:].tolist(), file[EP_OFFSET][:].tolist()
        self._num_frames = sum(self._lengths) * len(header.cameras)
        # Decoding cuts an episode off where the policy keeps it although frames are missing.
        kept = [found for found in header.findings if found.handling == "kept"]
        self._shortened = {found.episode for found in kept if found.code != "precision_lost"}
        self._coarse = {found.episode for found in kept if found.code == "precision_lost"}
        self._scaler = Scaler(
            header.image_height, header.image_width, inspection.config.resize, version=header.scaler_version
        )
        self._frame = np.empty((header.image_height, header.image_width, 3), np.uint8)

    def differences(self) -> Iterator[str]:
        """Compares everything; yields each difference as one sentence."""
        dataset, report, config = self._inspection.dataset, self._inspection.report, self._inspection.config
        assert dataset is not None
        rows = {int(index): row for row, index in enumerate(dataset.episodes.index.tolist())}
        num_differences = 0
        with (
            EpisodeReader(dataset, report, self._header.cameras, config.extra_columns, state_dtype="float64") as reader,
            Decoder(dataset.root, threads=config.decode_threads, batch_rows=16) as decoder,
        ):
            for position, index in enumerate(self._header.sources[0].episodes):
                if index not in rows or index not in report.first_rows:
                    found: Iterator[str] = iter((f"episode {index}: is in the file, but not in the source",))
                else:
                    found = self._in_episode(position, reader.read(dataset.episode(rows[index])), decoder)
                for difference in found:
                    num_differences += 1
                    yield difference
        if self.num_compared != self._num_frames and not num_differences:
            yield f"the file has {self._num_frames} frames, but the source decodes to {self.num_compared}"

    def _in_episode(self, position: int, data: EpisodeData, decoder: Decoder) -> Iterator[str]:
        index, length, offset = data.episode.index, self._lengths[position], self._offsets[position]
        is_shortened = index in self._shortened
        if data.length != length and not is_shortened:
            yield f"episode {index}: {length} steps in the file, {data.length} in the source"
        for name, values in data.columns.items():
            stored = self._file[name][offset : offset + length]
            with np.errstate(over="ignore"):  # an Inf that was kept on request
                expected = values[:length].astype(stored.dtype)
            is_equal = np.array_equal(stored, expected, equal_nan=stored.dtype.kind == "f")
            if not is_equal and not (name == DONE and is_shortened):
                yield f"episode {index}: column {name!r} differs from the source"
            if index not in self._coarse:
                for lost in lost_precision(values.reshape(data.length, -1), stored.dtype):
                    yield (
                        f"episode {index}: {name!r} dimension {lost.dimension} has {lost.num_distinct} distinct values "
                        f"in the source, but {lost.num_left} in the file ({stored.dtype})"
                    )
        for job in data.jobs:
            for step, event in enumerate(decoder.run(job)):
                if not isinstance(event, DecodedFrame) or step >= length:
                    break
                self._scaler.put(event.frame, self._frame, orientation=event.orientation)
                self.num_compared += 1
                if not np.array_equal(self._frame, self._file[job.column][offset + step]):
                    yield f"episode {index} step {step}: {job.column!r} differs from the source"
                self._progress("compare", self.num_compared, self._num_frames)
