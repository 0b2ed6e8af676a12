"""Checks frames as they pass: black, single-color or frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lewm_data.findings import Finding, finding
from lewm_data.notation import count_of

BLACK_LEVEL = 8
"""A frame is black if its brightest value (of 255) is below this: limited-range video decodes black to 0 or 1."""

CONSTANT_SPREAD = 2
"""A frame has one color if no channel varies by more than this: lossy codecs are off by about 1."""

FROZEN_SECONDS = 2.0
"""A camera is frozen if its picture stays bit for bit the same this long, because a live sensor has noise.

LeRobot's AV1 (a keyframe every 2 frames) decodes an unchanging picture to unchanging bits. x264 with such short groups
does not, and there no threshold separates a frozen camera from a robot that stands still.
"""

_STRIDE = 4
_MIN_STRIDED_SIDE = 32
"""Frames with a side shorter than this, in pixels, are checked in full; others by every 4th row and column."""


@dataclass(slots=True)
class PictureCheck:
    """Counts the black, one-color and frozen frames of one camera in one episode.

    Attributes:
        column: Frame column, for messages.
        fps: Frames per second.
    """

    column: str
    fps: float
    _black: int = 0
    _constant: int = 0
    _still: int = 0
    _longest_still: int = 0
    _seen: int = 0
    _first_black: int = -1
    _first_constant: int = -1
    _still_since: int = 0
    _previous: np.ndarray | None = None

    def look(self, frames: np.ndarray) -> None:
        """Checks the next frames.

        Args:
            frames: uint8, shape (n, H, W, 3). The buffer may be reused afterwards.
        """
        stride = _STRIDE if min(frames.shape[1:3]) >= _MIN_STRIDED_SIDE else 1
        # channels first: 16 us a frame; reducing over the middle axis takes 240 us
        pixels = np.ascontiguousarray(frames[:, ::stride, ::stride].transpose(0, 3, 1, 2)).reshape(len(frames), 3, -1)
        highest, lowest = pixels.max(axis=2), pixels.min(axis=2)
        black = highest.max(axis=1) < BLACK_LEVEL
        constant = (highest - lowest).max(axis=1) <= CONSTANT_SPREAD
        constant &= ~black
        self._first_black = _first(self._first_black, black, self._seen)
        self._first_constant = _first(self._first_constant, constant, self._seen)
        self._black += int(black.sum())
        self._constant += int(constant.sum())
        for step, frame in enumerate(pixels, start=self._seen):
            same = self._previous is not None and np.array_equal(frame, self._previous)
            self._still = self._still + 1 if same else 0
            if self._still > self._longest_still:
                self._longest_still, self._still_since = self._still, step - self._still
            self._previous = frame
        self._seen += len(pixels)

    def findings(self, *, episode: int, file: str, first_step: int = 0) -> Iterator[Finding]:
        """Yields what is wrong with the frames so far.

        Args:
            episode: The source's episode_index.
            file: Video or Parquet file, relative to the dataset's folder.
            first_step: Step of the episode that the first frame is of.
        """
        where: dict[str, Any] = {"episode": episode, "file": file}
        expected = f"pictures in {self.column!r}"
        if self._black:
            found = count_of(self._black, "black frame")
            yield finding("frames_black", expected=expected, found=found, step=first_step + self._first_black, **where)
        if self._constant:
            found = f"{count_of(self._constant, 'frame')} of one color"
            yield finding(
                "frames_constant", expected=expected, found=found, step=first_step + self._first_constant, **where
            )
        if self._longest_still >= max(2, round(FROZEN_SECONDS * self.fps)):
            yield finding(
                "camera_frozen",
                expected=f"frames of {self.column!r} that differ",
                found=f"{self._longest_still + 1} equal ones in a row",
                step=first_step + self._still_since,
                **where,
            )


def _first(known: int, flags: np.ndarray, start: int) -> int:
    """The first flagged step, unless one is known already (not -1); ``flags`` start at step ``start``."""
    return start + int(flags.argmax()) if known < 0 and flags.any() else known
