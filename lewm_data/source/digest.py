"""Digests of the stored bytes that an episode's frames are decoded from, without decoding them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import imagecodecs

from lewm_data.machine_errors import machine_errors
from lewm_data.source.decode import DecodeJob
from lewm_data.source.images import encoded_bytes
from lewm_data.source.media import MediaError
from lewm_data.source.mp4 import read_mp4
from lewm_data.source.rows import PARQUET_ERRORS, RowCursor
from lewm_data.source.video import first_video_stream

_TICKS_PER_SECOND = 100_000
"""Times are compared to this fraction of a second, since another file may count in other units."""

_PICTURES_AT_ONCE = 16


class FrameDigests:
    """Tells whether frames come from the same bytes as at an earlier conversion.

    Args:
        root: The dataset's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._videos: dict[str, _OpenVideo] = {}

    def __enter__(self) -> FrameDigests:
        return self

    def __exit__(self, *exception: object) -> None:
        for video in self._videos.values():
            video.container.close()

    def of(self, jobs: Sequence[DecodeJob]) -> str:
        """Digests everything that the frames of some jobs depend on: stored bytes, times, and the decoders' versions.

        Args:
            jobs: One per camera of an episode.

        Returns:
            16 hexadecimal digits; empty if the bytes cannot be read, which decoding will report.
        """
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((av.library_versions, imagecodecs.__version__)).encode())
        try:
            for job in jobs:
                about = (job.column, job.camera, job.is_image, job.fps, len(job.timestamps))
                digest.update(repr(about).encode() + job.timestamps.tobytes())
                for part in self._pictures(job) if job.is_image else self._packets(job):
                    digest.update(struct.pack("<q", len(part)) + part)
        except (MediaError, av.FFmpegError, *PARQUET_ERRORS):
            return ""
        return digest.hexdigest()

    def _pictures(self, job: DecodeJob) -> Iterator[bytes]:
        start = job.first_row + job.first_step
        with RowCursor(self._root / job.file, [job.camera], batch_rows=_PICTURES_AT_ONCE) as cursor:
            for batch in cursor.read(start, start + len(job.timestamps)):
                for value in batch.column(0):
                    yield encoded_bytes(value.as_py(), self._root)

    def _packets(self, job: DecodeJob) -> Iterator[bytes]:
        """The packets that the frames need, in the order of decoding, each after its time."""
        if not len(job.timestamps):
            return
        video = self._videos.get(job.camera)
        if video is None or video.file != job.file:
            if video is not None:
                video.container.close()
            video = self._videos[job.camera] = _open(self._root, job.file)
        yield video.facts
        first = job.start_seconds + job.first_step / job.fps
        last = first + (len(job.timestamps) - 0.5) / job.fps
        unneeded: list[bytes] = []  # packets that only later frames may need
        for packet in _demux(video.container, first):
            if not packet.size:
                continue  # the mark of the end
            if packet.pts is None or packet.dts is None:
                raise MediaError("video_timestamps", "a time on every packet", "a packet without one")
            start = packet.stream.start_time or 0
            seconds = float((packet.pts - start) * packet.time_base)
            if float((packet.dts - start) * packet.time_base) > last:
                break
            ticks = round((seconds - job.start_seconds) * _TICKS_PER_SECOND)
            unneeded.append(struct.pack("<q?", ticks, packet.is_keyframe) + bytes(packet))
            if seconds <= last:
                yield from unneeded
                unneeded.clear()


class _OpenVideo(NamedTuple):
    """An open video and what its decoder gets before the first packet."""

    file: str
    container: av.container.InputContainer
    facts: bytes


def _open(root: Path, file: str) -> _OpenVideo:
    path = root / file
    with machine_errors(path), path.open("rb") as stored:
        is_mp4 = stored.read(8)[4:] == b"ftyp"
        track = read_mp4(stored, path.stat().st_size).track if is_mp4 else None
    container = av.open(str(path), metadata_errors="replace")
    stream = first_video_stream(container)
    codec = stream.codec_context
    facts = (
        codec.name, codec.width, codec.height, codec.pix_fmt, codec.color_range, codec.colorspace, codec.color_trc,
        codec.color_primaries, codec.extradata, None if track is None else track.matrix,
    )  # fmt: skip
    return _OpenVideo(file, container, repr(facts).encode())


def _demux(container: av.container.InputContainer, seconds: float) -> Iterator[av.Packet]:
    """Packets from the last keyframe before a time on."""
    stream = container.streams.video[0]
    container.seek(int(seconds / stream.time_base) + (stream.start_time or 0), stream=stream, backward=True)
    yield from container.demux(stream)
