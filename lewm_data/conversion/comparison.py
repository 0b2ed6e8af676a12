"""Compares a converted file with its source: every row and every decoded frame."""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.conversion.inspect import Inspection
from lewm_data.conversion.loss import LossMeter
from lewm_data.format.header import FileHeader
from lewm_data.format.schema import (
    DONE,
    EP_LEN,
    EP_OFFSET,
)
from lewm_data.quality.checks import lost_precision
from lewm_data.resources import Progress
from lewm_data.source.decode import DecodedFrame, Decoder
from lewm_data.source.episodes import EpisodeData, EpisodeReader
from lewm_data.source.scale import Scaler


class Comparison:
    """Compares the episodes of a file with those of its source.

    Attributes:
        num_compared: Frames compared so far.
        meter: Measures the frames of a lossy file; None where they must equal the source's.
    """

    def __init__(self, file: h5py.File, header: FileHeader, inspection: Inspection, progress: Progress) -> None:
        self.num_compared = 0
        self._file = file
        self._header = header
        self._inspection = inspection
        self._progress = progress
        self._lengths, self._offsets = file[EP_LEN][:].tolist(), file[EP_OFFSET][:].tolist()
        self._num_frames = sum(self._lengths) * len(header.cameras)
        # If the policy keeps an episode whose frames are missing, decoding cuts it off.
        kept = [found for found in header.findings if found.handling == "kept"]
        self._shortened = {found.episode for found in kept if found.code != "precision_lost"}
        self._coarse = {found.episode for found in kept if found.code == "precision_lost"}
        self._scaler = Scaler(
            header.image_height, header.image_width, inspection.config.resize, version=header.scaler_version
        )
        self.meter: LossMeter | None = None
        if header.lossy_quality:
            self.meter = LossMeter(header.compression, header.lossy_quality, header.codec_words)  # type: ignore[arg-type]
        self._frame = np.empty((header.image_height, header.image_width, 3), np.uint8)

    def differences(self) -> Iterator[str]:
        """Compares everything; yields each difference as one sentence."""
        dataset, report, config = self._inspection.dataset, self._inspection.report, self._inspection.config
        assert dataset is not None
        [record] = self._header.sources
        kept_steps = {index: range(*steps) for index, steps in zip(record.episodes, record.kept_steps, strict=False)}
        rows = {int(index): row for row, index in enumerate(dataset.episodes.index.tolist())}
        num_differences = 0
        with (
            EpisodeReader(
                dataset,
                report,
                self._header.cameras,
                config.extra_columns,
                state_dtype="float64",
                shifts=record.shifts,
                kept_steps=kept_steps,
            ) as reader,
            Decoder(dataset.root, threads=config.decode_threads, batch_rows=16) as decoder,
        ):
            for position, index in enumerate(record.episodes):
                if index not in rows or index not in report.first_rows:
                    found: Iterator[str] = iter((f"episode {index}: is in the file, but not in the source",))
                else:
                    found = self._in_episode(position, reader.read(dataset.episode(rows[index])), decoder)
                for difference in found:
                    num_differences += 1
                    yield difference
        if self.num_compared != self._num_frames and not num_differences:
            yield f"the file has {self._num_frames} frames, but the source decodes to {self.num_compared}"

    def _in_episode(self, position: int, data: EpisodeData, decoder: Decoder) -> Iterator[str]:
        index, length, offset = data.episode.index, self._lengths[position], self._offsets[position]
        is_shortened = index in self._shortened
        if data.length != length and not is_shortened:
            yield f"episode {index}: {length} steps in the file, {data.length} in the source"
        for name, values in data.columns.items():
            stored = self._file[name][offset : offset + length]
            with np.errstate(over="ignore"):  # an Inf that was kept on request
                expected = values[:length].astype(stored.dtype)
            is_equal = np.array_equal(stored, expected, equal_nan=stored.dtype.kind == "f")
            if not is_equal and not (name == DONE and is_shortened):
                yield f"episode {index}: column {name!r} differs from the source"
            if index not in self._coarse:
                for lost in lost_precision(values.reshape(data.length, -1), stored.dtype):
                    yield (
                        f"episode {index}: {name!r} dimension {lost.dimension} has {lost.num_distinct} distinct values "
                        f"in the source, but {lost.num_left} in the file ({stored.dtype})"
                    )
        for job in data.jobs:
            for step, event in enumerate(decoder.run(job)):
                if not isinstance(event, DecodedFrame) or step >= length:
                    break
                self._scaler.put(event.frame, self._frame, orientation=event.orientation)
                self.num_compared += 1
                difference = self._difference(self._file[job.column][offset + step], f"episode {index} step {step}")
                if difference:
                    yield f"episode {index} step {step}: {job.column!r} {difference}"
                self._progress("compare", self.num_compared, self._num_frames)

    def _difference(self, stored: NDArray[np.uint8], name: str) -> str:
        """How a stored frame differs from the source's more than it may."""
        if self.meter is not None:
            return self.meter.excess(self._frame, stored, name)
        return "" if np.array_equal(self._frame, stored) else "differs from the source"
