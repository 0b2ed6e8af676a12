"""The conductor: inspect, plan, then episode by episode and camera by camera into shards, then one file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import lewm_data
from lewm_data.config import ConvertConfig
from lewm_data.conversion.catalogue import finding
from lewm_data.conversion.checks import PictureCheck
from lewm_data.conversion.decode import DecodedFrame, DecodeJob, Decoder, JobEnd, event_bytes
from lewm_data.conversion.episodes import EpisodeData, EpisodeReader
from lewm_data.conversion.inspect import Inspection, decode_threads, dirty_error, inspect_source
from lewm_data.conversion.lock import exclusive
from lewm_data.conversion.merge import copy_episodes, file_shape, open_file
from lewm_data.conversion.plan import READ_AHEAD_BYTES, cut_shards, shortfalls
from lewm_data.conversion.readahead import read_ahead
from lewm_data.conversion.scale import Scaler, UnknownColours
from lewm_data.conversion.validate import decide
from lewm_data.conversion.watchdog import Heartbeat
from lewm_data.conversion.writer import FileShape, FileWriter, replace_durably, small_columns
from lewm_data.errors import (
    DirtyDataError,
    FormatError,
    InterruptedConversionError,
    OutputError,
    ResourceError,
)
from lewm_data.resources import available_memory_bytes, num_cpus
from lewm_data.schema import ACTION, STATE, FileHeader, Finding, SourceRecord


class Reporter(Protocol):
    """Who is told how a conversion goes; the command line draws a progress bar from it."""

    def inspecting(self, what: str, done: int, total: int) -> None:
        """A file was read while inspecting."""

    def planned(self, inspection: Inspection) -> None:
        """The inspection is done and nothing stands against it; conversion begins."""

    def resumed(self, num_shards: int, num_frames: int) -> None:
        """An earlier run's shards are used."""

    def frames(self, episode: int, camera: str, count: int) -> None:
        """So many more frames are written."""

    def merging(self, done: int, total: int) -> None:
        """So many of all shards are copied into the final file."""

    def waiting(self) -> None:
        """Another process is converting to the same output."""


class Silent:
    """A reporter that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What came of a conversion.

    Attributes:
        path: The file.
        header: Its root attributes.
        num_episodes: Episodes in it.
        num_steps: Steps in it.
        file_bytes: Its size.
        seconds: Time taken, inspection included.
        frames_per_second: Frames written per second of converting; 0 if all of them were there already.
        peak_memory_bytes: Most resident memory of this process so far.
    """

    path: Path
    header: FileHeader
    num_episodes: int
    num_steps: int
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
    _check_output(output, config)
    with Heartbeat(None, watchdog_seconds=config.watchdog_seconds) as heartbeat:

        def inspecting(what: str, done: int, total: int) -> None:
            heartbeat.beat({})
            told.inspecting(what, done, total)

        inspection = inspect_source(source, config, progress=inspecting)
    inspection.refuse_if_dirty()
    assert inspection.plan is not None
    problems = shortfalls(
        inspection.plan,
        available_memory_bytes=available_memory_bytes(),
        free_disk_bytes=_free_disk_bytes(output),
    )
    if problems:
        raise ResourceError(f"{source} does not fit. " + " ".join(problems))
    made = _make_folder(output.parent)
    try:
        with exclusive(output.with_name(output.name + ".lock"), waiting=told.waiting):
            _check_output(output, config)  # another process may have made it while this one waited
            told.planned(inspection)
            result = _Conversion(inspection, output, told).run(started)
    except KeyboardInterrupt:
        raise InterruptedConversionError(
            f"Interrupted. What is finished is kept in {_work_folder(output)}; run the same command again to go on."
        ) from None
    except OSError as error:
        raise _output_failure(error, output) from error
    finally:
        if made is not None and not any(output.parent.iterdir()):
            output.parent.rmdir()
    return result


class _Conversion:
    """One run: from the work folder's state to the finished file."""

    def __init__(self, inspection: Inspection, output: Path, told: Reporter) -> None:
        assert inspection.dataset is not None
        assert inspection.plan is not None
        assert inspection.image_size is not None
        self.inspection = inspection
        self.dataset = inspection.dataset
        self.config = inspection.config
        self.output = output
        self.told = told
        self.work = _work_folder(output)
        self.size = inspection.image_size
        rows = inspection.kept_rows()
        plan = inspection.plan
        lengths = self.dataset.episodes.length[rows].tolist()
        step_bytes = plan.output_bytes / max(plan.num_steps, 1)
        self.shards = [
            [rows[position] for position in shard]
            for shard in cut_shards(lengths, step_bytes=step_bytes, shard_bytes=self.config.shard_bytes)
        ]
        self.num_frames = plan.num_frames
        self.frames_done = 0
        self.frames_written = 0

    def run(self, started: float) -> Converted:
        self._open_work_folder()
        try:
            with Heartbeat(self.work / "heartbeat.json", watchdog_seconds=self.config.watchdog_seconds) as heartbeat:
                heartbeat.beat({"total_frames": self.num_frames}, force=True)
                self.heartbeat = heartbeat
                converting = time.perf_counter()
                self.converting_since = converting
                for number in range(len(self.shards)):
                    self._shard(number)
                converted_seconds = time.perf_counter() - converting
                header = self._join()
        except DirtyDataError:
            shutil.rmtree(self.work)
            raise
        shutil.rmtree(self.work)
        with open_file(self.output) as file:
            num_steps, num_episodes = len(file["done"]), len(file["ep_len"])
            _read_back(file, header)
        return Converted(
            path=self.output,
            header=header,
            num_episodes=num_episodes,
            num_steps=num_steps,
            file_bytes=self.output.stat().st_size,
            seconds=time.perf_counter() - started,
            frames_per_second=self.frames_written / converted_seconds if self.frames_written else 0.0,
            peak_memory_bytes=_peak_memory_bytes(),
        )

    # --- the work folder: finished shards of an interrupted run are used if nothing that matters has changed

    def _open_work_folder(self) -> None:
        table = self.dataset.episodes
        state = {
            "fingerprint": self.inspection.fingerprint,
            "lewm_data_version": lewm_data.__version__,
            "shards": [table.index[rows].tolist() for rows in self.shards],
        }
        state_file = self.work / "state.json"
        try:
            known = json.loads(state_file.read_text())
        except (OSError, ValueError):
            known = None
        if (
            known
            and known.get("fingerprint") == state["fingerprint"]
            and known.get("lewm_data_version") == (state["lewm_data_version"])
        ):
            rows = {int(index): row for row, index in enumerate(table.index.tolist())}
            with contextlib.suppress(KeyError, TypeError):  # else the file is not ours: begin anew
                self.shards = [[rows[index] for index in shard] for shard in known["shards"]]
                return
        if self.work.exists():
            shutil.rmtree(self.work)
        self.work.mkdir()
        temporary = state_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        replace_durably(temporary, state_file)

    def _shard_path(self, number: int) -> Path:
        return self.work / f"shard-{number:05d}.h5"

    def _finished_shard(self, number: int) -> FileHeader | None:
        """The header of a shard that an earlier run finished: a shard has its name only when it is whole."""
        path = self._shard_path(number)
        if not path.exists():
            return None
        try:
            with open_file(path) as file:
                header = FileHeader.from_attributes(file.attrs, path=str(path))
        except (OSError, FormatError):
            header = None
        if header is None or header.fingerprint != self.inspection.fingerprint:
            path.unlink()
            return None
        return header

    # --- one shard

    def _shard(self, number: int) -> None:
        rows = self.shards[number]
        cameras = len(self.inspection.cameras)
        steps = int(self.dataset.episodes.length[rows].sum())
        if self._finished_shard(number) is not None:
            self.frames_done += steps * cameras
            self.told.resumed(1, steps * cameras)
            return
        findings: list[Finding] = []
        written: list[int] = []
        threads = min(num_cpus(), 4)
        with (
            EpisodeReader(
                self.dataset, self.inspection.report, self.inspection.cameras, self.config.extra_columns
            ) as reader,
            FileWriter(
                self._shard_path(number),
                self._file_shape(reader),
                num_rows=steps,
                threads=threads if threads > 2 else 1,
            ) as writer,
            read_ahead(self._events(reader, rows), max_bytes=READ_AHEAD_BYTES, size_of=_event_bytes) as events,
        ):
            assembly = _Assembly(self, writer)
            for event in events:
                ended = assembly.take(event)
                if ended is not None:
                    index, found, kept = ended
                    findings += found
                    if kept:
                        written.append(index)
            writer.finish(self._header(written, findings, whole=len(self.shards) == 1))

    def _events(self, reader: EpisodeReader, rows: Sequence[int]) -> Iterator[EpisodeData | DecodedFrame | JobEnd]:
        """Everything there is to write, in order: an episode's rows, then the frames of each of its cameras."""
        with Decoder(
            self.dataset.root, threads=decode_threads(self.config), batch_rows=self.config.micro_batch
        ) as decoder:
            for row in rows:
                data = reader.read(self.dataset.episode(row))
                yield data
                for job in data.jobs:
                    yield from decoder.run(job)

    def _file_shape(self, reader: EpisodeReader) -> FileShape:
        columns = reader.file_columns()
        base = small_columns(columns[ACTION][1] or 1, columns[STATE][1] or 1)
        return FileShape(
            cameras=tuple(self.inspection.cameras),
            height=self.size[0],
            width=self.size[1],
            columns={**base, **columns},
            compression=self.config.compression,
        )

    def _header(self, written: list[int], findings: Sequence[Finding], *, whole: bool) -> FileHeader:
        """Root attributes of a shard, or, if it is ``whole``, of the finished file."""
        dataset, inspection = self.dataset, self.inspection
        columns = dataset.row_columns(self.config.extra_columns)
        before = inspection.decision.findings if whole else ()
        all_findings = (*before, *findings)
        dropped = {found.episode for found in all_findings if found.handling == "dropped"}
        return FileHeader(
            lewm_data_version=lewm_data.__version__,
            sources=(
                SourceRecord(
                    repo_id=dataset.repo_id,
                    revision=dataset.revision,
                    codebase_version=dataset.codebase_version,
                    episodes=tuple(written),
                ),
            ),
            fps=dataset.fps,
            cameras=dict(inspection.cameras),
            image_height=self.size[0],
            image_width=self.size[1],
            resize=self.config.resize,
            compression=self.config.compression,
            done_source=dataset.done_source,
            feature_names={
                name: dataset.features[key].names for name, key in columns.items() if dataset.features[key].names
            },
            tasks=dataset.tasks,
            dirty_episode_policy=self.config.dirty_episode_policy,
            findings=all_findings,
            dropped_episodes=tuple(sorted(index for index in dropped if index is not None)),
            fingerprint=inspection.fingerprint,
        )

    # --- all shards

    def _join(self) -> FileHeader:
        """Makes the final file of the finished shards, and gives it its name."""
        paths = [self._shard_path(number) for number in range(len(self.shards))]
        if len(paths) == 1:
            replace_durably(paths[0], self.output)
            with open_file(self.output) as file:
                return FileHeader.from_attributes(file.attrs, path=str(self.output))
        headers = []
        for path in paths:
            with open_file(path) as file:
                headers.append(FileHeader.from_attributes(file.attrs, path=str(path)))
        written = [index for header in headers for index in header.sources[0].episodes]
        if not written:
            raise DirtyDataError(
                f"{self.inspection.source}: no episode is left after decoding. See the findings.",
                [found.to_json() for header in headers for found in header.findings],
            )
        findings = [
            *self.inspection.decision.findings,
            *(found for header in headers for found in header.findings),
        ]
        header = self._header(written, findings, whole=False)
        merged = self.work / "merged.h5"
        with open_file(paths[0]) as first:
            shape = file_shape(first, headers[0])
        num_rows = sum(len(file["done"]) for path in paths for file in _opened(path))
        with FileWriter(merged, shape, num_rows=num_rows) as writer:
            for number, path in enumerate(paths):
                with open_file(path) as file:
                    for _ in copy_episodes(file, writer):
                        self.heartbeat.beat({"merging_shard": number, "num_shards": len(paths)})
                self.told.merging(number + 1, len(paths))
            writer.finish(header)
        with open_file(merged) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(merged))
        replace_durably(merged, self.output)
        return header

    def beat(self, job: DecodeJob, count: int) -> None:
        """Says that frames were written."""
        self.frames_done += count
        self.frames_written += count
        rate = self.frames_written / max(time.perf_counter() - self.converting_since, 1e-9)
        self.told.frames(job.episode, job.camera, count)
        self.heartbeat.beat(
            {
                "episode": job.episode,
                "camera": job.camera,
                "frames": self.frames_done,
                "total_frames": self.num_frames,
                "frames_per_second": round(rate, 1),
                "seconds_left": round((self.num_frames - self.frames_done) / rate, 1),
            }
        )


class _Assembly:
    """Puts the stream of rows and frames together to episodes: one reused buffer, one micro-batch at a time."""

    def __init__(self, conversion: _Conversion, writer: FileWriter) -> None:
        config = conversion.config
        self._conversion = conversion
        self._writer = writer
        self._buffer = np.empty((config.micro_batch, *conversion.size, 3), np.uint8)
        self._scaler = Scaler(*conversion.size, config.resize)
        self._filled = 0
        self._start = 0
        self._data: EpisodeData | None = None
        self._open_jobs = 0
        self._length = 0
        self._findings: list[Finding] = []
        self._check: PictureCheck | None = None
        self._refused_frame: str | None = None

    def take(self, event: EpisodeData | DecodedFrame | JobEnd) -> tuple[int, tuple[Finding, ...], bool] | None:
        """Takes the next event.

        Returns:
            At an episode's end: its episode_index, its findings, and whether it is in the file.

        Raises:
            DirtyDataError: The policy refuses what was found.
        """
        if isinstance(event, EpisodeData):
            self._data, self._length, self._findings = event, event.length, []
            self._open_jobs = len(event.jobs)
            self._writer.write_rows(event.columns)
        elif isinstance(event, DecodedFrame):
            self._frame(event)
        else:
            return self._job_end(event)
        return None

    def _frame(self, event: DecodedFrame) -> None:
        if self._check is None:
            self._check = PictureCheck(event.job.column, event.job.fps)
            self._start, self._filled = 0, 0
        try:
            self._scaler.put(event.frame, self._buffer[self._filled])
        except UnknownColours as error:
            self._refused_frame = str(error)
            return
        self._filled += 1
        if self._filled == len(self._buffer):
            self._flush(event.job)

    def _flush(self, job: DecodeJob) -> None:
        frames = self._buffer[: self._filled]
        assert self._check is not None
        self._check.look(frames)
        self._writer.write_frames(job.column, frames, start=self._start)
        self._conversion.beat(job, self._filled)
        self._start += self._filled
        self._filled = 0

    def _job_end(self, event: JobEnd) -> tuple[int, tuple[Finding, ...], bool] | None:
        assert self._data is not None
        job = event.job
        findings = list(event.findings)
        if self._filled:
            self._flush(job)
        if self._check is not None:
            findings += self._check.findings(episode=job.episode, file=job.file)
            self._check = None
        if self._refused_frame is not None:
            findings.append(
                finding(
                    "decode_error",
                    episode=job.episode,
                    file=job.file,
                    expected="a known colour space",
                    found=self._refused_frame,
                )
            )
            self._refused_frame = None
        self._findings += findings
        self._length = min(self._length, event.num_frames)
        self._open_jobs -= 1
        return self._episode_end(job.episode) if self._open_jobs == 0 else None

    def _episode_end(self, index: int) -> tuple[int, tuple[Finding, ...], bool]:
        inspection = self._conversion.inspection
        assert self._data is not None
        decision = decide(self._findings, inspection.config.dirty_episode_policy)
        if decision.refused:
            refused = [found for found in decision.findings if found.handling == "refused"]
            raise dirty_error(inspection.source, refused, (*inspection.decision.findings, *decision.findings))
        kept = index not in decision.dropped and self._length > 0
        if kept:
            if self._length < self._data.length and self._conversion.dataset.done_source == "last_step":
                self._writer.mark_end(self._length - 1)
            self._writer.end_episode(self._length)
        return index, decision.findings, kept


def _event_bytes(event: EpisodeData | DecodedFrame | JobEnd) -> int:
    if isinstance(event, EpisodeData):
        return sum(values.nbytes for values in event.columns.values())
    return event_bytes(event)


def _read_back(file: Any, header: FileHeader) -> None:
    """A last look at the file under its own name: every frame that it promises is stored."""
    steps = int(file["ep_len"][:].sum())
    for column in header.cameras:
        chunks = file[column].id.get_num_chunks()
        if not (chunks == steps == len(file[column]) == len(file["done"])):
            raise OSError(errno.EIO, f"{column} has {chunks} frames for {steps} steps", file.filename)


def _opened(path: Path) -> Iterator[Any]:
    with open_file(path) as file:
        yield file


def _work_folder(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _check_output(output: Path, config: ConvertConfig) -> None:
    if output.is_dir():
        raise OutputError(f"{output}: is a folder, but the output is one file. Give a name such as {output}/data.h5.")
    if output.exists() and not config.overwrite:
        raise OutputError(f"{output}: exists already. Give another name, or --overwrite to replace it.")
    parent = output.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: cannot be written, since {parent} is no folder that may be written to.")


def _free_disk_bytes(output: Path) -> int:
    parent = output.parent
    while not parent.exists():
        parent = parent.parent
    return shutil.disk_usage(parent).free


def _make_folder(folder: Path) -> Path | None:
    """Makes the output's folder; returns it if it was not there."""
    if folder.exists():
        return None
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}). Choose another folder.") from error
    return folder


def _output_failure(error: OSError, output: Path) -> OutputError | ResourceError:
    """An operating-system error while writing, in words."""
    text = f"{error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return ResourceError(
            f"{output}: the disk is full. Finished shards are kept in {_work_folder(output)}: free some space and "
            "run the same command again to go on, or remove that folder."
        )
    return OutputError(f"{output}: cannot be written ({text}). Choose another place.")


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
