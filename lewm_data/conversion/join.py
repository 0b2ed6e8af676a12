"""The last step of a conversion: the finished shards become the output."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import h5py

from lewm_data.conversion.inspect import Inspection, refuse
from lewm_data.conversion.merge import copy_episodes, file_shape
from lewm_data.conversion.output import file_header
from lewm_data.conversion.verify import verify_file
from lewm_data.errors import FormatError, VerificationError
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import DONE
from lewm_data.format.virtual import add_virtual_frames
from lewm_data.format.writer import FileWriter, replace_durably
from lewm_data.resources import Progress


def join_shards(
    inspection: Inspection, paths: Sequence[Path], output: Path, *, joined: Path, progress: Progress
) -> FileHeader:
    """Makes the output from the finished shards. It appears under its name only when it is complete.

    A single shard becomes the output itself. With ``layout`` ``sharded``, the shards stay, and the output is a virtual
    dataset over them.

    Args:
        inspection: The source and the settings.
        paths: The shards, in order.
        output: The file to make.
        joined: A temporary file on the same disk.
        progress: Called after each copied episode, with the number of copied shards.

    Returns:
        The output's root attributes.

    Raises:
        DirtyDataError: No episode is left.
        VerificationError: A shard has been damaged since it was finished.
    """
    is_sharded = inspection.config.layout == "sharded"
    if is_sharded:
        for path in paths:
            _check_whole(path)
    finished = paths[0] if len(paths) == 1 and not is_sharded else joined
    if finished is joined:
        _join(inspection, paths, joined, progress)
    with open_file(finished) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(finished))
    if not is_sharded:
        _check_whole(finished)
    replace_durably(finished, output)
    return header


def _join(inspection: Inspection, paths: Sequence[Path], joined: Path, progress: Progress) -> None:
    """Writes one file that holds all shards' episodes; of shards that stay, only their small columns."""
    headers, num_rows = [], 0
    for path in paths:
        with open_file(path) as file:
            headers.append(FileHeader.from_attributes(file.attrs, path=str(path)))
            num_rows += len(file[DONE])
    is_sharded = inspection.config.layout == "sharded"
    findings = [found for header in headers for found in header.findings]
    if num_rows == 0:
        refuse(inspection, findings)
    with open_file(paths[0]) as file:
        shape = file_shape(file, headers[0])

    def add_frames(file: h5py.File) -> None:
        if is_sharded:
            add_virtual_frames(file, list(paths), headers[0])

    with FileWriter(joined, shape._replace(cameras=()) if is_sharded else shape, num_rows=num_rows) as writer:
        for number, path in enumerate(paths):
            try:
                with open_file(path) as file:
                    for _ in copy_episodes(file, writer, frames=not is_sharded):
                        progress("join shards", number, len(paths))
            except (FormatError, VerificationError) as error:
                path.unlink(missing_ok=True)
                raise VerificationError(
                    f"{error} This finished shard is now removed. Run the same command again to make a new one."
                ) from error
            progress("join shards", number + 1, len(paths))
        sources = [header.sources[0] for header in headers]
        header = file_header(
            inspection,
            episodes=[index for source in sources for index in source.episodes],
            kept_steps=[steps for source in sources for steps in source.kept_steps],
            digests=[digest for source in sources for digest in source.digests],
            findings=(*inspection.decision.findings, *findings),
        )
        writer.finish(header, complete=add_frames)


def _check_whole(path: Path) -> None:
    """Checks the structure of a finished file, and that it stores every frame, before it gets its name."""
    problems = verify_file(path, content=False)
    if problems:
        raise OSError(errno.EIO, problems[0], str(path))
