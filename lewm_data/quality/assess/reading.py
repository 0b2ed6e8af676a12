"""One pass over a recording: rows and small frames of a LeRobot dataset, or of a converted file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lewm_data.errors import SourceError, UsageError
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import ACTION, EP_LEN, EP_OFFSET, STATE, camera_name, is_pixels
from lewm_data.quality.assess.footage import DECODED_SIZE, Footage, TrackBuilder
from lewm_data.resources import Progress
from lewm_data.source.decode import DecodedFrame, DecodeJob, Decoder
from lewm_data.source.episodes import EpisodeData, EpisodeReader, Report
from lewm_data.source.metadata import LeRobotDataset
from lewm_data.source.scale import Scaler

MAX_FRAMES = 24_000
"""Frames that are looked at, over all cameras: 170 MB as thumbnails. Of a larger recording, evenly chosen episodes."""

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


def read_dataset(
    dataset: LeRobotDataset,
    report: Report,
    *,
    source: str,
    cameras: Sequence[str],
    skip: frozenset[int] = frozenset(),
    decode_threads: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Footage:
    """Reads a LeRobot dataset that was validated; episodes that cannot be read are left out.

    Args:
        dataset: The dataset, its files at hand.
        report: Its report, which knows where rows begin.
        source: What a command is given to open it.
        cameras: LeRobot's keys of the cameras to look at.
        skip: episode_index of episodes to leave out.
        decode_threads: Threads of the video decoder; 0 chooses.
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
    rows = [rows[position] for position in choose_episodes(dataset.episodes.length[rows], len(cameras))] if rows else []
    num_steps = int(dataset.episodes.length[rows].sum()) if rows else 0
    builders = {camera: TrackBuilder(num_steps) for camera in cameras}
    read: list[EpisodeData] = []
    numbers: list[int] = []
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
            if not data.length:
                continue
            for job in data.jobs:
                builders[job.column].add_episode(start, _frames(decoder, job, scaler, out))
            read.append(data)
            numbers.append(data.episode.index)
            start += data.length
            progress("decoding", done, len(rows))
    if not read:
        raise UsageError(f"{source}: no episode can be read. See what is wrong: lewm-data inspect {source}")
    shapes = reader.file_columns()
    keys = {ACTION: dataset.action, STATE: dataset.state}
    return Footage(
        name=source,
        fps=dataset.fps,
        episode=np.repeat(np.arange(len(read)), [data.length for data in read]),
        numbers=np.array(numbers, np.int64),
        action=_together([data.columns.get(ACTION) for data in read], start),
        state=_together([data.columns.get(STATE) for data in read], start),
        names={column: _names(dataset.dimension_names(keys[column]), column, shapes.get(column)) for column in keys},
        cameras={camera_name(camera): builder.track(start) for camera, builder in builders.items()},
    )


def read_converted(
    path: Path, *, camera: str | None = None, progress: Progress = lambda what, done, total: None
) -> Footage:
    """Reads a converted file through HDF5, in blocks of rows.

    Args:
        path: The file.
        camera: Short name or LeRobot key of the only camera to look through; None takes all.
        progress: Called after each episode.

    Raises:
        FormatError: It is not a file of this format.
        UsageError: The file has no such camera.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        lengths, offsets = file[EP_LEN][:].astype(np.int64), file[EP_OFFSET][:]
        columns = {
            column: camera_name(key)
            for column, key in header.cameras.items()
            if is_pixels(column) and camera in (None, key, camera_name(key), column)
        }
        if camera is not None and not columns:
            have = ", ".join(camera_name(key) for key in header.cameras.values())
            raise UsageError(f"--camera {camera}: no such camera; the file has: {have}. Choose one of those.")
        chosen = choose_episodes(lengths, len(columns))
        builders = {column: TrackBuilder(int(lengths[chosen].sum())) for column in columns}
        values: dict[str, list[NDArray[np.float64]]] = {ACTION: [], STATE: []}
        start = 0
        for done, position in enumerate(chosen, 1):
            rows = range(int(offsets[position]), int(offsets[position] + lengths[position]))
            for column, parts in values.items():
                if column in file:
                    parts.append(file[column][rows.start : rows.stop].astype(np.float64))
            for column, builder in builders.items():
                builder.add_episode(start, _stored_frames(file[column], rows))
            start += len(rows)
            progress("reading", done, len(chosen))
        return Footage(
            name=str(path),
            fps=header.fps,
            episode=np.repeat(np.arange(len(chosen)), lengths[chosen]),
            numbers=np.array(chosen, np.int64),
            action=_together(values[ACTION], start),
            state=_together(values[STATE] or [None], start),
            names={
                column: _names(
                    header.feature_names.get(column, ()),
                    column,
                    ("", file[column].shape[1]) if column in file else None,
                )
                for column in (ACTION, STATE)
            },
            cameras={name: builders[column].track(start) for column, name in columns.items()},
        )


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


def _together(parts: Sequence[NDArray[np.generic] | None], num_steps: int) -> NDArray[np.float64]:
    known = [part.reshape(len(part), -1).astype(np.float64) for part in parts if part is not None]
    return np.concatenate(known) if known else np.empty((num_steps, 0))


def _names(names: Sequence[str], column: str, shape: tuple[str, int | None] | None) -> tuple[str, ...]:
    if shape is None:
        return ()
    width = shape[1] or 1
    return tuple(names) if len(names) == width else tuple(f"{column} {number}" for number in range(width))
