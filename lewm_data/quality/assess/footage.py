"""A recording as small arrays: what every question of ``assess`` looks at, after one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DECODED_SIZE = 96
"""Side of a frame as decoded, in pixels. Frames are stretched to a square: features need no aspect ratio."""

THUMBNAIL_SIZE = 48
"""Side of a frame as kept, in pixels: 7 KB a frame, 62 MB for a camera of 12 episodes of 750 steps."""

REPEATED_DIFFERENCE = 2
REPEATED_SHARE = 0.001
"""A frame repeats the one before it if at most this share of its values differs by more than that.

Video codecs change a still picture by one or two gray levels. Sensor noise of a live camera changes far more pixels.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraTrack:
    """One camera over all steps.

    Attributes:
        thumbnails: (N, 48, 48, 3) uint8 RGB.
        energy: (N,) float32, mean absolute difference in gray from the step before, in gray levels at 96 pixels;
            NaN at the first step of an episode and where a frame is missing.
        repeated: (N,) bool, the frame shows the same as the one before it.
        is_known: (N,) bool, the frame could be read.
    """

    thumbnails: NDArray[np.uint8]
    energy: NDArray[np.float32]
    repeated: NDArray[np.bool_]
    is_known: NDArray[np.bool_]

    def select(self, steps: NDArray[np.bool_]) -> CameraTrack:
        """The same camera at some steps only."""
        return CameraTrack(
            thumbnails=self.thumbnails[steps],
            energy=self.energy[steps],
            repeated=self.repeated[steps],
            is_known=self.is_known[steps],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Footage:
    """A recording, small enough for memory.

    Attributes:
        name: The recording's name, as commands take it.
        fps: Steps per second.
        episode: (N,) int64, the position of each step's episode: 0 to E - 1, ascending.
        numbers: (E,) int64, the number of each episode on the command line.
        action: (N, A) float64.
        state: (N, S) float64; S is 0 if the recording has no state.
        names: ``action`` and ``state`` to the names of their dimensions.
        cameras: Name of each camera to what it shows.
        frame_height: Height of the stored frames of a converted file; None before a conversion.
    """

    name: str
    fps: float
    episode: NDArray[np.int64]
    numbers: NDArray[np.int64]
    action: NDArray[np.float64]
    state: NDArray[np.float64]
    names: dict[str, tuple[str, ...]]
    cameras: dict[str, CameraTrack] = field(default_factory=dict)
    frame_height: int | None = None

    @property
    def num_episodes(self) -> int:
        """How many episodes have steps."""
        return len(self.numbers)

    def blocks(self) -> list[NDArray[np.int64]]:
        """The steps of each episode, in order."""
        return episode_blocks(self.episode)


def episode_blocks(episode: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The positions of each episode's steps, episode after episode.

    Args:
        episode: (N,) ascending; the episode of each step.
    """
    if not len(episode):
        return []
    return np.split(np.arange(len(episode)), np.flatnonzero(np.diff(episode)) + 1)


def sample_steps(episode: NDArray[np.int64], most: int, *, before: int = 0, after: int = 0) -> NDArray[np.int64]:
    """Steps spread evenly over each episode, equally many in each that is long enough.

    Args:
        episode: (N,) the episode of each step.
        most: Steps in all.
        before: Steps that each must have before it in its episode.
        after: Steps that each must have after it.
    """
    blocks = [steps[before : max(before, len(steps) - after)] for steps in episode_blocks(episode)]
    blocks = [steps for steps in blocks if len(steps)]
    if not blocks:
        return np.empty(0, np.int64)
    share = max(1, most // len(blocks))
    return np.concatenate(
        [steps[np.unique(np.linspace(0, len(steps) - 1, min(share, len(steps))).astype(np.int64))] for steps in blocks]
    )


class TrackBuilder:
    """Collects the frames of one camera, as they are decoded.

    Args:
        num_steps: Steps of all episodes together.
    """

    def __init__(self, num_steps: int) -> None:
        self._thumbnails = np.zeros((num_steps, THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), np.uint8)
        self._energy = np.full(num_steps, np.nan, np.float32)
        self._repeated = np.zeros(num_steps, np.bool_)
        self._is_known = np.zeros(num_steps, np.bool_)

    def add_episode(self, start: int, frames: Iterable[NDArray[np.uint8]]) -> None:
        """Takes the frames of one episode.

        Args:
            start: The first step of the episode, counted over all episodes.
            frames: (96, 96, 3) uint8 RGB each, in order; may be reused between iterations.
        """
        before: NDArray[np.int16] | None = None
        for step, frame in enumerate(frames, start):
            half = frame.reshape(THUMBNAIL_SIZE, 2, THUMBNAIL_SIZE, 2, 3)
            self._thumbnails[step] = (half.astype(np.uint16).sum(axis=(1, 3)) + 2) // 4
            # half red and green, a quarter of each other: close enough to luma, and exact in integers
            gray = (frame[..., 0].astype(np.int16) + 2 * frame[..., 1] + frame[..., 2]) >> 2
            if before is not None:
                change = np.abs(gray - before)
                self._energy[step] = change.mean()
                self._repeated[step] = (change > REPEATED_DIFFERENCE).mean() < REPEATED_SHARE
            self._is_known[step] = True
            before = gray

    def track(self, num_steps: int) -> CameraTrack:
        """The first ``num_steps`` of what was added."""
        return CameraTrack(
            thumbnails=self._thumbnails[:num_steps],
            energy=self._energy[:num_steps],
            repeated=self._repeated[:num_steps],
            is_known=self._is_known[:num_steps],
        )
