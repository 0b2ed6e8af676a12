"""Frames of an earlier conversion, for a recording that has grown since.

An episode is reused if the bytes that its frames are decoded from, their times, and the versions that decode, scale and
compress them are those of the earlier conversion (see ``lewm_data.source.digest``), and if decoding found nothing to
report. Its stored chunks are then copied, with their checksums checked. Rows are always read again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import h5py

import lewm_data
from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.merge import stored_frames
from lewm_data.errors import DamagedChunkError, FormatError, UsageError
from lewm_data.format.codecs import StoredChunk, settle_quality
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.invariants import read_structure
from lewm_data.paths import is_file, local_path
from lewm_data.source.decode import DecodeJob, JobEnd
from lewm_data.source.digest import FrameDigests
from lewm_data.source.scale import SCALER_VERSION

_EVENT_BYTES = 1 << 20
"""Stored frames are passed on in parts of about this size."""

_MAX_COMPARED = 8
"""Episodes whose digests are compared for a plan."""


class StoredFrames(NamedTuple):
    """Frames of a job as an earlier conversion stored them, in order."""

    job: DecodeJob
    chunks: tuple[StoredChunk, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Donor:
    """A file of an earlier conversion.

    Attributes:
        path: The file.
        rows: Digest of each episode's frames to its rows in the file.
        digests: The source's episode_index to the digest of its frames.
        reason: Why nothing of it can be used; empty if something may be.
    """

    path: Path
    rows: dict[str, range] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    reason: str = ""

    def num_reused(self, header: FileHeader) -> int:
        """Episodes of a finished file whose frames were taken from this one."""
        return sum(digest in self.rows for record in header.sources for digest in record.digests)


def with_donor(inspection: Inspection, output: Path | None = None) -> Inspection:
    """Looks for an earlier conversion to take frames from, and leaves those frames out of the plan's time.

    Args:
        inspection: The inspection, with a plan.
        output: The output, whose frames are used if it is replaced and the settings name no other file.

    Raises:
        UsageError: The file named is not there, or is an address.
        FormatError: The file named is not of this format.
    """
    config = inspection.config
    named = None if config.reuse is None else local_path(config.reuse, "reuse")
    path = named or output
    if path is None or not is_file(path):
        if named is not None:
            raise UsageError(f"--reuse {named}: no such file. Name a file that an earlier conversion made.")
        return inspection
    assert inspection.image_size is not None
    assert inspection.plan is not None
    try:
        donor = find_donor(
            path.absolute(),  # the nodes of a cluster have working folders of their own
            cameras=inspection.cameras,
            size=inspection.image_size,
            resize=config.resize,
            compression=config.compression,
            lossy_quality=settle_quality(config.compression, config.quality),
        )
    except FormatError:
        if named is not None:
            raise
        return inspection  # it is about to be replaced, and may be anything
    plan = inspection.plan.reusing(_expected_frames(donor, inspection))
    return dataclasses.replace(inspection, donor=donor, plan=plan)


def _expected_frames(donor: Donor, inspection: Inspection) -> int:
    """Estimates the number of frames that will be copied, without reading the whole source.

    Candidates are the episodes that the donor holds under the same number and with as many steps. Of a few of them, the
    digests are compared; as large a share of all candidates is expected to be unchanged.
    """
    dataset = inspection.dataset
    assert dataset is not None
    alike = {}
    for index, row in inspection.rows_by_episode().items():
        digest = donor.digests.get(index, "")
        if len(donor.rows.get(digest, ())) == inspection.num_steps(row) > 0:
            alike[row] = digest
    if not alike:
        return 0
    looked = list(alike)[:: math.ceil(len(alike) / _MAX_COMPARED)]
    with inspection.episode_reader() as reader, FrameDigests(dataset.root) as digests:
        num_same = sum(digests.of(reader.read(dataset.episode(row)).jobs) == alike[row] for row in looked)
    num_steps = sum(inspection.num_steps(row) for row in alike)
    return round(num_steps * num_same / len(looked)) * len(inspection.cameras)


def find_donor(
    path: Path,
    *,
    cameras: dict[str, str],
    size: tuple[int, int],
    resize: str,
    compression: str,
    lossy_quality: int,
) -> Donor:
    """Looks for frames that a conversion can use again.

    Args:
        path: A file of an earlier conversion.
        cameras: Frame column to LeRobot camera key of the conversion.
        size: (height, width) of its frames.
        resize: How frames are brought to that size.
        compression: Codec.
        lossy_quality: Its quality; 0 if it is lossless.

    Raises:
        FormatError: It is not a file of this format.
    """
    with open_file(path) as file:
        header = FileHeader.from_attributes(file.attrs, path=str(path))
        wanted = {
            "version of lewm_data": (header.lewm_data_version, lewm_data.__version__),
            "version of the scaler": (header.scaler_version, SCALER_VERSION),
            "cameras": (header.cameras, cameras),
            "image_size": ((header.image_height, header.image_width), size),
            "resize": (header.resize, resize),
            "compression": (header.compression, compression),
            "quality": (header.lossy_quality, lossy_quality),
        }
        differing = [name for name, (theirs, ours) in wanted.items() if theirs != ours]
        if differing:
            return Donor(path=path, reason=f"another {' and '.join(differing)}")
        lengths = read_structure(file, str(path), header).ep_len.tolist()
        digests = [digest for record in header.sources for digest in record.digests]
        if len(digests) != len(lengths):
            return Donor(path=path, reason="no digests of its episodes")
        rows = (range(stop - length, stop) for length, stop in zip(lengths, accumulate(lengths), strict=True))
        episodes = [index for record in header.sources for index in record.episodes]
        return Donor(
            path=path,
            rows={digest: part for digest, part in zip(digests, rows, strict=True) if digest},
            digests={index: digest for index, digest in zip(episodes, digests, strict=True) if digest},
        )


class DonorReader:
    """An open donor.

    Args:
        donor: The file; None gives nothing.
    """

    def __init__(self, donor: Donor | None) -> None:
        self._donor = donor
        self._file: h5py.File | None = None

    def __enter__(self) -> DonorReader:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def has(self, digest: str, length: int) -> bool:
        """Whether the frames of an episode are there.

        Args:
            digest: The episode's digest.
            length: Its steps.
        """
        rows = self._donor.rows.get(digest, range(0)) if self._donor is not None and digest else range(0)
        return len(rows) == length > 0

    def frames(self, job: DecodeJob, digest: str) -> Iterator[StoredFrames | JobEnd | DecodeJob]:
        """Reads the stored frames of a job.

        Yields:
            The frames and the job's end; or, where a frame is damaged, the job that decodes it and those after it.
        """
        assert self._donor is not None
        rows, done, size = self._donor.rows[digest], 0, 0
        chunks: list[StoredChunk] = []
        try:
            if self._file is None:
                self._file = open_file(self._donor.path)
            for chunk in stored_frames(self._donor.path, self._file, job.column, rows.start, rows.stop):
                chunks.append(chunk)
                size += len(chunk.data)
                if size >= _EVENT_BYTES:
                    done += len(chunks)
                    yield StoredFrames(job, tuple(chunks))
                    chunks, size = [], 0
        except (DamagedChunkError, FormatError):
            done += len(chunks)
            if chunks:
                yield StoredFrames(job, tuple(chunks))
            yield dataclasses.replace(job, timestamps=job.timestamps[done:], first_step=job.first_step + done)
            return
        if chunks:
            yield StoredFrames(job, tuple(chunks))
        yield JobEnd(job, len(rows), ())
