"""One pass over a recording: rows and small frames of a LeRobot dataset, or of a converted file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import SourceError, UsageError
from lewm_data.findings import DirtyEpisodePolicy
from lewm_data.format.data_file import LocalFile
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import ACTION, EP_LEN, EP_OFFSET, STATE, camera_name, is_pixels
from lewm_data.format.virtual import check_shards
from lewm_data.quality.assess.footage import DECODED_SIZE, Footage, TrackBuilder
from lewm_data.quality.assess.next_steps import source_of_file
from lewm_data.resources import Progress, silent
from lewm_data.source.decode import DecodedFrame, DecodeJob, Decoder
from lewm_data.source.episodes import EpisodeReader, Report
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.scale import Scaler

MAX_FRAMES = 24_000
"""Most frames to look at, over all cameras: 170 MB as thumbnails. A larger recording is sampled by whole episodes."""

_UNREADABLE = (SourceError, ValueError, KeyError)
_BLOCK_ROWS = 64


def choose_episodes(lengths: NDArray[np.int64], num_cameras: int, max_frames: int = MAX_FRAMES) -> list[int]:
    """Evenly chosen episodes whose frames are few enough.

    Args:
        lengths: (E,) steps of each episode.
        num_cameras: Cameras that show each step.
        max_frames: Frames to look at, over all cameras.

    Returns:
        Positions in ``lengths``, ascending; two episodes at least, where there are two.
    """
    total = int(lengths.sum()) * max(1, num_cameras)
    count = len(lengths) if total <= max_frames else max(2, int(len(lengths) * max_frames / total))
    positions = np.unique(np.linspace(0, len(lengths) - 1, min(count, len(lengths))).round().astype(np.int64))
    return [int(position) for position in positions if lengths[position] > 0]


def most_steps(num_cameras: int, max_frames: int = MAX_FRAMES) -> int:
    """Steps of an episode to look at: the beginning of a long one."""
    return max(1, max_frames // (2 * max(1, num_cameras)))


def read_dataset(
    dataset: LeRobotDataset,
    report: Report,
    *,
    source: str,
    cameras: Sequence[str],
    skip: frozenset[int] = frozenset(),
    decode_threads: int = 0,
    max_frames: int = MAX_FRAMES,
    progress: Progress = silent,
) -> Footage:
    """Reads a LeRobot dataset that was validated; episodes that cannot be read, or hold NaN, are left out.

    Args:
        dataset: The dataset, with its files on this machine.
        report: Its report, with the first row of each episode.
        source: What to pass to a command to open it.
        cameras: LeRobot's keys of the cameras to look at.
        skip: episode_index of episodes to leave out.
        decode_threads: Threads of the video decoder; 0 chooses.
        max_frames: Frames to look at, over all cameras.
        progress: Called after each episode.

    Returns:
        The recording as small arrays.

    Raises:
        UsageError: No episode can be read.
    """
    rows = [
        row
        for row, index in enumerate(dataset.episodes.index.tolist())
        if index not in skip and index in report.first_rows
    ]
    lengths = dataset.episodes.length[rows]
    rows = [rows[position] for position in choose_episodes(lengths, len(cameras), max_frames)] if rows else []
    most = most_steps(len(cameras), max_frames)
    num_steps = int(np.minimum(dataset.episodes.length[rows], most).sum()) if rows else 0
    builders = {camera: TrackBuilder(num_steps) for camera in cameras}
    values: dict[str, list[NDArray[np.generic]]] = {ACTION: [], STATE: []}
    numbers: list[int] = []
    steps: list[int] = []
    start = 0
    scaler, out = Scaler(DECODED_SIZE, DECODED_SIZE, "stretch"), np.empty((DECODED_SIZE, DECODED_SIZE, 3), np.uint8)
    columns = {camera: camera for camera in cameras}
    with (
        EpisodeReader(dataset, report, columns, ()) as reader,
        Decoder(dataset.root, threads=decode_threads, batch_rows=16) as decoder,
    ):
        for done, row in enumerate(rows, 1):
            try:
                data = reader.read(dataset.episode(row))
            except _UNREADABLE:
                continue
            if not data.length or not _is_finite(data.columns.get(ACTION), data.columns.get(STATE)):
                continue
            length = min(data.length, most, int(dataset.episodes.length[row]))
            for job in data.jobs:
                beginning = replace(job, timestamps=job.timestamps[:length])
                builders[job.column].add_episode(start, _frames(decoder, beginning, scaler, out))
            for column, parts in values.items():
                if column in data.columns:
                    parts.append(data.columns[column][:length])
            steps.append(length)
            numbers.append(data.episode.index)
            start += length
            progress("decoding", done, len(rows))
    if not numbers:
        raise UsageError(f"{source}: no episode can be read. See what is wrong: lewm-data inspect {source}")
    shapes = reader.file_columns()
    keys = {ACTION: dataset.action, STATE: dataset.state}
    return Footage(
        name=source,
        fps=dataset.fps,
        episode=np.repeat(np.arange(len(steps)), steps),
        numbers=np.array(numbers, np.int64),
        action=_together(values[ACTION], start),
        state=_together(values[STATE], start),
        names={column: _names(dataset.dimension_names(keys[column]), column, shapes.get(column)) for column in keys},
        cameras={camera_name(camera): builder.track(start) for camera, builder in builders.items()},
    )


def read_converted(
    path: Path,
    *,
    camera: str | None = None,
    max_frames: int = MAX_FRAMES,
    progress: Progress = silent,
) -> Footage:
    """Reads a converted file through HDF5, in blocks of rows; episodes that hold NaN are left out.

    Args:
        path: The file.
        camera: Short name or LeRobot key of the only camera to look through; None takes all.
        max_frames: Frames to look at, over all cameras.
        progress: Called after each episode.

    Raises:
        FormatError: It is not a file of this format, or one of its shards is missing.
        UsageError: The file has no such camera, or no episode without NaN.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        check_shards(LocalFile.at(path), file, header)
        lengths, offsets = file[EP_LEN][:].astype(np.int64), file[EP_OFFSET][:]
        columns = {
            column: camera_name(key)
            for column, key in header.cameras.items()
            if is_pixels(column) and camera in (None, key, camera_name(key), column)
        }
        if camera is not None and not columns:
            have = ", ".join(camera_name(key) for key in header.cameras.values())
            raise UsageError(f"--camera {camera}: no such camera; the file has: {have}. Choose one of those.")
        chosen = choose_episodes(lengths, len(columns), max_frames)
        lengths = np.minimum(lengths, most_steps(len(columns), max_frames))
        builders = {column: TrackBuilder(int(lengths[chosen].sum())) for column in columns}
        values: dict[str, list[NDArray[np.generic]]] = {ACTION: [], STATE: []}
        read: list[int] = []
        start = 0
        for done, position in enumerate(chosen, 1):
            rows = range(int(offsets[position]), int(offsets[position] + lengths[position]))
            parts = {
                column: file[column][rows.start : rows.stop].astype(np.float64) for column in values if column in file
            }
            if not _is_finite(*parts.values()):
                continue
            for column, part in parts.items():
                values[column].append(part)
            for column, builder in builders.items():
                builder.add_episode(start, _stored_frames(file[column], rows))
            read.append(position)
            start += len(rows)
            progress("reading", done, len(chosen))
        if not read:
            raise UsageError(f"{path}: every episode holds NaN. Convert again with --dirty_episode_policy skip.")
        return Footage(
            name=str(path),
            fps=header.fps,
            episode=np.repeat(np.arange(len(read)), lengths[read]),
            numbers=np.array(read, np.int64),
            action=_together(values[ACTION], start),
            state=_together(values[STATE], start),
            names={
                column: _names(
                    header.feature_names.get(column, ()),
                    column,
                    ("", file[column].shape[1]) if column in file else None,
                )
                for column in (ACTION, STATE)
            },
            cameras={name: builders[column].track(start) for column, name in columns.items()},
            frame_height=header.image_height,
        )


class Conversion(NamedTuple):
    """How a converted file was made, as far as a judgment of it needs to know.

    Attributes:
        policy: The dirty-episode policy; None for the default.
        source: What was converted; see ``source_of_file``.
        shifts: Camera to its shift in frames.
    """

    policy: DirtyEpisodePolicy | None
    source: str
    shifts: Mapping[str, int] = {}


def recorded_shifts(header: FileHeader) -> dict[str, int]:
    """Short name of each camera to the shift of a file's conversion, where all its sources have the same."""
    found = [{*record.shifts.items()} for record in header.sources]
    common = set.intersection(*found) if found else set()
    return {camera_name(header.cameras.get(column, column)): shift for column, shift in sorted(common)}


def conversion_of(path: Path) -> Conversion:
    """How a converted file was made.

    Args:
        path: The file.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
    policies: tuple[DirtyEpisodePolicy, ...] = ("skip", "keep")
    policy = next((choice for choice in policies if choice == header.dirty_episode_policy), None)
    return Conversion(policy, source_of_file([record.repo_id for record in header.sources]), recorded_shifts(header))


def _frames(decoder: Decoder, job: DecodeJob, scaler: Scaler, out: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for event in decoder.run(job):
        if isinstance(event, DecodedFrame):
            scaler.put(event.frame, out, orientation=event.orientation)
            yield out


def _stored_frames(dataset: object, rows: range) -> Iterator[NDArray[np.uint8]]:
    from PIL import Image  # 20 MB, which only this kind of recording needs

    for begin in range(rows.start, rows.stop, _BLOCK_ROWS):
        block = dataset[begin : min(begin + _BLOCK_ROWS, rows.stop)]  # type: ignore[index]
        for frame in block:
            yield np.asarray(Image.fromarray(frame).resize((DECODED_SIZE, DECODED_SIZE), Image.Resampling.BOX))


def _is_finite(*columns: NDArray[np.generic] | None) -> bool:
    return all(bool(np.isfinite(values).all()) for values in columns if values is not None)


def _together(parts: Sequence[NDArray[np.generic]], num_steps: int) -> NDArray[np.float64]:
    known = [part.reshape(len(part), -1).astype(np.float64) for part in parts]
    return np.concatenate(known) if known else np.empty((num_steps, 0))


def _names(names: Sequence[str], column: str, shape: tuple[str, int | None] | None) -> tuple[str, ...]:
    if shape is None:
        return ()
    width = shape[1] or 1
    return tuple(names) if len(names) == width else tuple(f"{column} {number}" for number in range(width))
