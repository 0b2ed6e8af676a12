"""Joins files of format version 1 by copying their stored chunks. Nothing is decoded or compressed again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

import lewm_data
from lewm_data.conversion.output import check_output, output_place
from lewm_data.errors import DamagedChunkError, FormatError, UsageError
from lewm_data.format.codecs import StoredChunk, has_valid_checksum
from lewm_data.format.compatibility import Member, check_joinable, refuse_duplicates, source_episodes
from lewm_data.format.data_file import LocalFile
from lewm_data.format.hdf5 import HDF5_ERRORS, first_line, open_file, wrap_hdf5_errors
from lewm_data.format.header import FileHeader
from lewm_data.format.invariants import read_structure
from lewm_data.format.schema import DONE_RUN, EP_LEN, is_pixels, is_value
from lewm_data.format.virtual import check_shards, open_shard, shard_rows
from lewm_data.format.writer import FileShape, FileWriter
from lewm_data.machine_errors import raise_machine_error
from lewm_data.resources import Progress, silent


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
        quality=header.lossy_quality or None,
    )


def copy_episodes(file: h5py.File, writer: FileWriter, *, frames: bool = True) -> Iterator[int]:
    """Copies all episodes of a file into a writer of the same shape.

    Args:
        file: The open file.
        writer: Receives the episodes.
        frames: Copy frames too, not only the small columns.

    Yields:
        Each episode's length once it is copied.

    Raises:
        DamagedChunkError: A stored chunk does not match its checksum or cannot be read.
    """
    offset = 0
    path = Path(file.filename)
    small = [name for name in file if is_value(name)]
    cameras = [name for name in file if frames and is_pixels(name)]
    for length in file[EP_LEN][:].tolist():
        stop = offset + length
        writer.write_rows({name: _values(file[name], offset, stop) for name in small})
        for name in cameras:
            writer.write_chunks(name, stored_frames(path, file, name, offset, stop), start=0)
        writer.end_episode(length)
        offset = stop
        yield length


def merge(
    inputs: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    allow_duplicates: bool = False,
    progress: Progress = silent,
) -> FileHeader:
    """Joins files of this format into one.

    All parts of one dataset (``--shard i/n``), in any order, become the file that a whole conversion makes. So does
    the virtual file of a sharded layout.

    Args:
        inputs: Files that ``check_joinable`` accepts, in the wanted order.
        output: The file to make.
        overwrite: Replace an output that exists.
        allow_duplicates: Accept files that hold the same episode of the same source.
        progress: Called after each episode.

    Returns:
        The new file's root attributes.

    Raises:
        UsageError: The files cannot be joined, an episode or a part occurs twice, a part is missing, or the output is
            one of the inputs.
        OutputError: The output exists or cannot be written.
        ResourceError: The disk is full.
        FormatError: An input is not of this format, or one of its shards is missing.
        DamagedChunkError: A stored chunk of an input is damaged.
    """
    if any(path.resolve() == output.resolve() for path in inputs):
        raise UsageError(f"{output}: an input and the output are the same file. Give the output another name.")
    check_output(output, overwrite=overwrite)
    opened = _parts_in_order([_look_at(path) for path in inputs])
    headers = [found.header for found in opened]
    check_joinable([found.member for found in opened], into="file")
    _refuse_shards(opened)
    if not allow_duplicates:
        sources = {str(found.path): source_episodes(found.header) for found in opened}
        refuse_duplicates(sources, remedy="accept them with --allow_duplicates")
    header = _joined_header(headers, with_tasks="task_index" in opened[0].shape.columns)
    num_rows, num_episodes = sum(found.num_rows for found in opened), sum(found.num_episodes for found in opened)
    done = 0
    with output_place(output, overwrite=overwrite), FileWriter(output, opened[0].shape, num_rows=num_rows) as writer:
        for found in opened:
            with open_file(found.path) as file:
                for _ in copy_episodes(file, writer):
                    done += 1
                    progress("merge", done, num_episodes)
        writer.finish(header)
    return header


class _Input(NamedTuple):
    """What merging needs to know about a file before it copies anything."""

    path: Path
    header: FileHeader
    shape: FileShape
    member: Member
    num_rows: int
    num_episodes: int


def _look_at(path: Path) -> _Input:
    """Reads a file's header and structure, and checks that its shards are there."""
    with wrap_hdf5_errors(path), open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        structure = read_structure(file, str(path), header)
        check_shards(LocalFile.at(path), file, header)
        return _Input(
            path=path,
            header=header,
            shape=file_shape(file, header),
            member=Member(name=str(path), columns=structure.columns, header=header),
            num_rows=int(structure.ep_len.sum()),
            num_episodes=len(structure.ep_len),
        )


def stored_frames(path: Path, file: h5py.File, name: str, start: int, stop: int) -> Iterator[StoredChunk]:
    """The stored frames of the rows [start, stop), from shards too."""
    if not file[name].is_virtual:
        yield from _chunks(file[name], start, stop)
        return
    for rows in shard_rows(file[name]):
        first, end = max(start, rows.start), min(stop, rows.stop)
        if first < end:
            with open_shard(LocalFile.at(path), rows) as (_, frames):
                yield from _chunks(frames, first - rows.start, end - rows.start)


def _chunks(dataset: h5py.Dataset, start: int, stop: int) -> Iterator[StoredChunk]:
    if dataset.chunks is None or dataset.chunks[0] != 1:
        raise FormatError(
            f"{dataset.file.filename}: {dataset.name} is not stored as one frame per chunk. Convert the dataset again."
        )
    for row in range(start, stop):
        try:
            mask, data = dataset.id.read_direct_chunk((row, 0, 0, 0))
        except HDF5_ERRORS as error:
            raise_machine_error(error, dataset.file.filename)
            raise _damaged(dataset, row, error) from error
        chunk = StoredChunk(data, mask)
        if not has_valid_checksum(chunk):
            raise _damaged(dataset, row, ValueError("its checksum does not match"))
        yield chunk


def _values(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    try:
        return np.asarray(dataset[start:stop])
    except HDF5_ERRORS as error:
        raise_machine_error(error, dataset.file.filename)
        raise _damaged(dataset, start, error) from error


def _damaged(dataset: h5py.Dataset, row: int, error: Exception) -> DamagedChunkError:
    return DamagedChunkError(
        f"{dataset.file.filename}: {dataset.name.strip('/')!r} is damaged at row {row} ({first_line(error)}). "
        "Convert the dataset again."
    )


def _refuse_shards(inputs: Sequence[_Input]) -> None:
    """Refuses shards of a sharded layout, because only their virtual file records all findings and dropped episodes."""
    first: dict[str, FileHeader] = {}
    for path, header, *_ in inputs:
        before = first.setdefault(header.fingerprint, header)
        if not header.part and before.sources != header.sources:
            raise UsageError(
                f"{path}: a shard, which does not record every finding of its conversion. Pass the virtual file next "
                f"to its folder {path.parent.name} instead: lewm-data merge VIRTUAL.h5 OUTPUT.h5"
            )


def _joined_header(headers: Sequence[FileHeader], *, with_tasks: bool) -> FileHeader:
    if len(headers) == 1 and not headers[0].part:
        return dataclasses.replace(headers[0], lewm_data_version=lewm_data.__version__)
    tasks: dict[int, str] = {}
    for header in headers:
        for index, text in header.tasks.items():
            if tasks.setdefault(index, text) != text and with_tasks:
                raise UsageError(
                    f"task_index {index} means {tasks[index]!r} in one file and {text!r} in another. "
                    "Convert without --extra_columns task_index."
                )
    joined = dataclasses.replace(
        headers[0],
        lewm_data_version=lewm_data.__version__,
        sources=tuple(record for header in headers for record in header.sources),
        tasks=tasks,
        findings=tuple(found for header in headers for found in header.findings),
        dropped_episodes=tuple(
            np.unique([e for header in headers for e in header.dropped_episodes]).astype(int).tolist()
        ),
        fingerprint=hashlib.sha256("".join(header.fingerprint for header in headers).encode()).hexdigest(),
        part="",
        done_source=DONE_RUN if any(header.done_source == DONE_RUN for header in headers) else headers[0].done_source,
        scaler_version=headers[0].scaler_version if len({header.scaler_version for header in headers}) == 1 else 0,
    )
    if not headers[0].part:
        return joined
    [source] = headers[0].sources
    records = [record for header in headers for record in header.sources]
    episodes = tuple(index for record in records for index in record.episodes)
    kept_steps = tuple(steps for record in records for steps in record.kept_steps)
    digests = tuple(digest for record in records for digest in record.digests)
    return dataclasses.replace(
        joined,
        sources=(dataclasses.replace(source, episodes=episodes, kept_steps=kept_steps, digests=digests),),
        findings=tuple(dict.fromkeys(joined.findings)),  # each part records what inspection found
        fingerprint=headers[0].fingerprint,
    )


def _parts_in_order(inputs: Sequence[_Input]) -> list[_Input]:
    """The inputs in the order given; parts of one dataset (``--shard i/n``) in the order of their numbers.

    Raises:
        UsageError: A part is missing, occurs twice, or belongs to another dataset.
    """
    parts = [found.header.part for found in inputs]
    if not any(parts):
        return list(inputs)
    fingerprints = {found.header.fingerprint for found in inputs}
    if not all(parts) or len(fingerprints) > 1 or len({part.split("/")[1] for part in parts}) > 1:
        given = ", ".join(f"{found.path} ({found.header.part or 'not a part'})" for found in inputs)
        raise UsageError(
            f"These files are not the parts of one dataset, converted with the same settings: {given}. Merge the parts "
            "first, each with the same --shard i/n."
        )
    num_parts = int(parts[0].split("/")[1])
    numbers = [int(part.split("/")[0]) for part in parts]
    missing = sorted(set(range(num_parts)).difference(numbers))
    if missing:
        raise UsageError(
            f"Part {missing[0]}/{num_parts} is missing. Convert it with --shard {missing[0]}/{num_parts}, and pass all "
            f"{num_parts} parts."
        )
    if len(inputs) != num_parts:
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise UsageError(f"Part {twice}/{num_parts} is given twice. Leave out one of the two files.")
    return [found for _, found in sorted(zip(numbers, inputs, strict=True), key=lambda pair: pair[0])]
