"""One shard: its episodes decoded, checked, compressed and written, wherever that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from lewm_data.background import Prefetcher
from lewm_data.conversion import interrupts
from lewm_data.conversion.assembly import Assembly, Event, in_flight_bytes
from lewm_data.conversion.header import file_header
from lewm_data.conversion.inspect import Inspection, dirty_error, source_fingerprint
from lewm_data.conversion.plan import READ_AHEAD_BYTES
from lewm_data.errors import SourceError
from lewm_data.findings import Finding
from lewm_data.format.writer import FileShape, FileWriter
from lewm_data.source.decode import DecodeJob, Decoder
from lewm_data.source.episodes import EpisodeReader


def write_shard(
    inspection: Inspection,
    path: Path,
    episodes: Sequence[int],
    *,
    whole: bool,
    threads: int,
    beat: Callable[[], None],
    wrote: Callable[[DecodeJob, int], None],
) -> None:
    """Makes a shard; it appears under its name only when it is whole.

    Args:
        inspection: The source and the settings.
        path: The file to make.
        episodes: The source's episode_index of each of its episodes.
        whole: It is the finished file but for its name, so it tells of all findings, and must not be empty.
        threads: Threads that compress.
        beat: Called for each thing that was decoded.
        wrote: Told of each micro-batch once it is written: its job and its number of frames.

    Raises:
        DirtyDataError: Decoding found what the policy refuses.
        SourceError: The source changed meanwhile.
    """
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    assert inspection.image_size is not None
    rows = rows_by_episode(inspection)
    findings: list[Finding] = []
    written: list[int] = []
    with EpisodeReader(dataset, inspection.report, inspection.cameras, config.extra_columns) as reader:
        shape = FileShape(
            cameras=tuple(inspection.cameras),
            height=inspection.image_size[0],
            width=inspection.image_size[1],
            columns=reader.file_columns(),
            compression=config.compression,
        )
        num_rows = sum(int(dataset.episodes.length[rows[index]]) for index in episodes)
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
                interrupts.check()
                beat()
                end = assembly.take(event)
                if end is None:
                    continue
                findings += end.findings
                if end.refused:
                    refuse(inspection, findings)
                if end.written:
                    written.append(end.episode)
            if whole and not written:
                refuse(inspection, findings)
            _check_source(inspection)
            before = inspection.decision.findings if whole else ()
            writer.finish(file_header(inspection, episodes=written, findings=(*before, *findings)))


def rows_by_episode(inspection: Inspection) -> dict[int, int]:
    """The source's episode_index of each episode to convert, in order, and its row of the episode table."""
    assert inspection.dataset is not None
    return {int(inspection.dataset.episodes.index[row]): row for row in inspection.kept_rows()}


def refuse(inspection: Inspection, findings: Sequence[Finding]) -> None:
    """Refuses the dataset because of what decoding found, or because nothing is left of it.

    Raises:
        DirtyDataError: Always.
    """
    everything = (*inspection.decision.findings, *findings)
    errors = [found for found in findings if found.severity == "error"]
    raise dirty_error(inspection.source, errors, everything)


def _check_source(inspection: Inspection) -> None:
    """Refuses a source that is not the one that was inspected: nobody could say what the shard holds."""
    assert inspection.dataset is not None
    if source_fingerprint(inspection.dataset, inspection.cameras, inspection.config) != inspection.fingerprint:
        raise SourceError(
            f"{inspection.source}: changed while it was converted. Leave the dataset alone, and run again."
        )


def _events(inspection: Inspection, reader: EpisodeReader, rows: Sequence[int]) -> Iterator[Event]:
    """Everything there is to write, in order: an episode's rows, then the frames of each of its cameras."""
    dataset, config = inspection.dataset, inspection.config
    assert dataset is not None
    with Decoder(dataset.root, threads=config.decode_threads, batch_rows=config.micro_batch) as decoder:
        for row in rows:
            data = reader.read(dataset.episode(row))
            yield data
            for job in data.jobs:
                yield from decoder.run(job)
