"""Joins files of format version 1 by copying stored chunks: nothing is decoded, nothing is compressed again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

import lewm_data
from lewm_data.conversion.output import check_output, output_place
from lewm_data.errors import DamagedChunkError, FormatError, UsageError, raise_machine_error
from lewm_data.format.codecs import StoredChunk, has_valid_checksum
from lewm_data.format.compatibility import Member, check_joinable, refuse_duplicates, source_episodes
from lewm_data.format.data_file import LocalFile
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import EP_LEN, is_pixels, is_value
from lewm_data.format.virtual import open_shard, shard_problems, shard_rows
from lewm_data.format.writer import FileShape, FileWriter


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


def copy_episodes(file: h5py.File, writer: FileWriter, *, frames: bool = True) -> Iterator[int]:
    """Copies all episodes of a file into a writer of the same shape; yields each episode's length once copied.

    Args:
        file: The open file.
        writer: Where they go.
        frames: Copy frames too, not only the small columns.

    Raises:
        DamagedChunkError: A checksum does not match, or something stored cannot be read.
    """
    offset = 0
    path = Path(file.filename)
    small = [name for name in file if is_value(name)]
    pictures = [name for name in file if frames and is_pixels(name)]
    for length in file[EP_LEN][:].tolist():
        stop = offset + length
        writer.write_rows({name: _values(file[name], offset, stop) for name in small})
        for name in pictures:
            writer.write_chunks(name, _stored(path, file, name, offset, stop), start=0)
        writer.end_episode(length)
        offset = stop
        yield length


def merge(
    inputs: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    allow_duplicates: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FileHeader:
    """Joins files of this format into one.

    All parts of one dataset (``--shard i/n``), in any order, become the file that a whole conversion makes. So does
    the virtual file of a sharded layout.

    Args:
        inputs: Files that ``check_joinable`` accepts, in the wanted order.
        output: The file to make.
        overwrite: Replace an output that exists.
        allow_duplicates: Accept files that hold the same episode of the same source.
        progress: Called with the episodes copied and their total.

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
        raise UsageError(f"{output}: is one of the inputs as well. Give the output another name.")
    check_output(output, overwrite=overwrite)
    inputs = _parts_in_order(inputs)
    headers, shapes, members, rows, episodes = [], [], [], 0, 0
    for path in inputs:
        with open_file(path) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(path))
            headers.append(header)
            shapes.append(file_shape(file, header))
            members.append(Member.of(str(path), file, header))
            for frames in (file[name] for name in shapes[-1].cameras if file[name].is_virtual):
                for problem in shard_problems(LocalFile.at(path), frames, header.fingerprint):
                    raise FormatError(f"{path}: {problem}.")
            rows += int(file[EP_LEN][:].sum())
            episodes += len(file[EP_LEN])
    check_joinable(members, into="file")
    _refuse_shards(inputs, headers)
    if not allow_duplicates:
        refuse_duplicates(
            {member.name: source_episodes(member.header) for member in members},
            remedy="accept them with --allow_duplicates",
        )
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


def _stored(path: Path, file: h5py.File, name: str, start: int, stop: int) -> Iterator[StoredChunk]:
    """The stored frames of the rows [start, stop), also where shards hold them."""
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
        raise FormatError(f"{dataset.file.filename}: {dataset.name} is not stored one frame per chunk.")
    for row in range(start, stop):
        try:
            mask, data = dataset.id.read_direct_chunk((row, 0, 0, 0))
        except (OSError, RuntimeError, ValueError) as error:
            raise_machine_error(error, dataset.file.filename)
            raise _damaged(dataset, row, str(error)) from error
        chunk = StoredChunk(data, mask)
        if not has_valid_checksum(chunk):
            raise _damaged(dataset, row, "its checksum does not match")
        yield chunk


def _values(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    try:
        return np.asarray(dataset[start:stop])
    except (OSError, RuntimeError, ValueError) as error:
        raise_machine_error(error, dataset.file.filename)
        raise _damaged(dataset, start, str(error)) from error


def _damaged(dataset: h5py.Dataset, row: int, reason: str) -> DamagedChunkError:
    return DamagedChunkError(
        f"{dataset.file.filename}: {dataset.name.strip('/')!r} is damaged at row {row} ({reason.splitlines()[0]})."
    )


def _refuse_shards(paths: Sequence[Path], headers: Sequence[FileHeader]) -> None:
    """Refuses the shards of a sharded layout: only their master knows what was found, and what was dropped."""
    first: dict[str, FileHeader] = {}
    for path, header in zip(paths, headers, strict=True):
        before = first.setdefault(header.fingerprint, header)
        if not header.part and before.sources != header.sources:
            raise UsageError(
                f"{path}: is a shard, which does not know all that was found. Give the file that it belongs to, beside "
                f"the folder {path.parent.name}: lewm-data merge MASTER.h5 OUTPUT.h5"
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
    )
    if not headers[0].part:
        return joined
    [source] = headers[0].sources
    episodes = tuple(index for header in headers for record in header.sources for index in record.episodes)
    return dataclasses.replace(
        joined,
        sources=(dataclasses.replace(source, episodes=episodes),),
        findings=tuple(dict.fromkeys(joined.findings)),  # each part tells of what was found before decoding
        fingerprint=headers[0].fingerprint,
    )


def _parts_in_order(inputs: Sequence[Path]) -> list[Path]:
    """Files as they were given; or, where they are the parts of one dataset, part after part.

    Raises:
        UsageError: A part is missing, comes twice, or belongs to another dataset.
    """
    parts: dict[Path, str] = {}
    fingerprints = set()
    for path in inputs:
        with open_file(path) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(path))
        parts[path] = header.part
        fingerprints.add(header.fingerprint)
    if not any(parts.values()):
        return list(inputs)
    if not all(parts.values()) or len(fingerprints) > 1 or len({part.split("/")[1] for part in parts.values()}) > 1:
        told = ", ".join(f"{path} ({part or 'whole'})" for path, part in parts.items())
        raise UsageError(f"These are not the parts of one dataset under the same settings: {told}.")
    numbers = {path: int(part.split("/")[0]) for path, part in parts.items()}
    num_parts = int(next(iter(parts.values())).split("/")[1])
    missing = sorted(set(range(num_parts)).difference(numbers.values()))
    if missing or len(inputs) != num_parts:
        what = f"part {missing[0]}/{num_parts} is missing" if missing else "a part is given twice"
        raise UsageError(
            f"Not all {num_parts} parts are given once: {what}. Convert it with --shard, or leave out one."
        )
    return sorted(inputs, key=lambda path: numbers[path])
