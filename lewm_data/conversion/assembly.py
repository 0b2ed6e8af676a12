"""Rows and frames put together to episodes: one reused buffer, one micro-batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from lewm_data.config import NATIVE, ConvertConfig
from lewm_data.findings import Finding, finding
from lewm_data.format.encode import StoredChunk
from lewm_data.format.writer import FileWriter
from lewm_data.quality.pictures import PictureCheck
from lewm_data.quality.policy import decide
from lewm_data.source.decode import DecodedFrame, DecodeJob, JobEnd, event_bytes
from lewm_data.source.episodes import EpisodeData
from lewm_data.source.metadata import LAST_STEP
from lewm_data.source.scale import Scaler

Event = EpisodeData | DecodedFrame | JobEnd
"""What arrives, in order: an episode's rows, then for each camera its frames and its end."""


class EpisodeEnd(NamedTuple):
    """What became of an episode.

    Attributes:
        episode: The source's episode_index.
        findings: What decoding found, each with its handling.
        refused: Whether the policy refuses the dataset because of it.
        written: Whether the episode is in the file.
    """

    episode: int
    findings: tuple[Finding, ...]
    refused: bool
    written: bool


class Assembly:
    """Takes the events of one shard and writes its episodes.

    Args:
        writer: Where they go.
        size: (height, width) of a stored frame.
        config: The settings.
        done_source: Where ``done`` came from.
        wrote: Told of each micro-batch once it is written: its job and its number of frames.
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
        self._length = 0  # steps that every camera so far has a frame for
        self._findings: list[Finding] = []
        self._pictures: PictureCheck | None = None
        self._start = 0  # step of the buffer's first frame
        self._pending: list[Future[StoredChunk]] = []  # one per filled slot of the buffer
        self._odd_size: str | None = None

    def take(self, event: Event) -> EpisodeEnd | None:
        """Takes the next event; returns what became of an episode when it ends."""
        if isinstance(event, EpisodeData):
            self._data, self._length, self._findings = event, event.length, []
            self._jobs_left = len(event.jobs)
            self._writer.write_rows(event.columns)
            return None
        if self._pictures is None:
            self._pictures = PictureCheck(event.job.column, event.job.fps)
            self._start, self._odd_size = 0, None
        if isinstance(event, JobEnd):
            return self._job_end(event, self._pictures)
        self._frame(event, self._pictures)
        return None

    @property
    def _filled(self) -> int:
        return len(self._pending)

    def _frame(self, event: DecodedFrame, pictures: PictureCheck) -> None:
        if self._config.image_size == NATIVE and (event.frame.height, event.frame.width) != self._size:
            self._odd_size = self._odd_size or f"{event.frame.width}x{event.frame.height}"
            return
        if self._odd_size is not None:
            return
        slot = self._buffer[self._filled]
        self._scaler.put(event.frame, slot)
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
        self._findings += [*event.findings, *pictures.findings(episode=job.episode, file=job.file)]
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
        if not decision.refused and not written:  # nothing is left to keep
            findings = tuple(
                dataclasses.replace(found, handling="dropped") if found.handling == "kept" else found
                for found in findings
            )
        return EpisodeEnd(index, findings, decision.refused, written)


def in_flight_bytes(event: Event) -> int:
    """Memory that a waiting event holds on to."""
    if isinstance(event, EpisodeData):
        return sum(values.nbytes for values in event.columns.values())
    return event_bytes(event)
