"""A look at the pictures as they pass: black, of one colour, or frozen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lewm_data.conversion.catalogue import finding
from lewm_data.schema import Finding

BLACK_LEVEL = 8
"""A frame whose brightest pixel is below this (of 255) is black: limited-range video decodes black to 0 or 1."""

FROZEN_SECONDS = 2.0
"""A picture that stays the same to the last bit for so long: no camera's noise does that."""


@dataclass(slots=True)
class PictureCheck:
    """Looks at an episode's frames as they pass: black, of one colour, or frozen.

    Attributes:
        column: Frame column, for messages.
        fps: Frames per second.
    """

    column: str
    fps: float
    _frames: int = 0
    _black: int = 0
    _constant: int = 0
    _still: int = 0
    _longest_still: int = 0
    _previous: np.ndarray | None = None

    def look(self, frames: np.ndarray) -> None:
        """Takes a micro-batch: uint8, shape (n, H, W, 3). Every 4th row and column is looked at."""
        small = np.ascontiguousarray(frames[:, ::4, ::4])
        flat = small.reshape(len(small), -1)
        highest, lowest = flat.max(axis=1), flat.min(axis=1)
        self._black += int((highest < BLACK_LEVEL).sum())
        channels = small.reshape(len(small), -1, 3)
        constant = (highest >= BLACK_LEVEL) & (channels == channels[:, :1]).all(axis=(1, 2)) if lowest.size else []
        self._constant += int(np.sum(constant))
        for frame in flat:
            same = self._previous is not None and np.array_equal(frame, self._previous)
            self._still = self._still + 1 if same else 0
            self._longest_still = max(self._longest_still, self._still)
            self._previous = frame
        self._frames += len(frames)

    def findings(self, *, episode: int, file: str) -> Iterator[Finding]:
        """What the frames so far amount to."""
        where: dict[str, Any] = {"episode": episode, "file": file}
        if self._black:
            yield finding(
                "frames_black",
                expected=f"pictures in {self.column!r}",
                found=f"{self._black} black frames",
                **where,
            )
        if self._constant:
            yield finding(
                "frames_constant",
                expected=f"pictures in {self.column!r}",
                found=f"{self._constant} frames of one colour",
                **where,
            )
        if self._longest_still >= max(2, round(FROZEN_SECONDS * self.fps)):
            yield finding(
                "camera_frozen",
                expected=f"frames of {self.column!r} that differ",
                found=f"{self._longest_still + 1} equal ones in a row",
                **where,
            )
