"""Joins files of format version 1 by copying stored chunks: nothing is decoded, nothing is compressed again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

import lewm_data
from lewm_data.conversion.encode import StoredChunk, is_whole
from lewm_data.conversion.hdf5 import open_file
from lewm_data.conversion.output import check_output, output_place
from lewm_data.conversion.writer import FileShape, FileWriter
from lewm_data.errors import DamagedChunkError, FormatError, UsageError
from lewm_data.schema import EP_LEN, FileHeader, is_pixels, is_value


def file_shape(file: h5py.File, header: FileHeader) -> FileShape:
    """What a file's datasets look like."""
    columns = {
        name: (file[name].dtype.name, None if file[name].ndim == 1 else int(file[name].shape[1]))
        for name in file
        if is_value(name)
    }
    return FileShape(
        cameras=tuple(name for name in header.cameras if name in file),
        height=header.image_height,
        width=header.image_width,
        columns=columns,
        compression=header.compression,  # type: ignore[arg-type]
    )


def copy_episodes(file: h5py.File, writer: FileWriter) -> Iterator[int]:
    """Copies all episodes of a file into a writer of the same shape; yields each episode's length once copied.

    Raises:
        DamagedChunkError: A checksum does not match, or something stored cannot be read.
    """
    offset = 0
    small = [name for name in file if is_value(name)]
    frames = [name for name in file if is_pixels(name)]
    for length in file[EP_LEN][:].tolist():
        stop = offset + length
        writer.write_rows({name: _values(file[name], offset, stop) for name in small})
        for name in frames:
            writer.write_chunks(name, _stored(file[name], offset, stop), start=0)
        writer.end_episode(length)
        offset = stop
        yield length


def merge(
    inputs: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FileHeader:
    """Joins files of this format into one.

    Args:
        inputs: Two or more files with the same columns, frame size, codec and fps, in the wanted order.
        output: The file to make.
        overwrite: Replace an output that exists.
        progress: Called with the episodes copied and their total.

    Returns:
        The new file's root attributes.

    Raises:
        UsageError: The files do not go together, or the output is one of them.
        OutputError: The output exists or cannot be written.
        ResourceError: The disk is full.
        FormatError: An input is not of this format.
        DamagedChunkError: Something stored in an input is not as it was written.
    """
    if any(path.resolve() == output.resolve() for path in inputs):
        raise UsageError(f"{output}: is one of the inputs as well. Give the output another name.")
    check_output(output, overwrite=overwrite)
    headers, shapes, rows, episodes = [], [], 0, 0
    for path in inputs:
        with open_file(path) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(path))
            headers.append(header)
            shapes.append(file_shape(file, header))
            rows += int(file[EP_LEN][:].sum())
            episodes += len(file[EP_LEN])
        _check_alike(inputs[0], path, (headers[0], shapes[0]), (headers[-1], shapes[-1]))
    header = _joined_header(headers, with_tasks="task_index" in shapes[0].columns)
    done = 0
    with output_place(output, overwrite=overwrite), FileWriter(output, shapes[0], num_rows=rows) as writer:
        for path in inputs:
            with open_file(path) as file:
                for _ in copy_episodes(file, writer):
                    done += 1
                    progress(done, episodes)
        writer.finish(header)
    return header


def _stored(dataset: h5py.Dataset, start: int, stop: int) -> Iterator[StoredChunk]:
    if dataset.chunks is None or dataset.chunks[0] != 1:
        raise FormatError(f"{dataset.file.filename}: {dataset.name} is not stored one frame per chunk.")
    for row in range(start, stop):
        try:
            mask, data = dataset.id.read_direct_chunk((row, 0, 0, 0))
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(dataset, row, str(error)) from error
        chunk = StoredChunk(data, mask)
        if not is_whole(chunk):
            raise _damaged(dataset, row, "its checksum does not match")
        yield chunk


def _values(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    try:
        return np.asarray(dataset[start:stop])
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(dataset, start, str(error)) from error


def _damaged(dataset: h5py.Dataset, row: int, reason: str) -> DamagedChunkError:
    return DamagedChunkError(
        f"{dataset.file.filename}: {dataset.name.strip('/')!r} is damaged at row {row} ({reason.splitlines()[0]})."
    )


def _check_alike(
    first_path: Path, path: Path, first: tuple[FileHeader, FileShape], other: tuple[FileHeader, FileShape]
) -> None:
    pairs = {
        "cameras": (first[0].cameras, other[0].cameras),
        "frame size": (first[1][1:3], other[1][1:3]),
        "columns": (first[1].columns, other[1].columns),
        "compression": (first[1].compression, other[1].compression),
        "feature names": (first[0].feature_names, other[0].feature_names),
        "done_source": (first[0].done_source, other[0].done_source),
        "fps": (first[0].fps, other[0].fps),
        "resize": (first[0].resize, other[0].resize),
    }
    for what, (mine, theirs) in pairs.items():
        if mine != theirs:
            raise UsageError(
                f"{path}: {what} {theirs} differ from {mine} in {first_path}. Convert both with the same settings."
            )


def _joined_header(headers: Sequence[FileHeader], *, with_tasks: bool) -> FileHeader:
    tasks: dict[int, str] = {}
    for header in headers:
        for index, text in header.tasks.items():
            if tasks.setdefault(index, text) != text and with_tasks:
                raise UsageError(
                    f"task_index {index} means {tasks[index]!r} in one file and {text!r} in another. "
                    "Convert without --extra_columns task_index."
                )
    return dataclasses.replace(
        headers[0],
        lewm_data_version=lewm_data.__version__,
        sources=tuple(record for header in headers for record in header.sources),
        tasks=tasks,
        findings=tuple(found for header in headers for found in header.findings),
        dropped_episodes=tuple(
            np.unique([e for header in headers for e in header.dropped_episodes]).astype(int).tolist()
        ),
        fingerprint=hashlib.sha256("".join(header.fingerprint for header in headers).encode()).hexdigest(),
    )
