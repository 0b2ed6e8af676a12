"""How far the frames of a lossy file are from its source, and how far they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm_data.config import Compression
from lewm_data.format.codecs import CODECS, FLETCHER32_BYTES, encoder

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
