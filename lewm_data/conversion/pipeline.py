"""The conductor: inspect, plan, then episode by episode and camera by camera into shards, then one file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lewm_data.config import ConvertConfig
from lewm_data.conversion import interrupts
from lewm_data.conversion.header import file_header
from lewm_data.conversion.inspect import Inspection, inspect_source
from lewm_data.conversion.merge import copy_episodes, file_shape
from lewm_data.conversion.plan import cut_shards, shortfalls
from lewm_data.conversion.reporter import Reporter, Silent
from lewm_data.conversion.shard import refuse, rows_by_episode, write_shard
from lewm_data.conversion.watchdog import Heartbeat
from lewm_data.conversion.work_folder import (
    WorkFolder,
    check_output,
    free_disk_bytes,
    output_place,
    remove_leftovers,
    work_folder,
)
from lewm_data.errors import (
    DirtyDataError,
    FormatError,
    InterruptedConversionError,
    ResourceError,
    VerificationError,
)
from lewm_data.findings import Finding
from lewm_data.format.hdf5 import open_file
from lewm_data.format.schema import ACTION, DONE, EP_LEN, FileHeader
from lewm_data.format.virtual import add_virtual_frames
from lewm_data.format.writer import FileWriter, replace_durably
from lewm_data.resources import available_memory_bytes, num_cpus, peak_memory_bytes

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
        self._inspection = inspection
        self._dataset = inspection.dataset
        self._plan = inspection.plan
        self._config = inspection.config
        self._output = output
        self._told = told
        self._started = started
        self._work = WorkFolder(output, inspection.fingerprint, keeps_shards=inspection.config.layout == "sharded")
        self._rows = rows_by_episode(inspection)
        self._facts: dict[str, Any] = {"total_frames": self._plan.num_frames}
        self._frames_done = 0
        self._frames_written = 0
        self._converting_since = 0.0

    def run(self) -> Converted:
        """Makes the missing shards, joins them, and removes the work folder."""
        shards = self._work.open(self._cut())
        whole = len(shards) == 1 and self._config.layout == "single"
        watchdog_seconds = self._config.watchdog_seconds
        try:
            with Heartbeat(self._work.path / "heartbeat.json", watchdog_seconds=watchdog_seconds) as heartbeat:
                self._heartbeat = heartbeat
                heartbeat.beat(self._facts, force=True)
                self._converting_since = time.perf_counter()
                unfinished = self._unfinished(shards)
                if self._config.engine == "ray" and unfinished:
                    self._shards_by_ray({number: shards[number] for number in unfinished}, whole=whole)
                else:
                    for number in unfinished:
                        self._shard(number, shards[number], whole=whole)
                seconds = time.perf_counter() - self._converting_since
                header = self._join(len(shards))
        except DirtyDataError:
            self._work.remove()
            raise
        self._work.finish()
        return Converted(
            path=self._output,
            header=header,
            num_episodes=sum(len(record.episodes) for record in header.sources),
            num_steps=header.statistics[ACTION].count,
            found_while_decoding=header.findings[len(self._inspection.decision.findings) :],
            file_bytes=self._output.stat().st_size + self._work.kept_bytes(),
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
        threads = min(num_cpus(), _MAX_COMPRESS_THREADS)
        write_shard(
            self._inspection,
            self._work.shard_path(number),
            episodes,
            whole=whole,
            threads=threads if threads > 2 else 1,  # on two processors, the decoder has the other one
            beat=lambda: self._heartbeat.beat(self._facts),
            wrote=lambda job, count: self._wrote(job.episode, job.camera, count),
        )

    def _shards_by_ray(self, shards: Mapping[int, Sequence[int]], *, whole: bool) -> None:
        from lewm_data.conversion.engine_ray import ShardTask, write_shards

        write_shards(
            self._inspection,
            [
                ShardTask(number=number, path=self._work.shard_path(number).absolute(), episodes=episodes)
                for number, episodes in shards.items()
            ],
            self._work.path.absolute(),
            whole=whole,
            alive=lambda: self._heartbeat.beat(self._facts),
            wrote=self._wrote,
        )

    def _wrote(self, episode: int, camera: str, count: int) -> None:
        self._frames_done += count
        self._frames_written += count
        rate = self._frames_written / max(time.perf_counter() - self._converting_since, 1e-9)
        self._told.frames(episode, camera, count)
        self._facts = {
            "episode": episode,
            "camera": camera,
            "frames": self._frames_done,
            "total_frames": self._plan.num_frames,
            "frames_per_second": round(rate, 1),
            "seconds_left": round((self._plan.num_frames - self._frames_done) / rate, 1),
        }

    def _join(self, num_shards: int) -> FileHeader:
        """Makes the final file of the finished shards, and gives it its name."""
        paths = [self._work.shard_path(number) for number in range(num_shards)]
        is_sharded = self._config.layout == "sharded"
        if is_sharded:
            for path in paths:
                with open_file(path) as file:
                    _check_whole(file, FileHeader.from_attributes(file.attrs, path=str(path)))
        finished = paths[0] if num_shards == 1 and not is_sharded else self._joined(paths)
        with open_file(finished) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(finished))
            if not is_sharded:
                _check_whole(file, header)
        replace_durably(finished, self._output)
        return header

    def _joined(self, paths: Sequence[Path]) -> Path:
        """One file of all shards; where they stay, of their small columns only."""
        headers, num_rows = [], 0
        for path in paths:
            with open_file(path) as file:
                headers.append(FileHeader.from_attributes(file.attrs, path=str(path)))
                num_rows += len(file[DONE])
        is_sharded = self._config.layout == "sharded"
        findings = [found for header in headers for found in header.findings]
        if num_rows == 0:
            refuse(self._inspection, findings)
        with open_file(paths[0]) as file:
            shape = file_shape(file, headers[0])
        joined = self._work.path / "joined.h5"
        with FileWriter(joined, shape._replace(cameras=()) if is_sharded else shape, num_rows=num_rows) as writer:
            for number, path in enumerate(paths):
                try:
                    with open_file(path) as file:
                        for _ in copy_episodes(file, writer, frames=not is_sharded):
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
            writer.finish(
                file_header(self._inspection, episodes=written, findings=everything),
                complete=lambda file: add_virtual_frames(file, list(paths), headers[0]) if is_sharded else None,
            )
        return joined


def _check_whole(file: h5py.File, header: FileHeader) -> None:
    """A last look at a finished file before it gets its name: all that it promises is stored."""
    steps = int(file[EP_LEN][:].sum())
    for column in header.cameras:
        chunks = file[column].id.get_num_chunks()
        if not chunks == steps == len(file[column]) == len(file[DONE]):
            raise OSError(errno.EIO, f"{column} has {chunks} frames for {steps} steps", file.filename)
