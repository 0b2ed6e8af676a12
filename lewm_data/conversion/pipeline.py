"""The conductor: inspect, plan, then episode by episode and camera by camera into shards, then one file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lewm_data.config import ConvertConfig
from lewm_data.conversion import interrupts
from lewm_data.conversion.assembly import Assembly, Event, in_flight_bytes
from lewm_data.conversion.decode import DecodeJob, Decoder
from lewm_data.conversion.episodes import EpisodeReader
from lewm_data.conversion.hdf5 import open_file
from lewm_data.conversion.header import file_header
from lewm_data.conversion.inspect import Inspection, dirty_error, inspect_source, source_fingerprint
from lewm_data.conversion.merge import copy_episodes, file_shape
from lewm_data.conversion.output import (
    WorkFolder,
    check_output,
    free_disk_bytes,
    output_place,
    remove_leftovers,
    work_folder,
)
from lewm_data.conversion.plan import READ_AHEAD_BYTES, cut_shards, shortfalls
from lewm_data.conversion.readahead import read_ahead
from lewm_data.conversion.reporter import Reporter, Silent
from lewm_data.conversion.watchdog import Heartbeat
from lewm_data.conversion.writer import FileShape, FileWriter, replace_durably
from lewm_data.errors import (
    DirtyDataError,
    FormatError,
    InterruptedConversionError,
    ResourceError,
    SourceError,
    VerificationError,
)
from lewm_data.resources import available_memory_bytes, num_cpus, peak_memory_bytes
from lewm_data.schema import ACTION, DONE, EP_LEN, FileHeader, Finding

_MAX_COMPRESS_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What came of a conversion.

    Attributes:
        path: The file.
        header: Its root attributes.
        num_episodes: Episodes in it.
        num_steps: Steps in it.
        found_while_decoding: Those of the header's findings that only decoding could show.
        file_bytes: Its size.
        seconds: Time taken, inspection included.
        frames_per_second: Frames written per second of converting; 0 if all of them were there already.
        peak_memory_bytes: Most resident memory of this process so far.
    """

    path: Path
    header: FileHeader
    num_episodes: int
    num_steps: int
    found_while_decoding: tuple[Finding, ...]
    file_bytes: int
    seconds: float
    frames_per_second: float
    peak_memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """What ``lewm-data convert --json`` prints."""
        return {
            "path": str(self.path),
            "num_episodes": self.num_episodes,
            "num_steps": self.num_steps,
            "columns": self.header.cameras,
            "file_bytes": self.file_bytes,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames_per_second, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "dropped_episodes": list(self.header.dropped_episodes),
            "findings": [found.to_json() for found in self.header.findings],
            "fingerprint": self.header.fingerprint,
        }


def convert(
    source: str,
    output: str | os.PathLike[str],
    config: ConvertConfig | None = None,
    *,
    reporter: Reporter | None = None,
) -> Converted:
    """Converts a LeRobot dataset to one HDF5 file of format version 1.

    Goes on by itself after an interruption: finished shards lie in ``<output>.partial`` until the file is whole.

    Args:
        source: Dataset folder or Hub repo id.
        output: The file to make.
        config: The settings.
        reporter: Told of progress.

    Returns:
        What was converted.

    Raises:
        UsageError: The source, a camera, a setting or the output is not as it must be.
        DirtyDataError: The dataset has errors that the dirty-episode policy refuses; nothing is left behind.
        ResourceError: It does not fit into memory or on the disk.
        InterruptedConversionError: Ctrl-C; run again to go on.
    """
    config = config or ConvertConfig()
    told: Reporter = reporter or Silent()
    started = time.perf_counter()
    output = Path(output)
    remove_leftovers(output)
    check_output(output, overwrite=config.overwrite)
    try:
        with Heartbeat(None, watchdog_seconds=config.watchdog_seconds) as heartbeat:

            def inspecting(what: str, done: int, total: int) -> None:
                heartbeat.beat({})
                told.inspecting(what, done, total)

            inspection = inspect_source(source, config, progress=inspecting)
        inspection.refuse_if_dirty()
        assert inspection.plan is not None
        problems = shortfalls(
            inspection.plan, available_memory_bytes=available_memory_bytes(), free_disk_bytes=free_disk_bytes(output)
        )
        if problems:
            raise ResourceError(f"{source} does not fit. " + " ".join(problems))
        kept = f"Finished shards are kept in {work_folder(output)}, and it goes on from them."
        with output_place(output, overwrite=config.overwrite, waiting=told.waiting, kept=kept):
            told.planned(inspection)
            return _Conversion(inspection, output, told, started).run()
    except KeyboardInterrupt:
        raise InterruptedConversionError(
            f"Interrupted. What is finished is kept in {work_folder(output)}; run the same command again to go on."
        ) from None
    except MemoryError as error:
        raise ResourceError(
            f"{source}: out of memory. Lower --micro_batch or --image_size, or close other programs; then run the same "
            "command again to go on."
        ) from error


class _Conversion:
    """One run: from the work folder's state to the finished file."""

    def __init__(self, inspection: Inspection, output: Path, told: Reporter, started: float) -> None:
        assert inspection.dataset is not None
        assert inspection.plan is not None
        assert inspection.image_size is not None
        self._inspection = inspection
        self._dataset = inspection.dataset
        self._plan = inspection.plan
        self._config = inspection.config
        self._size = inspection.image_size
        self._output = output
        self._told = told
        self._started = started
        self._work = WorkFolder(output, inspection.fingerprint)
        self._rows = {int(self._dataset.episodes.index[row]): row for row in inspection.kept_rows()}
        self._facts: dict[str, Any] = {"total_frames": self._plan.num_frames}
        self._frames_done = 0
        self._frames_written = 0
        self._converting_since = 0.0

    def run(self) -> Converted:
        """Makes the missing shards, joins them, and removes the work folder."""
        shards = self._work.open(self._cut())
        watchdog_seconds = self._config.watchdog_seconds
        try:
            with Heartbeat(self._work.path / "heartbeat.json", watchdog_seconds=watchdog_seconds) as heartbeat:
                self._heartbeat = heartbeat
                heartbeat.beat(self._facts, force=True)
                self._converting_since = time.perf_counter()
                for number in self._unfinished(shards):
                    self._shard(number, shards[number], whole=len(shards) == 1)
                seconds = time.perf_counter() - self._converting_since
                header = self._join(len(shards))
        except DirtyDataError:
            self._work.remove()
            raise
        self._work.remove()
        return Converted(
            path=self._output,
            header=header,
            num_episodes=sum(len(record.episodes) for record in header.sources),
            num_steps=header.statistics[ACTION].count,
            found_while_decoding=header.findings[len(self._inspection.decision.findings) :],
            file_bytes=self._output.stat().st_size,
            seconds=time.perf_counter() - self._started,
            frames_per_second=self._frames_written / seconds if self._frames_written else 0.0,
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _cut(self) -> list[list[int]]:
        """episode_index of the episodes of each shard."""
        episodes = list(self._rows)
        lengths = [int(self._dataset.episodes.length[row]) for row in self._rows.values()]
        step_bytes = self._plan.output_bytes / max(self._plan.num_steps, 1)
        shards = cut_shards(lengths, step_bytes=step_bytes, shard_bytes=self._config.shard_bytes)
        return [[episodes[position] for position in shard] for shard in shards]

    def _num_steps(self, episodes: Sequence[int]) -> int:
        return sum(int(self._dataset.episodes.length[self._rows[index]]) for index in episodes)

    def _unfinished(self, shards: Sequence[Sequence[int]]) -> list[int]:
        """Numbers of the shards to make; counts what an earlier run finished."""
        unfinished = [number for number in range(len(shards)) if self._work.finished_shard(number) is None]
        finished = set(range(len(shards))).difference(unfinished)
        self._frames_done = sum(self._num_steps(shards[number]) for number in finished) * len(self._inspection.cameras)
        if finished:
            self._told.resumed(self._frames_done)
        return unfinished

    def _shard(self, number: int, episodes: Sequence[int], *, whole: bool) -> None:
        """Makes a shard; a ``whole`` one is the finished file but for its name."""
        findings: list[Finding] = []
        written: list[int] = []
        threads = min(num_cpus(), _MAX_COMPRESS_THREADS)
        with (
            EpisodeReader(
                self._dataset, self._inspection.report, self._inspection.cameras, self._config.extra_columns
            ) as reader,
            FileWriter(
                self._work.shard_path(number),
                self._file_shape(reader),
                num_rows=self._num_steps(episodes),
                threads=threads if threads > 2 else 1,  # on two processors, the decoder has the other one
            ) as writer,
            read_ahead(self._events(reader, episodes), max_bytes=READ_AHEAD_BYTES, size_of=in_flight_bytes) as events,
        ):
            assembly = Assembly(
                writer,
                size=self._size,
                config=self._config,
                done_source=self._dataset.done_source,
                wrote=self._wrote,
            )
            for event in events:
                interrupts.check()
                self._heartbeat.beat(self._facts)
                end = assembly.take(event)
                if end is None:
                    continue
                findings += end.findings
                if end.refused:
                    self._refuse(findings)
                if end.written:
                    written.append(end.episode)
            if whole and not written:
                self._refuse(findings)
            self._check_source()
            before = self._inspection.decision.findings if whole else ()
            writer.finish(file_header(self._inspection, episodes=written, findings=(*before, *findings)))

    def _check_source(self) -> None:
        """Refuses a source that is not the one that was inspected: nobody could say what the shard holds."""
        inspection = self._inspection
        if source_fingerprint(self._dataset, inspection.cameras, self._config) != inspection.fingerprint:
            raise SourceError(
                f"{inspection.source}: changed while it was converted. Leave the dataset alone, and run again."
            )

    def _events(self, reader: EpisodeReader, episodes: Sequence[int]) -> Iterator[Event]:
        """Everything there is to write, in order: an episode's rows, then the frames of each of its cameras."""
        config = self._config
        with Decoder(self._dataset.root, threads=config.decode_threads, batch_rows=config.micro_batch) as decoder:
            for index in episodes:
                data = reader.read(self._dataset.episode(self._rows[index]))
                yield data
                for job in data.jobs:
                    yield from decoder.run(job)

    def _wrote(self, job: DecodeJob, count: int) -> None:
        self._frames_done += count
        self._frames_written += count
        rate = self._frames_written / max(time.perf_counter() - self._converting_since, 1e-9)
        self._told.frames(job.episode, job.camera, count)
        self._facts = {
            "episode": job.episode,
            "camera": job.camera,
            "frames": self._frames_done,
            "total_frames": self._plan.num_frames,
            "frames_per_second": round(rate, 1),
            "seconds_left": round((self._plan.num_frames - self._frames_done) / rate, 1),
        }

    def _refuse(self, findings: Sequence[Finding]) -> None:
        """Refuses the dataset because of what decoding found, or because nothing is left of it."""
        everything = (*self._inspection.decision.findings, *findings)
        errors = [found for found in findings if found.severity == "error"]
        raise dirty_error(self._inspection.source, errors, everything)

    def _join(self, num_shards: int) -> FileHeader:
        """Makes the final file of the finished shards, and gives it its name."""
        paths = [self._work.shard_path(number) for number in range(num_shards)]
        finished = paths[0] if num_shards == 1 else self._merged(paths)
        with open_file(finished) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(finished))
            _check_whole(file, header)
        replace_durably(finished, self._output)
        return header

    def _merged(self, paths: Sequence[Path]) -> Path:
        headers, num_rows = [], 0
        for path in paths:
            with open_file(path) as file:
                headers.append(FileHeader.from_attributes(file.attrs, path=str(path)))
                num_rows += len(file[DONE])
        findings = [found for header in headers for found in header.findings]
        if num_rows == 0:
            self._refuse(findings)
        with open_file(paths[0]) as file:
            shape = file_shape(file, headers[0])
        merged = self._work.path / "merged.h5"
        with FileWriter(merged, shape, num_rows=num_rows) as writer:
            for number, path in enumerate(paths):
                try:
                    with open_file(path) as file:
                        for _ in copy_episodes(file, writer):
                            interrupts.check()
                            self._heartbeat.beat({"merging_shard": number, "num_shards": len(paths)})
                except (FormatError, VerificationError) as error:
                    path.unlink(missing_ok=True)
                    raise VerificationError(
                        f"{error} This finished shard is removed now: run the same command again to make it anew."
                    ) from error
                self._told.merging(number + 1, len(paths))
            written = [index for header in headers for index in header.sources[0].episodes]
            everything = (*self._inspection.decision.findings, *findings)
            writer.finish(file_header(self._inspection, episodes=written, findings=everything))
        return merged

    def _file_shape(self, reader: EpisodeReader) -> FileShape:
        return FileShape(
            cameras=tuple(self._inspection.cameras),
            height=self._size[0],
            width=self._size[1],
            columns=reader.file_columns(),
            compression=self._config.compression,
        )


def _check_whole(file: h5py.File, header: FileHeader) -> None:
    """A last look at a finished file before it gets its name: all that it promises is stored."""
    steps = int(file[EP_LEN][:].sum())
    for column in header.cameras:
        chunks = file[column].id.get_num_chunks()
        if not chunks == steps == len(file[column]) == len(file[DONE]):
            raise OSError(errno.EIO, f"{column} has {chunks} frames for {steps} steps", file.filename)
