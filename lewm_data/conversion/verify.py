"""Is a file what it claims to be: every checksum and invariant; or, frame by frame, what its source says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import inspect_source
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
from lewm_data.source.decode import DecodedFrame, Decoder
from lewm_data.source.episodes import EpisodeReader
from lewm_data.source.open import open_source
from lewm_data.source.scale import Scaler
from lewm_data.source.selection import NO_STATE, column_name

Progress = Callable[[int, int], None]

MAX_PROBLEMS = 100
"""After so many problems a file needs no more of them."""


def verify_file(
    path: Path, *, content: bool = True, alone: bool = False, progress: Progress = lambda done, total: None
) -> list[str]:
    """Checks every invariant of the format and every checksum of a file.

    Args:
        path: The file.
        content: Whether to read all rows and frames; without, columns, dtypes, episodes and the number of stored
            frames are checked, in no time.
        alone: Refuse a file that refers to others, since it shall be passed on without them.
        progress: Called with the frames read and their total.

    Returns:
        Each problem as one sentence; empty if the file is whole.

    Raises:
        FormatError: It is not a file of this format, or of a newer version, or it refers to others.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        damaged = (
            [] if FileHeader.is_as_written(file.attrs) else ["the root attributes are not those that were written"]
        )
        try:
            problems = damaged + _first(_structure_problems(path, file, header))
            if alone and not problems:
                refuse_references(file, path)
            return problems or (_first(_content_problems(file, header, progress)) if content else [])
        except LewmDataError:
            raise
        except HDF5_ERRORS as error:
            raise_machine_error(error, path)
            return [f"the file's own structure is damaged ({first_line(error)})"]


def verify_against(path: Path, source: str, *, progress: Progress = lambda done, total: None) -> tuple[list[str], int]:
    """Decodes the source again and compares it with a file: every frame, every row.

    Args:
        path: The file.
        source: Dataset folder or Hub repo id that it was converted from.
        progress: Called with the frames compared and their total.

    Returns:
        Each difference as one sentence, and how many frames were compared.

    Raises:
        UsageError: The file holds episodes of several sources, or the source is not the one.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        if len(header.sources) != 1:
            raise UsageError(
                f"{path}: merged from {len(header.sources)} sources; verify --against takes files of one source. "
                "Verify the parts before merging."
            )
        record = header.sources[0]
        names = [name for name in file if is_value(name) and name not in ROW_DTYPES]
        config = _settings(header, source, names)
        inspection = inspect_source(source, config)
        dataset = inspection.dataset
        unusable = [f.sentence() for f in inspection.report.findings if f.severity == "error" and f.episode is None]
        if dataset is None or (unusable and not inspection.report.first_rows):
            return unusable, 0
        if inspection.cameras != header.cameras:
            return [f"cameras: the file has {header.cameras}, the source {inspection.cameras}"], 0
        rows = {int(index): row for row, index in enumerate(dataset.episodes.index.tolist())}
        lengths, offsets = file[EP_LEN][:], file[EP_OFFSET][:]
        total = int(lengths.sum()) * len(header.cameras)
        problems: list[str] = []
        compared = 0
        scaler = Scaler(header.image_height, header.image_width, config.resize)
        out = np.empty((header.image_height, header.image_width, 3), np.uint8)
        with (
            EpisodeReader(dataset, inspection.report, header.cameras, config.extra_columns) as reader,
            Decoder(dataset.root, threads=config.decode_threads, batch_rows=16) as decoder,
        ):
            for position, index in enumerate(record.episodes):
                offset, length = int(offsets[position]), int(lengths[position])
                if index not in rows or index not in inspection.report.first_rows:
                    problems.append(f"episode {index}: is in the file, but not in the source")
                    continue
                data = reader.read(dataset.episode(rows[index]))
                shortened = any(f.episode == index and f.handling == "kept" for f in header.findings)
                if data.length != length and not shortened:
                    problems.append(f"episode {index}: {length} steps in the file, {data.length} in the source")
                for name, values in data.columns.items():
                    stored = file[name][offset : offset + length]
                    equal = np.array_equal(stored, values[:length], equal_nan=stored.dtype.kind == "f")
                    if not equal and not (name == DONE and shortened):
                        problems.append(f"episode {index}: column {name!r} differs from the source")
                for job in data.jobs:
                    for step, event in enumerate(decoder.run(job)):
                        if not isinstance(event, DecodedFrame) or step >= length:
                            break
                        scaler.put(event.frame, out)
                        compared += 1
                        if not np.array_equal(out, file[job.column][offset + step]):
                            problems.append(f"episode {index} step {step}: {job.column!r} differs from the source")
                        progress(compared, total)
                        if len(problems) >= MAX_PROBLEMS:
                            return problems, compared
        if compared != total and not problems:
            problems.append(f"{total} frames in the file, but {compared} could be decoded from the source")
        return problems, compared


def _settings(header: FileHeader, source: str, extra_names: list[str]) -> ConvertConfig:
    """The settings that the file was converted with, as far as its content tells them."""
    revision = None if Path(source).exists() else header.sources[0].revision
    opened = open_source(source, revision=revision)
    dataset = opened.dataset
    keys: Iterable[str] = dataset.features if dataset is not None else ()
    present = set(dataset.episodes.index.tolist()) if dataset is not None else set()
    record = header.sources[0]
    episodes = sorted(present.intersection(record.episodes))
    if present and not episodes:
        raise UsageError(
            f"{source}: has none of the file's episodes; the file was converted from {record.repo_id}. Give that one."
        )
    extra = [next((key for key in keys if column_name(key) == name), name) for name in extra_names]
    return ConvertConfig(
        image_size=f"{header.image_height}x{header.image_width}",
        resize=header.resize,  # type: ignore[arg-type]
        compression=header.compression,  # type: ignore[arg-type]
        camera=header.cameras[PIXELS],
        cameras=",".join(key for column, key in header.cameras.items() if column != PIXELS) or None,
        dirty_episode_policy="keep",
        action=",".join(header.columns.get(ACTION, ())) or None,
        state=_state_setting(header),
        extra_columns=tuple(extra),
        revision=revision,
        episodes=",".join(map(str, episodes)) or None if len(episodes) < len(present) else None,
    )


def _state_setting(header: FileHeader) -> str | None:
    """``ConvertConfig.state`` of the conversion that made a file; None for a file that does not record its columns."""
    if not header.columns:
        return None
    return ",".join(header.columns.get(STATE, ())) or NO_STATE


def _first(problems: Iterator[str]) -> list[str]:
    found = []
    for problem in problems:
        found.append(problem)
        if len(found) >= MAX_PROBLEMS:
            found.append("and perhaps more")
            break
    return found


def _structure_problems(path: Path, file: h5py.File, header: FileHeader) -> Iterator[str]:
    is_sound = True
    for rule in broken_rules(file, header):
        is_sound = is_sound and not rule.is_fatal
        yield rule.words
    if is_sound:
        yield from storage_problems(LocalFile.at(path), file, header)


def _are_close(found: ColumnStatistics, told: ColumnStatistics) -> bool:
    """Equal but for rounding, which may differ between versions of numpy."""
    return found.count == told.count and all(
        np.allclose(getattr(found, name), getattr(told, name), rtol=1e-9, atol=1e-12, equal_nan=True)
        for name in ("mean", "std", "min", "max")
    )


def _content_problems(file: h5py.File, header: FileHeader, progress: Progress) -> Iterator[str]:
    lengths, offsets = file[EP_LEN][:].astype(np.int64), file[EP_OFFSET][:]
    num_steps = int(lengths.sum())
    for name in file:
        if is_pixels(name) or name in EPISODE_DTYPES:
            continue
        try:
            num_rows = rows_at_once(file[name])
            for start in range(0, num_steps, num_rows):
                values = file[name][start : start + num_rows]
                steps = np.arange(start, start + len(values))
                episode = np.searchsorted(offsets, steps, side="right") - 1
                if name == EPISODE_IDX and not np.array_equal(values, episode):
                    yield f"'episode_idx' is wrong in the rows from {start} on"
                if name == STEP_IDX and not np.array_equal(values, steps - offsets[episode]):
                    yield f"'step_idx' is wrong in the rows from {start} on"
            if name in header.statistics and not _are_close(column_statistics(file[name]), header.statistics[name]):
                yield f"the statistics of {name!r} are not those of its rows"
        except (OSError, RuntimeError) as error:
            raise_machine_error(error, file.filename)
            yield f"column {name!r} cannot be read: {error}"
    done, total = 0, num_steps * len(header.cameras)
    for name in header.cameras:
        dataset = file[name]
        out = np.empty(dataset.shape[1:], np.uint8)
        for row in range(num_steps):
            try:
                dataset.read_direct(out, np.s_[row])
            except (OSError, RuntimeError) as error:
                raise_machine_error(error, file.filename)
                damaged = int(np.searchsorted(offsets, row, side="right")) - 1
                yield (
                    f"episode {damaged} step {row - int(offsets[damaged])}: {name!r} is damaged "
                    f"({str(error).splitlines()[0]})"
                )
            done += 1
            progress(done, total)
