"""Checks a converted file: against its own checksums and the format's rules, or frame by frame against its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.comparison import Comparison, Loss
from lewm_data.conversion.inspect import Inspection, inspect_source
from lewm_data.errors import LewmDataError, UsageError
from lewm_data.format.data_file import LocalFile
from lewm_data.format.hdf5 import HDF5_ERRORS, first_line, open_file, refuse_references
from lewm_data.format.header import FileHeader
from lewm_data.format.invariants import broken_rules, storage_problems
from lewm_data.format.schema import (
    ACTION,
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
from lewm_data.format.statistics import ColumnStatistics, column_statistics, rows_at_once
from lewm_data.machine_errors import raise_machine_error
from lewm_data.resources import Progress, silent
from lewm_data.source.open import open_source
from lewm_data.source.scale import SCALER_VERSIONS
from lewm_data.source.selection import NO_STATE, column_name

MAX_PROBLEMS = 100
"""Problems to report. After this many, the rest of the file is not checked."""


class AgainstSource(NamedTuple):
    """What a comparison with the source found.

    Attributes:
        problems: Each difference as one sentence.
        num_compared: Frames that were compared.
        loss: The error of a lossy file's frames; None for a lossless file.
    """

    problems: list[str]
    num_compared: int
    loss: Loss | None = None


def verify_file(
    path: Path,
    *,
    content: bool = True,
    alone: bool = False,
    progress: Progress = silent,
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
        FormatError: The file is not of this format, has a newer version, or refers to other files.
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


def verify_against(path: Path, source: str, *, progress: Progress = silent) -> AgainstSource:
    """Decodes the source again and compares every frame and every row with a file.

    Frames must be equal. Those of a lossy file must be as close to the source as encoding them again; see
    ``lewm_data.conversion.comparison``.

    Args:
        path: The file.
        source: Dataset folder or Hub repo id that it was converted from.
        progress: Called after each frame.

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
            return AgainstSource(problems, 0)
        comparison = Comparison(file, header, inspection, progress)
        differences = _limited(comparison.differences())
        loss = comparison.meter.loss() if comparison.meter is not None else None
        return AgainstSource(differences, comparison.num_compared, loss)


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
    dataset = open_source(source, revision=revision, follow_links=True).dataset
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
        quality=header.lossy_quality or None,
        camera=header.cameras[PIXELS],
        cameras=",".join(key for column, key in header.cameras.items() if column != PIXELS) or None,
        dirty_episode_policy="keep",
        follow_links=True,
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
    """The reasons why a source cannot be compared with a file at all."""
    findings = inspection.report.findings
    unusable = [found.sentence() for found in findings if found.severity == "error" and found.episode is None]
    if inspection.dataset is None or (unusable and not inspection.report.first_rows):
        return unusable
    if inspection.cameras != header.cameras:
        return [f"cameras: the file has {header.cameras}, the source has {inspection.cameras}"]
    return []
