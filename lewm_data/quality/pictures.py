"""A look at the pictures as they pass: black, of one colour, or frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lewm_data.findings import Finding, finding

BLACK_LEVEL = 8
"""A frame whose brightest value is below this (of 255) is black: limited-range video decodes black to 0 or 1."""

CONSTANT_SPREAD = 2
"""A frame in which no channel varies by more than this is of one colour: lossy codecs are off by 1 or so."""

FROZEN_SECONDS = 2.0
"""A picture that stays the same to the last bit for so long: no camera's noise does that.

LeRobot's AV1 (a keyframe every 2 frames) decodes an unchanging picture to unchanging bits. x264 with such short groups
does not; but there, a frozen camera and a robot that stands still for a while cannot be told apart by any threshold.
"""

_STRIDE = 4
_LEAST_SIDE = 32
"""In frames with sides of this many pixels or more, every 4th row and column is enough to look at."""


@dataclass(slots=True)
class PictureCheck:
    """Looks at an episode's frames as they pass: black, of one colour, or frozen.

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
        """Takes a micro-batch: uint8, shape (n, H, W, 3)."""
        stride = _STRIDE if min(frames.shape[1:3]) >= _LEAST_SIDE else 1
        # channels first: 16 us a frame; reducing over the middle axis instead takes 240
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

    def findings(self, *, episode: int, file: str) -> Iterator[Finding]:
        """What the frames so far amount to."""
        where: dict[str, Any] = {"episode": episode, "file": file}
        expected = f"pictures in {self.column!r}"
        if self._black:
            found = f"{self._black} black frames"
            yield finding("frames_black", expected=expected, found=found, step=self._first_black, **where)
        if self._constant:
            found = f"{self._constant} frames of one colour"
            yield finding("frames_constant", expected=expected, found=found, step=self._first_constant, **where)
        if self._longest_still >= max(2, round(FROZEN_SECONDS * self.fps)):
            yield finding(
                "camera_frozen",
                expected=f"frames of {self.column!r} that differ",
                found=f"{self._longest_still + 1} equal ones in a row",
                step=self._still_since,
                **where,
            )


def _first(known: int, flags: np.ndarray, start: int) -> int:
    """The first flagged step, if none was known before (-1); ``flags`` begin at step ``start``."""
    return start + int(flags.argmax()) if known < 0 and flags.any() else known
