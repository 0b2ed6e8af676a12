"""Compares a converted file with its source: every row and every decoded frame, equal or within a codec's loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lewm_data.config import Compression
from lewm_data.conversion.inspect import Inspection
from lewm_data.format.codecs import CODECS, FLETCHER32_BYTES, encoder
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

TOLERANCE_DB = 0.5
"""The frame of another step is several dB away even in a slow recording; another version of the encoder is not."""

_TOLERANCE = 10 ** (TOLERANCE_DB / 10)
_ROUNDING = 0.05
"""Mean squared error that is allowed in any case: some 61 dB, where a flat frame is stored almost without loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """The error of a lossy file's frames, as peak signal-to-noise ratio in dB; None stands for equal frames.

    Attributes:
        codec: The codec and its quality, in words.
        psnr_db: Over all frames together.
        worst_psnr_db: Of the frame that is furthest from the source.
        worst_frame: Which frame that is.
        tolerance_db: The bound: how much further from the source a frame may be than the same frame encoded again.
    """

    codec: str
    psnr_db: float | None
    worst_psnr_db: float | None
    worst_frame: str
    tolerance_db: float = TOLERANCE_DB

    def to_dict(self) -> dict[str, Any]:
        """The ``loss`` object of ``lewm-data verify --against --json``."""
        return {
            "codec": self.codec,
            "psnr_db": self.psnr_db,
            "worst_psnr_db": self.worst_psnr_db,
            "worst_frame": self.worst_frame,
            "tolerance_db": self.tolerance_db,
        }

    def __str__(self) -> str:
        """One sentence."""
        if self.psnr_db is None:
            return f"Its frames ({self.codec}) equal the source's."
        return (
            f"Its frames ({self.codec}) are {self.psnr_db:.1f} dB from the source's (PSNR), the worst "
            f"{self.worst_psnr_db:.1f} dB ({self.worst_frame}); each is within {self.tolerance_db:g} dB of encoding it "
            "again."
        )


class LossMeter:
    """Measures stored frames against the source's, and against the same frames encoded again."""

    def __init__(self, compression: Compression, quality: int, codec_words: str) -> None:
        self._encode = encoder(compression, quality)
        self._codec = CODECS[compression]
        self._words = codec_words
        self._sum, self._count = 0.0, 0
        self._worst, self._worst_frame = -1.0, ""

    def excess(self, frame: NDArray[np.uint8], stored: NDArray[np.uint8], name: str) -> str:
        """Measures a frame.

        Args:
            frame: (H, W, 3) from the source.
            stored: The same frame from the file.
            name: What to call it.

        Returns:
            How the frame exceeds the bound, as the end of a sentence; empty if it is within it.
        """
        error = _error(stored, frame)
        self._sum, self._count = self._sum + error, self._count + 1
        if error > self._worst:
            self._worst, self._worst_frame = error, name
        if error <= _ROUNDING:
            return ""
        chunk, again = self._encode(frame), np.empty(frame.size, np.uint8)
        if chunk.filter_mask:  # stored raw, since encoding does not make it smaller
            allowed = _ROUNDING
        else:
            self._codec.decode(memoryview(chunk.data)[:-FLETCHER32_BYTES], again)
            allowed = _TOLERANCE * _error(again.reshape(frame.shape), frame) + _ROUNDING
        if error <= allowed:
            return ""
        bound = _decibels(allowed)
        return f"is {_decibels(error):.1f} dB from the source (PSNR); encoding it again allows {bound:.1f} dB"

    def loss(self) -> Loss:
        """The error of all frames so far."""
        mean = self._sum / max(self._count, 1)
        return Loss(
            codec=self._words,
            psnr_db=round(_decibels(mean), 2) if mean else None,
            worst_psnr_db=round(_decibels(self._worst), 2) if self._worst > 0 else None,
            worst_frame=self._worst_frame,
        )


def _error(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean squared difference."""
    return float(np.square(one.astype(np.int32) - other).mean())


def _decibels(error: float) -> float:
    return 10 * math.log10(255**2 / error)


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
