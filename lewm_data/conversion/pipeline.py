"""A whole conversion: inspect, plan, make the shards one by one, then join them to one file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lewm_data.config import ConvertConfig
from lewm_data.conversion.inspect import Inspection, inspect_source
from lewm_data.conversion.join import join_shards
from lewm_data.conversion.output import (
    ConversionResult,
    check_output,
    free_disk_bytes,
    output_place,
    part_name,
    work_folder,
)
from lewm_data.conversion.plan import cut_shards, memory_remedies, shortfalls
from lewm_data.conversion.reuse import with_donor
from lewm_data.conversion.shard import write_shard
from lewm_data.conversion.watchdog import Heartbeat, raise_if_interrupted
from lewm_data.conversion.work_folder import WorkFolder, kept_bytes, remove_leftovers, used_shard_bytes
from lewm_data.errors import DirtyDataError, FormatError, InterruptedConversionError, ResourceError
from lewm_data.format.hdf5 import open_file
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import ACTION
from lewm_data.paths import is_file, local_path
from lewm_data.resources import available_memory_bytes, num_cpus, peak_memory_bytes

_MAX_COMPRESS_THREADS = 4


class Reporter:
    """Receives the steps of a conversion. This one ignores them; the command line draws a progress bar from them."""

    def inspecting(self, what: str, done: int, total: int) -> None:
        """The inspection read another file."""

    def planned(self, inspection: Inspection) -> None:
        """The inspection passed; the conversion starts."""

    def resumed(self, num_frames: int) -> None:
        """Frames of an earlier run are used again."""

    def frames(self, episode: int, camera: str, count: int) -> None:
        """This many more frames are written."""

    def joining(self, what: str, done: int, total: int) -> None:
        """Another shard is copied into the final file."""

    def waiting(self) -> None:
        """Another process is converting to the same output."""


def convert(
    source: str,
    output: str | os.PathLike[str],
    config: ConvertConfig | None = None,
    *,
    reporter: Reporter | None = None,
) -> ConversionResult:
    """Converts a LeRobot dataset to one HDF5 file of format version 1.

    Resumes by itself after an interruption: finished shards stay in ``<output>.partial`` until the file is complete.

    Args:
        source: Dataset folder or Hub repo id.
        output: The file to make.
        config: The settings.
        reporter: Receives the progress.

    Returns:
        The file and what is in it.

    Raises:
        UsageError: The source, a camera, a setting or the output is invalid.
        DirtyDataError: The dataset has errors that the dirty-episode policy refuses. Nothing is left behind.
        MachineError: The machine cannot read or write a file.
        ResourceError: There is not enough memory or disk space.
        InterruptedConversionError: Ctrl-C. Run the same command again to resume.
    """
    config = config or ConvertConfig()
    reporter = reporter or Reporter()
    started = time.perf_counter()
    output = local_path(output, "output")
    remove_leftovers(output)
    check_output(output, overwrite=config.overwrite)
    try:
        with Heartbeat(None, watchdog_seconds=config.watchdog_seconds) as heartbeat:

            def inspecting(what: str, done: int, total: int) -> None:
                heartbeat.beat({})
                reporter.inspecting(what, done, total)

            inspection = inspect_source(source, config, progress=inspecting)
        inspection.refuse_if_dirty()
        inspection = with_donor(inspection, output)
        assert inspection.plan is not None
        problems = shortfalls(
            inspection.plan,
            config=inspection.config,
            available_memory_bytes=available_memory_bytes(),
            free_disk_bytes=free_disk_bytes(output) + kept_bytes(output),
        )
        if problems:
            raise ResourceError(f"{source} does not fit. " + " ".join(problems))
        kept = f"Finished shards are kept in {work_folder(output)}, and the next run continues from them."
        with output_place(output, overwrite=True, waiting=reporter.waiting, kept=kept):
            if not config.overwrite and (header := _made_meanwhile(inspection, output)) is not None:
                return _result(output, header, started)
            check_output(output, overwrite=config.overwrite)
            reporter.planned(inspection)
            return _Conversion(inspection, output, reporter, started).run()
    except KeyboardInterrupt:
        raise InterruptedConversionError(
            f"Interrupted. Finished shards are kept in {work_folder(output)}. Run the same command again to resume."
        ) from None
    except MemoryError as error:
        raise ResourceError(
            f"{source}: out of memory. {memory_remedies(config, 1)} Then run the same command again to resume."
        ) from error


def _made_meanwhile(inspection: Inspection, output: Path) -> FileHeader | None:
    """Header of the output if another process has just made it from the same source with the same settings."""
    if not is_file(output):
        return None
    try:
        with open_file(output) as file:
            header = FileHeader.from_attributes(file.attrs, path=str(output))
    except FormatError:
        return None
    is_same = (header.fingerprint, header.part) == (inspection.fingerprint, part_name(inspection.config))
    return header if is_same else None


def _result(output: Path, header: FileHeader, started: float, **others: Any) -> ConversionResult:
    """The result for a finished file; ``others`` are what this run did for it, nothing if another process made it."""
    return ConversionResult(
        path=output,
        header=header,
        num_episodes=sum(len(record.episodes) for record in header.sources),
        num_steps=header.statistics[ACTION].count,
        file_bytes=output.stat().st_size + used_shard_bytes(output),
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory_bytes(),
        **others,
    )


class _Conversion:
    """One run, from the work folder's state to the finished file."""

    def __init__(self, inspection: Inspection, output: Path, reporter: Reporter, started: float) -> None:
        assert inspection.dataset is not None
        assert inspection.plan is not None
        self._inspection = inspection
        self._dataset = inspection.dataset
        self._plan = inspection.plan
        self._config = inspection.config
        self._output = output
        self._reporter = reporter
        self._started = started
        self._work = WorkFolder(output, inspection.fingerprint, keeps_shards=inspection.config.layout == "sharded")
        self._rows = inspection.rows_by_episode()
        self._facts: dict[str, Any] = {"total_frames": self._plan.num_frames}
        self._frames_done = 0
        self._frames_written = 0
        self._converting_since = 0.0

    def run(self) -> ConversionResult:
        """Makes the missing shards, joins them, and removes the work folder."""
        shards = self._work.open(self._cut())
        is_final = len(shards) == 1 and self._config.layout == "single"
        watchdog_seconds = self._config.watchdog_seconds
        try:
            with Heartbeat(self._work.path / "heartbeat.json", watchdog_seconds=watchdog_seconds) as heartbeat:
                self._heartbeat = heartbeat
                heartbeat.beat(self._facts, force=True)
                self._converting_since = time.perf_counter()
                unfinished = self._unfinished(shards)
                if self._config.engine == "ray" and unfinished:
                    self._shards_by_ray({number: shards[number] for number in unfinished}, is_final=is_final)
                else:
                    for number in unfinished:
                        self._shard(number, shards[number], is_final=is_final)
                seconds = time.perf_counter() - self._converting_since
                header = join_shards(
                    self._inspection,
                    [self._work.shard_path(number) for number in range(len(shards))],
                    self._output,
                    joined=self._work.path / "joined.h5",
                    progress=self._joining,
                )
        except DirtyDataError:
            self._work.remove()
            raise
        self._work.finish()
        return _result(
            self._output,
            header,
            self._started,
            found_while_decoding=header.findings[len(self._inspection.decision.findings) :],
            remarks=self._inspection.corrections.remarks,
            num_reused=0 if self._inspection.donor is None else self._inspection.donor.num_reused(header),
            frames_per_second=self._frames_written / seconds if self._frames_written else 0.0,
        )

    def _cut(self) -> list[list[int]]:
        """The episode_index of each shard's episodes."""
        episodes = list(self._rows)
        lengths = [self._inspection.num_steps(row) for row in self._rows.values()]
        step_bytes = self._plan.output_bytes / max(self._plan.num_steps, 1)
        shards = cut_shards(lengths, step_bytes=step_bytes, shard_bytes=self._config.shard_bytes)
        return [[episodes[position] for position in shard] for shard in shards]

    def _num_steps(self, episodes: Sequence[int]) -> int:
        return sum(self._inspection.num_steps(self._rows[index]) for index in episodes)

    def _unfinished(self, shards: Sequence[Sequence[int]]) -> list[int]:
        """The numbers of the shards to make. Counts what an earlier run finished."""
        unfinished = [number for number in range(len(shards)) if self._work.finished_shard(number) is None]
        finished = set(range(len(shards))).difference(unfinished)
        self._frames_done = sum(self._num_steps(shards[number]) for number in finished) * len(self._inspection.cameras)
        if finished:
            self._reporter.resumed(self._frames_done)
        return unfinished

    def _shard(self, number: int, episodes: Sequence[int], *, is_final: bool) -> None:
        """Makes a shard in this process (see ``write_shard``)."""
        threads = min(num_cpus(), _MAX_COMPRESS_THREADS)
        write_shard(
            self._inspection,
            self._work.shard_path(number),
            episodes,
            is_final=is_final,
            threads=threads if threads > 2 else 1,  # on two processors, the decoder has the other one
            beat=lambda: self._heartbeat.beat(self._facts),
            wrote=lambda job, count: self._wrote(job.episode, job.camera, count),
        )

    def _shards_by_ray(self, shards: Mapping[int, Sequence[int]], *, is_final: bool) -> None:
        from lewm_data.conversion.engine_ray import ShardTask, write_shards

        write_shards(
            self._inspection,
            [
                ShardTask(number=number, path=self._work.shard_path(number).absolute(), episodes=episodes)
                for number, episodes in shards.items()
            ],
            self._work.path.absolute(),
            is_final=is_final,
            alive=lambda: self._heartbeat.beat(self._facts),
            wrote=self._wrote,
        )

    def _joining(self, what: str, done: int, total: int) -> None:
        raise_if_interrupted()
        self._heartbeat.beat({"joining_shard": done, "num_shards": total})
        self._reporter.joining(what, done, total)

    def _wrote(self, episode: int, camera: str, count: int) -> None:
        self._frames_done += count
        self._frames_written += count
        rate = self._frames_written / max(time.perf_counter() - self._converting_since, 1e-9)
        self._reporter.frames(episode, camera, count)
        self._facts = {
            "episode": episode,
            "camera": camera,
            "frames": self._frames_done,
            "total_frames": self._plan.num_frames,
            "frames_per_second": round(rate, 1),
            "seconds_left": round((self._plan.num_frames - self._frames_done) / rate, 1),
        }
