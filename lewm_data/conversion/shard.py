"""One shard: its episodes decoded, checked, compressed and written, in this process or on a node of a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lewm_data.background import Prefetcher
from lewm_data.config import ConvertConfig
from lewm_data.conversion.corrections import cut_away
from lewm_data.conversion.inspect import Inspection, refuse
from lewm_data.conversion.output import file_header
from lewm_data.conversion.plan import READ_AHEAD_BYTES
from lewm_data.conversion.reuse import DonorReader, StoredFrames
from lewm_data.conversion.watchdog import raise_if_interrupted
from lewm_data.findings import Finding, decide, finding
from lewm_data.format.codecs import StoredChunk
from lewm_data.format.writer import FileShape, FileWriter
from lewm_data.notation import NATIVE
from lewm_data.quality.pictures import PictureCheck
from lewm_data.source.decode import DecodedFrame, DecodeJob, Decoder, JobEnd, event_bytes
from lewm_data.source.digest import FrameDigests
from lewm_data.source.episodes import EpisodeData, EpisodeReader
from lewm_data.source.metadata import LAST_STEP
from lewm_data.source.scale import Scaler

Event = EpisodeData | DecodedFrame | StoredFrames | JobEnd
"""One event; in order: an episode's rows, then for each camera its frames and its end."""


def write_shard(
    inspection: Inspection,
    path: Path,
    episodes: Sequence[int],
    *,
    is_final: bool,
    threads: int,
    beat: Callable[[], None],
    wrote: Callable[[DecodeJob, int], None],
) -> None:
    """Makes a shard. It appears under its name only when it is complete.

    Args:
        inspection: The source and the settings.
        path: The file to make.
        episodes: The source's episode_index of each of its episodes.
        is_final: Whether the shard becomes the output itself. It then records all findings, and must not be empty.
        threads: Threads that compress.
        beat: Called after each decoded event.
        wrote: Called after each written micro-batch with its job and its number of frames.

    Raises:
        DirtyDataError: Decoding found errors that the policy refuses.
        SourceError: The source changed during the conversion.
    """
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    assert inspection.image_size is not None
    rows = inspection.rows_by_episode()
    findings: list[Finding] = []
    written: list[int] = []
    kept_steps: list[tuple[int, int]] = []
    digests: list[str] = []
    with inspection.episode_reader() as reader:
        shape = FileShape(
            tuple(inspection.cameras),
            *inspection.image_size,
            columns=reader.file_columns(),
            compression=config.compression,
            quality=config.quality,
        )
        num_rows = sum(inspection.num_steps(rows[index]) for index in episodes)
        positions = [rows[index] for index in episodes]
        with (
            FileWriter(path, shape, num_rows=num_rows, threads=threads) as writer,
            closing(
                Prefetcher[Event](
                    _events(inspection, reader, positions),
                    max_in_flight=READ_AHEAD_BYTES,
                    size_of=in_flight_bytes,
                    name="decode",
                )
            ) as events,
        ):
            assembly = Assembly(
                writer, size=inspection.image_size, config=config, done_source=dataset.done_source, wrote=wrote
            )
            for event in events:
                raise_if_interrupted()
                beat()
                end = assembly.take(event)
                if end is None:
                    continue
                findings += end.findings
                if end.refused:
                    refuse(inspection, findings)
                if end.written:
                    written.append(end.episode)
                    kept_steps.append(end.steps)
                    digests.append(end.digest)
            if is_final and not written:
                refuse(inspection, findings)
            inspection.check_source_unchanged()
            before = inspection.decision.findings if is_final else ()
            writer.finish(
                file_header(
                    inspection,
                    episodes=written,
                    kept_steps=kept_steps,
                    digests=digests,
                    findings=(*before, *findings),
                )
            )


def _events(inspection: Inspection, reader: EpisodeReader, rows: Sequence[int]) -> Iterator[Event]:
    """Everything to write, in order: each episode's rows, then the frames of each of its cameras."""
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    with (
        Decoder(dataset.root, threads=config.decode_threads, batch_rows=config.micro_batch) as decoder,
        FrameDigests(dataset.root) as digests,
        DonorReader(inspection.donor) as donor,
    ):
        for row in rows:
            data = reader.read(dataset.episode(row))
            data = data._replace(digest=digests.of(data.jobs))
            yield data
            is_stored = donor.has(data.digest, data.length)
            for job in data.jobs:
                for event in donor.frames(job, data.digest) if is_stored else [job]:
                    yield from decoder.run(event) if isinstance(event, DecodeJob) else [event]


class EpisodeEnd(NamedTuple):
    """The outcome of an episode.

    Attributes:
        episode: The source's episode_index.
        findings: What decoding found, each with its handling.
        refused: Whether the policy refuses the dataset because of these findings.
        written: Whether the episode is in the file.
        steps: Its steps [start, stop) of the source that are in the file.
        digest: Digest of its frames' bytes in the source; empty if decoding found something to report again.
    """

    episode: int
    findings: tuple[Finding, ...]
    refused: bool
    written: bool
    steps: tuple[int, int]
    digest: str


class Assembly:
    """Takes the events of one shard and writes its episodes, through one reused buffer of a micro-batch.

    Args:
        writer: The shard's writer.
        size: (height, width) of a stored frame.
        config: The settings.
        done_source: Where ``done`` comes from.
        wrote: Called after each written micro-batch with its job and its number of frames.
    """

    def __init__(
        self,
        writer: FileWriter,
        *,
        size: tuple[int, int],
        config: ConvertConfig,
        done_source: str,
        wrote: Callable[[DecodeJob, int], None],
    ) -> None:
        self._writer = writer
        self._config = config
        self._done_source = done_source
        self._wrote = wrote
        self._buffer = np.empty((config.micro_batch, *size, 3), np.uint8)
        self._size = size
        self._scaler = Scaler(*size, config.resize)
        self._data: EpisodeData | None = None
        self._jobs_left = 0
        self._length = 0  # steps for which every camera so far has a frame
        self._findings: list[Finding] = []
        self._pictures: PictureCheck | None = None
        self._start = 0  # step of the buffer's first frame
        self._pending: list[Future[StoredChunk]] = []  # one per filled slot of the buffer
        self._odd_size: str | None = None

    def take(self, event: Event) -> EpisodeEnd | None:
        """Takes the next event. Returns an episode's outcome when the event ends the episode."""
        if isinstance(event, EpisodeData):
            self._data, self._length, self._findings = event, event.length, []
            self._jobs_left = len(event.jobs)
            self._writer.write_rows(event.columns)
            return None
        if self._pictures is None:
            self._pictures = PictureCheck(event.job.column, event.job.fps)
            self._start, self._odd_size = 0, None
        if isinstance(event, StoredFrames):
            self._writer.write_chunks(event.job.column, event.chunks, start=self._start)
            self._wrote(event.job, len(event.chunks))
            self._start += len(event.chunks)
            return None
        if isinstance(event, JobEnd):
            return self._job_end(event, self._pictures)
        self._frame(event, self._pictures)
        return None

    @property
    def _filled(self) -> int:
        return len(self._pending)

    def _frame(self, event: DecodedFrame, pictures: PictureCheck) -> None:
        if self._config.image_size == NATIVE and event.size != self._size:
            height, width = event.size
            self._odd_size = self._odd_size or f"{width}x{height}"
            return
        if self._odd_size is not None:
            return
        slot = self._buffer[self._filled]
        self._scaler.put(event.frame, slot, orientation=event.orientation)
        self._pending.append(self._writer.encode(slot))
        if self._filled == len(self._buffer):
            self._flush(event.job, pictures)

    def _flush(self, job: DecodeJob, pictures: PictureCheck) -> None:
        pictures.look(self._buffer[: self._filled])
        self._writer.write_chunks(job.column, (chunk.result() for chunk in self._pending), start=self._start)
        self._wrote(job, self._filled)
        self._start += self._filled
        self._pending.clear()

    def _job_end(self, event: JobEnd, pictures: PictureCheck) -> EpisodeEnd | None:
        job = event.job
        if self._filled:
            self._flush(job, pictures)
        pictured = pictures.findings(episode=job.episode, file=job.file, first_step=job.first_step)
        self._findings += [*event.findings, *pictured]
        if self._odd_size is not None:
            self._findings.append(
                finding(
                    "video_size_changes",
                    episode=job.episode,
                    file=job.file,
                    expected=f"{self._size[1]}x{self._size[0]} as in the other episodes (--image_size native)",
                    found=self._odd_size,
                )
            )
        self._pictures = None
        self._length = min(self._length, self._start)
        self._jobs_left -= 1
        return self._episode_end(job.episode) if self._jobs_left == 0 else None

    def _episode_end(self, index: int) -> EpisodeEnd:
        assert self._data is not None
        decision = decide(self._findings, self._config.dirty_episode_policy)
        written = not decision.refused and index not in decision.dropped and self._length > 0
        if written:
            if self._length < self._data.length and self._done_source == LAST_STEP:
                self._writer.mark_end(self._length - 1)
            self._writer.end_episode(self._length)
        findings = decision.findings
        if not decision.refused and not written:  # no frame is left to keep
            findings = tuple(
                dataclasses.replace(found, handling="dropped") if found.handling == "kept" else found
                for found in findings
            )
            if not self._data.length:
                findings = (*findings, cut_away(index, "too few rows"))
        first = self._data.first_step
        digest = "" if self._findings else self._data.digest
        return EpisodeEnd(index, findings, decision.refused, written, (first, first + self._length), digest)


def in_flight_bytes(event: Event) -> int:
    """Bytes of memory that a waiting event occupies."""
    if isinstance(event, EpisodeData):
        return sum(values.nbytes for values in event.columns.values())
    if isinstance(event, StoredFrames):
        return sum(len(chunk.data) for chunk in event.chunks)
    return event_bytes(event)
